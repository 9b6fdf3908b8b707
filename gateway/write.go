package gateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// writing is one value on its way to a point, from the guard to the read-back.
// The checks that need no bus (Fit, access, locks) are behind it.
type writing struct {
	point *Point
	value Value // as Fit gave it

	guards []*demand        // that must hold directly before
	with   map[string]Value // the parameters that they look at, and value
	force  bool             // write what the point shows already: a pulse, a heartbeat, a stop
	blind  bool             // don't read the point before: a stop goes out at once
	still  func() error     // whether writing is allowed at that moment; may be nil

	sending atomic.Bool // set before the time is looked at for the last time
}

// verdict is what became of a writing.
type verdict struct {
	old     Value // before, None where it was not read
	real    Value // after, None where it can't be read
	sent    bool  // a request went out
	unknown bool  // and nobody knows whether it was carried out
	once    bool  // the device has taken it: not to be sent again
	err     error // nil: done
}

// Errors that callers tell apart.
var (
	errMismatch = errors.New("reads back as")
	errConnLost = errors.New("the connection was lost")
)

const (
	busyPause   = 50 * time.Millisecond  // before a busy device is asked again, at least
	verifyPause = 50 * time.Millisecond  // between two looks at what a device shows
	lostPause   = 200 * time.Millisecond // before a lost connection is looked for again

	unknownPatience = time.Second     // for a device that gave no answer to a write to show it
	lostPatience    = 5 * time.Second // for a connection that was lost with a write
	mostAgain       = 3               // writes of a point with again: true
)

// write carries a writing out: the request goes out once. ctx bounds it; the
// request that is under way when ctx ends is waited for a little.
func (b *busLoop) write(ctx context.Context, w *writing) verdict {
	var waited error // why nothing was written so far
	var old Value    // as the last attempt that looked found it
	for again := 1; ; {
		v, wait := b.attempt(ctx, w)
		if v.old.kind == None {
			v.old = old
		}
		old = v.old
		if ctx.Err() == nil && wait > 0 {
			waited = v.err
			sleep(ctx, wait)
		}
		switch {
		case ctx.Err() != nil && !v.sent:
			v.err = context.Cause(ctx)
			if waited != nil {
				v.err = fmt.Errorf("%w: %w", v.err, waited)
			}
			return v
		case wait > 0:
			continue
		}
		v = b.verify(ctx, w, v)
		if rule := w.point.Write; !v.unknown || v.once || rule == nil || !rule.Again || again >= mostAgain || ctx.Err() != nil {
			return v
		}
		again++
		sleep(ctx, busyPause)
	}
}

// attempt makes one visit to the bus: it reads what the guards look at, and
// writes if they hold. A wait means that nothing was written, and why is in err.
func (b *busLoop) attempt(ctx context.Context, w *writing) (v verdict, wait time.Duration) {
	type visit struct {
		verdict
		wait time.Duration
	}
	result := make(chan visit, 1)
	w.sending.Store(false)
	begun, err := b.do(ctx, func(busCtx context.Context, b *busLoop) error {
		var r visit
		var lost error
		r.verdict, r.wait, lost = b.visit(busCtx, w, ctx)
		result <- r
		return lost
	})
	select {
	case r := <-result:
		return r.verdict, r.wait
	default:
	}
	// The bus is within a request of this task still: it may be the write.
	sent := begun && w.sending.Load()
	return verdict{sent: sent, unknown: sent, err: err}, 0
}

// visit is attempt on the bus's goroutine; nothing is written after the end of
// wanted.
func (b *busLoop) visit(ctx context.Context, w *writing, wanted context.Context) (v verdict, wait time.Duration, lost error) {
	if b.session == nil {
		v.err = b.down()
		if v.err == nil {
			v.err = errDown
		}
		return v, 0, nil
	}
	if rest := b.rest(w.point.Device); rest > 0 {
		return v, rest, nil
	}
	if lost := b.before(ctx, w, &v); lost != nil || v.err != nil {
		return v, 0, lost
	}
	if !w.force && v.old.kind != None && agrees(w.point, v.old, w.value) {
		v.real = v.old
		b.reporter.restate(w.point)
		return v, 0, nil
	}
	if v.err = b.last(wanted, w); v.err != nil {
		return v, 0, nil
	}
	begin := time.Now()
	err := b.session.Write(ctx, w.point, w.value)
	b.watchers.wrote(w.point, w.value, begin, err)
	b.stats.Requests.Add(1)
	var refused *WriteError
	switch {
	case err == nil:
		v.sent = true
	case errors.As(err, &refused) && refused.Busy:
		v.err = refused
		return v, max(busyPause, b.rest(w.point.Device)), nil
	case errors.As(err, &refused):
		v.err, v.sent, v.unknown, v.once = refused, refused.Unknown, refused.Unknown, refused.Once
	default:
		v.err, v.sent, v.unknown = fmt.Errorf("%w: %w", errConnLost, err), true, true
		return v, 0, err
	}
	return v, 0, nil
}

// last is asked when nothing stands between the value and the device any more.
func (b *busLoop) last(wanted context.Context, w *writing) error {
	w.sending.Store(true)
	if wanted.Err() != nil {
		return context.Cause(wanted)
	}
	if w.still != nil {
		if err := w.still(); err != nil {
			return err
		}
	}
	rule := w.point.Write
	if rule == nil || rule.AtMost == nil {
		return nil
	}
	st := b.reporter.states[w.point]
	if st.writes == nil {
		st.writes = &quota{}
	}
	if !st.writes.take(rule.AtMost, time.Now()) {
		return fmt.Errorf("%s is written too often: at most %s", w.point.ID, rule.AtMost.often())
	}
	return nil
}

// before reads what has to be known directly before a write, and judges the
// guards.
func (b *busLoop) before(ctx context.Context, w *writing, v *verdict) (lost error) {
	var points []*Point
	for _, g := range w.guards {
		points = appendNew(points, g.points...)
	}
	look := !w.blind && w.point.Access == "rw"
	if look {
		points = appendNew(points, w.point)
	}
	if len(points) == 0 {
		return nil
	}
	if lost := b.fetch(ctx, points); lost != nil {
		v.err = fmt.Errorf("read before the write: %w", lost)
		return lost
	}
	for _, g := range w.guards {
		if v.err = g.refusal(w.with); v.err != nil {
			return nil
		}
	}
	if st := b.reporter.states[w.point]; look && st.latest.Quality != Bad {
		v.old = st.latest.Value
	} else if look && st.latest.Silent {
		v.err = fmt.Errorf("%s gives no answer: %s", w.point.Device.Name, st.latest.Reason)
	}
	return nil
}

func appendNew(points []*Point, more ...*Point) []*Point {
	for _, p := range more {
		if !slices.Contains(points, p) {
			points = append(points, p)
		}
	}
	return points
}

// verify reads back what was written. What is found decides about a write whose
// answer was lost, too.
func (b *busLoop) verify(ctx context.Context, w *writing, v verdict) verdict {
	if !v.sent {
		return v
	}
	shows := w.point.shows()
	if shows == nil {
		return v
	}
	within := time.Duration(0)
	if rule := w.point.Verify; rule != nil {
		within = rule.Within
	}
	if v.unknown {
		within = max(within, unknownPatience)
	}
	if errors.Is(v.err, errConnLost) {
		within = max(within, lostPatience)
	}
	for end := time.Now().Add(within); ; {
		s, err := b.look(ctx, shows)
		if err == nil && s.Quality != Bad {
			v.real = s.Value
			if agrees(w.point, s.Value, w.value) {
				v.err, v.unknown = nil, false
				return v
			}
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return w.unverified(v, s, err)
		}
		pause := verifyPause
		if errors.Is(err, errDown) {
			pause = lostPause
		}
		sleep(ctx, pause)
	}
}

// unverified is the verdict when the device does not show what was written.
func (w *writing) unverified(v verdict, s Sample, err error) verdict {
	switch {
	case v.unknown:
	case err != nil:
		v.unknown, v.err = true, fmt.Errorf("%s was written and can't be read back: %w", w.point.ID, err)
	case s.Quality == Bad:
		v.unknown, v.err = true, fmt.Errorf("%s was written and can't be read back: %s", w.point.ID, s.Reason)
	default:
		v.err = fmt.Errorf("%s %w %s, not %s", w.point.ID, errMismatch, w.point.show(s.Value), w.point.show(w.value))
	}
	return v
}

// look reads one point at once and reports what it shows, also where that has
// not changed.
func (b *busLoop) look(ctx context.Context, p *Point) (s Sample, err error) {
	result := make(chan Sample, 1)
	_, err = b.do(ctx, func(busCtx context.Context, b *busLoop) error {
		if b.session == nil {
			result <- Sample{Point: p, Reason: errDown.Error()}
			return nil
		}
		if rest := b.rest(p.Device); rest > 0 {
			sleep(busCtx, min(rest, busyPause))
		}
		st := b.reporter.states[p]
		st.owe()
		lost := b.fetch(busCtx, []*Point{p})
		result <- st.latest
		return lost
	})
	select {
	case s = <-result:
		if s.Quality == Bad && s.Reason == errDown.Error() {
			return s, errDown
		}
		return s, nil
	default:
		return s, err
	}
}

// shows is the point that shows what is written to a point, nil for none.
func (p *Point) shows() *Point {
	rule := p.Verify
	switch {
	case rule != nil && !rule.Readback:
		return nil
	case rule != nil && rule.From != "":
		return p.Device.point(rule.From)
	case p.Access == "w":
		return nil
	}
	return p
}

// show is a value for messages and the audit.
func (d *Definition) show(v Value) string {
	switch {
	case v.kind == None:
		return ""
	case d.Secret:
		return "***"
	}
	return short(v.String())
}

// point finds a point by its name in the profile.
func (d *Device) point(id string) *Point {
	for _, p := range d.Points {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// agrees tells whether a device shows what was written: exactly, or for numbers
// within the tolerance, by default half a raw step or the digits of a float32.
func agrees(p *Point, shown, written Value) bool {
	if shown.kind == List && written.kind == List && len(shown.List()) == len(written.List()) {
		for i := range shown.List() {
			if !agrees(p, shown.List()[i], written.List()[i]) {
				return false
			}
		}
		return true
	}
	if !shown.Numeric() || !written.Numeric() {
		return shown.Equal(written)
	}
	whole := func(v Value) bool { return v.kind == Signed || v.kind == Unsigned }
	if whole(shown) && whole(written) && (p.Verify == nil || p.Verify.Tolerance == nil) {
		return shown.bits == written.bits // beyond 2^53 too
	}
	return math.Abs(shown.Float()-written.Float()) <= p.tolerance(written.Float())
}

func (p *Point) tolerance(written float64) float64 {
	if rule := p.Verify; rule != nil && rule.Tolerance != nil {
		return rule.Tolerance.Float
	}
	step := 1.0
	switch {
	case p.Map != nil:
		step = math.Abs((p.Map.To[1].Float - p.Map.To[0].Float) / (p.Map.Raw[1].Float - p.Map.Raw[0].Float))
	case p.Scale != nil:
		step = math.Abs(p.Scale.Float)
	}
	switch {
	case p.Type == Float32:
		return 1e-6 * math.Abs(written)
	case p.Type == Float64:
		return 1e-12 * math.Abs(written)
	case p.ScaleFrom != "":
		return max(0.005*math.Abs(written), step/2)
	}
	return step / 2
}
