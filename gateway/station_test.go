package gateway

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// line is a serial line with units, some of them dead: a healthy request takes
// 30 ms, a silent one the timeout and a retry, a probe of a unit that has
// answered before 100 ms.
type line struct {
	field
	dead    func(elapsed time.Duration, d *Device) bool
	probes  int
	probed  []time.Duration // when
	probing time.Duration   // what a probe of a silent unit takes; 0 is 100 ms
	resting func(elapsed time.Duration, d *Device) time.Duration
	started []string // device and time of each request
}

func (l *line) Open(context.Context) (Session, error) { return l, nil }

func (l *line) Read(ctx context.Context, group []*Point) ([]Sample, error) {
	elapsed := time.Since(l.start)
	l.started = append(l.started, fmt.Sprintf("%v %s.%s", elapsed, group[0].Device.Name, group[0].ID))
	if l.dead != nil && l.dead(elapsed, group[0].Device) {
		sleep(ctx, time.Second)
		return l.silence(group), ctx.Err()
	}
	return l.field.Read(ctx, group)
}

func (l *line) silence(group []*Point) []Sample {
	samples := make([]Sample, len(group))
	for i, p := range group {
		samples[i] = Sample{Point: p, Time: time.Now(), Reason: "no answer within 500ms", Silent: true}
	}
	return samples
}

func (l *line) Probe(ctx context.Context, p *Point) (Sample, error) {
	l.probes++
	l.probed = append(l.probed, time.Since(l.start))
	if l.dead(time.Since(l.start), p.Device) {
		sleep(ctx, cmp.Or(l.probing, 100*time.Millisecond))
		return l.silence([]*Point{p})[0], ctx.Err()
	}
	samples, err := l.field.Read(ctx, []*Point{p})
	if err != nil {
		return Sample{}, err
	}
	return samples[0], nil
}

func (l *line) Rest(d *Device) time.Duration {
	if l.resting == nil {
		return 0
	}
	return l.resting(time.Since(l.start), d)
}

// units are devices with one point each, polled as fast as the line allows.
func units(n int, poll time.Duration) []*Device {
	var devices []*Device
	for i := range n {
		d := device(fmt.Sprintf("u%02d", i), &Definition{ID: "p", Poll: poll})
		d.Unit = i + 1
		devices = append(devices, d)
	}
	return devices
}

// reads counts the requests to the devices that satisfy the condition, between
// two times.
func (l *line) reads(from, to time.Duration, of func(name string) bool) int {
	n := 0
	for _, s := range l.started {
		at, name, _ := strings.Cut(s, " ")
		name, _, _ = strings.Cut(name, ".")
		if elapsed, err := time.ParseDuration(at); err == nil && elapsed >= from && elapsed < to && of(name) {
			n++
		}
	}
	return n
}

// TestHalfOfTheUnitsDead: with 8 of 16 units silent, the others are read nearly
// as often as if the dead ones were not there; a naive poller takes ten times
// as long.
func TestHalfOfTheUnitsDead(t *testing.T) {
	alive := func(name string) bool { return name < "u08" }
	run := func(n int) *line {
		var l *line
		synctest.Test(t, func(t *testing.T) {
			l = &line{field: field{answer: counting, takes: 30 * time.Millisecond}}
			l.dead = func(elapsed time.Duration, d *Device) bool { return elapsed > 10*time.Second && d.Name >= "u08" }
			b := &loopHarness{adapter: l, devices: units(n, 240*time.Millisecond)}
			b.run(t, &l.field, 4*time.Minute)
		})
		return l
	}
	with, without := run(16), run(8)
	for _, window := range []struct {
		from, to time.Duration
		most     float64
	}{{20 * time.Second, 70 * time.Second, 1.25}, {80 * time.Second, 4 * time.Minute, 1.05}} {
		ratio := float64(without.reads(window.from, window.to, alive)) / float64(with.reads(window.from, window.to, alive))
		t.Logf("from %v to %v: healthy cycle × %.3f", window.from, window.to, ratio)
		if ratio > window.most {
			t.Errorf("from %v to %v the healthy cycle is %.2f times as long, more than %.2f", window.from, window.to, ratio, window.most)
		}
	}
	if dead := with.reads(20*time.Second, 4*time.Minute, func(name string) bool { return !alive(name) }); dead > 0 {
		t.Errorf("dead units were read %d times with full timeout and retries", dead)
	}
}

// TestProbesHaveAShareOfTheBus: where probes take long, since the units did, 8
// silent ones would fill the line.
func TestProbesHaveAShareOfTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 30 * time.Millisecond}, probing: time.Second}
		l.dead = func(elapsed time.Duration, d *Device) bool { return elapsed > 10*time.Second && d.Name >= "u08" }
		h := &loopHarness{adapter: l, devices: units(16, 240*time.Millisecond)}
		h.run(t, &l.field, 11*time.Minute)
		probes := func(from, to time.Duration) (n int) {
			for _, at := range l.probed {
				if at >= from && at < to {
					n++
				}
			}
			return n
		}
		first, later := probes(30*time.Second, 70*time.Second), probes(140*time.Second, 640*time.Second)
		if first < 5 || first > 7 || later < 18 || later > 21 {
			t.Errorf("%d s of probes in the first 40 s, %d s in 500 s later", first, later)
		}
	})
}

// loopHarness runs a bus loop over an adapter of this file.
type loopHarness struct {
	adapter Adapter
	devices []*Device
	reports []string
	loop    *busLoop
}

func (h *loopHarness) run(t *testing.T, f *field, duration time.Duration) (log string) {
	t.Helper()
	f.start = time.Now()
	var out logBuffer
	h.loop = newBusLoop(&Bus{Name: "b", Offline: Offline{After: 3, Probe: 10 * time.Second, ProbeMax: time.Minute}}, h.devices, h.adapter, out.logger(), &Stats{}, func(d *Device, r Record) {
		h.reports = append(h.reports, fmt.Sprintf("%v %s", time.Since(f.start).Round(time.Second), d.Name))
	})
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	h.loop.run(ctx)
	return out.String()
}

// TestASilentUnitIsBackAtItsFirstAnswer: within a minute, and then polled as
// before; the log has one line for each transition.
func TestASilentUnitIsBackAtItsFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 30 * time.Millisecond}}
		l.dead = func(elapsed time.Duration, d *Device) bool {
			return d.Name == "u01" && elapsed > time.Minute && elapsed < 5*time.Minute
		}
		h := &loopHarness{adapter: l, devices: units(2, time.Second)}
		log := h.run(t, &l.field, 8*time.Minute)
		if l.probes < 5 || l.probes > 10 {
			t.Errorf("%d probes in 4 minutes", l.probes)
		}
		if n := l.reads(6*time.Minute+time.Second, 8*time.Minute, func(name string) bool { return name == "u01" }); n < 115 {
			t.Errorf("read %d times in the two minutes that begin a minute after its return", n)
		}
		want := "WARN msg=\"device gives no values: no answer within 500ms\" device=u01\nINFO msg=\"device is well again\" device=u01 after="
		if !strings.HasPrefix(log, want) || strings.Count(log, "\n") != 2 {
			t.Errorf("log:\n%s", log)
		}
	})
}

// TestASilentUnitIsProbedEverMoreRarely: offline after three passes, then in
// intervals that double, and in each outage anew.
func TestASilentUnitIsProbedEverMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 10 * time.Millisecond}}
		l.dead = func(elapsed time.Duration, d *Device) bool {
			return elapsed%(5*time.Minute) > time.Minute && elapsed%(5*time.Minute) < 210*time.Second
		}
		h := &loopHarness{adapter: l, devices: []*Device{device("d", &Definition{ID: "p", Poll: time.Second})}}
		h.run(t, &l.field, 10*time.Minute)
		// Each time the read that was not answered is the first pass.
		var got string
		for _, at := range l.probed {
			got += fmt.Sprintf(" %.0f", at.Seconds())
		}
		if got != " 63 64 74 94 134 194 254 363 364 374 394 434 494 554" {
			t.Errorf("probed at %s", got)
		}
	})
}

// TestDevicesOfOneUnitAreSilentAsOne: with same_unit: true.
func TestDevicesOfOneUnitAreSilentAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 10 * time.Millisecond}}
		l.dead = func(elapsed time.Duration, d *Device) bool { return elapsed > 10*time.Second }
		devices := units(4, time.Second)
		for _, d := range devices {
			d.Unit, d.SameUnit = 5, true
		}
		h := &loopHarness{adapter: l, devices: devices}
		log := h.run(t, &l.field, time.Minute)
		if len(h.loop.stations) != 1 || l.probes > 6 || strings.Count(log, "no answer") != 4 {
			t.Errorf("%d stations, %d probes, log:\n%s", len(h.loop.stations), l.probes, log)
		}
	})
}

// TestAPointThatDoesNotAnswerIsNotADeadUnit: where the probe answers, only the
// request's own points are bad.
func TestAPointThatDoesNotAnswerIsNotADeadUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 10 * time.Millisecond}}
		l.dead = func(time.Duration, *Device) bool { return false }
		quiet := &muteGroup{line: l, mute: "b"}
		d := device("d", &Definition{ID: "a", Poll: time.Second}, &Definition{ID: "b", Block: "x", Poll: time.Second}, &Definition{ID: "c", Block: "y", Poll: time.Second})
		h := &loopHarness{adapter: quiet, devices: []*Device{d}}
		log := h.run(t, &l.field, 5*time.Second)
		if want := "WARN msg=\"1 of 3 points are bad: b: no answer within 500ms\" device=d\n"; log != want {
			t.Errorf("log:\n%s", log)
		}
		if h.loop.stations[0].failures != 0 || h.loop.reporter.states[d.Points[2]].latest.Quality != Good {
			t.Error("the unit counts as silent")
		}
	})
}

// muteGroup never answers to one point.
type muteGroup struct {
	*line
	mute string
}

func (m *muteGroup) Open(context.Context) (Session, error) { return m, nil }

func (m *muteGroup) Read(ctx context.Context, group []*Point) ([]Sample, error) {
	if group[0].ID == m.mute {
		return m.silence(group), nil
	}
	return m.line.Read(ctx, group)
}

// TestARestingUnitDoesNotHoldTheBus: one unit needs 900 ms after each request;
// the other is polled at its pace.
func TestARestingUnitDoesNotHoldTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 10 * time.Millisecond}, dead: func(time.Duration, *Device) bool { return false }}
		var last time.Duration
		l.resting = func(elapsed time.Duration, d *Device) time.Duration {
			if d.Name != "u00" {
				return 0
			}
			for _, s := range l.started {
				if at, name, _ := strings.Cut(s, " "); strings.HasPrefix(name, "u00") {
					last, _ = time.ParseDuration(at)
				}
			}
			if last == 0 {
				return 0
			}
			return last + 900*time.Millisecond - elapsed
		}
		h := &loopHarness{adapter: l, devices: units(2, 100*time.Millisecond)}
		h.run(t, &l.field, 10*time.Second)
		slow := l.reads(0, 10*time.Second, func(name string) bool { return name == "u00" })
		fast := l.reads(0, 10*time.Second, func(name string) bool { return name == "u01" })
		if slow < 10 || slow > 13 || fast < 95 {
			t.Errorf("the resting unit was read %d times, the other %d times in 10 s", slow, fast)
		}
	})
}

// TestPatienceEnds: however small the debt, the waits that it asks for pay it
// off in a few steps.
func TestPatienceEnds(t *testing.T) {
	for _, took := range []time.Duration{1, 17, time.Microsecond, 100 * time.Millisecond, time.Hour} {
		var p patience
		now := time.Unix(1e9, 0)
		p.spend(now, took, true)
		for steps := 0; ; steps++ {
			wait := p.until(now)
			if wait == 0 {
				break
			}
			if steps > 5 {
				t.Fatalf("%v of silence: still waiting %v after %d waits", took, wait, steps)
			}
			now = now.Add(wait)
		}
	}
}

// learner is a line whose plans change once: from one request for all points
// to one for each.
type learner struct {
	*line
	generation int
}

func (l *learner) Open(context.Context) (Session, error) { return l, nil }

func (l *learner) Planned() int { return l.generation }

func (l *learner) Plan(points []*Point) [][]*Point {
	if l.generation == 0 {
		return [][]*Point{points}
	}
	groups := make([][]*Point, len(points))
	for i, p := range points {
		groups[i] = []*Point{p}
	}
	return groups
}

func (l *learner) Read(ctx context.Context, group []*Point) ([]Sample, error) {
	if time.Since(l.start) >= 3*time.Second {
		l.generation = 1
	}
	return l.line.Read(ctx, group)
}

func TestPlansAreMadeAnewWhenTheSessionLearnt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting}, dead: func(time.Duration, *Device) bool { return false }}
		d := device("d", &Definition{ID: "a", Poll: time.Second}, &Definition{ID: "b", Poll: time.Second})
		h := &loopHarness{adapter: &learner{line: l}, devices: []*Device{d}}
		h.run(t, &l.field, 5500*time.Millisecond)
		wantLines(t, l.field.reads, "0s a+1\n1s a+1\n2s a+1\n3s a+1\n4s a+0\n4s b+0\n5s a+0\n5s b+0")
	})
}
