package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// busyLine has units that say that they are busy, and then rest for 100 ms.
type busyLine struct {
	*line
	busy func(elapsed time.Duration, d *Device) bool
	said map[*Device]time.Time
}

func (l *busyLine) Open(context.Context) (Session, error) {
	l.said = make(map[*Device]time.Time)
	return l, nil
}

func (l *busyLine) Read(ctx context.Context, group []*Point) ([]Sample, error) {
	samples, err := l.line.Read(ctx, group)
	if d := group[0].Device; err == nil && l.busy(time.Since(l.start), d) {
		l.said[d] = time.Now()
		for i := range samples {
			samples[i] = Sample{Point: group[i], Time: time.Now(), Reason: "exception 6: server device busy", Busy: true}
		}
	}
	return samples, err
}

func (l *busyLine) Rest(d *Device) time.Duration {
	return max(0, time.Until(l.said[d].Add(100*time.Millisecond)))
}

// TestABusyUnitIsAskedAgainAfterItsRest: a unit that is busy for a moment loses
// no value, however seldom it is polled; one that stays busy is bad after some
// tries, and then asked once a poll. Others keep their pace.
func TestABusyUnitIsAskedAgainAfterItsRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &busyLine{line: &line{field: field{answer: counting, takes: 10 * time.Millisecond}, dead: func(time.Duration, *Device) bool { return false }}}
		l.busy = func(elapsed time.Duration, d *Device) bool {
			return d.Name == "u00" && (elapsed > 59*time.Second && elapsed < 60300*time.Millisecond || elapsed > 110*time.Second && elapsed < 290*time.Second)
		}
		devices := units(2, time.Minute)
		devices[1].Points[0].Definition = &Definition{ID: "p", Poll: 100 * time.Millisecond}
		h := &loopHarness{adapter: l, devices: devices}
		log := h.run(t, &l.field, 6*time.Minute)
		want := "WARN msg=\"device gives no values: exception 6: server device busy\" device=u00\nINFO msg=\"device is well again\" device=u00 after="
		if !strings.HasPrefix(log, want) || strings.Count(log, "\n") != 2 {
			t.Errorf("log:\n%s", log)
		}
		name := func(name string) func(string) bool { return func(n string) bool { return n == name } }
		for _, window := range []struct{ from, to, asked int }{{0, 50, 1}, {50, 100, 4}, {100, 170, 6}, {170, 230, 1}, {230, 290, 1}, {290, 350, 1}} {
			if n := l.reads(time.Duration(window.from)*time.Second, time.Duration(window.to)*time.Second, name("u00")); n != window.asked {
				t.Errorf("asked %d times from %d to %d s, want %d", n, window.from, window.to, window.asked)
			}
		}
		if n := l.reads(0, 6*time.Minute, name("u01")); n < 3590 {
			t.Errorf("the other unit was read %d times", n)
		}
	})
}

// TestAllPointsAreReadWhenAUnitIsBack: also those that are polled once in an
// hour, which are bad till then.
func TestAllPointsAreReadWhenAUnitIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 10 * time.Millisecond}}
		l.dead = func(elapsed time.Duration, d *Device) bool { return elapsed > time.Minute && elapsed < 5*time.Minute }
		d := device("d", &Definition{ID: "fast", Poll: time.Second}, &Definition{ID: "slow", Poll: time.Hour})
		rare := device("rare", &Definition{ID: "rare", Poll: 250 * time.Second, Block: "x"}, &Definition{ID: "slow", Poll: time.Hour})
		rare.Unit = 2
		h := &loopHarness{adapter: l, devices: []*Device{d, rare}}
		h.run(t, &l.field, 6*time.Minute+2*time.Second)
		for _, p := range []*Point{d.Points[1], rare.Points[1]} {
			if s := h.loop.reporter.states[p].latest; s.Quality != Good {
				t.Errorf("a minute after the return of %s: %+v", p.Device.Name, s)
			}
		}
	})
}

// TestAllPointsAreReadWhenABusIsBack: but not without end where each connection
// is dropped after a reply.
func TestAllPointsAreReadWhenABusIsBack(t *testing.T) {
	for name, tt := range map[string]struct {
		lost  func(f *field) func(time.Duration) error
		reads int // of the point that is read once in an hour
	}{
		"lost once": {func(f *field) func(time.Duration) error {
			return func(elapsed time.Duration) error {
				if elapsed > time.Minute && len(f.opened) == 1 {
					return errors.New("connection reset")
				}
				return nil
			}
		}, 2},
		"dropped after each reply": {func(f *field) func(time.Duration) error {
			return func(time.Duration) error {
				if len(f.reads) >= len(f.opened) {
					return errors.New("connection reset")
				}
				return nil
			}
		}, 12},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &field{answer: counting, takes: 10 * time.Millisecond}
				f.lost = tt.lost(f)
				_, _ = f.poll(t, 2*time.Minute, device("d", &Definition{ID: "fast", Poll: time.Second}, &Definition{ID: "slow", Poll: time.Hour}))
				slow := 0
				for _, r := range f.reads {
					if strings.HasSuffix(r, "fast+1") || strings.HasSuffix(r, "slow+0") {
						slow++
					}
				}
				if slow < 1 || slow > tt.reads || name == "lost once" && slow != 2 || len(f.opened) > 140 {
					t.Errorf("read %d times, opened %d times", slow, len(f.opened))
				}
			})
		})
	}
}

// TestASilentUnitIsProbedOnANewConnection: not first when its next probe is due.
func TestASilentUnitIsProbedOnANewConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 10 * time.Millisecond}}
		l.dead = func(elapsed time.Duration, d *Device) bool {
			return d.Name == "u01" && elapsed > time.Minute && elapsed < 5*time.Minute
		}
		l.lost = func(elapsed time.Duration) error {
			if elapsed > 5*time.Minute && len(l.opened) == 0 {
				l.opened = append(l.opened, elapsed)
				return errors.New("connection reset")
			}
			return nil
		}
		h := &loopHarness{adapter: l, devices: units(2, time.Second)}
		h.run(t, &l.field, 302*time.Second+500*time.Millisecond)
		if n := l.reads(5*time.Minute, time.Hour, func(name string) bool { return name == "u01" }); n < 2 {
			t.Errorf("read %d times in the 2 s after the connection was made anew; probed at %v", n, l.probed)
		}
	})
}

// TestALongPassDoesNotHoldTheOthers: a unit that takes 50 requests of 30 ms once
// a minute, and one that is polled four times a second.
func TestALongPassDoesNotHoldTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 30 * time.Millisecond}, dead: func(time.Duration, *Device) bool { return false }}
		var many []*Definition
		for i := range 50 {
			many = append(many, &Definition{ID: fmt.Sprint("p", i), Block: fmt.Sprint(i), Poll: time.Minute})
		}
		long, short := device("long", many...), device("short", &Definition{ID: "p", Poll: 250 * time.Millisecond})
		long.Unit, short.Unit = 1, 2
		h := &loopHarness{adapter: l, devices: []*Device{long, short}}
		h.run(t, &l.field, 3*time.Minute)
		if n := l.reads(0, 3*time.Minute, func(name string) bool { return name == "long" }); n != 150 {
			t.Errorf("%d requests to the long one", n)
		}
		if n := l.reads(0, 3*time.Minute, func(name string) bool { return name == "short" }); n < 718 || h.loop.stats.Overruns.Load() != 0 {
			t.Errorf("the short one was read %d times, %d polls were late", n, h.loop.stats.Overruns.Load())
		}
	})
}

// TestALongPassDoesNotHoldShorterPolls: of the same unit. With three intervals,
// a poll waits for a request of each at most; where the line has no time for
// all, none of them stops.
func TestALongPassDoesNotHoldShorterPolls(t *testing.T) {
	for name, tt := range map[string]struct {
		takes      time.Duration
		fast, slow int // requests for the fastest, and of the long pass, in three minutes
	}{
		"enough time": {30 * time.Millisecond, 720, 150},
		"too little":  {300 * time.Millisecond, 300, 150},
		"hardly any":  {2 * time.Second, 40, 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &line{field: field{answer: counting, takes: tt.takes}}
				definitions := []*Definition{{ID: "fast", Poll: 250 * time.Millisecond}, {ID: "middle", Block: "m", Poll: time.Second}}
				for i := range 50 {
					definitions = append(definitions, &Definition{ID: fmt.Sprint("p", i), Block: fmt.Sprint(i), Poll: time.Minute})
				}
				h := &loopHarness{adapter: l, devices: []*Device{device("d", definitions...)}}
				log := h.run(t, &l.field, 3*time.Minute)
				counts, last, longest := make(map[string]int), time.Duration(0), time.Duration(0)
				for _, s := range l.started {
					at, id, _ := strings.Cut(s, " d.")
					elapsed, _ := time.ParseDuration(at)
					if counts[id[:1]]++; id == "fast" {
						longest, last = max(longest, elapsed-last), elapsed
					}
				}
				t.Logf("%v, longest wait %v, %d late", counts, longest, h.loop.stats.Overruns.Load())
				if most := 250*time.Millisecond + 3*tt.takes; longest > most || counts["f"] < tt.fast || counts["p"] < tt.slow {
					t.Errorf("between two polls of the fast one are up to %v, more than %v; requests: %v", longest, most, counts)
				}
				if log != "" {
					t.Errorf("log:\n%s", log)
				}
			})
		})
	}
}

// TestAllIsReadWhenLongPassesWereInFlight: units with long passes and short
// polls share a line with several requests in flight, fall silent amid them, and
// lose none of their points when they are back.
func TestAllIsReadWhenLongPassesWereInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 100 * time.Millisecond}}
		l.dead = func(elapsed time.Duration, d *Device) bool {
			return d.Unit < 3 && elapsed > 61*time.Second && elapsed < 90*time.Second
		}
		var devices []*Device
		for unit := range 6 {
			definitions := []*Definition{{ID: "fast", Poll: time.Second}}
			for i := range 20 {
				definitions = append(definitions, &Definition{ID: fmt.Sprint("p", i), Block: fmt.Sprint(i), Poll: time.Minute})
			}
			d := device(fmt.Sprint("u", unit), definitions...)
			d.Unit = unit
			devices = append(devices, d)
		}
		h := &loopHarness{adapter: gatherer{l}, devices: devices}
		h.run(t, &l.field, 119*time.Second)
		for _, d := range devices {
			for _, p := range d.Points {
				if s := h.loop.reporter.states[p].latest; s.Quality != Good || time.Since(s.Time) > p.Poll+time.Second {
					t.Errorf("%s of %s: %+v, %v old", p.ID, d.Name, s, time.Since(s.Time))
				}
			}
			if n := l.reads(0, time.Hour, func(name string) bool { return name == d.Name }); d.Unit >= 3 && n < 119+40-3 { // the silent ones cost the others up to three polls
				t.Errorf("%s was read %d times", d.Name, n)
			}
		}
	})
}

// TestPollsDoNotDrift: a poll that others hold up is late once, the next one is
// in time again.
func TestPollsDoNotDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 300 * time.Millisecond}, dead: func(time.Duration, *Device) bool { return false }}
		devices := append(units(1, time.Second), device("other", &Definition{ID: "p", Poll: 700 * time.Millisecond}))
		devices[1].Unit = 9
		h := &loopHarness{adapter: l, devices: devices}
		h.run(t, &l.field, 210*time.Second-time.Millisecond)
		for name, want := range map[string]int{"u00": 210, "other": 300} {
			if n := l.reads(0, time.Hour, func(n string) bool { return n == name }); n != want {
				t.Errorf("%s was read %d times, want %d", name, n, want)
			}
		}
	})
}

// TestLatePollsAreCounted: 3 of 4 polls of a unit that takes 3.5 s for each.
func TestLatePollsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 3500 * time.Millisecond}}
		h := &loopHarness{adapter: l, devices: units(1, time.Second)}
		h.run(t, &l.field, 70*time.Second)
		if n, shown := h.loop.stats.Overruns.Load(), h.loop.load.Overruns; n < 46 || n > 50 || shown != n {
			t.Errorf("%d polls were late, the page shows %d", n, shown)
		}
	})
}

// gatherer is a line with room for four requests at a time.
type gatherer struct{ *line }

func (g gatherer) Open(context.Context) (Session, error) { return g, nil }
func (g gatherer) Room() int                             { return 4 }
func (g gatherer) Flights([]*Point) int                  { return 1 }

func (g gatherer) ReadAll(ctx context.Context, readings []Reading) error {
	alone := g.takes
	defer func() { g.takes = alone }()
	for i := range readings {
		r := &readings[i]
		var err error
		if r.Samples, err = g.line.Read(ctx, r.Group); err != nil {
			return err
		}
		g.takes = 0 // the others came meanwhile
	}
	return nil
}

// TestRequestsOfSeveralUnitsAreInFlight: of eight units that take 100 ms each,
// four at a time, whichever are due; and a silent one does not spoil the others.
func TestRequestsOfSeveralUnitsAreInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 100 * time.Millisecond}}
		l.dead = func(elapsed time.Duration, d *Device) bool { return elapsed > 30*time.Second && d.Name == "u03" }
		devices := units(8, 200*time.Millisecond)
		devices[7].Points[0].Definition = &Definition{ID: "p", Poll: 10 * time.Second}
		h := &loopHarness{adapter: gatherer{l}, devices: devices}
		h.run(t, &l.field, time.Minute)
		for _, d := range devices {
			n := l.reads(0, 30*time.Second, func(name string) bool { return name == d.Name })
			if want := int(30 * time.Second / d.Points[0].Poll); n < want-2 || n > want {
				t.Errorf("%s was read %d times in 30 s, want %d", d.Name, n, want)
			}
			if s := h.loop.reporter.states[d.Points[0]].latest; (s.Quality == Good) != (d.Name != "u03") {
				t.Errorf("%s: %+v", d.Name, s)
			}
		}
	})
}
