package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/adapters/sim"
	"sluice/gateway"
	"sluice/gateway/cloud/twin"
)

// writable is a site whose cloud may write: a drive with a command.
const writable = `
version: 1
site: { name: test, writes: enabled }
cloud: { url: %s, confirm: puback, min_interval: 0s, backlog: replay }
buffer: { path: buffer.db, flush: 200ms, max_size: 16MB }
local: { http: none }
buses:
  tcp: { type: modbus-tcp, host: %s, port: %s }
profiles:
  drive:
    protocol: modbus
    addressing: protocol
    table: holding
    order: ABCD
    poll: 500ms
    points:
      remote:   { at: 1, type: uint16 }
      setpoint: { at: 10, type: uint16, scale: 0.01, unit: Hz, access: rw, min: 20, max: 50, guard: remote == 1 }
      word:     { at: 11, type: uint16, access: rw, min: 0, max: 60000 }
      pin:      { at: 12, type: uint16, access: rw, min: 0, max: 9999, secret: true }
    commands:
      set: { params: [word], guard: remote == 1, steps: [ { write: params } ], reply: [setpoint] }
      wait: { steps: [ { wait: 3s }, { write: { word: 1 } } ] }
devices:
  - { name: a, profile: drive, bus: tcp, unit: 1, login: { user: own, password: file:own.txt } }
`

// driven is a plant for writing, with a counter on the wire to the field.
type driven struct {
	*plant
	counter *writeCounter
}

func newDriven(t *testing.T) *driven {
	t.Helper()
	platform, err := twin.Start(twin.Options{Users: map[string]string{"own": "o"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(platform.Stop)
	p := &driven{plant: &plant{path: filepath.Join(t.TempDir(), "site.yaml"), twin: platform}}
	write(t, filepath.Join(filepath.Dir(p.path), "own.txt"), "o\n")
	write(t, p.path, fmt.Sprintf(writable, platform.URL(), "127.0.0.1", "1"))
	field, simulated := startField(t, testSite(t, p.path), sim.Options{})
	p.sim = field
	p.set(t, "a", "remote", gateway.UintValue(1))
	p.set(t, "a", "word", gateway.UintValue(0))
	p.set(t, "a", "setpoint", gateway.FloatValue(30))
	p.counter = countWrites(t, net.JoinHostPort(simulated.Buses[0].Host, simulated.Buses[0].Port))
	host, port, _ := net.SplitHostPort(p.counter.addr())
	write(t, p.path, fmt.Sprintf(writable, platform.URL(), host, port))
	return p
}

// writeCounter passes Modbus TCP on and notes each write request.
type writeCounter struct {
	listener net.Listener
	mu       sync.Mutex
	writes   []string // "11=7"
	polls    int
	waiter   sync.WaitGroup
}

func countWrites(t *testing.T, to string) *writeCounter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &writeCounter{listener: l}
	c.waiter.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.waiter.Go(func() { c.pass(conn, to) })
		}
	})
	t.Cleanup(func() { l.Close() })
	return c
}

func (c *writeCounter) addr() string { return c.listener.Addr().String() }

func (c *writeCounter) pass(conn net.Conn, to string) {
	defer conn.Close()
	field, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer field.Close()
	go func() { _, _ = io.Copy(conn, field); conn.Close() }()
	frame := make([]byte, 300)
	for {
		if _, err := io.ReadFull(conn, frame[:6]); err != nil {
			return
		}
		n := 6 + int(binary.BigEndian.Uint16(frame[4:]))
		if n > len(frame) {
			return
		}
		if _, err := io.ReadFull(conn, frame[6:n]); err != nil {
			return
		}
		if frame[7] == 3 && binary.BigEndian.Uint16(frame[10:]) == 3 { // setpoint, word and pin: no guard or read-back asks for all
			c.mu.Lock()
			c.polls++
			c.mu.Unlock()
		}
		if frame[7] == 6 {
			c.mu.Lock()
			c.writes = append(c.writes, fmt.Sprintf("%d=%d", binary.BigEndian.Uint16(frame[8:]), binary.BigEndian.Uint16(frame[10:])))
			c.mu.Unlock()
		}
		if _, err := field.Write(frame[:n]); err != nil {
			return
		}
	}
}

// polled is how many polls came.
func (c *writeCounter) polled() int { c.mu.Lock(); defer c.mu.Unlock(); return c.polls }

// count is how often a register was written with a value.
func (c *writeCounter) count(write string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.writes {
		if w == write {
			n++
		}
	}
	return n
}

// replies are what the platform got for an id, with how often.
func (p *driven) replies(id string) map[string]int {
	all := make(map[string]int)
	for _, m := range p.twin.Received("own") {
		if strings.HasPrefix(m.Topic, "command_reply/") && strings.HasSuffix(string(m.Payload), `"id":`+id+"}") {
			all[string(m.Payload)]++
		}
	}
	return all
}

func (p *driven) send(t *testing.T, kind, payload string) {
	t.Helper()
	if err := p.twin.Send(kind+"/own", []byte(payload)); err != nil {
		t.Fatal(err)
	}
}

// TestTheCloudWritesToTheField goes all the way: platform, MQTT, gateway,
// Modbus and back.
func TestTheCloudWritesToTheField(t *testing.T) {
	t.Parallel()
	p := newDriven(t)
	s := runPlant(t, p.plant)
	p.waitFor(t, "own", "setpoint", "30")
	p.send(t, "attributes_push", `{"setpoint":"35.5"}`)
	p.waitFor(t, "own", "setpoint", "35.5")
	if p.counter.count("10=3550") != 1 {
		t.Errorf("written: %v", p.counter.writes)
	}
	p.send(t, "attributes_push", `{"setpoint":62}`)
	eventually(t, func() error {
		for _, m := range p.twin.Received("own") {
			if strings.Contains(string(m.Payload), "write_refused") && strings.Contains(string(m.Payload), "setpoint 62 is above max 50 Hz") {
				return nil
			}
		}
		return errors.New("no event write_refused")
	})
	p.send(t, "command_send", `{"method":"set","params":{"word":7},"id":"0x01"}`)
	eventually(t, func() error {
		if got := p.replies(`"0x01"`)[`{"method":"set","params":{"word":7,"setpoint":35.5,"result":true},"id":"0x01"}`]; got != 1 {
			return fmt.Errorf("replies: %v", p.replies(`"0x01"`))
		}
		return nil
	})

	// The command line, by the socket of the running gateway.
	out, _, err := execute(t, "read", "a", "setpoint", "--site", p.path)
	if err != nil || out != "35.5 Hz\n" {
		t.Errorf("read: %q, %v", out, err)
	}
	out, _, err = execute(t, "write", "a", "setpoint", "40", "--site", p.path)
	if err != nil || out != "setpoint: done (was 35.5, reads 40)\n" {
		t.Errorf("write: %q, %v", out, err)
	}
	if out, _, err = execute(t, "lock", "--reason", "cabinet open", "--site", p.path); err != nil || out != "everything is locked\n" {
		t.Errorf("lock: %q, %v", out, err)
	}
	p.waitFor(t, "own", "writes_locked", "true")
	out, _, err = execute(t, "write", "a", "setpoint", "41", "--site", p.path)
	if !errors.Is(err, errFound) || !strings.Contains(out, "refused – the gateway is locked since") {
		t.Errorf("write while locked: %q, %v", out, err)
	}
	if _, _, err = execute(t, "unlock", "--site", p.path); err != nil {
		t.Error(err)
	}
	p.waitFor(t, "own", "writes_locked", "false")
	if _, _, err = execute(t, "write", "a", "pin", "4711", "--site", p.path); err != nil {
		t.Error(err)
	}
	checkAudit(t, s)
}

func checkAudit(t *testing.T, s *gateway.Site) {
	t.Helper()
	out, _, err := execute(t, "audit", "--since", "24h", "--json", "--site", s.Path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out) {
		var a gateway.Audit
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		a.Who, _, _ = strings.Cut(a.Who, " (") // the name of who runs the test
		got = append(got, strings.Join(strings.Fields(strings.Join([]string{a.Who, a.Command, a.Point, a.Asked, a.Old, a.New, a.Result}, " ")), " "))
	}
	want := []string{
		"cloud:own setpoint 35.5 30 35.5 done", `cloud:own setpoint 62 refused`, "cloud:own set word 7 0 7 done", "cloud:own set done",
		"command line setpoint 40 35.5 40 done", "command line lock cabinet open done", "command line setpoint 41 refused", "command line unlock done",
		"command line pin *** *** *** done",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || strings.Contains(out, "4711") {
		t.Errorf("audit:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestTheCommandLineWorksWithoutAGateway opens bus and buffer by itself.
func TestTheCommandLineWorksWithoutAGateway(t *testing.T) {
	t.Parallel()
	p := newDriven(t)
	out, _, err := execute(t, "read", "a", "setpoint", "--site", p.path)
	if err != nil || out != "30 Hz\n" {
		t.Errorf("read: %q, %v", out, err)
	}
	out, _, err = execute(t, "write", "a", "setpoint", "40", "--json", "--site", p.path)
	if err != nil || out != `{"old":"30","new":"40","result":"done"}`+"\n" {
		t.Errorf("write: %q, %v", out, err)
	}
	if _, _, err = execute(t, "lock", "a", "--site", p.path); err != nil {
		t.Error(err)
	}
	out, _, err = execute(t, "write", "a", "setpoint", "41", "--site", p.path)
	if !errors.Is(err, errFound) || !strings.Contains(out, "a is locked since") {
		t.Errorf("write while locked: %q, %v", out, err)
	}
	if _, _, err = execute(t, "unlock", "b", "--site", p.path); err == nil {
		t.Error("a device that is not there is unlocked")
	}
	out, _, err = execute(t, "audit", "--site", p.path)
	if err != nil || strings.Count(out, "\n") != 3 || !strings.Contains(out, "command line") {
		t.Errorf("audit: %s, %v", out, err)
	}
}

// TestKilledCommandsAreWrittenOnceAtMost kills the gateway at a moment of a
// command, again and again, sends the command once more to the next one, and
// looks at both ends: no id is written twice, and each gets one verdict.
func TestKilledCommandsAreWrittenOnceAtMost(t *testing.T) {
	t.Parallel()
	p := newDriven(t)
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	verdicts := map[string]int{}
	for i := range rounds {
		run := sluice(t, "run", "--site", p.path)
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		// A gateway that answers is connected and has its field.
		p.waitForReply(t, fmt.Sprintf("%d", 1000+i), `"set"`, 30000+i)
		id, value := fmt.Sprintf("%d", 2000+i), 10000+i
		command := fmt.Sprintf(`{"method":"set","params":{"word":%d},"id":%s}`, value, id)
		p.send(t, "command_send", command)
		killAt(t, p, i, value, id)
		_ = run.Process.Kill()
		_ = run.Wait()

		next := sluice(t, "run", "--site", p.path)
		if err := next.Start(); err != nil {
			t.Fatal(err)
		}
		p.waitForReply(t, fmt.Sprintf("%d", 3000+i), `"set"`, 40000+i)
		p.send(t, "command_send", command)
		eventually(t, func() error {
			if len(p.replies(id)) == 0 {
				return fmt.Errorf("no reply to %s", id)
			}
			return nil
		})
		time.Sleep(50 * time.Millisecond)
		replies, written := p.replies(id), p.counter.count(fmt.Sprintf("11=%d", value))
		if len(replies) != 1 || written > 1 {
			t.Errorf("round %d: %d writes, replies %v", i, written, replies)
		}
		for text := range replies {
			switch {
			case strings.Contains(text, `"result":true`) && written == 1:
				verdicts["done"]++
			case strings.Contains(text, "unknown outcome"):
				verdicts["unknown"]++
			default:
				t.Errorf("round %d: %d writes and the verdict %s", i, written, text)
			}
		}
		_ = next.Process.Kill()
		_ = next.Wait()
	}
	t.Logf("%d kills: %v", rounds, verdicts)
}

// killAt waits for the moment of a round: the command is on its way, the ledger
// has it, the register is written, or the reply is out.
func killAt(t *testing.T, p *driven, round, value int, id string) {
	t.Helper()
	switch round % 5 {
	case 0: // received, or not
	case 1:
		time.Sleep(time.Duration(round%7) * time.Millisecond)
	case 2, 3:
		for range 5000 {
			if p.counter.count(fmt.Sprintf("11=%d", value)) > 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(round%5-2) * 3 * time.Millisecond)
	case 4:
		eventually(t, func() error {
			if len(p.replies(id)) == 0 {
				return errors.New("no reply")
			}
			return nil
		})
	}
}

// waitForReply sends a command until it is answered.
func (p *driven) waitForReply(t *testing.T, id, method string, value int) {
	t.Helper()
	eventually(t, func() error {
		p.send(t, "command_send", fmt.Sprintf(`{"method":%s,"params":{"word":%d},"id":%s}`, method, value, id))
		time.Sleep(100 * time.Millisecond)
		for text := range p.replies(id) {
			if strings.Contains(text, `"result":true`) {
				return nil
			}
		}
		return fmt.Errorf("no answer to %s: %v", id, p.replies(id))
	})
}
