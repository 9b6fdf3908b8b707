package modbus

import (
	"testing"
	"time"

	"sluice/gateway"
)

// TestRawIsWhatTheUnitSent: register by register, as long as the last request
// was answered.
func TestRawIsWhatTheUnitSent(t *testing.T) {
	bus := serialBus(50 * time.Millisecond)
	d := device(bus, drive(), "d", 1)
	s, unit := onSlave(t, bus, d)
	unit.regs[1] = 500
	speed := point(t, d, "speed")
	if got := s.Raw(speed); got != "" {
		t.Errorf("before a read: %q", got)
	}
	group := []*gateway.Point{speed}
	if _, err := s.Read(t.Context(), group); err != nil || s.Raw(speed) != "0x01F4" {
		t.Errorf("after a read: %q, %v", s.Raw(speed), err)
	}
	unit.script(func([]byte) []byte { return nil })
	if _, err := s.Read(t.Context(), group); err != nil || s.Raw(speed) != "" {
		t.Errorf("after silence: %q, %v", s.Raw(speed), err)
	}
}
