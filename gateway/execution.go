package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// execution is one call of a command.
type execution struct {
	command  *command
	who      string
	id       string
	with     map[string]Value
	params   []Asked
	arrived  time.Time
	finished func(values []Attribute, result string, err error)
	begin    func() error // before anything is written; may be nil

	cancel  context.CancelCauseFunc
	holds   bool     // the turn of its operator
	written []*Point // in their order
	touched bool     // something was written, or called
	failing bool     // on_fail runs
	warning error    // of the disk
}

var (
	errTimeout = errors.New("timeout")
	errEnding  = errors.New("the gateway stops, or loads its site file anew")
)

// stopped is why a command ended before its time; its on_fail is not run.
type stopped struct{ by string }

// Error is the reason.
func (s *stopped) Error() string { return "stopped by " + s.by }

const (
	onFailFor    = 10 * time.Second // longer than the command's timeout
	endingFor    = 5 * time.Second  // of on_fail once the gateway stops; with a release less than the unit's TimeoutStopSec
	repeatAfter  = time.Second      // before a preempting command is carried out again in a flood
	expectPause  = 100 * time.Millisecond
	expectShare  = 4 // of the time that a look takes, the pause is so many times
	replyReadFor = time.Second
)

// start begins an execution, or says why not now. A preempting command ends
// the one that is under way.
func (o *operator) start(x *execution) error {
	c := x.command
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.current != nil && !c.Preempt:
		return fmt.Errorf("%w: %s is under way", errBusy, o.current.command.ID)
	case c.Preempt && time.Since(o.stops[c]) < repeatAfter && o.bus.traffic.full():
		return fmt.Errorf("%w: %s has just begun", errBusy, c.ID)
	}
	if !c.calls.take(c.AtMost, time.Now()) {
		return fmt.Errorf("%s is called too often: at most %s", c.ID, c.AtMost.often())
	}
	return o.office.begin(func(ctx context.Context) func() {
		ctx, x.cancel = context.WithCancelCause(ctx)
		if o.current != nil {
			o.current.cancel(&stopped{c.ID})
			x.holds, o.current.holds = o.current.holds, false
		}
		o.current = x
		if c.Preempt {
			o.stops[c] = time.Now()
			o.stopped = stopping{o.stopped.times + 1, c.ID}
		} else {
			clear(o.stops)
		}
		return func() { o.execute(ctx, x) }
	})
}

// stop ends what is under way.
func (o *operator) stop(by string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.current != nil {
		o.current.cancel(&stopped{by})
	}
}

// execute carries a command out and answers it.
func (o *operator) execute(run context.Context, x *execution) {
	defer x.cancel(nil)
	timeout := x.command.Timeout
	if timeout <= 0 {
		timeout = validity
	}
	end := x.arrived.Add(timeout)
	ctx, cancel := context.WithDeadlineCause(run, end, fmt.Errorf("%w of %s", errTimeout, timeout))
	defer cancel()
	err := o.carryOut(ctx, x)
	var stop *stopped
	if err != nil && !errors.As(err, &stop) && len(x.command.onFail) > 0 && x.touched {
		switch failed := o.fallBack(run, x, end.Add(onFailFor)); {
		case errors.As(failed, &stop):
			err = stop
		case failed != nil:
			err = fmt.Errorf("%w; on_fail: %w", err, failed)
		}
	}
	values := o.outcome(x)
	o.mu.Lock()
	if o.current == x {
		o.current = nil
	}
	holds := x.holds
	x.holds = false
	o.mu.Unlock()
	if holds {
		o.give()
	}
	x.finished(values, x.result(err), err)
}

// fallBack runs the on_fail of a command until end. What stops the command stops
// this too, but the end of the gateway leaves it some time to reach a safe state.
func (o *operator) fallBack(run context.Context, x *execution, end time.Time) error {
	x.failing = true
	ctx, halt := context.WithCancelCause(context.WithoutCancel(run))
	defer halt(nil)
	ctx, cancel := context.WithDeadlineCause(ctx, end, errTimeout)
	defer cancel()
	defer context.AfterFunc(run, func() {
		if errors.Is(context.Cause(run), errEnding) {
			sleep(ctx, endingFor)
		}
		halt(context.Cause(run))
	})()
	return o.steps(ctx, x, x.command.onFail)
}

// result is the outcome in a word, as that of a write.
func (x *execution) result(err error) string {
	var unknown *unknownOutcome
	switch {
	case errors.As(err, &unknown):
		return "unknown"
	case err != nil && x.touched:
		return "failed"
	case err != nil:
		return "refused"
	}
	return "done"
}

// carryOut takes the turn, notes that it begins, and makes the steps.
func (o *operator) carryOut(ctx context.Context, x *execution) error {
	if x.begin != nil {
		x.warning = x.begin()
	}
	if !x.command.Preempt {
		if err := o.take(ctx); err != nil {
			return err
		}
		o.mu.Lock()
		x.holds = o.current == x
		holds := x.holds
		o.mu.Unlock()
		if !holds {
			o.give()
			return context.Cause(ctx)
		}
	}
	if g := x.command.guard; g != nil && (len(x.command.steps) == 0 || x.command.steps[0].writes == nil) {
		met, why, err := o.judge(ctx, g, x.with)
		if err != nil {
			return err
		}
		if !met {
			return fmt.Errorf("guard %q does not hold: %s", g.text, why)
		}
	}
	return o.steps(ctx, x, x.command.steps)
}

func (o *operator) steps(ctx context.Context, x *execution, list []*step) error {
	for _, s := range list {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := o.step(ctx, x, s); err != nil {
			return err
		}
	}
	return nil
}

func (o *operator) step(ctx context.Context, x *execution, s *step) error {
	switch {
	case s.writes != nil:
		for _, together := range inBlocks(s.writes, func(a assigned) *Point { return a.point }) {
			if err := o.assign(ctx, x, together); err != nil {
				return err
			}
		}
	case s.pulse != nil:
		return o.pulse(ctx, x, s)
	case s.expect != nil:
		return o.expect(ctx, x, s.expect, "expect", s.Within)
	case s.Call != nil:
		return o.call(ctx, x, s)
	case s.Wait > 0:
		if sleep(ctx, s.Wait); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// assign makes one request of a command.
func (o *operator) assign(ctx context.Context, x *execution, together []assigned) error {
	var values []fitted
	for _, a := range together {
		value, err := a.fit(x.with)
		if err != nil {
			return err
		}
		values = append(values, fitted{a.point, value})
	}
	v := o.put(ctx, x, x.command.Preempt, values...)
	return v.failure()
}

// fitted is a value that a point takes.
type fitted struct {
	point *Point
	value Value
}

// failure is what ends a command: a reason, and that nobody knows.
func (v *verdict) failure() error {
	if v.unknown {
		return &unknownOutcome{v.err}
	}
	return v.err
}

// put makes one request of a command and leaves its lines in the audit.
func (o *operator) put(ctx context.Context, x *execution, force bool, values ...fitted) verdict {
	guard := x.command.guard
	if x.failing {
		guard = nil // what went wrong may be what it asks for
	}
	w := &writing{force: force, blind: x.command.Preempt, still: func() error { return o.office.open(x.who, o.device) }}
	for _, f := range values {
		w.parts = append(w.parts, o.part(f.point, f.value, guard, x.with))
	}
	v := o.bus.write(ctx, w)
	for i, f := range values {
		line := v.line(x.who, f.point, f.value, i)
		line.Command, line.ID = x.command.ID, x.id
		o.office.audit.add(line)
		if v.sent || v.err == nil {
			x.touched = true
			x.written = append(slices.DeleteFunc(x.written, func(q *Point) bool { return q == f.point }), f.point)
		}
	}
	return v
}

// judge reads what a condition looks at, as soon as the device can be asked, and
// evaluates it.
func (o *operator) judge(ctx context.Context, c *demand, with map[string]Value) (met bool, why string, err error) {
	for {
		f := o.glance(ctx, c, with)
		if f.rest == 0 || ctx.Err() != nil {
			return f.met, f.why, f.err
		}
		sleep(ctx, f.rest)
	}
}

// finding is what a look at a condition came to.
type finding struct {
	met  bool
	why  string
	err  error
	rest time.Duration // the device must not be asked for so long
}

func (o *operator) glance(ctx context.Context, c *demand, with map[string]Value) finding {
	result := make(chan finding, 1)
	_, err := o.bus.do(ctx, func(busCtx context.Context, b *busLoop) error {
		if b.session == nil {
			result <- finding{err: errDown}
			return nil
		}
		if rest := b.rest(o.device); rest > 0 {
			result <- finding{rest: rest, why: "the device rests"}
			return nil
		}
		if lost := b.fetch(busCtx, c.points); lost != nil {
			result <- finding{err: fmt.Errorf("%w: %w", errConnLost, lost)}
			return lost
		}
		met, why := c.judge(with)
		result <- finding{met: met, why: why}
		return nil
	})
	select {
	case f := <-result:
		return f
	default:
		return finding{err: err}
	}
}

// expect looks at a condition until it is met or its time is over. A look gives
// the bus back, for longer than it took.
func (o *operator) expect(ctx context.Context, x *execution, c *demand, what string, within time.Duration) error {
	for end := time.Now().Add(within); ; {
		begin := time.Now()
		met, why, err := o.judge(ctx, c, x.with)
		switch {
		case met:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !time.Now().Before(end):
			return fmt.Errorf("%s %q: %w", what, c.text, err)
		case !time.Now().Before(end):
			return fmt.Errorf("%s %q did not come true within %s: %s", what, c.text, within, why)
		}
		pause := max(expectPause, expectShare*time.Since(begin))
		if sleep(ctx, min(pause, max(time.Until(end), time.Millisecond))); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// call calls a method of the device, once.
func (o *operator) call(ctx context.Context, x *execution, s *step) error {
	args := make([]Value, len(s.call))
	for i, a := range s.call {
		if args[i] = a.value; a.param != "" {
			args[i] = x.with[a.param]
		}
	}
	guard := x.command.guard
	if x.failing {
		guard = nil
	}
	result := make(chan error, 1)
	var sent atomic.Bool
	_, err := o.bus.do(ctx, func(busCtx context.Context, b *busLoop) error {
		caller, ok := b.session.(Caller)
		switch {
		case b.session == nil:
			result <- errDown
			return nil
		case !ok:
			result <- errors.New("the bus has no methods to call")
			return nil
		}
		if guard != nil {
			if lost := b.fetch(busCtx, guard.points); lost != nil {
				result <- lost
				return lost
			}
			if err := guard.refusal(x.with); err != nil {
				result <- err
				return nil
			}
		}
		sent.Store(true)
		if err := cmp.Or(context.Cause(ctx), o.office.open(x.who, o.device)); err != nil {
			sent.Store(false)
			result <- err
			return nil
		}
		_, err := caller.Call(busCtx, o.device, s.Call.Object, s.Call.Method, args)
		result <- err
		var refused *WriteError
		if errors.As(err, &refused) {
			return nil
		}
		return err
	})
	select {
	case err = <-result:
	default:
	}
	x.touched = x.touched || sent.Load()
	line := Audit{Who: x.who, Device: o.device.Name, Command: x.command.ID, ID: x.id, Asked: "call " + s.Call.Method, Result: "done"}
	var refused *WriteError
	switch {
	case err == nil:
	case !sent.Load():
		line.Result = "refused"
	case errors.As(err, &refused) && !refused.Unknown:
		line.Result = "failed"
	default:
		line.Result = "unknown"
	}
	if err != nil {
		line.Reason = err.Error()
		switch line.Result {
		case "refused":
			err = fmt.Errorf("call %s: %w", s.Call.Method, err) // a session says so itself
		case "unknown":
			err = &unknownOutcome{err}
		}
	}
	o.office.audit.add(line)
	return err
}

// outcome reads what goes into the reply: the points written, then those of
// reply. A point that can't be read is left out.
func (o *operator) outcome(x *execution) []Attribute {
	var points []*Point
	for _, p := range append(slices.Clone(x.written), x.command.reply...) {
		if p.Access != "w" && !p.Secret {
			points = appendNew(points, p)
		}
	}
	values := make(map[*Point]Value)
	if len(points) > 0 && o.bus.down() == nil {
		ctx, cancel := context.WithTimeout(context.Background(), replyReadFor)
		defer cancel()
		o.bus.read(ctx, points, values)
	}
	var all []Attribute
	for _, p := range points {
		if v, ok := values[p]; ok {
			all = append(all, Attribute{p.ownName(), v})
		}
	}
	if x.warning != nil {
		all = append(all, Attribute{"warning", TextValue("the disk can't be written: " + x.warning.Error())})
	}
	return all
}

// read reads points at once, reports them, and gives those that have a value.
func (b *busLoop) read(ctx context.Context, points []*Point, values map[*Point]Value) {
	result := make(chan map[*Point]Value, 1)
	_, _ = b.do(ctx, func(busCtx context.Context, b *busLoop) error {
		if b.session == nil {
			return nil
		}
		lost := b.fetch(busCtx, points)
		found := make(map[*Point]Value)
		for _, p := range points {
			if s := &b.reporter.states[p].latest; lost == nil && s.Quality != Bad {
				found[p] = s.Value
			}
		}
		result <- found
		return lost
	})
	select {
	case found := <-result:
		for p, v := range found {
			values[p] = v
		}
	default:
	}
}

// ownName is the point's name in the cloud without the device's prefix.
func (p *Point) ownName() string {
	if p.As != "" {
		return p.As
	}
	return p.ID
}
