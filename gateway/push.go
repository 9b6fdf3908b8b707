package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// pushed is one value of a push.
type pushed struct {
	asked Asked
	point *Point
	value Value
	err   error
}

// pushJob is what a push wants of one device.
type pushJob struct {
	who    string
	until  time.Time
	values []*pushed
	force  bool
	done   chan []verdict // told the outcomes; may be nil
}

// push judges a push as a whole: if one value is refused, none is written.
// Whatever becomes of it, the real values are reported.
func (d *office) push(_ context.Context, dir *directory, m *Downlink) {
	who := byCloud + ":" + dir.user
	values := make([]*pushed, len(m.Values))
	for i, asked := range m.Values {
		values[i] = &pushed{asked: asked, point: dir.point(asked.Name)}
	}
	err := fitness(m)
	if err == nil && time.Since(m.Arrived) > validity {
		err = fmt.Errorf("expired: it arrived %s ago", time.Since(m.Arrived).Round(time.Second))
	}
	if err != nil && len(values) == 0 {
		d.audit.refused(Audit{Who: who, Asked: dir.show(string(m.Body)), Reason: err.Error()})
		return
	}
	if err == nil {
		err = d.weigh(who, values)
	}
	if err != nil {
		d.refusePush(who, values, err)
		return
	}
	for _, job := range d.byOperator(values) {
		o := d.byDevice[job[0].point.Device.Name]
		select {
		case o.pushes <- &pushJob{who: who, until: m.Arrived.Add(validity), values: job}:
		default:
			d.refusePush(who, job, errBusy)
		}
	}
}

// weigh makes all checks that need no bus, and finds the first reason against
// the push.
func (d *office) weigh(who string, values []*pushed) (first error) {
	for _, v := range values {
		v.err = d.weighOne(who, v)
		if first == nil {
			first = v.err
		}
	}
	return first
}

func (d *office) weighOne(who string, v *pushed) (err error) {
	if v.point == nil {
		return fmt.Errorf("there is no attribute %s", short(v.asked.Name))
	}
	if err := d.allowed(who, v.point, false); err != nil {
		return err
	}
	if v.value, err = v.point.Fit(v.asked.Value); err != nil {
		return err
	}
	return d.byDevice[v.point.Device.Name].reachable(false)
}

// byOperator divides a push into its devices, each in the order of the profile.
func (d *office) byOperator(values []*pushed) [][]*pushed {
	var jobs [][]*pushed
	for _, o := range d.operators {
		var job []*pushed
		for _, p := range o.device.Points {
			for _, v := range values {
				if v.point == p {
					job = append(job, v)
				}
			}
		}
		if len(job) > 0 {
			jobs = append(jobs, job)
		}
	}
	return jobs
}

// refusePush says why nothing of a push was written: in the audit, and in
// events for the values that are to blame.
func (d *office) refusePush(who string, values []*pushed, reason error) {
	blamed := slices.ContainsFunc(values, func(v *pushed) bool { return v.err != nil })
	for _, v := range values {
		err := v.err
		if err == nil {
			err = reason
		}
		d.audit.refused(v.audit(who, err))
		if v.point == nil {
			continue
		}
		d.byDevice[v.point.Device.Name].owe(v.point)
		if v.err != nil || !blamed {
			d.refusedEvent(v, err)
		}
	}
}

// audit is the line of a refused value.
func (v *pushed) audit(who string, err error) Audit {
	line := Audit{Who: who, Point: short(v.asked.Name), Asked: short(v.asked.Raw), Reason: err.Error()}
	if v.point == nil {
		return line
	}
	line.Device, line.Point = v.point.Device.Name, v.point.ID
	if v.point.Secret {
		line.Asked = "***"
	}
	return line
}

// refusedEvent is the event write_refused of a push.
func (d *office) refusedEvent(v *pushed, reason error) {
	shown := TextValue(short(v.asked.Value.String()))
	switch {
	case v.point.Secret:
		shown = TextValue("***")
	case v.asked.Value.kind == None:
		shown = TextValue(short(v.asked.Raw))
	case v.asked.Value.kind != List && v.asked.Value.kind != Text:
		shown = v.asked.Value
	}
	d.ownEvent(v.point.Device, "write_refused", Warning,
		Attribute{"point", TextValue(v.point.Name)}, Attribute{"value", shown}, Attribute{"reason", TextValue(reason.Error())})
}

// do writes the values of a push, one after the other; the first that fails
// ends it.
func (o *operator) do(ctx context.Context, job *pushJob) {
	ctx, cancel := context.WithDeadlineCause(ctx, job.until, errExpired)
	defer cancel()
	var outcomes []verdict
	failed := o.take(ctx)
	if failed == nil {
		defer o.give()
		failed = o.tooOften(ctx, job.values)
	}
	for _, together := range inBlocks(job.values, func(v *pushed) *Point { return v.point }) {
		result := verdict{err: failed}
		if failed == nil {
			result = o.write(ctx, job, together)
		}
		for _, v := range together {
			outcomes = append(outcomes, result)
			if failed != nil {
				o.office.audit.refused(v.audit(job.who, failed))
			}
			if result.err == nil {
				continue
			}
			o.owe(v.point)
			if isCloud(job.who) {
				o.office.refusedEvent(v, result.err)
			}
		}
		if result.err != nil && failed == nil {
			failed = fmt.Errorf("not written, since %s failed", together[0].point.ID)
		}
	}
	if job.done != nil {
		job.done <- outcomes
	}
}

var errExpired = errors.New("expired: it could not be done within its time")

// tooOften finds the value of a push that must not be written again yet, so that
// none of the others is either. One that the point showed last needs no write.
func (o *operator) tooOften(ctx context.Context, values []*pushed) error {
	limited := func(v *pushed) bool { return v.point.Write != nil && v.point.Write.AtMost != nil }
	if len(values) == 1 || !slices.ContainsFunc(values, limited) {
		return nil // the write itself tells
	}
	result := make(chan error, 1)
	_, err := o.bus.do(ctx, func(_ context.Context, b *busLoop) error {
		for _, v := range values {
			s := &b.reporter.states[v.point].latest
			if s.Quality != Bad && agrees(v.point, s.Value, v.value) {
				continue
			}
			if err := b.often(v.point, false); err != nil {
				result <- err
				return nil
			}
		}
		return nil
	})
	select {
	case err = <-result:
	default:
	}
	return err
}

// write makes one request of a push and leaves its lines in the audit.
func (o *operator) write(ctx context.Context, job *pushJob, together []*pushed) verdict {
	w := &writing{force: job.force, still: func() error { return o.office.open(job.who, o.device) }}
	for _, v := range together {
		w.parts = append(w.parts, o.part(v.point, v.value, nil, nil))
	}
	v := o.bus.write(ctx, w)
	for i, p := range w.parts {
		o.office.audit.add(v.line(job.who, p.point, p.value, i))
	}
	return v
}

// part is one value of a writing, with the guards that must hold for it: its
// own, and the command's.
func (o *operator) part(p *Point, value Value, more *demand, params map[string]Value) part {
	with := make(map[string]Value, len(params)+1)
	maps.Copy(with, params)
	with["value"] = value
	return part{point: p, value: value, guards: o.guardsOf(p, more), with: with}
}

// line is the audit of one part of a writing.
func (v *verdict) line(who string, p *Point, value Value, part int) Audit {
	a := Audit{Who: who, Device: p.Device.Name, Point: p.ID, Asked: p.show(value), Old: p.show(v.old.of(part)), New: p.show(v.real.of(part)), Result: v.result()}
	if v.err != nil {
		a.Reason = v.err.Error()
	}
	return a
}
