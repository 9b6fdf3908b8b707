package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sort"
	"time"
)

// busLoop is the goroutine of one bus: it opens sessions, reads what is due
// and reports it. Everything in it belongs to that goroutine.
type busLoop struct {
	bus     *Bus
	adapter Adapter
	log     *slog.Logger
	stats   *Stats
	take    func(*Device, Record)

	reporter *reporter
	watch    watch
	polls    []poll
	plans    map[string][][]*Point // by the set of polls that are due together
	refresh  time.Time             // when to look for points that need a refresh
	phase    time.Duration         // keeps the buses from polling at the same moment
}

// poll is the set of points with one interval.
type poll struct {
	every  time.Duration
	points []*Point
	due    time.Time
}

// refreshScan is the time between two looks for points to refresh; short
// against the minutes of at_least_every.
const refreshScan = time.Second

func newBusLoop(bus *Bus, devices []*Device, adapter Adapter, log *slog.Logger) *busLoop {
	b := &busLoop{bus: bus, adapter: adapter, log: log, reporter: newReporter(devices), watch: watch{log: log}}
	byInterval := make(map[time.Duration][]*Point)
	for _, d := range devices {
		for _, p := range d.Points {
			if p.Access != "w" {
				byInterval[p.Poll] = append(byInterval[p.Poll], p)
			}
		}
	}
	for every, points := range byInterval {
		b.polls = append(b.polls, poll{every: every, points: points})
	}
	sort.Slice(b.polls, func(i, j int) bool { return b.polls[i].every < b.polls[j].every })
	return b
}

// run polls until ctx ends. A session that gave a good answer is reopened at
// once when it is lost; without one the loop backs off.
func (b *busLoop) run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		answered, err := b.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if failures++; answered {
			failures = 0
		}
		b.watch.lost(err)
		b.markBad(err)
		if !answered {
			sleep(ctx, backOff(failures))
		}
	}
}

// session opens the bus and polls it until the connection is lost; answered
// tells whether any device gave a good answer.
func (b *busLoop) session(ctx context.Context) (answered bool, err error) {
	session, err := b.adapter.Open(ctx)
	if err != nil {
		return false, err
	}
	defer session.Close()
	b.plans = make(map[string][][]*Point)
	for {
		if err := b.sleepUntilDue(ctx); err != nil {
			return answered, err
		}
		good, err := b.cycle(ctx, session)
		answered = answered || good
		if err != nil {
			return answered, err
		}
	}
}

func (b *busLoop) sleepUntilDue(ctx context.Context) error {
	next := b.refresh
	for i := range b.polls {
		if next.IsZero() || b.polls[i].due.Before(next) {
			next = b.polls[i].due
		}
	}
	sleep(ctx, time.Until(next))
	return ctx.Err()
}

// cycle reads everything that is due now and reports what changed, device by
// device.
func (b *busLoop) cycle(ctx context.Context, session Session) (good bool, err error) {
	now := time.Now()
	groups := b.due(now, session)
	for i, group := range groups {
		samples, err := session.Read(ctx, group)
		if err != nil {
			return good, err
		}
		for _, s := range samples {
			b.reporter.note(s)
			b.watch.note(s)
			good = good || s.Quality != Bad
		}
		b.stats.Requests.Add(1)
		b.stats.Samples.Add(int64(len(samples)))
		if i+1 == len(groups) || groups[i+1][0].Device != group[0].Device {
			b.reporter.flush(b.take)
		}
	}
	b.watch.flush()
	if !now.Before(b.refresh) {
		b.refresh = now.Add(refreshScan)
		b.reporter.refresh(now)
		b.reporter.flush(b.take)
	}
	return good, nil
}

// due plans the polls that are due at now and sets when they are due again:
// without drift, skipping (and counting) what was missed.
func (b *busLoop) due(now time.Time, session Session) [][]*Point {
	var key []byte
	var points []*Point
	for i := range b.polls {
		p := &b.polls[i]
		if now.Before(p.due) {
			continue
		}
		key = append(key, byte(i>>8), byte(i))
		points = append(points, p.points...)
		if p.due.IsZero() {
			p.due = now.Add(min(b.phase, p.every))
		}
		p.due = p.due.Add(p.every)
		if late := now.Sub(p.due); late >= 0 {
			missed := late/p.every + 1
			b.stats.Overruns.Add(int64(missed))
			p.due = p.due.Add(missed * p.every)
		}
	}
	if len(points) == 0 {
		return nil
	}
	groups, ok := b.plans[string(key)]
	if !ok {
		groups = session.Plan(points)
		b.plans[string(key)] = groups
	}
	return groups
}

// markBad makes every point of a lost bus bad.
func (b *busLoop) markBad(err error) {
	now := time.Now()
	for p, st := range b.reporter.states {
		st.latest = Sample{Point: p, Time: now, Reason: err.Error()}
	}
}

// backOff is the wait after n failures in a row: doubling from 1 s to 30 s,
// jittered, so that two hundred gateways don't knock together.
func backOff(failures int) time.Duration {
	wait := min(30*time.Second, time.Second<<min(failures-1, 10))
	return wait/2 + rand.N(wait/2)
}

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// watch logs what changes on a bus: one line per transition, and none in a
// healthy hour.
type watch struct {
	log     *slog.Logger
	down    string // why the bus is lost; "" while it answers
	since   time.Time
	devices map[*Device]*deviceWatch
}

// deviceWatch is what was last said about a device, and what this cycle saw.
type deviceWatch struct {
	said  string
	since time.Time
	bad   map[*Point]string // with the reason
	seen  map[*Point]bool
}

// lost notes that the connection of the bus is gone.
func (w *watch) lost(err error) {
	if w.down == "" {
		w.since = time.Now()
		w.log.Warn("bus lost", "error", err)
	} else if w.down != err.Error() {
		w.log.Warn("bus still lost", "error", err)
	}
	w.down = err.Error()
}

// note takes a sample into account; the bus is back with the first good one.
func (w *watch) note(s Sample) {
	if w.devices == nil {
		w.devices = make(map[*Device]*deviceWatch)
	}
	d := w.devices[s.Point.Device]
	if d == nil {
		d = &deviceWatch{bad: make(map[*Point]string), seen: make(map[*Point]bool)}
		w.devices[s.Point.Device] = d
	}
	d.seen[s.Point] = true
	if s.Quality == Bad {
		d.bad[s.Point] = s.Reason
	} else {
		delete(d.bad, s.Point)
		if w.down != "" {
			w.log.Info("bus is back", "after", time.Since(w.since).Round(time.Millisecond))
			w.down = ""
		}
	}
}

// flush says what changed in the cycle.
func (w *watch) flush() {
	for device, d := range w.devices {
		now := d.describe()
		if now == d.said {
			continue
		}
		log := w.log.With("device", device.Name)
		switch {
		case now == "":
			log.Info("device is well again", "after", time.Since(d.since).Round(time.Millisecond))
		case d.said == "":
			d.since = time.Now()
			log.Warn(now)
		default:
			log.Warn(now)
		}
		d.said = now
	}
}

// describe puts the state of a device in words; "" is a healthy one.
func (d *deviceWatch) describe() string {
	if len(d.bad) == 0 {
		return ""
	}
	var first *Point
	for p := range d.bad {
		if first == nil || p.ID < first.ID {
			first = p
		}
	}
	if len(d.bad) == len(d.seen) {
		return "device gives no values: " + d.bad[first]
	}
	return fmt.Sprintf("%d of %d points are bad: %s: %s", len(d.bad), len(d.seen), first.ID, d.bad[first])
}
