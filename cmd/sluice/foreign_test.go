//go:build linux

package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// foreignSite is a machine that may be written to; each kind of device fills in
// its wire and its points.
const foreignSite = `
version: 1
site: { name: test, writes: enabled }
cloud: { url: "mqtt://%s", confirm: puback, min_interval: 0s, backlog: replay }
buffer: { path: buffer.db, flush: 200ms, max_size: 16MB }
local: { http: none }
buses:
  field: { %s }
profiles:
  machine:
%s
    commands:
      set:
        params: { hz: { type: float, min: 20, max: 50 } }
        guard: remote
        steps:
          - write: { setpoint: $hz }
          - { expect: setpoint == hz, within: 5s }
        reply: [setpoint]
      odd: { steps: [ { write: { stubborn: 7 } }, { write: { setpoint: 21 } } ] }
      guarded: { steps: [ { write: { guarded: 7 } } ] }
      slow: { steps: [ { write: { setpoint: 44 } }, { wait: 20s }, { write: { setpoint: 45 } } ] }
%s
    streams:
      job: { downlink: "params:set", format: json, every: 60s, body: { hz: setpoint } }
      plain: { downlink: "write:setpoint", format: text }
devices:
  - { name: m, profile: machine, bus: field, UNIT login: { user: own, password: file:own.txt } }
`

// foreign is a device by another maker: what it is called in a site file, and
// what it says was written to it.
type foreign struct {
	bus, points, commands string
	writes                func() []string
	written               map[string]string // how a write looks there
	refusal               string            // of guarded
	special               []exchange
}

// exchange is one message of the cloud and what becomes of it.
type exchange struct {
	name   string
	topic  string // without the user
	send   string
	want   []string // that come up, each with these words, by topic: "command_reply …"
	writes []string // that arrive at the device, by their names in written
}

const modbusPoints = `    protocol: modbus
    addressing: protocol
    table: holding
    order: ABCD
    poll: 200ms
    points:
      setpoint: { at: 201, type: uint16, scale: 0.01, unit: Hz, access: rw, min: 0, max: 50, guard: remote }
      remote:   { at: coil:20, type: bool, access: rw }
      stubborn: { at: 240, type: uint16, access: rw, min: 0, max: 99, write: { at: 241 } }
      guarded:  { at: 242, type: uint16, access: rw, min: 0, max: 99, write: { at: 900 } }
      batch:    { at: 250, type: uint16, access: rw, min: 0, max: 9999, block: recipe }
      weight:   { at: 251, type: float32, access: rw, min: 0, max: 100, block: recipe }
      enter:    { at: 253, type: uint16, access: w, min: 0, max: 1, block: recipe }`

const modbusCommands = `      load: { params: [batch, weight], steps: [ { write: params } ], reply: [batch, weight] }
      enter: { params: [batch, weight], steps: [ { write: { batch: $batch, weight: $weight, enter: 1 } } ] }`

// modbusForeign is a slave of another library: testdata of adapters/modbus.
func modbusForeign(t *testing.T, command ...string) *foreign {
	t.Helper()
	address := localAddress(t)
	_, port, _ := net.SplitHostPort(address)
	said := startPeer(t, nil, append(command, "tcp", port)...)
	var mutex sync.Mutex
	var lines []string
	go func() {
		for line := range said.lines {
			mutex.Lock()
			lines = append(lines, line)
			mutex.Unlock()
		}
	}()
	eventually(t, func() error {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err
	})
	return &foreign{
		bus: "type: modbus-tcp, host: 127.0.0.1, port: " + port + ", timeout: 2s", points: modbusPoints, commands: modbusCommands,
		writes: func() []string { mutex.Lock(); defer mutex.Unlock(); return slices.Clone(lines) },
		written: map[string]string{
			"remote": "coil 20 0001", "local": "coil 20 0000", "30": "holding 201 0bb8", "35.5": "holding 201 0dde", "40": "holding 201 0fa0", "41": "holding 201 1004", "44": "holding 201 1130",
			"stubborn": "holding 241 0007", "recipe": "holding 250 0007 4130 0000", "more": "holding 250 0008 4130 0000", "handshake": "holding 250 0009 4130 0000 0001",
		},
		refusal: "exception 2",
		special: []exchange{
			{"a block in one request", "attributes_push", `{"weight":11,"batch":7}`, []string{`attributes "batch":7`, `attributes "weight":11`}, []string{"recipe"}},
			{"a block of a command", "command_send", `{"method":"load","params":{"batch":8,"weight":11},"id":20}`, []string{`command_reply {"method":"load","params":{"batch":8,"weight":11,"result":true},"id":20}`}, []string{"more"}},
			{"a block with its handshake", "command_send", `{"method":"enter","params":{"batch":9,"weight":11},"id":21}`, []string{`command_reply "result":true},"id":21`}, []string{"handshake"}},
			{"a block that does not fit", "attributes_push", `{"weight":101,"batch":10}`, []string{"event_report weight 101 is above max 100"}, nil},
		},
	}
}

const opcuaPoints = `    protocol: opcua
    poll: 200ms
    points:
      setpoint: { node: "ns=1;s=setpoint", type: float64, unit: Hz, access: rw, min: 0, max: 50, guard: remote }
      remote:   { node: "ns=1;s=remote", type: bool, access: rw }
      stubborn: { node: "ns=1;s=stubborn", type: float64, access: rw, min: 0, max: 99 }
      guarded:  { node: "ns=1;s=guarded", type: float64, access: rw, min: 0, max: 99 }
      running:  { node: "ns=1;s=running", type: float64 }`

const opcuaCommands = `      start:
        params: { hz: { type: float, min: 10, max: 50 } }
        guard: remote
        steps:
          - call: { object: "ns=1;s=machine", method: "ns=1;s=Start", args: [$hz] }
          - { expect: running == hz, within: 5s }
        on_fail: [ { write: { setpoint: 30 } } ]
        reply: [running]`

// opcuaForeign is node-opcua: testdata of adapters/opcua.
func opcuaForeign(t *testing.T) *foreign {
	t.Helper()
	home, _ := os.UserHomeDir()
	modules := cmp.Or(os.Getenv("SLUICE_NODE_MODULES"), filepath.Join(home, ".cache", "sluice", "node_modules"))
	need(t, "test", "-d", filepath.Join(modules, "node-opcua-server"))
	need(t, "node", "--version")
	p := startPeer(t, []string{"NODE_PATH=" + modules}, "node", "../../adapters/opcua/testdata/node-opcua/server.js", "--pki", t.TempDir(), "--machine")
	var up struct{ Endpoint string }
	if err := json.Unmarshal([]byte(p.line(t)), &up); err != nil || up.Endpoint == "" {
		t.Fatalf("node-opcua does not come up: %v", err)
	}
	return &foreign{
		bus: "type: opcua, endpoint: \"" + up.Endpoint + "\", security: None", points: opcuaPoints, commands: opcuaCommands,
		writes: func() []string {
			var answer struct{ Writes []string }
			_, _ = io.WriteString(p.in, "writes\n")
			if err := json.Unmarshal([]byte(p.line(t)), &answer); err != nil {
				t.Fatal(err)
			}
			return answer.Writes
		},
		written: map[string]string{
			"remote": "remote=true", "local": "remote=false", "30": "setpoint=30", "35.5": "setpoint=35.5", "40": "setpoint=40", "41": "setpoint=41", "44": "setpoint=44",
			"stubborn": "stubborn=7", "guarded": "guarded=7", "called": "Start(25)", "refused": "Start(13)",
		},
		refusal: "BadOutOfRange",
		special: []exchange{
			{"a method", "command_send", `{"method":"start","params":{"hz":25},"id":20}`, []string{`command_reply {"method":"start","params":{"hz":25,"running":25,"result":true},"id":20}`}, []string{"called"}},
			{"a method that refuses", "command_send", `{"method":"start","params":{"hz":13},"id":21}`, []string{`command_reply "result":false,"error":"call ns=1;s=Start: BadInvalidState`}, []string{"refused", "30"}},
		},
	}
}

// exchanges are the table that every device goes through, in this order.
func (f *foreign) exchanges() []exchange {
	guarded := []string(nil)
	if f.written["guarded"] != "" {
		guarded = []string{"guarded"}
	}
	all := []exchange{
		{"remote", "attributes_push", `{"remote":"ON"}`, []string{`attributes "remote":true`}, nil},
		{"a push", "attributes_push", `{"setpoint":35.5}`, []string{`attributes "setpoint":35.5`}, []string{"35.5"}},
		{"the same push", "attributes_push", `{"setpoint":35.5}`, []string{`attributes "setpoint":35.5`}, nil},
		{"a push out of limits", "attributes_push", `{"setpoint":62}`, []string{`event_report setpoint 62 is above max 50 Hz`, `attributes "setpoint":35.5`}, nil},
		{"a command", "command_send", `{"method":"set","params":{"hz":"40"},"id":"0x1"}`, []string{`command_reply {"method":"set","params":{"hz":"40","setpoint":40,"result":true},"id":"0x1"}`, `attributes "setpoint":40`}, []string{"40"}},
		{"the command again", "command_send", `{"method":"set","params":{"hz":"40"},"id":"0x1"}`, []string{`command_reply {"method":"set","params":{"hz":"40","setpoint":40,"result":true},"id":"0x1"}`}, nil},
		{"a command out of limits", "command_send", `{"method":"set","params":{"hz":62},"id":2}`, []string{`command_reply "result":false,"error":"hz 62 is above max 50"},"id":2`}, nil},
		{"an unknown command", "command_send", `{"method":"dance","id":3}`, []string{`command_reply "error":"there is no command dance"`}, nil},
		{"hostile", "command_send", `{"method":"set","params":{"hz":30,"hz":31},"id":4}`, []string{`command_reply "error":"not understood: \"hz\" stands there twice"`}, nil},
		{"a stream's command", "data_set/job", `{"hz":41}`, []string{`command_reply {"method":"set","params":{"hz":41,"setpoint":41,"result":true}}`}, []string{"41"}},
		{"a stream's value", "data_set/plain", " 35.5 ", []string{`attributes "setpoint":35.5`}, []string{"35.5"}},
		{"a stream's value out of limits", "data_set/plain", "62", []string{`event_report setpoint 62 is above max 50 Hz`, `attributes "setpoint":35.5`}, nil},
		{"the guard goes", "attributes_push", `{"remote":0}`, []string{`attributes "remote":false`}, []string{"local"}},
		{"a command against the guard", "command_send", `{"method":"set","params":{"hz":30},"id":5}`, []string{`command_reply "error":"guard \"remote\" does not hold: remote is false"`}, nil},
		{"a push against the guard", "attributes_push", `{"setpoint":30}`, []string{`event_report guard \"remote\" does not hold: remote is false`}, nil},
		{"the guard holds again", "attributes_push", `{"remote":1}`, []string{`attributes "remote":true`}, []string{"remote"}},
		{"a device that keeps its value", "command_send", `{"method":"odd","id":6}`, []string{`command_reply stubborn reads back as`}, []string{"stubborn"}},
		{"a device that refuses", "command_send", `{"method":"guarded","id":7}`, []string{"command_reply " + f.refusal}, guarded},
		{"a push that the device refuses", "attributes_push", `{"guarded":7}`, []string{"event_report " + f.refusal, `attributes "guarded":`}, guarded},
	}
	return append(all, f.special...)
}

// TestForeignDevicesAreWritten goes all the way with nobody of ours at either
// end: mosquitto, the daemon in a process of its own, and servers of libmodbus,
// pymodbus and node-opcua, which tell what was written to them.
func TestForeignDevicesAreWritten(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *foreign{
		"libmodbus": func(t *testing.T) *foreign { return modbusForeign(t, buildSlave(t)) },
		"pymodbus": func(t *testing.T) *foreign {
			const python = "/usr/bin/python3" // Debian's, which has pymodbus
			need(t, python, "../../adapters/modbus/testdata/slave.py")
			return modbusForeign(t, python, "../../adapters/modbus/testdata/slave.py")
		},
		"node-opcua": opcuaForeign,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker := mosquitto(t)
			f := start(t)
			far := newPlatform(t, broker)
			far.publish(t, true, "command_send/own", `{"method":"set","params":{"hz":30},"id":99}`) // the broker keeps it: it is not fresh
			path := filepath.Join(t.TempDir(), "site.yaml")
			write(t, filepath.Join(filepath.Dir(path), "own.txt"), "o\n")
			unit := "unit: 1,"
			if strings.Contains(f.bus, "opcua") {
				unit = ""
			}
			write(t, path, strings.Replace(fmt.Sprintf(foreignSite, broker, f.bus, f.points, f.commands), "UNIT", unit, 1))
			run := sluice(t, "run", "--site", path)
			run.Stderr = t.Output()
			if err := run.Start(); err != nil {
				t.Fatal(err)
			}
			far.await(t, "the daemon", 0, `attributes "setpoint":`)
			if strings.Contains(f.bus, "modbus") {
				far.exchange(t, f, exchange{"remote at first", "attributes_push", `{"remote":true}`, []string{`attributes "remote":true`}, []string{"remote"}})
			}
			for _, x := range f.exchanges() {
				far.exchange(t, f, x)
			}
			// The daemon is killed between two steps, and another one begins.
			from := far.count()
			far.publish(t, false, "command_send/own", `{"method":"slow","id":30}`)
			far.await(t, "the first step", from, `attributes "setpoint":44`)
			_ = run.Process.Kill()
			_ = run.Wait()
			run = sluice(t, "run", "--site", path)
			if err := run.Start(); err != nil {
				t.Fatal(err)
			}
			const verdict = `command_reply "result":false,"error":"unknown outcome: the gateway was restarted while the command was under way"},"id":30`
			far.await(t, "the verdict", from, verdict)
			from = far.count()
			far.publish(t, false, "command_send/own", `{"method":"slow","id":30}`)
			far.await(t, "the same verdict", from, verdict)
			far.exchange(t, f, exchange{"after the restart", "attributes_push", `{"setpoint":30}`, []string{`attributes "setpoint":30`}, []string{"44", "30"}})
			_ = run.Process.Signal(syscall.SIGTERM)
			if err := run.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// exchange sends a message, waits for what comes of it, and looks at what the
// device got meanwhile.
func (p *platform) exchange(t *testing.T, f *foreign, x exchange) {
	t.Helper()
	from := p.count()
	topic, stream, _ := strings.Cut(x.topic, "/")
	p.publish(t, false, strings.TrimSuffix(topic+"/own/"+stream, "/"), x.send)
	for _, want := range x.want {
		p.await(t, x.name, from, want)
	}
	var want []string
	for _, name := range x.writes {
		want = append(want, f.written[name])
	}
	eventually(t, func() error {
		if got := f.writes(); len(got) < p.written+len(want) {
			return fmt.Errorf("%s: the device got %q", x.name, got)
		}
		return nil
	})
	all := f.writes()
	if got := all[p.written:]; !slices.Equal(got, want) {
		t.Errorf("%s: the device got %q, want %q", x.name, got, want)
	}
	p.written = len(all)
}

// platform is the cloud's side of a broker.
type platform struct {
	client  mqtt.Client
	written int // writes that the device has told of

	mu  sync.Mutex
	got []string // "topic payload", without the user
}

func newPlatform(t *testing.T, broker string) *platform {
	t.Helper()
	p := &platform{client: mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + broker).SetClientID("platform"))}
	take := func(_ mqtt.Client, m mqtt.Message) {
		topic, _, _ := strings.Cut(m.Topic(), "/")
		p.mu.Lock()
		defer p.mu.Unlock()
		p.got = append(p.got, topic+" "+string(m.Payload()))
	}
	if token := p.client.Connect(); token.Wait() && token.Error() != nil {
		t.Fatal(token.Error())
	}
	if token := p.client.SubscribeMultiple(map[string]byte{"attributes/own": 1, "event_report/own": 1, "command_reply/own": 1}, take); token.Wait() && token.Error() != nil {
		t.Fatal(token.Error())
	}
	t.Cleanup(func() { p.client.Disconnect(0) })
	return p
}

func (p *platform) publish(t *testing.T, retained bool, topic, payload string) {
	t.Helper()
	if token := p.client.Publish(topic, 0, retained, payload); token.Wait() && token.Error() != nil {
		t.Fatal(token.Error())
	}
}

func (p *platform) count() int { p.mu.Lock(); defer p.mu.Unlock(); return len(p.got) }

// await waits for a message on a topic with some words, after the first ones.
func (p *platform) await(t *testing.T, what string, from int, want string) {
	t.Helper()
	topic, words, _ := strings.Cut(want, " ")
	eventually(t, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, m := range p.got[from:] {
			if strings.HasPrefix(m, topic+" ") && strings.Contains(m, words) {
				return nil
			}
		}
		return fmt.Errorf("%s: no %s in %q", what, want, p.got[from:])
	})
}

// mosquitto starts a real broker, and gives its address; CI must have it.
func mosquitto(t *testing.T) (address string) {
	t.Helper()
	program := "/usr/sbin/mosquitto"
	if found, err := exec.LookPath("mosquitto"); err == nil {
		program = found
	}
	need(t, "test", "-x", program)
	address = localAddress(t)
	_, port, _ := net.SplitHostPort(address)
	config := filepath.Join(t.TempDir(), "mosquitto.conf")
	write(t, config, "user root\nlistener "+port+" 127.0.0.1\nallow_anonymous true\nlog_dest none\nset_tcp_nodelay true\n")
	startPeer(t, nil, program, "-c", config)
	eventually(t, func() error {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err
	})
	return address
}

// buildSlave makes the slave of libmodbus.
func buildSlave(t *testing.T) string {
	t.Helper()
	need(t, "cc", "--version")
	need(t, "pkg-config", "--exists", "libmodbus")
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", "libmodbus").Output()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "slave")
	need(t, append([]string{"cc", "-w", "-o", program, "../../adapters/modbus/testdata/slave.c"}, strings.Fields(string(flags))...)...)
	return program
}

// need skips the test where a command does not work; in CI all of them must.
func need(t *testing.T, command ...string) {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	default:
		t.Skipf("%s: %v", strings.Join(command, " "), err)
	}
}

// peerProcess is a program by others that runs until the end of the test.
type peerProcess struct {
	in    io.Writer
	lines chan string // closed when it has ended
}

func startPeer(t *testing.T, env []string, command ...string) *peerProcess {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("%s: %v", command[0], err)
	}
	p := &peerProcess{in: in, lines: make(chan string, 1000)}
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	return p
}

// line waits for the next line that it says.
func (p *peerProcess) line(t *testing.T) string {
	t.Helper()
	select {
	case line := <-p.lines:
		return line
	case <-time.After(2 * time.Minute): // a busy machine
		t.Fatal("the peer says nothing")
	}
	return ""
}
