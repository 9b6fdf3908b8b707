//go:build linux

package modbus_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/adapters/modbus"
	"sluice/gateway"
)

// foreign is a unit that other people's libraries serve; testdata/slave.py and
// slave.c hold the same values in it, each in its own way.
const foreign = `version: 1
site: { name: interop, writes: enabled }
cloud: { url: mqtt://127.0.0.1:1883, login: { user: gw, password: file:gw }, backlog: replay }
local: { http: none }
buses:
  field: { TYPE, timeout: 2s, retries: 2 }
profiles:
  slave:
    protocol: modbus
    addressing: protocol
    table: holding
    order: ABCD
    points:
POINTS
devices:
  - { name: unit, profile: slave, bus: field, unit: 1 }
`

// reading is a point and how its value prints.
type reading struct{ id, definition, want string }

func readings() []reading {
	list := []reading{
		{"an_int8", "at: 0, type: int8", "-5"},
		{"a_uint8", "at: 1, type: uint8", "200"},
		{"an_int16", "at: 2, type: int16", "-12345"},
		{"a_uint16", "at: 3, type: uint16", "54321"},
		{"a_bcd16", "at: 4, type: bcd16", "1234"},
		{"a_bcd32", "at: 5, type: bcd32", "12345678"},
		{"a_bool", "at: 7, type: bool", "true"},
		{"a_bit", "at: 8, bit: 2, type: bool", "false"},
		{"another_bit", "at: 8, bit: 15, type: bool", "true"},
		{"some_bits", "at: 8, bits: 8..11, type: uint8", "5"},
		{"signed_bits", "at: 8, bits: 12..15, type: int8", "-6"},
		{"scaled", "at: 9, type: uint16, scale: 0.1, offset: -30", "204.5"},
		{"mapped", "at: 9, type: uint16, map: { raw: [345, 4345], to: [0, 16] }", "8"},
		{"an_enum", "at: 10, type: uint16, enum: { 1: idle, 2: running }", "running"},
		{"exponent", "at: 12, type: int16", "-1"},
		{"scaled_from", "at: 11, type: uint16, scale_from: exponent", "230.5"},
		{"an_array", "at: 13, type: int16, count: 3", "[1, -2, 3]"},
		{"a_string", "at: 20, type: string, length: 8", "Pump 7"},
		{"some_bytes", "at: 24, type: bytes, length: 4", "deadbeef"},
		{"some_flags", "at: 26, type: flags, length: 4, flags: { 0: oil_low, 17: overtemp }", "oil_low,overtemp"},
		{"unix32", "at: 28, type: time, format: unix32, zone: utc", "2023-11-14T22:13:20.000Z"},
		{"unix64ms", "at: 30, type: time, format: unix64ms, zone: utc", "2023-11-14T22:13:20.123Z"},
		{"iec870", "at: 34, type: time, format: iec870, zone: utc", "2024-02-29T12:34:56.789Z"},
		{"bcd6", "at: 38, type: time, format: bcd6, zone: utc", "2024-02-29T12:34:56.000Z"},
		{"ymdhms", "at: 41, type: time, format: ymdhms, zone: utc", "2024-02-29T12:34:56.000Z"},
		{"swapped_string", "at: 180, type: string, length: 8, order: BADC", "swap me!"},
		{"in_float", "at: input:0, type: float32", "21.5"},
		{"in_uint16", "at: input:2, type: uint16", "777"},
		{"coil_on", "at: coil:0, type: bool", "true"},
		{"coil_off", "at: coil:1, type: bool", "false"},
		{"coils", "at: coil:5, type: bool, count: 4", "[true, false, true, true]"},
		{"discrete_on", "at: discrete:0, type: bool", "true"},
		{"discrete_off", "at: discrete:16, type: bool", "false"},
		{"discrete_far", "at: discrete:17, type: bool", "true"},
	}
	for i, order := range []string{"ABCD", "CDAB", "BADC", "DCBA"} {
		for _, x := range []struct {
			typ    string
			offset int
			want   string
		}{
			{"int32", 0, "-123456789"}, {"uint32", 2, "3123456789"}, {"float32", 4, "230.1"},
			{"int64", 6, "-1234567890123456789"}, {"uint64", 10, "12345678901234567890"}, {"float64", 14, "3.141592653589793"},
		} {
			list = append(list, reading{x.typ + "_" + order, fmt.Sprintf("at: %d, type: %s, order: %s", 100+20*i+x.offset, x.typ, order), x.want})
		}
	}
	return list
}

// writing is a point, what is written to it, and what the slave says it holds.
type writing struct {
	id, definition string
	value          gateway.Value
	want           string
}

func writings() []writing {
	number := ", access: rw, unbounded: true"
	return []writing{
		{"w_int16", "at: 200, type: int16" + number, gateway.IntValue(-2), "holding 200 fffe"},
		{"w_scaled", "at: 201, type: uint16, scale: 0.01" + number, gateway.FloatValue(35.5), "holding 201 0dde"},
		{"w_float", "at: 202, type: float32" + number, gateway.FloatValue(230.1), "holding 202 4366 199a"},
		{"w_cdab", "at: 204, type: float32, order: CDAB" + number, gateway.FloatValue(-1.5), "holding 204 0000 bfc0"},
		{"w_uint64", "at: 206, type: uint64" + number, gateway.UintValue(1<<63 + 1), "holding 206 8000 0000 0000 0001"},
		{"w_badc", "at: 230, type: int32, order: BADC" + number, gateway.IntValue(-123456789), "holding 230 a4f8 eb32"},
		{"w_dcba", "at: 232, type: int32, order: DCBA" + number, gateway.IntValue(-123456789), "holding 232 eb32 a4f8"},
		{"w_string", "at: 210, type: string, length: 6, access: rw", gateway.TextValue("abc"), "holding 210 6162 6300 0000"},
		{"w_bit", "at: 220, bit: 3, type: bool, access: rw, write: { mask: fc22 }", gateway.BoolValue(true), "holding 220 0f08"},
		{"w_bit_rmw", "at: 220, bit: 8, type: bool, access: rw, write: { mask: rmw }", gateway.BoolValue(false), "holding 220 0e08"},
		{"w_coil", "at: coil:20, type: bool, access: rw", gateway.BoolValue(true), "coil 20 0001"},
		{"w_coils", "at: coil:24, type: bool, count: 3, access: rw", gateway.ListValue([]gateway.Value{gateway.BoolValue(true), gateway.BoolValue(false), gateway.BoolValue(true)}), "coil 24 0001 0000 0001"},
	}
}

func TestInterop(t *testing.T) {
	slaves := map[string]func(*testing.T) string{
		"pymodbus": func(t *testing.T) string {
			need(t, "/usr/bin/python3", "testdata/slave.py") // Debian's, which has pymodbus
			return "/usr/bin/python3 testdata/slave.py"
		},
		"libmodbus": buildSlave,
	}
	for name, prepare := range slaves {
		t.Run(name+"/tcp", func(t *testing.T) {
			command := prepare(t)
			port := freePort(t)
			said := start(t, command+" tcp "+port)
			interop(t, "type: modbus-tcp, host: 127.0.0.1, port: "+port, said)
		})
		t.Run(name+"/rtu", func(t *testing.T) {
			command := prepare(t)
			ours, theirs := serialPair(t)
			said := start(t, command+" rtu "+theirs)
			interop(t, "type: modbus-rtu, line: 19200 8N1, port: "+ours, said)
		})
	}
}

// TestFramesAreReadByAnotherDecoder: the frames of modbus-rtu streams, and the answers
// to read requests of the cloud that another library has made.
func TestFramesAreReadByAnotherDecoder(t *testing.T) {
	frames := func(hex ...string) []string {
		out, err := exec.Command("/usr/bin/python3", append([]string{"testdata/frames.py"}, hex...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	need(t, "/usr/bin/python3", "testdata/slave.py")
	port := freePort(t)
	start(t, "/usr/bin/python3 testdata/slave.py tcp "+port)
	plant := parse(t, strings.NewReplacer("TYPE", "type: modbus-tcp, host: 127.0.0.1, port: "+port, "POINTS", "      first: { at: 0, type: int16 }").Replace(foreign))
	session := openSlave(t, plant, plant.Devices[0].Points[0]).(gateway.BlockReader)
	var got []string
	block, err := session.ReadBlock(t.Context(), plant.Devices[0], &gateway.RawBlock{At: "4", Count: 3}, true)
	got = append(got, hex.EncodeToString(block))
	for _, request := range frames() {
		ask, _ := hex.DecodeString(request)
		answer, more := session.ReadFrame(t.Context(), plant.Devices[0], ask)
		got, err = append(got, hex.EncodeToString(answer)), errors.Join(err, more)
	}
	if err != nil {
		t.Fatal(err)
	}
	damaged := strings.Replace(got[0], "5678", "5679", 1)
	for i, line := range frames(append(got, damaged)...) {
		if want := []string{"1 3 4660 4660 22136", "1 1 1 0 1 1 0 0 0 0", "1 2 0 1 0 0 0 0 0 0", "1 3 4660 4660 22136", "1 4 777", "no frame"}[i]; line != want {
			t.Errorf("frame %d reads %q, want %q", i, line, want)
		}
	}
}

// interop reads every point of a slave, and writes some.
func interop(t *testing.T, bus string, said <-chan string) {
	var points strings.Builder
	for _, r := range readings() {
		fmt.Fprintf(&points, "      %s: { %s }\n", r.id, r.definition)
	}
	for _, w := range writings() {
		fmt.Fprintf(&points, "      %s: { %s }\n", w.id, w.definition)
	}
	plant := parse(t, strings.NewReplacer("TYPE", bus, "POINTS", points.String()).Replace(foreign))
	byID := make(map[string]*gateway.Point)
	for _, p := range plant.Devices[0].Points {
		byID[p.ID] = p
	}
	session := openSlave(t, plant, byID["an_int8"])
	samples := readPoints(t, session, plant.Devices[0].Points)
	for _, r := range readings() {
		if s := samples[byID[r.id]]; s.Quality != gateway.Good || s.Value.String() != r.want {
			t.Errorf("%s (%s) is %s %s %s, the slave holds %s", r.id, r.definition, s.Value, s.Quality, s.Reason, r.want)
		}
	}
	for _, w := range writings() {
		if err := session.Write(t.Context(), byID[w.id], w.value); err != nil {
			t.Errorf("write %s (%s): %v", w.id, w.definition, err)
			continue
		}
		select {
		case line := <-said:
			if line != w.want {
				t.Errorf("%s (%s): the slave says %q, want %q", w.id, w.definition, line, w.want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s (%s): the slave says nothing", w.id, w.definition)
		}
	}
}

// openSlave opens a session when the slave has come up.
func openSlave(t *testing.T, plant *gateway.Site, first *gateway.Point) gateway.Session {
	t.Helper()
	adapter, err := modbus.New(gateway.Env{Log: slog.New(slog.DiscardHandler)}, plant.Buses[0], plant.Devices)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for ; ; time.Sleep(100 * time.Millisecond) {
		session, err := adapter.Open(ctx)
		if err == nil {
			var samples []gateway.Sample
			if samples, err = session.Read(ctx, []*gateway.Point{first}); err == nil && samples[0].Quality == gateway.Good {
				t.Cleanup(func() { session.Close() })
				return session
			}
			session.Close()
		}
		if ctx.Err() != nil {
			t.Fatalf("the slave does not come up: %v", err)
		}
	}
}

func readPoints(t *testing.T, session gateway.Session, points []*gateway.Point) map[*gateway.Point]gateway.Sample {
	t.Helper()
	all := make(map[*gateway.Point]gateway.Sample)
	for _, group := range session.Plan(points) {
		samples, err := session.Read(t.Context(), group)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range samples {
			all[s.Point] = s
		}
	}
	return all
}

// need skips the test where a command does not work; in CI all of them must.
func need(t *testing.T, command ...string) {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	default:
		t.Skipf("%s: %v", strings.Join(command, " "), err)
	}
}

func buildSlave(t *testing.T) string {
	t.Helper()
	need(t, "cc", "--version")
	need(t, "pkg-config", "--exists", "libmodbus")
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", "libmodbus").Output()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "slave")
	args := append([]string{"-w", "-o", program, "testdata/slave.c"}, strings.Fields(string(flags))...)
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("cc %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return program
}

// start runs a command until the end of the test, or of the test program, and
// gives the lines that it prints.
func start(t *testing.T, command string) <-chan string {
	t.Helper()
	words := strings.Fields(command)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	lines, done := make(chan string, 1000), make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait() // killed
	})
	return lines
}

// serialPair is the two ends of a serial line.
func serialPair(t *testing.T) (ours, theirs string) {
	t.Helper()
	need(t, "socat", "-V")
	dir := t.TempDir()
	ours, theirs = filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	start(t, "socat pty,raw,echo=0,link="+ours+" pty,raw,echo=0,link="+theirs)
	for range 500 {
		_, err1 := os.Stat(ours)
		_, err2 := os.Stat(theirs)
		if err1 == nil && err2 == nil {
			return ours, theirs
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("socat makes no pseudo terminals")
	return "", ""
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
