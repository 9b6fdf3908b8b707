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
	reportedAt time.Time // zero: never
}

// reporter decides which samples become reports. It belongs to one bus
// goroutine and covers the points of that bus.
type reporter struct {
	states  map[*Point]*pointState
	touched map[*Device][]*pointState // since the last flush, in the order of reading
	order   []*Device
}

func newReporter(devices []*Device) *reporter {
	r := &reporter{states: make(map[*Point]*pointState), touched: make(map[*Device][]*pointState)}
	for _, d := range devices {
		for _, p := range d.Points {
			r.states[p] = &pointState{latest: Sample{Point: p, Reason: "not read yet"}}
		}
	}
	return r
}

// note keeps a sample as the latest of its point and marks the point where the
// sample is worth a report.
func (r *reporter) note(s Sample) {
	state := r.states[s.Point]
	state.latest = s
	if state.worthReport() {
		r.touch(state)
	}
}

func (r *reporter) touch(state *pointState) {
	d := state.latest.Point.Device
	if len(r.touched[d]) == 0 {
		r.order = append(r.order, d)
	}
	r.touched[d] = append(r.touched[d], state)
}

// reportable tells whether the latest sample may go to the cloud at all.
func (st *pointState) reportable() bool {
	s := &st.latest
	if s.Point.Secret {
		return false
	}
	switch s.Quality {
	case Good:
		return true
	case Uncertain:
		return s.Reason == reasonUnlabelled || s.Point.Implausible == "send"
	}
	return false
}

// worthReport applies report mode, deadband and the shortest interval.
func (st *pointState) worthReport() bool {
	if !st.reportable() {
		return false
	}
	if st.reportedAt.IsZero() {
		return true
	}
	rule := &st.latest.Point.Report
	if st.latest.Time.Sub(st.reportedAt) < rule.AtMostEvery {
		return false
	}
	return rule.Mode == "always" || changed(st.latest.Value, st.reported, st.latest.Point.deadband())
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
func changed(now, last Value, band *Deadband) bool {
	if now.kind == List && last.kind == List && len(now.List()) == len(last.List()) {
		for i, v := range now.List() {
			if changed(v, last.List()[i], band) {
				return true
			}
		}
		return false
	}
	if band == nil || !now.Numeric() || !last.Numeric() {
		return !now.Equal(last)
	}
	limit := band.Value
	if band.Relative {
		limit *= math.Abs(last.Float())
	}
	difference := math.Abs(now.Float() - last.Float())
	return difference > 0 && difference >= limit
}

// refresh marks the points that were not reported for at_least_every. Only a
// reportable sample that was read within two polls is repeated: a dead sensor
// is never refreshed.
func (r *reporter) refresh(now time.Time) {
	for p, st := range r.states {
		every := p.Report.AtLeastEvery
		if every == 0 || st.reportedAt.IsZero() || now.Sub(st.reportedAt) < every {
			continue
		}
		if st.reportable() && now.Sub(st.latest.Time) <= 2*p.Poll {
			r.touch(st)
		}
	}
}

// flush gives one report for each device that has something to report. take
// puts it into the buffer; only then it counts as reported.
func (r *reporter) flush(take func(*Device, Record)) {
	for _, d := range r.order {
		states := r.touched[d]
		report := Record{Kind: ReportRecord, Values: make([]Attribute, 0, len(states))}
		for _, st := range states {
			report.Values = append(report.Values, Attribute{Name: st.latest.Point.Name, Value: st.latest.Value})
			if st.latest.Time.After(report.Time) {
				report.Time = st.latest.Time
			}
		}
		take(d, report)
		for _, st := range states {
			st.reported, st.reportedAt = st.latest.Value, st.latest.Time
		}
		r.touched[d] = states[:0]
	}
	r.order = r.order[:0]
}
