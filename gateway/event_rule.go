package gateway

import (
	"cmp"
	"time"
)

// eventRule decides when one event of one device is reported. With when it has
// a state, standing or not, that only known conditions change; each and
// each_flag report edges.
type eventRule struct {
	event    *Event
	rules    *rules
	take     func(*Device, Record)
	severity Severity
	params   []*pointState
	brake    brake

	when, clear *bound
	each        *bound
	words       []*alarmWord

	standing bool
	waits    time.Time // the first sample that said that it should change, with none contrary since
	samples  int       // that said so
	judged   time.Time // the newest sample that was looked at
	repeatAt time.Time // zero for never
	streams  []*streamRule
}

func newEventRule(r *rules, e *Event, take func(*Device, Record)) (*eventRule, error) {
	rule := &eventRule{event: e, rules: r, take: take, severity: cmp.Or(Severity(e.Severity), Info), brake: brake{rate: e.AtMost}}
	for _, x := range []struct {
		expression *Expression
		bound      **bound
	}{{e.When, &rule.when}, {e.Clear, &rule.clear}, {e.Each, &rule.each}} {
		if x.expression == nil {
			continue
		}
		b, err := r.bind(x.expression, TruthOperand)
		if err != nil {
			return nil, err
		}
		*x.bound = b
	}
	for _, id := range e.EachFlag {
		if st := r.device.point(id); st != nil && !st.latest.Point.Secret {
			rule.words = append(rule.words, newAlarmWord(st))
		}
	}
	for _, id := range e.Params {
		if st := r.device.point(id); st != nil {
			rule.params = append(rule.params, st)
		}
	}
	return rule, nil
}

// judge looks at the latest samples.
func (e *eventRule) judge(now time.Time) {
	switch {
	case e.when != nil:
		e.judgeState(now)
	case e.each != nil:
		e.judgeEdge(now)
	}
	for _, w := range e.words {
		e.judgeWord(w, now)
	}
}

// judgeState raises or clears, where the samples have said so for long enough.
func (e *eventRule) judgeState(now time.Time) {
	o, newest := e.when.eval(now), e.when.newest()
	is, known := o.holds()
	if e.clear != nil {
		cleared := e.clear.eval(now)
		if t := e.clear.newest(); t.After(newest) {
			newest = t
		}
		if e.standing {
			is, known = cleared.holds()
		}
	} else if e.standing {
		is = !is
	}
	if !newest.After(e.judged) && !e.judged.IsZero() {
		return // nothing new was read
	}
	e.judged = newest
	if e.standing && e.event.Repeat > 0 && e.repeatAt.IsZero() { // repeat was written while it stood
		e.repeatAt = newest.Add(e.event.Repeat)
	}
	if !known {
		return
	}
	if !is {
		e.waits, e.samples = time.Time{}, 0
		return
	}
	if e.samples++; e.samples == 1 {
		e.waits = newest
	}
	span := e.event.For.Raise
	if e.standing {
		span = e.event.For.Clear
	}
	if newest.Sub(e.waits) < span.Time || e.samples < span.Samples {
		return
	}
	e.turn(newest, now)
}

// turn raises or clears the event.
func (e *eventRule) turn(t, now time.Time) {
	e.standing = !e.standing
	e.waits, e.samples, e.rules.dirty = time.Time{}, 0, true
	if !e.standing {
		e.repeatAt = time.Time{}
		if e.event.ClearEvent != "" {
			e.report(e.event.ClearEvent, "", t, now)
		} else {
			e.note(e.event.ID, "", t, nil, Cleared)
		}
		return
	}
	if e.event.Repeat > 0 {
		e.repeatAt = t.Add(e.event.Repeat)
	}
	e.report(e.event.ID, "", t, now)
}

func (e *eventRule) judgeEdge(now time.Time) {
	o := e.each.eval(now)
	var by float64
	for i := range e.each.calls {
		c := &e.each.calls[i]
		e.rules.dirty = e.rules.dirty || c.value.kind == Boolean && c.value.bits != 0
		if by == 0 && c.value.kind == Boolean && c.value.bits != 0 {
			by = c.by
		}
	}
	if is, known := o.holds(); !known || !is {
		return
	}
	if by == 0 {
		e.report(e.event.ID, "", e.each.newest(), now)
		return
	}
	step := FloatValue(tidy(by, -1))
	if f := step.Float(); f == float64(int64(f)) {
		step = IntValue(int64(f))
	}
	e.report(e.event.ID, "", e.each.newest(), now, Attribute{"by", step})
}

// tick repeats what still stands and lets out what was held back.
func (e *eventRule) tick(now time.Time) {
	if !e.repeatAt.IsZero() && !now.Before(e.repeatAt) {
		e.repeatAt = now.Add(e.event.Repeat)
		o := e.when.eval(now)
		if _, known := o.holds(); known {
			e.report(e.event.ID, "", now, now)
		}
	}
	for {
		record, ok := e.brake.release(now)
		if !ok {
			return
		}
		e.rules.dirty = true
		e.take(e.rules.device.device, record)
	}
}

// due is when tick has something to do; zero for never.
func (e *eventRule) due() time.Time {
	due := e.brake.due()
	if due.IsZero() || !e.repeatAt.IsZero() && e.repeatAt.Before(due) {
		return e.repeatAt
	}
	return due
}

// report makes a record of the event, with the values of this moment. A bad
// or stale point is left out.
func (e *eventRule) report(id, subject string, t, now time.Time, extra ...Attribute) {
	values := make([]Attribute, 0, len(e.params)+len(extra))
	for _, st := range e.params {
		if st.reportable() && !st.latest.stale(now) {
			p := st.latest.Point
			values = append(values, Attribute{cmp.Or(p.As, p.ID), st.latest.Value})
		}
	}
	for _, a := range extra {
		values = addParam(values, a.Name, a.Value)
	}
	state := Raised
	switch {
	case e.when == nil:
		state = Happened
	case !e.standing:
		state = Cleared
	}
	e.note(id, subject, t, values, state)
	if state != Cleared {
		for _, s := range e.streams {
			s.send(now)
		}
	}
	record := Record{Kind: EventRecord, Time: t, Name: e.rules.device.device.Prefix + id, ID: NewEventID(), Severity: e.severity, Values: values}
	if e.brake.offer(subject, record, now) {
		e.take(e.rules.device.device, record)
	}
}

// note keeps the event for the page.
func (e *eventRule) note(id, subject string, t time.Time, values []Attribute, state EventState) {
	e.rules.book.recent.add(RecentEvent{Time: t, Device: e.rules.device.device.Name, Event: id, Severity: e.severity, State: state, Params: values})
}
