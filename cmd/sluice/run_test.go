package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/adapters/sim"
	"sluice/buffer"
	"sluice/gateway"
	"sluice/gateway/cloud/twin"
	"sluice/gateway/site"
)

// TestMain lets a test run the program itself: with SLUICE_MAIN set, the test
// binary is sluice.
func TestMain(m *testing.M) {
	if at := os.Getenv("SLUICE_KILL_AT"); at != "" {
		runDoomed(os.Args[1], at)
	}
	if os.Getenv("SLUICE_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// sluice is the program as a process of its own.
func sluice(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), "SLUICE_MAIN=1")
	return cmd
}

// twoDevices is a site with a device of its own login and one that reports as
// the gateway.
const twoDevices = `
version: 1
site: { name: test }
cloud:
  url: %s
  login: { user: gate, password: file:gate.txt }
  confirm: puback
  min_interval: 0s
  backlog: replay
buffer: { path: buffer.db, flush: 200ms, max_size: 16MB }
local: { http: none }
buses:
  tcp: { type: modbus-tcp, host: %s, port: %s }
  rtu: { type: modbus-rtu-over-tcp, host: %[2]s, port: %[4]s }
profiles:
  p:
    protocol: modbus
    addressing: protocol
    table: holding
    order: CDAB
    poll: 100ms
    points:
      speed: { at: 10, type: uint16, unit: rpm }
      power: { at: 12, type: float32, unit: W }
devices:
  - { name: a, profile: p, bus: tcp, unit: 1, login: { user: own, password: file:own.txt } }
  - { name: b, profile: p, bus: rtu, unit: 7 }
`

// plant is a simulated field and platform for a site file.
type plant struct {
	path string
	sim  *sim.Sim
	twin *twin.Twin
}

func newPlant(t *testing.T) *plant { return newPlantOf(t, twin.Options{}) }

func newPlantOf(t *testing.T, o twin.Options) *plant {
	t.Helper()
	o.Users = map[string]string{"gate": "g", "own": "o"}
	platform, err := twin.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(platform.Stop)
	p := &plant{path: filepath.Join(t.TempDir(), "site.yaml"), twin: platform}
	for name, secret := range map[string]string{"gate.txt": "g\n", "own.txt": "o\n"} {
		write(t, filepath.Join(filepath.Dir(p.path), name), secret)
	}
	write(t, p.path, fmt.Sprintf(twoDevices, platform.URL(), "127.0.0.1", "1", "2"))
	field, simulated := startField(t, testSite(t, p.path), sim.Options{})
	p.sim = field
	write(t, p.path, fmt.Sprintf(twoDevices, platform.URL(), simulated.Buses[0].Host, simulated.Buses[0].Port, simulated.Buses[1].Port))
	return p
}

// testSite loads the site file of a test, without its secrets.
func testSite(t *testing.T, path string) *gateway.Site {
	t.Helper()
	s, found := site.Load(path, siteOptions())
	if found.Errors() > 0 {
		found.Print(os.Stderr)
		t.Fatal("the site of this test is wrong")
	}
	return s
}

// startField simulates the field of a site until the test ends, and gives the site
// that leads there.
func startField(t *testing.T, s *gateway.Site, o sim.Options) (*sim.Sim, *gateway.Site) {
	t.Helper()
	field, simulated, err := sim.Start(s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { field.Close() })
	return field, simulated
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *plant) set(t *testing.T, device, point string, v gateway.Value) {
	t.Helper()
	if err := p.sim.Set(device, point, v); err != nil {
		t.Fatal(err)
	}
}

// waitFor gives the cloud time to show a value.
func (p *plant) waitFor(t *testing.T, user, attribute, want string) {
	t.Helper()
	var got string
	for range 1000 {
		if got = p.twin.Attributes(user)[attribute]; got == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("after 10 s the cloud shows %s/%s = %s, want %s", user, attribute, got, want)
}

// syncBuffer is a bytes.Buffer for a process's output.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestRunBringsRegistersToTheCloud(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.set(t, "a", "speed", gateway.UintValue(1450))
	p.set(t, "a", "power", gateway.Float32Value(230.1))
	p.set(t, "b", "speed", gateway.UintValue(7))
	var log syncBuffer
	run := sluice(t, "run", "--site", p.path)
	run.Stderr = &log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	p.waitFor(t, "own", "speed", "1450")
	p.waitFor(t, "own", "power", "230.1")
	p.waitFor(t, "gate", "b_speed", "7")

	// One bus goes; the other doesn't notice.
	if err := p.sim.StopBus("rtu"); err != nil {
		t.Fatal(err)
	}
	p.set(t, "a", "speed", gateway.UintValue(1451))
	p.waitFor(t, "own", "speed", "1451")
	p.set(t, "b", "speed", gateway.UintValue(8))
	if err := p.sim.StartBus("rtu"); err != nil {
		t.Fatal(err)
	}
	p.waitFor(t, "gate", "b_speed", "8")

	if err := run.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := run.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, log.String())
	}
	for _, want := range []string{"sluice runs", "bus=rtu", "bus is back", "sluice stops"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log never says %q:\n%s", want, log.String())
		}
	}
}

// TestKilledAtAnyMoment kills the daemon again and again while the broker
// comes and goes. A counter in the field tells whether a value went backwards.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.set(t, "a", "power", gateway.Float32Value(0))
	for round := range 6 {
		run := sluice(t, "run", "--site", p.path)
		run.Stderr = io.Discard
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		if round%2 == 1 {
			p.twin.Stop()
		}
		for i := range 10 {
			speed := uint64(round*100 + i)
			p.set(t, "a", "speed", gateway.UintValue(speed))
			if i == 0 && round%2 == 0 { // it is up, however slow the machine
				p.waitFor(t, "own", "speed", fmt.Sprint(speed))
			}
			time.Sleep(time.Duration(40+13*round) * time.Millisecond)
		}
		run.Process.Kill()
		run.Wait()
		if round%2 == 1 {
			if err := p.twin.Restart(); err != nil {
				t.Fatal(err)
			}
		}
	}
	run := sluice(t, "run", "--site", p.path)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	p.set(t, "a", "speed", gateway.UintValue(999))
	p.waitFor(t, "own", "speed", "999")
	run.Process.Signal(syscall.SIGTERM)
	if err := run.Wait(); err != nil {
		t.Error(err)
	}
	last, seen := 0, make(map[int]bool)
	for _, m := range p.twin.Received("own") {
		var speed int
		attributes := parseAttributes(m.Payload)
		if _, err := fmt.Sscan(attributes["speed"], &speed); err != nil {
			continue
		}
		if speed < last && !seen[speed] {
			t.Errorf("%d arrived for the first time after %d", speed, last)
		}
		last, seen[speed] = max(last, speed), true
	}
}

// TestAnswersAreKnownOverARestart: a process that was killed may have left a
// message whose answer comes to the next one, so that this confirms nothing by
// the first; one that ended in order has said that it left none.
func TestAnswersAreKnownOverARestart(t *testing.T) {
	t.Parallel()
	p := newPlantOf(t, twin.Options{Respond: true})
	text, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.path, strings.Replace(string(text), "confirm: puback\n", "confirm: auto\n  confirm_timeout: 2s\n", 1))
	// life runs a process until the cloud has a value, and tells how often it got it.
	life := func(speed uint64, end os.Signal) int {
		p.set(t, "a", "speed", gateway.UintValue(speed))
		run := sluice(t, "run", "--site", p.path)
		run.Stderr = io.Discard
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		p.waitFor(t, "own", "speed", fmt.Sprint(speed))
		p.set(t, "a", "power", gateway.Float32Value(float32(speed)))
		p.waitFor(t, "own", "power", fmt.Sprint(speed)) // so that all before it is confirmed
		time.Sleep(200 * time.Millisecond)
		if err := run.Process.Signal(end); err != nil {
			t.Fatal(err)
		}
		_ = run.Wait()
		n := 0
		for _, m := range p.twin.Received("own") {
			if parseAttributes(m.Payload)["speed"] == fmt.Sprint(speed) {
				n++
			}
		}
		return n
	}
	if n := life(1, syscall.SIGKILL); n != 1 {
		t.Errorf("the first process sends %d times", n)
	}
	if n := life(2, syscall.SIGTERM); n < 2 {
		t.Errorf("the one after a kill sends %d times: it takes the first answer", n)
	}
	if n := life(3, syscall.SIGTERM); n != 1 {
		t.Errorf("the one after an end in order sends %d times", n)
	}
	file := filepath.Join(filepath.Dir(p.path), "buffer.db")
	old, err := buffer.Open(file, buffer.Options{MaxSize: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(old.Put(memoryBucket, "own", nil), old.Put(memoryBucket, "gate", nil), old.Close()); err != nil {
		t.Fatal(err)
	}
	if n := life(4, syscall.SIGTERM); n < 2 {
		t.Errorf("the one after an older version sends %d times", n)
	}
	write(t, file, "no database")
	if n := life(5, syscall.SIGTERM); n < 2 {
		t.Errorf("the one that finds a damaged buffer sends %d times", n)
	}
}

// TestStopsWithinTwoSeconds: whatever the field or the broker is doing.
func TestStopsWithinTwoSeconds(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	if err := p.sim.Silent("tcp", 1, true); err != nil {
		t.Fatal(err)
	}
	hole, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	for name, prepare := range map[string]func(*gateway.Site){
		"silent field":      func(s *gateway.Site) { s.Buses[0].Timeout = 20 * time.Second },
		"black hole broker": func(s *gateway.Site) { s.Cloud.URL = "mqtt://" + hole.Addr().String() },
		"no field at all":   func(s *gateway.Site) { s.Buses[0].Host = "127.0.0.2"; s.Buses[1].Host = "127.0.0.2" },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := loadSite(p.path)
			if err != nil {
				t.Fatal(err)
			}
			prepare(s)
			s.Buffer.Path = filepath.Join(t.TempDir(), "buffer.db")
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- serve(ctx, s, slog.New(slog.DiscardHandler), nil, nil) }()
			time.Sleep(300 * time.Millisecond)
			cancel()
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(2 * time.Second):
				t.Error("still running 2 s after the end was asked for")
			}
		})
	}
}

func TestRunRefusesWhatCheckRefuses(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	content, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(filepath.Dir(p.path), "wrong.yaml")
	write(t, wrong, strings.Replace(string(content), "poll: 100ms", "pol: 100ms", 1))
	for _, args := range [][]string{{"check", wrong}, {"run", "--site", wrong}} {
		out, err := sluice(t, args...).CombinedOutput()
		if code := exitCode(err); code != 1 {
			t.Errorf("%s: exit code %d", args[0], code)
		}
		if !strings.Contains(string(out), "wrong.yaml:21:5: error: ") || !strings.Contains(string(out), "did you mean poll?") {
			t.Errorf("%s says:\n%s", args[0], out)
		}
	}
	if out, err := sluice(t, "check", p.path).CombinedOutput(); err != nil || !strings.Contains(string(out), "2 buses, 2 devices, 4 points") {
		t.Errorf("check of a good file: %v\n%s", err, out)
	}
	if out, err := sluice(t, "run").CombinedOutput(); exitCode(err) != 2 {
		t.Errorf("run without a site: %v\n%s", err, out)
	}
	if _, _, err := execute(t, "run", p.path); err == nil || !strings.Contains(err.Error(), "named with --site FILE") {
		t.Errorf("run of a site without its flag: %v", err)
	}
	os.Remove(filepath.Join(filepath.Dir(p.path), "own.txt"))
	if out, err := sluice(t, "run", "--site", p.path).CombinedOutput(); exitCode(err) != 1 || !strings.Contains(string(out), "own.txt") {
		t.Errorf("run without a secret: %v\n%s", err, out)
	}
}

func exitCode(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	return 0
}

func TestLogForTheJournal(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "8:1")
	var out bytes.Buffer
	log, err := newLog(&out, map[string]string{"level": "info"})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("one")
	log.With("bus", "b").Warn("two")
	log.Error("three")
	if want := "<6>level=INFO msg=one\n<4>level=WARN msg=two bus=b\n<3>level=ERROR msg=three\n"; out.String() != want {
		t.Errorf("log:\n%s", out.String())
	}
}

func TestLogLevels(t *testing.T) {
	var out bytes.Buffer
	log, err := newLog(&out, map[string]string{"level": "warn", "bus.loud": "debug"})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hidden")
	log.With("bus", "quiet").Info("hidden")
	log.With("bus", "loud").Debug("shown")
	log.Warn("shown")
	if got := out.String(); strings.Contains(got, "hidden") || strings.Count(got, "shown") != 2 {
		t.Errorf("log:\n%s", got)
	}
}
