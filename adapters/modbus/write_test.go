package modbus

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
)

func TestWriteSendsTheRightRequest(t *testing.T) {
	bus := serialBus(time.Second)
	d := device(bus, drive(), "d", 1)
	s, unit := onSlave(t, bus, d)
	unit.regs[5] = 0x8421
	unit.regs[13] = 0xFFFE // 10^-2
	tests := []struct {
		point string
		value gateway.Value
		want  []string
	}{
		{"speed", gateway.FloatValue(50), []string{"06000101F4"}},
		{"power", gateway.FloatValue(230.1), []string{"1000020002" + "04" + "199A4366"}},
		{"enable", gateway.BoolValue(true), []string{"050003FF00"}},
		{"enable", gateway.BoolValue(false), []string{"0500030000"}},
		{"lamps", gateway.ListValue([]gateway.Value{gateway.BoolValue(true), gateway.BoolValue(false), gateway.BoolValue(true)}), []string{"0F000800030105"}},
		{"bit", gateway.BoolValue(true), []string{"160005FFF70008"}},
		{"bit", gateway.BoolValue(false), []string{"160005FFF70000"}},
		{"high", gateway.IntValue(9), []string{"160007FFF00009"}}, // CDAB: the high word is the second register
		{"rmw", gateway.IntValue(0xA), []string{"0300050001", "06000584A1"}},
		{"mode", gateway.TextValue("run"), []string{"06000A0012"}},
		{"elsewhere", gateway.IntValue(-2), []string{"060015FFFE"}},
		{"multiple", gateway.IntValue(7), []string{"10000C0001020007"}},
		{"scaled", gateway.FloatValue(1.25), []string{"03000D0001", "06000E007D"}},
		{"name", gateway.TextValue("AB"), []string{"10001E00020441420000"}},
	}
	for _, tt := range tests {
		unit.take()
		if err := s.Write(t.Context(), point(t, d, tt.point), tt.value); err != nil {
			t.Errorf("%s: %v", tt.point, err)
		}
		if got := unit.take(); !slices.Equal(got, tt.want) {
			t.Errorf("%s = %s sends %v, want %v", tt.point, tt.value, got, tt.want)
		}
	}
}

// TestWriteBlockSendsOneRequest: in the order of the wire, whatever the order of
// the points.
func TestWriteBlockSendsOneRequest(t *testing.T) {
	bus := serialBus(time.Second)
	d := device(bus, drive(), "d", 1)
	s, unit := onSlave(t, bus, d)
	unit.regs[43] = 0xA5A4
	on, off, seven := gateway.BoolValue(true), gateway.BoolValue(false), gateway.IntValue(7)
	for _, tt := range []struct {
		points string
		values []gateway.Value
		want   string // requests, or the reason of a refusal
	}{
		{"batch weight", []gateway.Value{seven, gateway.FloatValue(1.5)}, "1000280003" + "06" + "000700003FC0"},
		{"weight batch", []gateway.Value{gateway.FloatValue(1.5), seven}, "1000280003" + "06" + "000700003FC0"},
		{"weight enter", []gateway.Value{gateway.FloatValue(0), on}, "0300290003 1000290003" + "06" + "00000000A5A5"},
		{"run reverse", []gateway.Value{on, off}, "160032FFEE0001"},
		{"open shut", []gateway.Value{off, on}, "0F001E00020102"},
		{"batch enter", []gateway.Value{seven, on}, "batch and enter are not side by side, and can't be written by one request"},
		{"run run", []gateway.Value{on, off}, "run shares bits with another point of the request"},
		{"open batch", []gateway.Value{on, seven}, "open and batch are not in one table, and can't be written by one request"},
		{"batch weight", []gateway.Value{gateway.IntValue(70_000), gateway.FloatValue(1)}, "70000 does not fit uint16"},
	} {
		unit.take()
		var points []*gateway.Point
		for id := range strings.FieldsSeq(tt.points) {
			points = append(points, point(t, d, id))
		}
		err := s.WriteBlock(t.Context(), points, tt.values)
		got := strings.Join(unit.take(), " ")
		var refused *gateway.WriteError
		if errors.As(err, &refused) && !refused.Unknown && got == "" {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %s, %v; want %s", tt.points, got, err, tt.want)
		}
	}
}

func TestWriteRefusesWithoutSending(t *testing.T) {
	bus := serialBus(time.Second)
	profile := drive()
	profile.WriteFunction = "single"
	d := device(bus, profile, "d", 1)
	s, unit := onSlave(t, bus, d)
	for _, tt := range []struct {
		point string
		value gateway.Value
		want  string
	}{
		{"speed", gateway.FloatValue(6554), "65540 does not fit uint16"},
		{"elsewhere", gateway.IntValue(40000), "40000 does not fit int16"},
		{"power", gateway.FloatValue(1), "2 registers can't be written by single"},
		{"lamps", gateway.ListValue([]gateway.Value{gateway.BoolValue(true), gateway.BoolValue(true), gateway.BoolValue(true)}), "3 coils can't be written by single"},
		{"bare", gateway.BoolValue(true), "a bit is written with mask: fc22, or rmw where the unit has no mask write"},
		{"rmw", gateway.IntValue(16), "16 does not fit into 4 bits"},
		{"mode", gateway.TextValue("fly"), `"fly" is none of stop, run`},
		{"measured", gateway.IntValue(1), "an input register can't be written"},
		{"name", gateway.TextValue("ABCDE"), `"ABCDE" is longer than 4 bytes`},
	} {
		err := s.Write(t.Context(), point(t, d, tt.point), tt.value)
		var refused *gateway.WriteError
		if !errors.As(err, &refused) || refused.Unknown || err.Error() != tt.want {
			t.Errorf("%s = %s: %#v, want %s", tt.point, tt.value, err, tt.want)
		}
	}
	if got := unit.take(); len(got) != 0 {
		t.Errorf("sent %v", got)
	}
}

func TestWriteGoesOutOnce(t *testing.T) {
	bus := serialBus(40 * time.Millisecond)
	bus.Retries = 3
	d := device(bus, drive(), "d", 1)
	s, unit := onSlave(t, bus, d)
	unit.script(func([]byte) []byte { return nil })
	err := s.Write(t.Context(), point(t, d, "speed"), gateway.FloatValue(1))
	var refused *gateway.WriteError
	if !errors.As(err, &refused) || !refused.Unknown || err.Error() != "no answer within 40ms" {
		t.Errorf("%#v", err)
	}
	if got := unit.take(); len(got) != 1 {
		t.Errorf("sent %v", got)
	}
	unit.script(func(pdu []byte) []byte { return []byte{pdu[0] | 0x80, 3} })
	err = s.Write(t.Context(), point(t, d, "mode"), gateway.TextValue("stop"))
	if !errors.As(err, &refused) || refused.Unknown || err.Error() != "exception 3: illegal data value" {
		t.Errorf("%#v", err)
	}
}

// TestWhatExceptionsSayAboutAWrite: a busy unit took nothing and may be asked
// again; one that acknowledges is at work, and never is, nor is one that failed
// at it. One that does not know the address or the value has done nothing.
func TestWhatExceptionsSayAboutAWrite(t *testing.T) {
	bus := serialBus(40 * time.Millisecond)
	bus.Retries = 3
	d := device(bus, drive(), "d", 1)
	for code, want := range map[byte]gateway.WriteError{
		1: {}, 2: {}, 3: {}, 10: {}, 6: {Busy: true}, 11: {Unknown: true},
		4: {Unknown: true, Once: true}, 5: {Unknown: true, Once: true}, 8: {Unknown: true, Once: true}, 99: {Unknown: true, Once: true},
	} {
		s, unit := onSlave(t, bus, d)
		unit.script(func(pdu []byte) []byte { return []byte{pdu[0] | 0x80, code} })
		var refused *gateway.WriteError
		if err := s.Write(t.Context(), point(t, d, "mode"), gateway.TextValue("stop")); !errors.As(err, &refused) {
			t.Errorf("exception %d: %v", code, err)
			continue
		}
		if got := (gateway.WriteError{Busy: refused.Busy, Unknown: refused.Unknown, Once: refused.Once}); got != want {
			t.Errorf("exception %d: %+v, want %+v", code, got, want)
		}
		if got := unit.take(); len(got) != 1 {
			t.Errorf("exception %d: sent %v", code, got)
		}
	}
}

func TestUnitSettlesAfterAWrite(t *testing.T) {
	bus := serialBus(time.Second)
	profile := drive()
	profile.AfterWrite = 60 * time.Millisecond
	d := device(bus, profile, "d", 1)
	s, _ := onSlave(t, bus, d)
	if err := s.Write(t.Context(), point(t, d, "speed"), gateway.FloatValue(1)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if rest := s.Rest(d); rest <= 0 || rest > profile.AfterWrite {
		t.Errorf("rests %v", rest)
	}
	if _, err := s.Read(t.Context(), []*gateway.Point{point(t, d, "speed")}); err != nil || time.Since(start) < 40*time.Millisecond {
		t.Errorf("read after %v, %v", time.Since(start), err)
	}
}
