package modbus

import (
	"errors"
	"slices"
	"testing"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

func TestWhatCountsAsSilence(t *testing.T) {
	refuse := func(code byte) func(*slave, []byte) []byte {
		return func(_ *slave, pdu []byte) []byte { return []byte{pdu[0] | 0x80, code} }
	}
	for _, tt := range []struct {
		name   string
		answer func(*slave, []byte) []byte
		silent bool
	}{
		{"silence", func(*slave, []byte) []byte { return nil }, true},
		{"exception 10", refuse(10), true},
		{"exception 11", refuse(11), true},
		{"exception 1", refuse(1), false},
		{"exception 4", refuse(4), false},
		{"exception 6", refuse(6), false},
		{"an answer", (*slave).reply, false},
		{"half an answer", func(u *slave, pdu []byte) []byte { return u.reply(pdu)[:2] }, false},
	} {
		bus := serialBus(50 * time.Millisecond)
		d := device(bus, drive(), "d", 1)
		s, unit := onSlave(t, bus, d)
		unit.script(func(pdu []byte) []byte { return tt.answer(unit, pdu) })
		group := []*gateway.Point{point(t, d, "speed")}
		samples, err := s.Read(t.Context(), group)
		if err != nil || samples[0].Silent != tt.silent {
			t.Errorf("read, %s: %+v, %v", tt.name, samples, err)
		}
		sample, err := s.Probe(t.Context(), group[0])
		if err != nil || sample.Silent != tt.silent || sample.Point != group[0] || sample.Time.IsZero() || (sample.Quality == gateway.Good) != (tt.name == "an answer") {
			t.Errorf("probe, %s: %+v, %v", tt.name, sample, err)
		}
	}
}

func TestProbeAsksOnceAndBriefly(t *testing.T) {
	bus := serialBus(20 * time.Second)
	bus.Retries = 3
	d := device(bus, drive(), "d", 1)
	s, unit := onSlave(t, bus, d)
	speed := point(t, d, "speed")
	if sample, err := s.Probe(t.Context(), speed); err != nil || sample.Quality != gateway.Good {
		t.Fatal(sample, err)
	}
	unit.take()
	unit.script(func([]byte) []byte { return nil })
	begin := time.Now()
	sample, err := s.Probe(t.Context(), speed)
	if took := time.Since(begin); err != nil || !sample.Silent || took < leastPatience || took > 10*time.Second || len(unit.take()) != 1 {
		t.Errorf("%+v, %v after %v", sample, err, took)
	}
	stranger := &gateway.Point{Definition: &gateway.Definition{ID: "x"}, Device: d}
	if sample, err := s.Probe(t.Context(), stranger); err != nil || sample.Reason != "x is not a point of this bus" || sample.Silent {
		t.Errorf("%+v, %v", sample, err)
	}
}

func TestPatienceOfAProbe(t *testing.T) {
	for _, tt := range []struct{ longest, want time.Duration }{
		{0, 3 * time.Second}, {time.Millisecond, 100 * time.Millisecond}, {200 * time.Millisecond, 600 * time.Millisecond}, {2 * time.Second, 3 * time.Second},
	} {
		if got := (&unit{longest: tt.longest}).patience(3 * time.Second); got != tt.want {
			t.Errorf("longest answer %v: %v, want %v", tt.longest, got, tt.want)
		}
	}
}

func TestBusyUnitRestsLongerAndLonger(t *testing.T) {
	u := new(unit)
	for _, want := range []time.Duration{50, 100, 200, 400, 800, 1000, 1000} {
		if u.note(0, wire.ServerDeviceBusy); u.busy != want*time.Millisecond {
			t.Errorf("rests %v, want %v ms", u.busy, want)
		}
	}
	u.note(0, wire.ErrTimeout)
	u.note(0, wire.GatewayTargetNoResponse)
	if u.busy != mostBusy {
		t.Error("silence ended the rest")
	}
	if u.note(time.Millisecond, nil); u.busy != 0 {
		t.Error("an answer did not end the rest")
	}
	if u.note(0, wire.Acknowledge); u.busy != firstBusy {
		t.Errorf("rests %v after an answer between", u.busy)
	}
}

func TestBusyReadIsNotTriedAgainAtOnce(t *testing.T) {
	bus := serialBus(time.Second)
	bus.Retries = 3
	d := device(bus, drive(), "d", 1)
	other := device(bus, drive(), "other", 2)
	s, unit := onSlave(t, bus, d, other)
	if rest := s.Rest(d); rest != 0 {
		t.Errorf("rests %v before anything", rest)
	}
	unit.script(func(pdu []byte) []byte { return []byte{pdu[0] | 0x80, 6} })
	samples, err := s.Read(t.Context(), []*gateway.Point{point(t, d, "speed")})
	if err != nil || samples[0].Reason != "exception 6: server device busy" || samples[0].Silent || !samples[0].Busy || len(unit.take()) != 1 {
		t.Errorf("%v, %v", samples, err)
	}
	if rest := s.Rest(d); rest <= 0 || rest > firstBusy {
		t.Errorf("rests %v", rest)
	}
	if rest := s.Rest(other); rest != 0 {
		t.Errorf("another unit rests %v", rest)
	}
	unit.script(nil)
	if samples, err = s.Read(t.Context(), []*gateway.Point{point(t, d, "speed")}); err != nil || samples[0].Quality != gateway.Good || s.Rest(d) != 0 {
		t.Errorf("asked while it rests: %v, %v, rests %v", samples, err, s.Rest(d))
	}
	unit.script(func(pdu []byte) []byte { return []byte{pdu[0] | 0x80, 5} })
	var refused *gateway.WriteError
	if err := s.Write(t.Context(), point(t, d, "speed"), gateway.FloatValue(1)); !errors.As(err, &refused) || !refused.Unknown || s.Rest(d) == 0 {
		t.Errorf("a write that is acknowledged: %#v, rests %v", err, s.Rest(d))
	}
}

func TestProbeOfAUnitThatIsSilentAboutTheProbe(t *testing.T) {
	d := learner("holding", 200*time.Millisecond, [2]int{0, 1}, [2]int{10, 1}, [2]int{20, 1})
	m := &meter{refuse: touches(silent, 0)}
	s, end := onMeter(t, m, nil, d)
	defer end()
	first, err := s.Probe(t.Context(), d.Points[0])
	second, err2 := s.Probe(t.Context(), d.Points[0])
	if err != nil || err2 != nil || !first.Silent || second.Silent || second.Point != d.Points[0] || second.Quality != gateway.Bad || second.Reason != "not read, but p1 was" {
		t.Errorf("%+v, %v; %+v, %v", first, err, second, err2)
	}
	m.set(touches(silent, 0, 10, 20))
	m.take()
	u := s.atlas.units[1]
	for u.missed = 0; u.missed < 8; {
		if _, err := s.Probe(t.Context(), d.Points[0]); err != nil {
			break // nobody answers any more
		}
	}
	if got := m.take(); !slices.Equal(got[:4], []string{"0+1", "10+1", "0+1", "20+1"}) {
		t.Errorf("asked %v", got)
	}
}

func TestRefusedPointsAreSilentWithTheirUnit(t *testing.T) {
	d := learner("holding", 200*time.Millisecond, run(0, 8, 1)...)
	m := &meter{refuse: touches(2, 3)}
	s, end := onMeter(t, m, nil, d)
	defer end()
	for range 3 {
		cycle(t, s, s.Plan(d.Points))
	}
	m.set(touches(silent, 0, 1, 2, 4, 5, 6, 7))
	for _, group := range s.Plan(d.Points) {
		samples, err := s.Read(t.Context(), group)
		for _, x := range samples {
			if err != nil || !x.Silent {
				t.Errorf("%+v, %v", x, err)
			}
		}
	}
}
