package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestBenchModbus runs the bench as a process, since it starts itself a second
// time for the devices.
func TestBenchModbus(t *testing.T) {
	t.Parallel()
	out, err := sluice(t, "bench", "modbus", "--devices", "2", "--registers", "100", "--poll", "100ms", "--for", "1s", "--first-change").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{`values +\d{3,} /s`, `CPU +\d+\.\d % of a core, \d+\.\d\d µs a value`, `memory +\d`, `changes +\d+ reached the broker`} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("no %s in:\n%s", want, out)
		}
	}
	early := sluice(t, "bench", "modbus", "--devices", "1", "--for", "1h")
	seen, err := early.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := early.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(seen)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "the gateway starts: ") {
	}
	_ = early.Process.Signal(os.Interrupt)
	last := lines.Text()
	for lines.Scan() {
		last = lines.Text()
	}
	if err := early.Wait(); exitCode(err) != 2 || last != "sluice: ended early: this was not measured to the end" {
		t.Errorf("ended early: %v, %s", err, last)
	}
	if out, err := sluice(t, "bench", "modbus", "--devices", "0").CombinedOutput(); exitCode(err) != 2 || !strings.Contains(string(out), "at least 1 device") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestBenchLimits holds the daemon to bounds that also a loaded machine keeps,
// with the race detector in it; the figures that count come from an idle one.
func TestBenchLimits(t *testing.T) {
	out, err := sluice(t, "bench", "limits", "--for", "300ms").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, points := range []int{100, 10000} {
		line := regexp.MustCompile(fmt.Sprintf(`(?m)^ *%d +(\d+) ms +[\d.]+ MiB +([\d.]+) MiB +[\d.]+ MiB +(\d+) ms$`, points)).FindStringSubmatch(string(out))
		if line == nil {
			t.Fatalf("no line for %d points:\n%s", points, out)
		}
		first, _ := strconv.Atoi(line[1])
		anonymous, _ := strconv.ParseFloat(line[2], 64)
		end, _ := strconv.Atoi(line[3])
		if first > 15000 || anonymous > 128 || end > 2000 {
			t.Errorf("first value after %d ms, %.1f MiB, end after %d ms", first, anonymous, end)
		}
	}
}

// TestBenchBuffer only looks whether all is measured: how fast is the disk's
// affair.
func TestBenchBuffer(t *testing.T) {
	t.Parallel()
	out, err := sluice(t, "bench", "buffer", "--dir", t.TempDir(), "--size", "8", "--for", "100ms").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		`disk +\d+ commits`, `append +\d{3,} records/s at 100 a commit to new pages, \d\.\d+ bytes to the file`, `append +\d{3,} records/s at 1000 a commit to used pages`,
		`memory +[\d.]+ MiB not file pages, with \d{5} records waiting`, `open +\d+\.\d+ s, cold, a full file of [78] MB`,
		`drain +\d{3,} records/s from 20 lanes`, `commit +\S+s for 100 records in a new file, \S+s after`,
	} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("no %s in:\n%s", want, out)
		}
	}
	if out, err := sluice(t, "bench", "buffer", "--size", "1").CombinedOutput(); exitCode(err) != 2 || !strings.Contains(string(out), "--size 8") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestBenchCommand: all commands are carried out, and the exit code is the verdict
// on what was printed; how long they take depends on what else the machine does.
func TestBenchCommand(t *testing.T) {
	t.Parallel()
	out, err := sluice(t, "bench", "command", "--devices", "2", "--registers", "20", "--for", "1s").CombinedOutput()
	line := regexp.MustCompile(`commands +(\d+), 0 failed, 0 not written in time
arrival to register median (\S+), p99 (\S+), longest (\S+)
allowed for p99 +(\S+): one request in flight and 10ms`).FindStringSubmatch(string(out))
	if line == nil {
		t.Fatalf("%v\n%s", err, out)
	}
	commands, _ := strconv.Atoi(line[1])
	var times []time.Duration
	for _, text := range line[2:] {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, d)
	}
	median, p99, longest, allowed := times[0], times[1], times[2], times[3]
	late := 0
	if p99 > allowed {
		late = 1
	}
	if commands < 5 || commands > 20 || median <= 0 || p99 < median || longest < p99 || allowed <= slack || exitCode(err) != late {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestBenchCommandJudges by the request that may be in flight.
func TestBenchCommandJudges(t *testing.T) {
	ms := time.Millisecond
	mostly := func(most, some time.Duration) []time.Duration { // of a hundred, some twice
		return append(slices.Repeat([]time.Duration{most}, 98), some, some)
	}
	for name, c := range map[string]struct {
		latency, requests []time.Duration
		err               error
	}{
		"quick":                    {mostly(2*ms, 3*ms), mostly(ms, ms), nil},
		"behind a slow request":    {mostly(2*ms, 55*ms), mostly(ms, 50*ms), nil},
		"late":                     {mostly(2*ms, 12*ms), mostly(ms, ms), errFound},
		"one of a hundred is late": {append(mostly(2*ms, 2*ms)[:99], time.Second), mostly(ms, ms), nil},
	} {
		b := commandBench{latency: c.latency, requests: c.requests}
		if err := b.print(io.Discard); err != c.err {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := new(commandBench).print(io.Discard); err == nil {
		t.Error("nothing was measured, and nobody says so")
	}
}
