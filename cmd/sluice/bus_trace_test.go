package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/gateway"
)

// TestTraceOfABus: by opening the bus where no gateway runs, else by watching
// the one that does; it ends by itself.
func TestTraceOfABus(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.set(t, "a", "speed", gateway.UintValue(1450))
	check := func(when string) {
		t.Helper()
		out, _, err := execute(t, "trace", "tcp", "--site", p.path, "--count", "4", "--bytes")
		if err != nil || !strings.Contains(out, "unit 1 a: read holding 10") || !strings.Contains(out, "= 1450") || !strings.Contains(out, "05aa") {
			t.Errorf("%s: %v\n%s", when, err, out)
		}
	}
	own := filepath.Join(filepath.Dir(p.path), "own.txt") // a password for the cloud, which a bus does not need
	password, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	if _, _, err := execute(t, "trace", "nowhere", "--site", p.path); err == nil || err.Error() != "the site has no bus nowhere; it has tcp, rtu" {
		t.Errorf("a bus that is not there: %v", err)
	}
	check("without a gateway")
	write(t, own, string(password))
	s := runPlant(t, p)
	eventually(t, func() error {
		_, err := dialControl(t.Context(), s)
		return err
	})
	check("with a gateway")

	p.set(t, "b", "speed", gateway.UintValue(7))
	out, _, err := execute(t, "trace", "rtu", "--site", p.path, "--for", "500ms", "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	speed := func(line string) bool {
		var f gateway.Frame
		return json.Unmarshal([]byte(line), &f) == nil && strings.Contains(f.What, "read holding 10") && f.Unit == "7 b"
	}
	if err != nil || len(lines) < 4 || !slices.ContainsFunc(lines, speed) {
		t.Errorf("rtu as JSON: %v\n%s", err, out)
	}
	if err := p.sim.StopBus("rtu"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { // what is on its way is seen
		if _, errs, err := execute(t, "trace", "rtu", "--site", p.path, "--for", "200ms"); err != errFound || !strings.Contains(errs, "nothing went over rtu in") {
			return fmt.Errorf("a bus that is down: %v, %s", err, errs)
		}
		return nil
	})
	if _, _, err := execute(t, "trace", "nowhere", "--site", p.path); err == nil || err.Error() != "trace nowhere: there is no bus of this name with devices" {
		t.Errorf("a bus that is not there: %v", err)
	}
}
