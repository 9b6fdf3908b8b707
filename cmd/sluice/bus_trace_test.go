package main

import (
	"encoding/json"
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
	check("without a gateway")
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
	if _, _, err := execute(t, "trace", "nowhere", "--site", p.path); err == nil || err.Error() != "trace nowhere: there is no bus of this name with devices" {
		t.Errorf("a bus that is not there: %v", err)
	}
}
