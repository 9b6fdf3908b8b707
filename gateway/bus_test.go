package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// field is a bus with a script: what its devices say at a time.
type field struct {
	start   time.Time
	openErr func(elapsed time.Duration) error
	answer  func(elapsed time.Duration, p *Point) (Value, string)
	lost    func(elapsed time.Duration) error
	takes   time.Duration // for a request
	opened  []time.Duration
	reads   []string
}

func (f *field) Open(context.Context) (Session, error) {
	f.opened = append(f.opened, time.Since(f.start))
	if f.openErr != nil {
		if err := f.openErr(time.Since(f.start)); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *field) Plan(points []*Point) [][]*Point {
	var groups [][]*Point
	for _, p := range points {
		if n := len(groups); n > 0 && groups[n-1][0].Device == p.Device && groups[n-1][0].Block == p.Block {
			groups[n-1] = append(groups[n-1], p)
		} else {
			groups = append(groups, []*Point{p})
		}
	}
	return groups
}

func (f *field) Read(ctx context.Context, group []*Point) ([]Sample, error) {
	sleep(ctx, f.takes)
	elapsed := time.Since(f.start)
	if f.lost != nil {
		if err := f.lost(elapsed); err != nil {
			return nil, err
		}
	}
	f.reads = append(f.reads, fmt.Sprintf("%v %s+%d", elapsed, group[0].ID, len(group)-1))
	var samples []Sample
	for _, p := range group {
		s := Sample{Point: p, Time: time.Now(), Quality: Good}
		if s.Value, s.Reason = f.answer(elapsed, p); s.Reason != "" {
			s.Quality = Bad
		}
		samples = append(samples, s)
	}
	return samples, nil
}

func (f *field) Write(context.Context, *Point, Value) error { return errors.New("not in this test") }
func (f *field) Close() error                               { return nil }

// device makes a device whose points have these definitions.
func device(name string, definitions ...*Definition) *Device {
	d := &Device{Name: name}
	for _, def := range definitions {
		d.Points = append(d.Points, &Point{Definition: def, Device: d, Name: def.ID})
	}
	return d
}

// poll runs a bus for a time and gives what it reported, as "time name=value …",
// and its log without the clock.
func (f *field) poll(t *testing.T, duration time.Duration, devices ...*Device) (reports []string, log string) {
	t.Helper()
	var out logBuffer
	f.start = time.Now()
	take := func(d *Device, r Record) {
		line := fmt.Sprintf("%v %s", time.Since(f.start), d.Name)
		for _, a := range r.Values {
			line += fmt.Sprintf(" %s=%s", a.Name, a.Value)
		}
		reports = append(reports, line)
	}
	b := newBusLoop(&Bus{Name: "b", Offline: Offline{After: 3, Probe: 10 * time.Second, ProbeMax: time.Minute}}, devices, f, out.logger(), &Stats{}, take)
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	b.run(ctx)
	return reports, out.String()
}

func counting(elapsed time.Duration, _ *Point) (Value, string) {
	return IntValue(int64(elapsed / time.Second)), ""
}

func wantLines(t *testing.T, got []string, want string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.TrimSpace(want); g != w {
		t.Errorf("got:\n%s\nwant:\n%s", g, w)
	}
}

func TestPollsKeepTheirIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{answer: counting, takes: 300 * time.Millisecond}
		d := device("d", &Definition{ID: "fast", Poll: time.Second}, &Definition{ID: "slow", Poll: 3 * time.Second})
		reports, log := f.poll(t, 6900*time.Millisecond, d)
		wantLines(t, f.reads, `
300ms fast+1
1.3s fast+0
2.3s fast+0
3.3s fast+1
4.3s fast+0
5.3s fast+0
6.3s fast+1`)
		wantLines(t, reports, `
300ms d fast=0 slow=0
1.3s d fast=1
2.3s d fast=2
3.3s d fast=3 slow=3
4.3s d fast=4
5.3s d fast=5
6.3s d fast=6 slow=6`)
		if log != "" {
			t.Errorf("a healthy bus logged:\n%s", log)
		}
	})
}

func TestLatePollsAreSkippedNotQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{answer: counting, takes: 2500 * time.Millisecond}
		f.poll(t, 9*time.Second, device("d", &Definition{ID: "p", Poll: time.Second}))
		wantLines(t, f.reads, "2.5s p+0\n5s p+0\n7.5s p+0\n9s p+0")
	})
}

func TestDeadband(t *testing.T) {
	values := []float64{100, 100.4, 100.6, 101, 101.9, 102, 99.9}
	tests := []struct {
		name string
		band *Deadband
		mode string
		want string
	}{
		{"none", nil, "change", "100 100.4 100.6 101 101.9 102 99.9"},
		{"absolute", &Deadband{Value: 1}, "change", "100 101 102 99.9"},
		{"relative", &Deadband{Value: 0.02, Relative: true}, "change", "100 102 99.9"},
		{"always", &Deadband{Value: 1}, "always", "100 100.4 100.6 101 101.9 102 99.9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := device("d", &Definition{ID: "p", Deadband: tt.band, Report: Reporting{Mode: tt.mode}}).Points[0]
			var got []string
			r := newReporter([]*Device{p.Device}, func(_ *Device, rec Record) { got = append(got, rec.Values[0].Value.String()) })
			for i, v := range values {
				r.states[p].note(&Sample{Point: p, Time: time.Unix(int64(i), 0), Value: FloatValue(v), Quality: Good})
				r.flush(r.devices[0])
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

func TestWhatIsNotGoodIsNotReported(t *testing.T) {
	for _, tt := range []struct {
		name   string
		def    Definition
		sample Sample
		want   bool
	}{
		{"good", Definition{}, Sample{Quality: Good}, true},
		{"bad", Definition{}, Sample{Quality: Bad, Reason: "invalid"}, false},
		{"implausible", Definition{}, Sample{Quality: Uncertain, Reason: reasonImplausible}, false},
		{"implausible but wanted", Definition{Implausible: "send"}, Sample{Quality: Uncertain, Reason: reasonImplausible}, true},
		{"a number without label", Definition{}, Sample{Quality: Uncertain, Reason: reasonUnlabelled}, true},
		{"secret", Definition{Secret: true}, Sample{Quality: Good}, false},
	} {
		p := device("d", &tt.def).Points[0]
		reported := false
		r := newReporter([]*Device{p.Device}, func(*Device, Record) { reported = true })
		tt.sample.Point = p
		r.states[p].note(&tt.sample)
		r.flush(r.devices[0])
		if reported != tt.want {
			t.Errorf("%s: reported %v", tt.name, reported)
		}
	}
}

func TestRefreshRepeatsOnlyWhatIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{answer: func(elapsed time.Duration, p *Point) (Value, string) {
			if p.ID == "dying" && elapsed > 5*time.Minute {
				return Value{}, "no answer"
			}
			return IntValue(1), ""
		}}
		rule := Reporting{AtLeastEvery: 4 * time.Minute}
		reports, _ := f.poll(t, 9*time.Minute, device("d",
			&Definition{ID: "steady", Poll: 10 * time.Second, Report: rule}, &Definition{ID: "dying", Poll: 10 * time.Second, Report: rule}))
		if len(reports) != 3 {
			t.Fatalf("got:\n%s", strings.Join(reports, "\n"))
		}
		if !strings.Contains(reports[1], "dying=1") || !strings.Contains(reports[1], "steady=1") || !strings.HasPrefix(reports[1], "4m") {
			t.Errorf("first refresh: %s", reports[1])
		}
		if !strings.HasSuffix(reports[2], " d steady=1") || !strings.HasPrefix(reports[2], "8m") {
			t.Errorf("second refresh: %s", reports[2])
		}
	})
}

func TestAtMostEveryHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{answer: counting}
		reports, _ := f.poll(t, 6500*time.Millisecond, device("d", &Definition{ID: "p", Poll: time.Second, Report: Reporting{AtMostEvery: 3 * time.Second}}))
		wantLines(t, reports, "0s d p=0\n3s d p=3\n6s d p=6")
	})
}

func TestABadPointLeavesTheOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{answer: func(elapsed time.Duration, p *Point) (Value, string) {
			if p.ID == "b" && elapsed >= 2*time.Second && elapsed < 4*time.Second {
				return Value{}, "exception 2: illegal data address"
			}
			return counting(elapsed, p)
		}}
		reports, log := f.poll(t, 4500*time.Millisecond, device("d", &Definition{ID: "a", Poll: time.Second}, &Definition{ID: "b", Block: "x", Poll: time.Second}))
		wantLines(t, reports, "0s d a=0 b=0\n1s d a=1 b=1\n2s d a=2\n3s d a=3\n4s d a=4 b=4")
		want := `WARN msg="1 of 2 points are bad: b: exception 2: illegal data address" device=d
INFO msg="device is well again" device=d after=2s
`
		if log != want {
			t.Errorf("log:\n%swant:\n%s", log, want)
		}
	})
}

func TestALostBusIsReopened(t *testing.T) {
	down := func(elapsed time.Duration) bool { return elapsed >= 2*time.Second && elapsed < 20*time.Second }
	synctest.Test(t, func(t *testing.T) {
		f := &field{answer: counting}
		f.lost = func(elapsed time.Duration) error {
			if down(elapsed) {
				return errors.New("connection reset")
			}
			return nil
		}
		f.openErr = func(elapsed time.Duration) error {
			if down(elapsed) && elapsed > 2*time.Second {
				return errors.New("connection refused")
			}
			return nil
		}
		reports, log := f.poll(t, 40*time.Second, device("d", &Definition{ID: "p", Poll: time.Second}))
		if len(f.opened) < 4 || f.opened[1] != 2*time.Second {
			t.Errorf("a session that had answered was not reopened at once: %v", f.opened)
		}
		if len(f.opened) > 9 {
			t.Errorf("no back-off: %v", f.opened)
		}
		if !strings.Contains(reports[2], " d p=") || len(reports) < 10 {
			t.Errorf("reports: %v", reports)
		}
		lines := strings.Split(strings.TrimSpace(log), "\n")
		if len(lines) != 3 || !strings.HasPrefix(lines[0], `WARN msg="bus lost" error="connection reset"`) ||
			!strings.HasPrefix(lines[1], `WARN msg="bus still lost" error="connection refused"`) || !strings.HasPrefix(lines[2], `INFO msg="bus is back" after=`) {
			t.Errorf("log:\n%s", log)
		}
	})
}

func TestABusThatNeverAnswersBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{lost: func(time.Duration) error { return errors.New("reset at each request") }}
		f.poll(t, 10*time.Minute, device("d", &Definition{ID: "p", Poll: 100 * time.Millisecond}))
		if n := len(f.opened); n < 20 || n > 50 {
			t.Errorf("opened %d times in 10 minutes", n)
		}
	})
}

// logBuffer keeps a log without its times and levels' key.
type logBuffer struct{ bytes.Buffer }

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(&b.Buffer, nil)) }

func (b *logBuffer) String() string {
	return regexp.MustCompile(`(?m)^time=\S+ level=`).ReplaceAllString(b.Buffer.String(), "")
}
