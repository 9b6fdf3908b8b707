package modbus

import (
	"context"
	"testing"
	"time"

	"sluice/gateway"
)

func TestAnAnswerThatRepeatsTheLastOneMakesNoSamples(t *testing.T) {
	bus := serialBus(50 * time.Millisecond)
	bus.Pipeline = 2
	profile := profileOf("holding", [2]int{0, 1}, [2]int{1, 1}, [2]int{40, 1})
	profile.MaxGap = &gateway.Gap{Registers: 3}
	invalid := gateway.Range{Low: gateway.Decimal{Float: 0xFFFF}, High: gateway.Decimal{Float: 0xFFFF}}
	for _, d := range profile.Points {
		d.Type, d.Length, d.Invalid = "uint16", 0, gateway.Ranges{invalid}
	}
	d := device(bus, profile, "d", 1)
	s, unit := onSlave(t, bus, d)
	groups := s.Plan(d.Points)
	if len(groups) != 1 || len(s.batch(groups[0]).requests) != 2 {
		t.Fatalf("%d groups", len(groups))
	}
	read := func(reread bool) (samples []gateway.Sample, same time.Time) {
		t.Helper()
		var err error
		if reread {
			samples, same, err = s.Reread(t.Context(), groups[0])
		} else {
			samples, err = s.Read(t.Context(), groups[0])
		}
		if err != nil {
			t.Fatal(err)
		}
		return samples, same
	}
	repeats := func(when string) {
		t.Helper()
		before := time.Now()
		if samples, same := read(true); samples != nil || same.Before(before) || same.After(time.Now()) {
			t.Errorf("%s: %v, same at %v", when, samples, same)
		}
	}
	news := func(when string, want ...string) {
		t.Helper()
		samples, same := read(true)
		if len(samples) != 3 || !same.IsZero() {
			t.Fatalf("%s: %v, same at %v", when, samples, same)
		}
		for i, x := range samples {
			if x.Point != d.Points[i] || x.Value.String() != want[i] || x.Time.IsZero() {
				t.Errorf("%s: %+v, not %s", when, x, want[i])
			}
		}
	}
	set := func(register int, value uint16) {
		unit.mu.Lock()
		defer unit.mu.Unlock()
		unit.regs[register] = value
	}
	news("first", "0", "0", "0")
	repeats("second")
	set(40, 7)
	news("one request of two changed", "0", "0", "7")
	repeats("after a change")
	read(false)
	repeats("after a Read")
	set(1, 0xFFFF)
	news("a value is invalid", "0", "-", "7")
	news("it still is", "0", "-", "7")
	set(1, 3)
	news("it is well", "0", "3", "7")
	repeats("it stays well")
	unit.script(func([]byte) []byte { return nil })
	news("silence", "-", "-", "-")
	unit.script(nil)
	for range 2 { // RTU: the first may be refused as one that could be the late answer
		read(true)
	}
	news2, same := read(true)
	if len(news2) != 0 || same.IsZero() {
		t.Errorf("after silence: %v, %v", news2, same)
	}
	unit.script(func(pdu []byte) []byte { return []byte{pdu[0] | 0x80, 4} })
	news("exception", "-", "-", "-")
	unit.script(nil)
	news("after an exception", "0", "3", "7")
}

// BenchmarkReread is BenchmarkReadOverTCP where nothing changes.
func BenchmarkReread(b *testing.B) {
	l := &library{broken: 256}
	profile := &gateway.Profile{Name: "p", Addressing: "protocol", Table: "holding", Order: "ABCD"}
	for i := range 120 {
		profile.Points = append(profile.Points, &gateway.Definition{ID: itoa(i), At: itoa(i), Type: "uint16"})
	}
	s, d, _ := onLibrary(b, l, time.Second, profile)
	group := s.Plan(d.Points)[0]
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.(gateway.Rereader).Reread(context.Background(), group); err != nil {
			b.Fatal(err)
		}
	}
}
