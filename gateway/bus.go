package gateway

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// busLoop is the goroutine of one bus: it opens sessions, reads what is due
// and reports it. Everything in it belongs to that goroutine.
type busLoop struct {
	bus      *Bus
	adapter  Adapter
	log      *slog.Logger
	stats    *Stats
	reporter *reporter
	stations []*station
	health   busHealth
	patience patience
	refresh  time.Time     // when to look for points that need a refresh
	scan     time.Duration // between two such looks
	grid     time.Time     // polls are due at this time and whole intervals from it
	hurried  time.Time     // when all polls were last made due, for a new session

	tasks   chan task // from other goroutines
	gateway *Gateway  // nil where there are no rules
	told    told      // whether the cloud was told that the bus is down

	load   load
	shown  atomic.Pointer[BusSnapshot] // the copy that other goroutines read
	beat   Beat
	stop   func()      // ends run, once it has begun
	trends *trends     // nil where there is no page
	timer  *time.Timer // of wait

	watchers watchers

	feed     feed                   // what devices say by themselves
	watching bool                   // the stations are without what is watched
	gone     atomic.Pointer[string] // why there is no connection, once one could not be made
	traffic  traffic
	aside    map[string][][]*Point // plans of reads out of turn
	asideOf  Session

	flight   []*station // whose requests are under way together
	readings []Reading  // the same

	session  Session // nil while there is none
	planned  int     // what the session's plans depend on
	answered bool    // the session gave a good answer
}

// task is what another goroutine wants done on a bus: a write, a reading out of
// turn. It runs on the bus's goroutine between two requests, before any poll
// that is due; while the bus is down b.session is nil. An error means that the
// connection is lost. A task never waits for anything but its requests.
type task func(ctx context.Context, b *busLoop) error

// Between two looks for points to refresh there is a twentieth of the shortest
// interval of a refresh, which may be late by so much; within these limits.
const (
	leastScan = time.Second
	mostScan  = 12 * time.Second // that of the default interval
)

// leastHurry is how often a new session may read everything at once: with the
// old one all points went bad, but a device that drops each connection is not
// to be asked without end.
const leastHurry = 10 * time.Second

// leastFailures is after how many in a row without an answer between them the
// cloud is told that the bus is down: one that is reopened at once is not.
const leastFailures = 2

func newBusLoop(bus *Bus, devices []*Device, adapter Adapter, log *slog.Logger, stats *Stats, take func(*Device, Record)) *busLoop {
	b := &busLoop{bus: bus, adapter: adapter, log: log, stats: stats, reporter: newReporter(devices, take), health: busHealth{log: log},
		tasks: make(chan task)}
	b.arrange()
	b.scan = min(mostScan, max(leastScan, b.reporter.soonest()/20))
	b.grid = time.Now()
	return b
}

// run polls until ctx ends. A session that gave a good answer is reopened at
// once when it is lost; without one the loop backs off.
func (b *busLoop) run(ctx context.Context) {
	ctx = WithBeat(ctx, &b.beat)
	b.restoreRules()
	defer b.keepRules()
	for failures := 0; ctx.Err() == nil; {
		err := b.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if failures++; b.answered {
			failures = 0
		}
		b.health.down(err)
		b.markBad(err)
		if failures >= leastFailures {
			b.sayBus(true)
		}
		if !b.answered {
			why := err.Error()
			b.gone.Store(&why)
			b.idle(ctx, backOff(failures))
		}
	}
}

// idle waits, and answers tasks while there is no session.
func (b *busLoop) idle(ctx context.Context, d time.Duration) {
	for end := time.Now().Add(d); ctx.Err() == nil && time.Now().Before(end); {
		_ = b.wait(ctx, b.untilRules(end))
		b.tick(time.Now())
	}
}

// wait sleeps until something may be due, or a task came in and was done.
func (b *busLoop) wait(ctx context.Context, until time.Time) error {
	b.beat.Turn()
	begin := time.Now()
	if d := min(until.Sub(begin), TurnEvery); b.timer == nil {
		b.timer = time.NewTimer(d)
	} else {
		b.timer.Reset(d)
	}
	defer b.timer.Stop()
	select {
	case <-ctx.Done():
	case <-b.timer.C:
	case t := <-b.tasks:
		b.traffic.idle(begin)
		b.stamp()
		return t(ctx, b)
	case samples := <-b.feed.deliveries:
		b.stamp()
		b.take(samples)
	case events := <-b.feed.events:
		b.occur(events)
	case <-b.feed.lost:
		return b.feed.why()
	}
	b.traffic.idle(begin)
	return nil
}

// serve opens the bus and polls it until the connection is lost.
func (b *busLoop) serve(ctx context.Context) (err error) {
	b.answered = false
	session, err := b.adapter.Open(ctx)
	if err != nil {
		return err
	}
	b.session = session
	b.gone.Store(nil)
	defer func() {
		b.unsubscribe()
		b.session = nil
		session.Close()
	}()
	if err := b.subscribe(ctx); err != nil {
		return err
	}
	now := time.Now()
	hurry := now.Sub(b.hurried) >= leastHurry
	for _, s := range b.stations {
		if s.restart(); hurry {
			s.hurry(now)
		}
	}
	if hurry {
		b.hurried = now
	}
	for {
		b.beat.Turn()
		select {
		case t := <-b.tasks:
			b.stamp()
			err = t(ctx, b)
		case samples := <-b.feed.deliveries:
			b.stamp()
			b.take(samples)
		case events := <-b.feed.events:
			b.occur(events)
		default:
			err = b.turn(ctx)
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		now := time.Now()
		b.trends.sample(now)
		if !now.Before(b.refresh) {
			b.refresh = now.Add(b.scan)
			if b.reporter.refreshes(now) {
				b.stamp()
				b.reporter.refresh(now)
			}
		}
		b.tick(time.Now())
		if err := b.readBlocks(ctx); err != nil {
			return err
		}
	}
}

// turn makes the request that is due, or waits until one is.
func (b *busLoop) turn(ctx context.Context) error {
	s, at := b.next(time.Now())
	if s == nil {
		return b.wait(ctx, at)
	}
	return b.step(ctx, s)
}

// next is the station that has been due for the longest and can be asked now;
// if there is none, when to look again.
func (b *busLoop) next(now time.Time) (best *station, wake time.Time) {
	wake = b.untilRules(b.refresh)
	var since time.Time
	for _, s := range b.stations {
		if s.flying {
			continue
		}
		due := s.due()
		if at := b.readyAt(s, now, due); at.After(now) {
			if at.Before(wake) {
				wake = at
			}
		} else if best == nil || due.Before(since) {
			best, since = s, due
		}
	}
	return best, wake
}

// readyAt is when a station that is due then can be asked: not while it rests,
// and a silent one not while silent ones have had their share of the bus.
func (b *busLoop) readyAt(s *station, now, due time.Time) time.Time {
	if due.After(now) {
		return due
	}
	if pacer, ok := b.session.(Pacer); ok {
		for _, d := range s.devices {
			if rest := pacer.Rest(d.device); rest > 0 {
				return now.Add(rest)
			}
		}
	}
	if s.failures > 0 && b.othersAnswer() {
		return now.Add(b.patience.until(now))
	}
	return now
}

func (b *busLoop) othersAnswer() bool {
	for _, s := range b.stations {
		if s.failures == 0 {
			return true
		}
	}
	return false
}

// step makes one request, or several that can be in flight at a time: the next
// one of the station's pass and of others' that are due, or a probe of a silent
// station.
func (b *busLoop) step(ctx context.Context, s *station) error {
	wasSilent := s.failures > 0
	if wasSilent {
		if there, err := b.probe(ctx, s); err != nil || !there {
			return err
		}
	}
	if !b.begin(s, wasSilent) {
		return nil
	}
	b.gather(s)
	begin := time.Now()
	if err := b.poll(ctx); err != nil {
		return err
	}
	now := time.Now()
	took := now.Sub(begin) // by all of them
	for i, s := range b.flight {
		b.load.note(now, took, len(b.readings[i].Group))
		s.since, s.asked, took = now, now, 0 // the others that are due come first now
	}
	took = now.Sub(begin)
	for i, s := range b.flight {
		r := &b.readings[i]
		if silent(r.Samples) {
			b.patience.spend(now, took, true)
			took = 0
		}
		if err := b.arrive(ctx, s, r); err != nil {
			return err
		}
	}
	return nil
}

// begin sees to it that the station has a request to make, unless there is none.
func (b *busLoop) begin(s *station, wasSilent bool) bool {
	if s.goesOn() {
		return true
	}
	b.replan()
	if missed := s.begin(time.Now(), b.grid, b.plan); !wasSilent {
		b.stats.Overruns.Add(int64(missed))
		b.load.Overruns += int64(missed)
	}
	return len(s.queue) > 0
}

// gather finds what can be in flight with the next request of a station.
func (b *busLoop) gather(s *station) {
	b.flight = append(b.flight[:0], s)
	gatherer, ok := b.session.(Gatherer)
	if !ok || gatherer.Room() == 1 {
		return
	}
	s.flying = true
	for room := gatherer.Room() - gatherer.Flights(s.queue[0].points); room > 0; {
		next, _ := b.next(time.Now())
		if next == nil {
			break
		}
		next.flying = true
		b.flight = append(b.flight, next)
		if next.failures > 0 || !b.begin(next, false) {
			b.flight = b.flight[:len(b.flight)-1]
			next.flying = false
			break // in a turn of its own
		}
		room -= gatherer.Flights(next.queue[0].points)
	}
	for _, s := range b.flight {
		s.flying = false
	}
}

// arrive does what follows from what came of a station's request.
func (b *busLoop) arrive(ctx context.Context, s *station, r *Reading) error {
	g := &s.queue[0]
	if g.putOff(r.Samples) {
		return nil
	}
	s.queue = s.queue[1:]
	b.stats.Samples.Add(int64(len(g.points)))
	if r.Same.IsZero() {
		b.heard(r.Samples)
		s.note(g, r.Samples)
	} else {
		g.repeated = r.Same
	}
	if silent(r.Samples) {
		if err := b.doubt(ctx, s, g, r.Samples[0].Reason); err != nil {
			return err
		}
	}
	if len(s.queue) == 0 {
		b.finish(s)
		s.resume()
	}
	return nil
}

// replan drops the plans of all stations when they are out of date. Passes
// under way end with the old ones.
func (b *busLoop) replan() {
	replanner, ok := b.session.(Replanner)
	if !ok || replanner.Planned() == b.planned {
		return
	}
	b.planned = replanner.Planned()
	for _, s := range b.stations {
		s.replan()
	}
}

// stamp is station.stamp for all of them.
func (b *busLoop) stamp() {
	for _, s := range b.stations {
		s.stamp()
	}
}

// poll reads the next group of each station in flight. There are no samples
// where all is as it was, which is most of the time.
func (b *busLoop) poll(ctx context.Context) (err error) {
	begin := time.Now()
	watched := b.watchers.some.Load()
	rereader, rereads := b.session.(Rereader)
	b.readings = b.readings[:0]
	for _, s := range b.flight {
		g := &s.queue[0]
		b.readings = append(b.readings, Reading{Group: g.points, Again: rereads && s.stands(g) && !watched})
	}
	switch r := &b.readings[0]; {
	case len(b.readings) > 1:
		err = b.session.(Gatherer).ReadAll(ctx, b.readings)
	case r.Again:
		r.Samples, r.Same, err = rereader.Reread(ctx, r.Group)
	default:
		r.Samples, err = b.session.Read(ctx, r.Group)
	}
	for i := range b.readings {
		b.watchers.told("read", b.readings[i].Samples, begin, err)
	}
	if err == nil {
		b.stats.Requests.Add(int64(len(b.readings)))
	}
	return err
}

// plan divides points into requests and finds their states.
func (b *busLoop) plan(points []*Point) []group {
	planned := b.session.Plan(points)
	groups := make([]group, len(planned))
	for i, points := range planned {
		groups[i] = group{points: points, states: make([]*pointState, len(points))}
		for k, p := range points {
			groups[i].states[k] = b.reporter.states[p]
		}
	}
	return groups
}

// heard notes that the bus is up, where there is a good answer.
func (b *busLoop) heard(samples []Sample) {
	for i := 0; i < len(samples) && !b.answered; i++ {
		if samples[i].Quality != Bad {
			b.answered = true
			b.health.up()
			b.sayBus(false)
		}
	}
}

// silent tells whether the unit gave no answer to a request at all.
func silent(samples []Sample) bool {
	for i := range samples {
		if !samples[i].Silent {
			return false
		}
	}
	return len(samples) > 0
}

// doubt asks the probe of a station that did not answer a request: only if that
// is silent too, the unit is.
func (b *busLoop) doubt(ctx context.Context, s *station, g *group, reason string) error {
	if g.has(s.probe) {
		s.silent(time.Now(), reason)
		return nil
	}
	_, err := b.probe(ctx, s)
	return err
}

// probe asks whether the unit is there.
func (b *busLoop) probe(ctx context.Context, s *station) (there bool, err error) {
	begin := time.Now()
	point := s.probe.latest.Point
	var sample Sample
	if prober, ok := b.session.(Prober); ok {
		sample, err = prober.Probe(ctx, point)
	} else {
		var samples []Sample
		if samples, err = b.session.Read(ctx, []*Point{point}); err == nil {
			sample = samples[0]
		}
	}
	if err != nil {
		return false, err
	}
	now := time.Now()
	b.load.note(now, now.Sub(begin), 1)
	if !sample.Silent {
		s.answered()
		return true, nil
	}
	b.patience.spend(now, now.Sub(begin), s.failures == 0)
	s.silent(now, sample.Reason)
	b.finish(s)
	return false, nil
}

// finish reports what changed in a pass, device by device.
func (b *busLoop) finish(s *station) {
	now := time.Now()
	for _, d := range s.devices {
		if d.rules.any() {
			s.stamp()
		}
		d.judge(now)
		b.reporter.flush(d)
		d.say(b.log)
	}
	b.sayDevices(s)
}

// markBad makes every point of a lost bus bad.
func (b *busLoop) markBad(err error) {
	now := time.Now()
	for _, d := range b.reporter.devices {
		b.reporter.flush(d) // what was read before the loss
		d.quality.busLost = err.Error()
		for _, st := range d.points {
			st.watched = false
			st.note(&Sample{Point: st.latest.Point, Time: now, Reason: err.Error()})
		}
		d.judge(now)
		b.reporter.flush(d) // what is wrong now
	}
	b.show()
}

// patience is the share of a bus that silent units may take: 15 % while one has
// just fallen silent, 4 % later. It is a debt that time pays off.
type patience struct {
	debt  time.Duration
	paid  time.Time // debt is as of this time
	fresh time.Time // when a unit last fell silent
}

const (
	firstShare = 0.15
	laterShare = 0.04
	firstTime  = time.Minute
	mostDebt   = 3 * time.Second // so that a unit that returns is soon noticed
)

// spend notes that a silent unit took some time; fresh is one that answered before.
func (p *patience) spend(now time.Time, took time.Duration, fresh bool) {
	p.until(now)
	if fresh {
		p.fresh = now
	}
	p.debt = min(p.debt+took, mostDebt)
}

// until is how long silent units must wait now.
func (p *patience) until(now time.Time) time.Duration {
	share := firstShare
	if now.Sub(p.fresh) > firstTime {
		share = laterShare
	}
	p.debt -= time.Duration(share * float64(now.Sub(p.paid)))
	p.paid = now
	if p.debt <= 0 {
		p.debt = 0
		return 0
	}
	// A shorter wait would pay off a fraction of a nanosecond, and never end.
	return max(time.Duration(float64(p.debt)/share), time.Millisecond)
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
