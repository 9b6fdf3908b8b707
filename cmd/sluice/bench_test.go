package main

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
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
		if first > 5000 || anonymous > 128 || end > 2000 {
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
		`disk +\d+ commits`, `append +\d{3,} records/s at 100 a commit, \d\.\d+ bytes to the file`, `append +\d{3,} records/s at 1000 a commit`,
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

// TestBenchCommand only looks whether it measures: how long depends on what else
// the machine does.
func TestBenchCommand(t *testing.T) {
	t.Parallel()
	out, err := sluice(t, "bench", "command", "--devices", "2", "--registers", "20", "--for", "1s").CombinedOutput()
	if err != nil && exitCode(err) != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	if !regexp.MustCompile(`commands +\d{2}, 0 failed, 0 not written in time\narrival to register median [\d.]+.s, p99`).Match(out) {
		t.Errorf("%s", out)
	}
}
