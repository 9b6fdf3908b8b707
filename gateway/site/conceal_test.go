package site

import (
	"strings"
	"testing"
)

// TestConcealHidesWhatIsSecret: passwords under any key, also of an unlock;
// references and everything else stay.
func TestConcealHidesWhatIsSecret(t *testing.T) {
	const text = `version: 1
site: { name: hall }
cloud: { url: "mqtt://broker:1883", login: { user: gate, password: hunter2 }, backlog: replay }
local: { http: none }
buses:
  b: { type: modbus-tcp, host: 10.0.0.1 }
profiles:
  p:
    protocol: modbus
    addressing: protocol
    table: holding
    unlock:
      write:
        door:
          4711
    points:
      door: { at: 4711, type: uint16, access: w, min: 0, max: 9999 }
      set: { at: 2, type: uint16, access: rw, min: 0, max: 9, needs: unlock }
devices:
  - { name: d, profile: p, bus: b, unit: 1, login: { user: d, password: "secret:d" } }
`
	s, found := Parse("site.yaml", []byte(text), Options{})
	if s == nil {
		t.Fatal(found)
	}
	got := Conceal(text, s)
	if strings.Contains(got, "hunter2") || strings.Contains(got, "4711") {
		t.Errorf("a secret shows:\n%s", got)
	}
	for _, want := range []string{"password: *******", "secret:d", "user: gate", "max: 9999", "          ****\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if got := Conceal(text, nil); strings.Contains(got, "hunter2") {
		t.Errorf("of a file that does not load, a password shows:\n%s", got)
	}
}
