package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
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
	done   chan []verdict // told the outcomes; may be nil

	stopped stopping   // of the device, when it came
	all     *agreement // of a push over several devices
}

// push judges a push as a whole: if one value is refused, none is written.
// Whatever becomes of it, the real values are reported.
func (d *office) push(_ context.Context, dir *directory, m *Downlink) {
	who := byCloud + ":" + dir.user
	values := make([]*pushed, len(m.Values))
	for i, asked := range m.Values {
		values[i] = &pushed{asked: asked, point: dir.point(asked.Name)}
		if values[i].point == nil {
			shown := dir.show(asked.Raw)
			values[i].asked.Value, values[i].asked.Raw = TextValue(shown), shown
		}
	}
	err := fitness(m)
	if err != nil && len(values) == 0 {
		d.audit.refused(Audit{Who: who, Asked: dir.show(string(m.Body)), Reason: err.Error()})
		return
	}
	if err == nil {
		err = d.weigh(who, values)
	}
	if err != nil {
		d.refusePush(dir.user, values, err)
		return
	}
	jobs := d.byOperator(values)
	var all *agreement
	if len(jobs) > 1 {
		all = &agreement{missing: len(jobs), done: make(chan struct{})}
	}
	for _, job := range jobs {
		o := d.byDevice[job[0].point.Device.Name]
		if err := o.accept(&pushJob{who: who, until: m.Arrived.Add(validity), values: job, all: all}); err != nil {
			d.refusePush(dir.user, job, err)
			all.vote(err)
		}
	}
}

// agreement is what the devices of one push come to before any of it is written:
// all may be written, or nothing is.
type agreement struct {
	mu      sync.Mutex
	missing int
	err     error // the first against it
	done    chan struct{}
}

// vote is the word of one device. An agreement that is nil is of one alone.
func (a *agreement) vote(err error) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return
	}
	a.err = err
	if a.missing--; a.missing == 0 || err != nil {
		close(a.done)
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
func (d *office) refusePush(user string, values []*pushed, reason error) {
	who := byCloud + ":" + user
	blamed := slices.ContainsFunc(values, func(v *pushed) bool { return v.err != nil })
	for _, v := range values {
		err := v.err
		if err == nil {
			err = reason
		}
		d.audit.refused(v.audit(who, err))
		if v.point != nil {
			d.byDevice[v.point.Device.Name].owe(v.point)
		}
		if v.err != nil || !blamed {
			d.refusedEvent(user, v, err)
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

// refusedPushes are the events write_refused of a user. Each of them waits on the disk
// for its turn, so that a flood of bad pushes would displace all others: what is
// too many is counted.
type refusedPushes struct {
	quota
	held int
}

var mostRefusals = &Rate{Count: 30, Per: time.Minute}

// refusedEvent is the event write_refused of a push. One that names no point
// comes from the user's cloud device itself.
func (d *office) refusedEvent(user string, v *pushed, reason error) {
	d.refusedMu.Lock()
	defer d.refusedMu.Unlock()
	r := d.refused[user]
	if r == nil {
		r = &refusedPushes{}
		d.refused[user] = r
	}
	if !r.take(mostRefusals, time.Now()) {
		r.held++
		return
	}
	device, name, shown := &Device{User: user}, short(v.asked.Name), TextValue(short(v.asked.Value.String()))
	switch {
	case v.point != nil && v.point.Secret:
		shown = TextValue("***")
	case v.asked.Value.kind == None:
		shown = TextValue(short(v.asked.Raw))
	case v.asked.Value.kind != List && v.asked.Value.kind != Text:
		shown = v.asked.Value
	}
	if v.point != nil {
		device, name = v.point.Device, v.point.Name
	}
	params := []Attribute{{"point", TextValue(name)}, {"value", shown}, {"reason", TextValue(reason.Error())}}
	if r.held > 0 {
		params = append(params, Attribute{"held_back", IntValue(int64(r.held))})
		r.held = 0
	}
	d.ownEvent(device, "write_refused", Warning, params...)
}

// do writes the values of a push, one after the other; the first that fails
// ends it.
func (o *operator) do(ctx context.Context, job *pushJob) {
	ctx, cancel := context.WithDeadlineCause(ctx, job.until, errExpired)
	defer cancel()
	var outcomes []verdict
	failed := o.consent(ctx, job)
	if failed == nil {
		if failed = o.take(ctx); failed == nil {
			defer o.give()
			failed = o.objection(ctx, job)
		}
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
				o.office.refusedEvent(o.device.User, v, result.err)
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

// consent waits until no device of a push has anything against it. Commands go
// on meanwhile: the turn is not taken yet.
func (o *operator) consent(ctx context.Context, job *pushJob) error {
	if job.all == nil {
		return nil
	}
	job.all.vote(o.objection(ctx, job))
	select {
	case <-job.all.done:
		return job.all.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// objection is what speaks against a push before any of it is written.
func (o *operator) objection(ctx context.Context, job *pushJob) error {
	if err := o.still(job); err != nil {
		return err
	}
	return o.tooOften(ctx, job)
}

// tooOften finds the value of a push that must not be written again yet, so that
// none of the others is either. One that the point showed last needs no write.
func (o *operator) tooOften(ctx context.Context, job *pushJob) error {
	limited := func(v *pushed) bool { return v.point.Write != nil && v.point.Write.AtMost != nil }
	if len(job.values) == 1 && job.all == nil || !slices.ContainsFunc(job.values, limited) {
		return nil // the write itself tells
	}
	result := make(chan error, 1)
	_, err := o.bus.do(ctx, func(_ context.Context, b *busLoop) error {
		for _, v := range job.values {
			if s := b.latest(v.point); s.Quality != Bad && v.point.holds(s.Value, v.value, v.point.power(b.latest)) {
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
	w := &writing{still: func() error { return o.still(job) }}
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
