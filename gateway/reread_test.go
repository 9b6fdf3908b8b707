package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// moody is a bus whose devices seldom change, sometimes give no value and
// sometimes no answer. What they say at a time depends on its seed alone.
type moody struct {
	seed  uint64
	start time.Time
	last  map[**Point][]Sample
	good  bool          // since it was lost
	lost  time.Duration // when it was lost, in periods
	same  int           // groups that repeated themselves
}

func (m *moody) Open(context.Context) (Session, error) {
	m.last = make(map[**Point][]Sample)
	return m, nil
}

func (m *moody) Plan(points []*Point) (groups [][]*Point) {
	for len(points) > 0 {
		n := min(3, len(points))
		groups, points = append(groups, points[:n:n]), points[n:]
	}
	return groups
}

// dice is a number that is the same for the whole of a period.
func (m *moody) dice(what string, period time.Duration) int {
	h := m.seed
	for _, c := range []byte(what) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return rand.New(rand.NewPCG(h, uint64(time.Since(m.start)/period))).IntN(100)
}

func (m *moody) Read(_ context.Context, group []*Point) ([]Sample, error) {
	if period := time.Since(m.start) / (7 * time.Second); m.good && m.lost != period && m.dice("lost", 7*time.Second) < 20 {
		m.good, m.lost = false, period // and back at once: a wait would be random
		return nil, fmt.Errorf("the cable is out")
	}
	samples := make([]Sample, len(group))
	for i, p := range group {
		s := Sample{Point: p, Time: time.Now(), Quality: Good}
		switch {
		case m.dice(p.Device.Name, 2*time.Second) < 6:
			s.Quality, s.Silent, s.Reason = Bad, true, "no answer"
		case m.dice("bad "+p.Device.Name+p.ID, 3*time.Second) < 2:
			s.Quality, s.Reason = Bad, "invalid"
		default:
			m.good = true
			s.Value = IntValue(int64(m.dice(p.Device.Name+p.ID, 20*time.Second) / 8))
		}
		samples[i] = s
	}
	m.last[&group[0]] = samples
	return samples, nil
}

func (m *moody) Write(context.Context, *Point, Value) error { return nil }
func (m *moody) Close() error                               { return nil }

// attentive is moody, and notices what repeats itself.
type attentive struct{ *moody }

func (a attentive) Open(ctx context.Context) (Session, error) {
	_, err := a.moody.Open(ctx)
	return a, err
}

func (a attentive) Reread(ctx context.Context, group []*Point) ([]Sample, time.Time, error) {
	last := a.last[&group[0]]
	samples, err := a.Read(ctx, group)
	if err != nil || len(last) == 0 {
		return samples, time.Time{}, err
	}
	for i := range samples {
		if s, was := &samples[i], &last[i]; s.Quality != Good || was.Quality != Good || !s.Value.Equal(was.Value) {
			return samples, time.Time{}, nil
		}
	}
	a.same++
	return nil, samples[0].Time, nil
}

// story is all that comes of a bus in some minutes: what it reports, and what a
// page sees of it, with all times.
func (m *moody) story(t *testing.T, adapter Adapter) (lines []string) {
	synctest.Test(t, func(t *testing.T) {
		m.start = time.Now()
		var definitions []*Definition
		for i := range 8 {
			d := &Definition{ID: fmt.Sprintf("p%d", i), Poll: []time.Duration{time.Second, 3 * time.Second}[i/3%2]}
			switch i {
			case 1:
				d.Report.AtLeastEvery = 10 * time.Second
			case 2:
				d.Report.AtMostEvery = 5 * time.Second
			case 4:
				d.Report.Deadband = &Deadband{Value: 3}
			case 7:
				d.Report.Mode = "always"
			}
			definitions = append(definitions, d)
		}
		a, c := device("a", definitions...), device("c", definitions...)
		slow := device("s", definitions[3:6]...) // two groups of one interval
		slow.Points, slow.Unit = append(slow.Points, device("s", definitions[3:6]...).Points...), 4
		for i, p := range slow.Points {
			p.Device, p.Name = slow, fmt.Sprintf("s%d", i)
		}
		ruled, always := device("r", definitions[:3]...), device("w", definitions[5:7]...)
		a.Unit, c.Unit, ruled.Unit, always.Unit = 1, 1, 2, 3
		a.SameUnit, c.SameUnit = true, true
		ruled.Computed = []*Computed{{ID: "mean", Value: condition(`average(p0, "10s")`)}}
		ruled.Events = []*Event{{ID: "e", When: condition("p1 > 6"), For: Hold{Raise: Span{Samples: 3}}, Repeat: 20 * time.Second, Params: []string{"p0", "p2"}}}
		devices := []*Device{a, c, ruled, always, slow}
		var mu sync.Mutex
		say := func(format string, args ...any) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, fmt.Sprintf(format, args...))
		}
		at := func(at time.Time) any {
			if at.IsZero() {
				return "never"
			}
			return at.Sub(m.start)
		}
		take := func(d *Device, r Record) {
			say("%v: %s %s of %v: %v", at(time.Now()), d.Name, r.Name, at(r.Time), r.Values)
		}
		b := newBusLoop(&Bus{Name: "b", Offline: Offline{After: 2, Probe: 5 * time.Second, ProbeMax: time.Minute}}, devices, adapter, slog.New(slog.DiscardHandler), &Stats{}, take)
		book, err := newRulebook(&Site{Identity: Identity{Timezone: "Europe/Berlin"}}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		book.keep = func(string, []byte) {}
		for _, d := range b.reporter.devices {
			if d.rules, err = newRules(book, d, take); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); b.run(ctx) }()
		time.Sleep(time.Millisecond / 2) // so that nothing is asked for at the moment of a poll
		random := rand.New(rand.NewPCG(m.seed, 1))
		for time.Since(m.start) < 5*time.Minute {
			time.Sleep(100*time.Millisecond + time.Duration(random.IntN(12000))*time.Millisecond)
			d := devices[random.IntN(len(devices))]
			p := d.Points[random.IntN(len(d.Points))]
			switch random.IntN(4) {
			case 0:
				samples, err := b.look(ctx, p)
				for _, s := range samples {
					say("%v: look %s.%s: %v of %v, %v", at(time.Now()), d.Name, p.ID, s.Value, at(s.Time), err)
				}
			case 1:
				_, err := b.do(ctx, func(ctx context.Context, b *busLoop) error {
					if b.session == nil {
						return nil
					}
					return b.fetch(ctx, d.Points)
				})
				say("%v: fetch %s: %v", at(time.Now()), d.Name, err)
			default:
				b.ask(ctx)
				for _, shown := range b.shown.Load().Devices {
					for _, s := range shown.Points {
						say("%v: page %s.%s: %v %v of %v", at(time.Now()), shown.Device.Name, s.Point.ID, s.Value, s.Quality, at(s.Time))
					}
				}
			}
		}
		cancel()
		<-done
	})
	return lines
}

func TestWhatRepeatsItselfMeansWhatItsSamplesWouldMean(t *testing.T) {
	same := 0
	for seed := range uint64(30) {
		m := &moody{seed: seed}
		want := m.story(t, m)
		noticed := &moody{seed: seed}
		got := noticed.story(t, attentive{noticed})
		same += noticed.same
		for i := range max(len(want), len(got)) {
			if i >= len(got) || i >= len(want) || got[i] != want[i] {
				t.Fatalf("seed %d, line %d of %d:\n%s\nnot\n%s", seed, i, len(want), got[min(i, len(got)-1)], want[min(i, len(want)-1)])
			}
		}
	}
	if t.Logf("%d groups repeated themselves", same); same < 1000 {
		t.Errorf("only %d groups repeated themselves", same)
	}
}
