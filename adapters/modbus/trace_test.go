package modbus

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
)

// traced gives a session on a slave, and what a trace shows of it.
func traced(t *testing.T, profile *gateway.Profile) (*session, *slave, *gateway.Device, func() string) {
	bus := serialBus(60 * time.Millisecond)
	d := device(bus, profile, "pump", 1)
	s, unit := onSlave(t, bus, d)
	var lines []string
	stop := s.Trace(func(f gateway.Frame) {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s: %s %s %s", f.Kind, f.Unit, f.What, f.Values, f.Error)))
		if f.Bytes == "" {
			lines[len(lines)-1] += " (no bytes)"
		}
	})
	t.Cleanup(stop)
	return s, unit, d, func() string {
		all := strings.Join(lines, "\n")
		lines = nil
		return all
	}
}

func TestTraceShowsFrames(t *testing.T) {
	profile := &gateway.Profile{Name: "p", Addressing: "protocol", Table: "holding", Order: "ABCD", Points: []*gateway.Definition{
		{ID: "a", At: "10", Type: "uint16"}, {ID: "b", At: "11", Type: "uint16", Access: "rw"}}}
	s, unit, d, shown := traced(t, profile)
	want := func(what, lines string) {
		t.Helper()
		if got := shown(); got != lines {
			t.Errorf("%s:\n%s\nwant:\n%s", what, got, lines)
		}
	}
	read := func() {
		if _, err := s.Read(t.Context(), d.Points); err != nil {
			t.Fatal(err)
		}
	}
	unit.script(func(pdu []byte) []byte { return []byte{3, 4, 0, 7, 1, 0} })
	read()
	want("a good read", "sent 1 pump: read holding 10 to 11\nanswer 1 pump: read holding 10 to 11 7 256")
	unit.script(func(pdu []byte) []byte { return []byte{pdu[0] | 0x80, 2} })
	_ = s.Write(t.Context(), d.Points[1], gateway.UintValue(9))
	want("a refused write", "sent 1 pump: write holding 11 9\nanswer 1 pump: write holding 11  exception 2: illegal data address")
	unit.script(func([]byte) []byte { return nil })
	_ = s.Write(t.Context(), d.Points[1], gateway.UintValue(9))
	if got := shown(); !strings.Contains(got, "failed 1 pump: write holding 11  unit 1: no answer in time (60ms) (no bytes)") {
		t.Errorf("no answer:\n%s", got)
	}
}

// TestTraceHidesSecrets: neither in a read that merges them with others, nor in
// a write, nor in damaged bytes.
func TestTraceHidesSecrets(t *testing.T) {
	profile := &gateway.Profile{Name: "p", Addressing: "protocol", Table: "holding", Order: "ABCD", Points: []*gateway.Definition{
		{ID: "a", At: "10", Type: "uint16"}, {ID: "pin", At: "11", Type: "uint16", Access: "rw", Secret: true}, {ID: "c", At: "12", Type: "uint16"}}}
	s, unit, d, shown := traced(t, profile)
	unit.script(func(pdu []byte) []byte { return []byte{3, 6, 0, 7, 4, 210, 0, 8} }) // 1234
	if _, err := s.Read(t.Context(), d.Points); err != nil {
		t.Fatal(err)
	}
	if got := shown(); !strings.Contains(got, "answer 1 pump: read holding 10 to 12 7 *** 8 (no bytes)") {
		t.Errorf("a read:\n%s", got)
	}
	unit.script(func(pdu []byte) []byte { return pdu })
	if err := s.Write(t.Context(), d.Points[1], gateway.UintValue(1234)); err != nil {
		t.Fatal(err)
	}
	if got := shown(); !strings.Contains(got, "write holding 11 *** (no bytes)") || strings.Contains(got, "1234") {
		t.Errorf("a write:\n%s", got)
	}
	unit.script(func(pdu []byte) []byte { return []byte{3, 4, 4, 210, 4, 210} })
	_, _ = s.Read(t.Context(), d.Points)
	if got := shown(); strings.Contains(got, "d2") || strings.Contains(got, "D2") || strings.Contains(got, "210") {
		t.Errorf("a wrong answer:\n%s", got)
	}
}
