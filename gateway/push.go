package gateway

import (
	"context"
	"errors"
	"fmt"
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
		d.audit.refused(Audit{Who: who, Asked: short(string(m.Body)), Reason: err.Error()})
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
	}
	for _, v := range job.values {
		result := verdict{err: failed}
		if failed == nil {
			result = o.write(ctx, job.who, v.point, v.value, job.force)
		} else {
			o.office.audit.refused(v.audit(job.who, failed))
		}
		outcomes = append(outcomes, result)
		if result.err == nil {
			continue
		}
		o.owe(v.point)
		if isCloud(job.who) {
			o.office.refusedEvent(v, result.err)
		}
		if failed == nil {
			failed = fmt.Errorf("not written, since %s failed", v.point.ID)
		}
	}
	if job.done != nil {
		job.done <- outcomes
	}
}

var errExpired = errors.New("expired: it could not be done within its time")

// write writes one value of a push and leaves its line in the audit.
func (o *operator) write(ctx context.Context, who string, p *Point, value Value, force bool) verdict {
	w := &writing{
		point: p, value: value, guards: o.guardsOf(p, nil), with: map[string]Value{"value": value}, force: force,
		still: func() error { return o.office.open(who, o.device) },
	}
	v := o.bus.write(ctx, w)
	o.office.audit.add(v.line(who, p, value))
	return v
}

// line is the audit of a writing.
func (v *verdict) line(who string, p *Point, value Value) Audit {
	a := Audit{Who: who, Device: p.Device.Name, Point: p.ID, Asked: p.show(value), Old: p.show(v.old), New: p.show(v.real), Result: v.result()}
	if v.err != nil {
		a.Reason = v.err.Error()
	}
	return a
}
