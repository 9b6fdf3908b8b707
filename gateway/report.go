package gateway

import (
	"math"
	"time"
)

// Reasons of uncertain samples that reports look at.
const (
	reasonImplausible = "implausible"
	reasonUnlabelled  = "unlabelled"
)

// pointState is the latest sample of a point and what was last reported of it.
type pointState struct {
	latest     Sample
	reported   Value
	reportedAt time.Time // by our clock; zero: never
	heard      time.Time // when the latest sample came, by our clock; for polls the sample's time
	pass       uint64    // of the device, in which it was last told
	meter      *meter    // of a counter
	seen       bool      // read at least once
	plain      bool      // a sample that says what was last reported means nothing new
	watched    bool      // the device says by itself when it changes
	computed   bool      // worked out of other points, not read
	owed       bool      // to be reported though it has not changed: somebody wanted it written
	writes     *quota    // where at_most bounds them
	device     *deviceState
}

// deviceState gathers what happens to the points of a device.
type deviceState struct {
	device  *Device
	points  []*pointState
	pass    uint64    // how often what it told was looked at, from 1
	touched []touch   // worth a report, since the last flush
	strays  uint64    // see station.strays
	fresh   time.Time // no point is to be refreshed before this
	losses  uint64    // of the username, when that was last looked at
	renew   bool      // since reports were lost: all points are to be reported again
	rules   *rules    // nil where there are none
	quality quality
	health
}

// touch is a sample that is worth a report; the latest one may be another by
// the time of the report.
type touch struct {
	state *pointState
	value Value
	time  time.Time // of the report
	heard time.Time
}

// reporter decides which samples become reports. It belongs to one bus
// goroutine and covers the points of that bus.
type reporter struct {
	devices []*deviceState
	states  map[*Point]*pointState
	take    func(*Device, Record) // puts a report into the buffer
	values  []Attribute           // of the report being made; take keeps none of it
	back    func(*Device, Record) // takes what was read back after a write
	losses  func(*Device) uint64  // how often reports of its username were lost; nil where nobody knows
	quality string                // attribute that names the points that are not good; "" for none
}

func newReporter(devices []*Device, take func(*Device, Record)) *reporter {
	r := &reporter{states: make(map[*Point]*pointState), take: take, back: take}
	for _, d := range devices {
		ds := &deviceState{device: d, pass: 1}
		states := make([]pointState, len(d.Points)) // side by side, since they are looked at together
		for i, p := range d.Points {
			st := &states[i]
			*st = pointState{latest: Sample{Point: p, Reason: unread}, device: ds, meter: newMeter(p.Definition)}
			st.plain = st.meter == nil && p.Report.Mode != "always"
			ds.points = append(ds.points, st)
			r.states[p] = st
		}
		r.devices = append(r.devices, ds)
	}
	return r
}

// unread is the reason of a sample that was never taken.
const unread = "not read yet"

// note keeps a sample as the latest of its point and marks the point where the
// sample is worth a report.
func (st *pointState) note(s *Sample) {
	if !st.take(s) {
		st.device.strays++
	}
}

// owe lets the point be reported at its next sample, though it has not changed.
func (st *pointState) owe() {
	st.owed = true
	st.device.strays++
}

// take is note for the polls, which know where else the point is read. It tells
// whether the sample said nothing but what was last reported.
func (st *pointState) take(s *Sample) (repeated bool) {
	if !st.owed && st.repeats(s) {
		st.latest.Time, st.latest.Value, st.heard = s.Time, s.Value, s.Time
		return true
	}
	if st.latest.Quality != s.Quality || st.latest.Reason != s.Reason || !st.seen {
		st.device.quality.dirty = true
	}
	if !st.computed {
		st.device.count(st, s.Quality == Bad)
	}
	st.latest = *s
	if st.heard = s.Time; st.watched {
		st.heard = time.Now()
	}
	if st.meter != nil && st.meter.note(s) {
		st.device.resets = append(st.device.resets, st)
	}
	if st.worthReport() {
		st.touch()
	}
	return false
}

// repeats tells whether a sample says what was last reported. Most do, so this
// looks at nothing that is elsewhere in memory: following the point to its rules
// takes longer than all the rest.
func (st *pointState) repeats(s *Sample) bool {
	return st.plain && s.Quality == Good && st.latest.Quality == Good && !st.reportedAt.IsZero() && s.Value.same(&st.reported)
}

func (st *pointState) touch() {
	if d := st.device; d.touched == nil && st.reportedAt.IsZero() {
		d.touched = make([]touch, 0, len(d.points)) // the first report is of all of them
	}
	st.device.touched = append(st.device.touched, touch{st, st.latest.Value, st.latest.Time, st.heard})
}

// settled is how old the news of a watched point can be when they arrive: what
// was not said until then holds.
const settled = 2 * time.Second

// repeat touches a point whose value stands.
func (st *pointState) repeat(now time.Time) {
	t := touch{st, st.latest.Value, st.latest.Time, now}
	if st.watched && now.Add(-settled).After(t.time) {
		t.time = now.Add(-settled)
	} else if !st.watched {
		t.heard = st.heard
	}
	st.device.touched = append(st.device.touched, t)
}

// reportable tells whether the latest sample may go to the cloud at all.
func (st *pointState) reportable() bool {
	return !st.latest.Point.Secret && st.latest.sendable()
}

// worthReport applies report mode, deadband and the shortest interval.
func (st *pointState) worthReport() bool {
	if !st.reportable() {
		return false
	}
	if st.reportedAt.IsZero() || st.owed {
		return true
	}
	rule := &st.latest.Point.Report
	if rule.AtMostEvery > 0 && st.heard.Sub(st.reportedAt) < rule.AtMostEvery {
		return false
	}
	return rule.Mode == "always" || changed(&st.latest.Value, &st.reported, st.latest.Point.deadband())
}

// deadband is the point's own, else its report's.
func (d *Definition) deadband() *Deadband {
	if d.Deadband != nil {
		return d.Deadband
	}
	return d.Report.Deadband
}

// changed tells whether a value differs from the last reported one by more
// than the deadband.
func changed(now, last *Value, band *Deadband) bool {
	if now.kind == List && last.kind == List && len(now.List()) == len(last.List()) {
		for i := range now.List() {
			if changed(&now.List()[i], &last.List()[i], band) {
				return true
			}
		}
		return false
	}
	if band == nil || !now.Numeric() || !last.Numeric() {
		return !now.Equal(*last)
	}
	limit := band.Value
	if band.Relative {
		limit *= math.Abs(last.Float())
	}
	difference := math.Abs(now.Float() - last.Float())
	return difference > 0 && difference >= limit
}

// soonest is the shortest at_least_every of the points, and at_most_every of
// those that may be watched.
func (r *reporter) soonest() time.Duration {
	soonest := time.Hour
	for p := range r.states {
		if every := p.Report.AtLeastEvery; every > 0 {
			soonest = min(soonest, every)
		}
		if every := p.Report.AtMostEvery; every > 0 && watched(p) {
			soonest = min(soonest, every)
		}
	}
	return soonest
}

// refresh marks the points that were not reported for at_least_every. Only a
// reportable sample that was read within two polls is repeated: a dead sensor
// is never refreshed. One that is watched stands until its device says something
// else, or is lost. Where reports were lost, every point is reported again: at
// once if it could be refreshed, else with its next sample.
func (r *reporter) refresh(now time.Time) {
	for _, d := range r.devices {
		if now.Before(d.fresh) {
			continue
		}
		var stale []*pointState
		d.fresh = now.Add(time.Hour)
		for _, st := range d.points {
			switch {
			case st.stale(now), d.renew && st.stands(now):
				stale = append(stale, st)
			case d.renew && !st.latest.Point.Secret:
				st.owe()
			}
			if at := st.freshUntil(now); at.Before(d.fresh) {
				d.fresh = at
			}
		}
		if len(stale) == 0 && !d.renew {
			continue
		}
		r.flush(d) // what the pass under way has found, so that no point is in the report twice
		if d.renew {
			d.renew, d.quality.dirty, d.quality.reportedAt = false, true, time.Time{}
		}
		for _, st := range stale {
			st.repeat(now)
		}
		r.flush(d)
	}
}

// follow has the points reported again whenever losses says more than it does now.
func (r *reporter) follow(losses func(*Device) uint64) {
	r.losses = losses
	for _, d := range r.devices {
		d.losses = losses(d.device)
	}
}

// refreshes tells whether a look for points to refresh may find one.
func (r *reporter) refreshes(now time.Time) (may bool) {
	for _, d := range r.devices {
		if r.losses != nil && d.losses != r.losses(d.device) {
			d.losses, d.renew, d.fresh = r.losses(d.device), true, time.Time{}
		}
		may = may || !now.Before(d.fresh)
	}
	return may
}

// freshUntil is the time before which the point will not be stale, also if it is
// reported first from now on.
func (st *pointState) freshUntil(now time.Time) time.Time {
	rule := &st.latest.Point.Report
	since := st.reportedAt
	if since.IsZero() {
		since = now
	}
	switch {
	case rule.AtMostEvery > 0 && st.watched:
		return now
	case rule.AtLeastEvery > 0:
		return since.Add(rule.AtLeastEvery)
	}
	return now.Add(time.Hour)
}

// stale tells whether the point is to be reported again: after at_least_every,
// or because at_most_every held back what a watched point said last.
func (st *pointState) stale(now time.Time) bool {
	if st.reportedAt.IsZero() || !st.reportable() {
		return false
	}
	p := st.latest.Point
	since := now.Sub(st.reportedAt)
	if st.watched && p.Report.AtMostEvery > 0 && since >= p.Report.AtMostEvery && st.heard.After(st.reportedAt) {
		return changed(&st.latest.Value, &st.reported, p.deadband())
	}
	every := p.Report.AtLeastEvery
	return every > 0 && since >= every && st.stands(now)
}

// stands tells whether the latest sample still says what the point is.
func (st *pointState) stands(now time.Time) bool {
	return st.reportable() && (st.watched || now.Sub(st.heard) <= 2*st.latest.Point.Poll)
}

// restate reports what was last read of a point, whether it changed or not.
func (r *reporter) restate(p *Point) {
	st := r.states[p]
	r.flush(st.device)
	if st.reportable() {
		st.touch()
		r.flushTo(st.device, r.back)
	}
}

// flush makes one report of what the device has to report. That it counts as
// reported then is undone where it is lost later, see deviceState.renew.
func (r *reporter) flush(d *deviceState) { r.flushTo(d, r.take) }

func (r *reporter) flushTo(d *deviceState, take func(*Device, Record)) {
	quality := r.qualityOf(d)
	if len(d.touched)+len(quality) == 0 {
		d.touched, r.values = nil, nil // after the first report they are short
		return
	}
	report := Record{Kind: ReportRecord, Values: r.values[:0]}
	if len(quality) > 0 {
		report.Time = d.quality.reportedAt
	}
	for i := range d.touched {
		t := &d.touched[i]
		report.Values = append(report.Values, Attribute{Name: t.state.latest.Point.Name, Value: t.value})
		if t.time.After(report.Time) {
			report.Time = t.time
		}
	}
	report.Values = append(report.Values, quality...)
	take(d.device, report)
	clear(report.Values)
	r.values = report.Values
	for i := range d.touched {
		t := &d.touched[i]
		t.state.reported, t.state.reportedAt, t.state.owed = t.value, t.heard, false
	}
	clear(d.touched)
	d.touched = d.touched[:0]
}
