package gateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// writing is one request to write on its way, from the guard to the read-back:
// one point, or several of one block. The checks that need no bus (Fit, access,
// locks) are behind it.
type writing struct {
	parts []part
	force bool         // write what the points show already: a pulse, a heartbeat, a stop
	blind bool         // don't read the points before: a stop goes out at once
	still func() error // whether writing is allowed at that moment; may be nil

	sending *atomic.Bool // of one attempt: set before the time is looked at for the last time
}

// part is one value of a writing.
type part struct {
	point  *Point
	value  Value            // as Fit gave it
	guards []*demand        // that must hold directly before
	with   map[string]Value // the parameters that they look at, and value
	power  *int             // of ten, by the point's scale_from; nil: not known
}

// verdict is what became of a writing.
type verdict struct {
	old     shown // before; None where it was not read
	real    shown // after; None where it can't be read
	sent    bool  // a request went out
	unknown bool  // and nobody knows whether it was carried out
	once    bool  // the device has taken it: not to be sent again
	err     error // nil: done
}

// shown are values by part; those that nobody looked at may be left out.
type shown []Value

func (s shown) of(part int) Value {
	if part < len(s) {
		return s[part]
	}
	return Value{}
}

// inBlocks divides what is written in one go into requests: points of one block
// share one, at the place of the first; every other point has its own.
func inBlocks[T any](all []T, point func(T) *Point) (requests [][]T) {
	type block struct {
		device *Device
		id     string
	}
	at := make(map[block]int)
	for _, x := range all {
		p := point(x)
		b := block{p.Device, p.Block}
		if i, ok := at[b]; ok && p.Block != "" {
			requests[i] = append(requests[i], x)
			continue
		}
		at[b] = len(requests)
		requests = append(requests, []T{x})
	}
	return requests
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
	var old shown    // as the last attempt that looked found it
	for again := 1; ; {
		v, wait := b.attempt(ctx, w)
		if v.old == nil {
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
		if !v.unknown || v.once || !w.again() || again >= mostAgain || ctx.Err() != nil {
			return v
		}
		again++
		sleep(ctx, busyPause)
	}
}

// again tells whether the request may go out a second time.
func (w *writing) again() bool {
	return !slices.ContainsFunc(w.parts, func(p part) bool { return p.point.Write == nil || !p.point.Write.Again })
}

func (w *writing) device() *Device { return w.parts[0].point.Device }

// attempt makes one visit to the bus: it reads what the guards look at, and
// writes if they hold. A wait means that nothing was written, and why is in err.
func (b *busLoop) attempt(ctx context.Context, w *writing) (v verdict, wait time.Duration) {
	type visit struct {
		verdict
		wait time.Duration
	}
	result := make(chan visit, 1)
	own := *w // what is no longer waited for may still be looked at by the bus
	own.parts, own.sending = slices.Clone(w.parts), new(atomic.Bool)
	begun, err := b.do(ctx, func(busCtx context.Context, b *busLoop) error {
		var r visit
		var lost error
		r.verdict, r.wait, lost = b.visit(busCtx, &own, ctx)
		result <- r
		return lost
	})
	select {
	case r := <-result:
		return r.verdict, r.wait
	default:
	}
	// The bus is within a request of this task still: it may be the write.
	sent := begun && own.sending.Load()
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
	if rest := b.rest(w.device()); rest > 0 {
		return v, rest, nil
	}
	if lost := b.before(ctx, w, &v); lost != nil || v.err != nil {
		return v, 0, lost
	}
	if !w.force && w.holds(v.old) {
		v.real = v.old
		for _, p := range w.parts {
			b.reporter.restate(p.point)
		}
		return v, 0, nil
	}
	if v.err = b.last(wanted, w); v.err != nil {
		return v, 0, nil
	}
	begin := time.Now()
	err := b.send(ctx, w)
	for _, p := range w.parts {
		b.watchers.wrote(p.point, p.value, begin, err)
	}
	b.stats.Requests.Add(1)
	var refused *WriteError
	switch {
	case err == nil:
		v.sent = true
	case errors.As(err, &refused) && refused.Busy:
		v.err = w.hide(refused)
		return v, max(busyPause, b.rest(w.device())), nil
	case errors.As(err, &refused):
		v.err, v.sent, v.unknown, v.once = w.hide(refused), refused.Unknown, refused.Unknown, refused.Once
	default:
		v.err, v.sent, v.unknown = fmt.Errorf("%w: %w", errConnLost, err), true, true
		return v, 0, err
	}
	return v, 0, nil
}

// send hands the request to the session.
func (b *busLoop) send(ctx context.Context, w *writing) error {
	if len(w.parts) == 1 {
		return b.session.Write(ctx, w.parts[0].point, w.parts[0].value)
	}
	session, ok := b.session.(BlockWriter)
	if !ok {
		return &WriteError{Err: errors.New("the bus has no requests that write several points")}
	}
	var points []*Point
	var values []Value
	for _, p := range w.parts {
		points, values = append(points, p.point), append(values, p.value)
	}
	return session.WriteBlock(ctx, points, values)
}

// hide takes secrets out of an adapter's reason.
func (w *writing) hide(reason error) error {
	for _, p := range w.parts {
		if text := p.value.String(); p.point.Secret && strings.Contains(reason.Error(), text) {
			reason = errors.New(strings.ReplaceAll(reason.Error(), text, "***"))
		}
	}
	return reason
}

// last is asked when nothing stands between the values and the device any more.
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
	for _, take := range []bool{false, true} { // none is taken where another has nothing left
		for _, p := range w.parts {
			if err := b.often(p.point, take); err != nil {
				return err
			}
		}
	}
	return nil
}

// often tells whether a point is written too often, and with take counts a write.
func (b *busLoop) often(p *Point, take bool) error {
	if p.Write == nil || p.Write.AtMost == nil {
		return nil
	}
	st, now := b.reporter.states[p], time.Now()
	if st.writes == nil {
		st.writes = &quota{}
	}
	if !st.writes.left(p.Write.AtMost, now) {
		return fmt.Errorf("%s is written too often: at most %s", p.ID, p.Write.AtMost.often())
	}
	if take {
		st.writes.take(p.Write.AtMost, now)
	}
	return nil
}

// before reads what has to be known directly before a write, and judges the
// guards.
func (b *busLoop) before(ctx context.Context, w *writing, v *verdict) (lost error) {
	var points []*Point
	look := func(p part) bool { return !w.blind && p.point.Access == "rw" }
	for _, p := range w.parts {
		for _, g := range p.guards {
			points = appendNew(points, g.points...)
		}
		if look(p) {
			points = appendNew(points, p.point.scaled()...)
		}
	}
	if len(points) == 0 {
		return nil
	}
	if lost := b.fetch(ctx, points); lost != nil {
		v.err = fmt.Errorf("read before the write: %w", lost)
		return lost
	}
	for _, p := range w.parts {
		for _, g := range p.guards {
			if v.err = g.refusal(p.with); v.err != nil {
				return nil
			}
		}
	}
	old := make(shown, len(w.parts))
	for i := range w.parts {
		p := &w.parts[i]
		if !look(*p) {
			continue
		}
		p.power = p.point.power(b.latest)
		st := b.reporter.states[p.point]
		if st.latest.Quality != Bad {
			old[i], v.old = st.latest.Value, old
		} else if st.latest.Silent {
			v.err = fmt.Errorf("%s gives no answer: %s", p.point.Device.Name, st.latest.Reason)
		}
	}
	return nil
}

func (b *busLoop) latest(p *Point) *Sample { return &b.reporter.states[p].latest }

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
	var shows []*Point
	within := time.Duration(0)
	for _, p := range w.parts {
		if at := p.point.shows(); at != nil {
			shows = appendNew(appendNew(shows, at), p.point.scaled()[1:]...)
		}
		if rule := p.point.Verify; rule != nil {
			within = max(within, rule.Within)
		}
	}
	if len(shows) == 0 {
		return v
	}
	if v.unknown {
		within = max(within, unknownPatience)
	}
	if errors.Is(v.err, errConnLost) {
		within = max(within, lostPatience)
	}
	for end := time.Now().Add(within); ; {
		samples, err := b.look(ctx, shows...)
		if err == nil {
			v.real = w.real(samples)
			if w.agrees(v.real, v.unknown) {
				v.err, v.unknown = nil, false
				return v
			}
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return w.unverified(v, samples, err)
		}
		pause := verifyPause
		if errors.Is(err, errDown) {
			pause = lostPause
		}
		sleep(ctx, pause)
	}
}

// real are the values of the parts in what was read.
func (w *writing) real(samples []Sample) shown {
	real := make(shown, len(w.parts))
	for i := range w.parts {
		p := &w.parts[i]
		p.power = p.point.powerIn(samples)
		if s := sampleOf(samples, p.point.shows()); s != nil && s.Quality != Bad {
			real[i] = s.Value
		}
	}
	return real
}

func sampleOf(samples []Sample, p *Point) *Sample {
	for i := range samples {
		if samples[i].Point == p {
			return &samples[i]
		}
	}
	return nil
}

// agrees tells whether values are what is written: of all parts, or only of
// those that can be read back.
func (w *writing) agrees(values shown, all bool) bool {
	for i, p := range w.parts {
		if v := values.of(i); (all || p.point.shows() != nil) && (v.kind == None || !p.agrees(v)) {
			return false
		}
	}
	return true
}

// holds tells whether values are exactly what would be written: what a device
// may be off when it is read back is no reason not to write.
func (w *writing) holds(values shown) bool {
	for i, p := range w.parts {
		if !p.point.holds(values.of(i), p.value, p.power) {
			return false
		}
	}
	return true
}

// unverified is the verdict when the device does not show what was written.
func (w *writing) unverified(v verdict, samples []Sample, err error) verdict {
	if v.unknown {
		return v
	}
	for _, p := range w.parts {
		s := sampleOf(samples, p.point.shows())
		switch {
		case p.point.shows() == nil:
			continue
		case err != nil:
			v.unknown, v.err = true, fmt.Errorf("%s was written and can't be read back: %w", p.point.ID, err)
		case s.Quality == Bad:
			v.unknown, v.err = true, fmt.Errorf("%s was written and can't be read back: %s", p.point.ID, s.Reason)
		case !p.agrees(s.Value):
			v.err = fmt.Errorf("%s %w %s, not %s", p.point.ID, errMismatch, p.point.show(s.Value), p.point.show(p.value))
		default:
			continue
		}
		return v
	}
	return v
}

// look reads points at once and reports what they show, also where that has not
// changed.
func (b *busLoop) look(ctx context.Context, points ...*Point) ([]Sample, error) {
	result := make(chan []Sample, 1)
	_, err := b.do(ctx, func(busCtx context.Context, b *busLoop) error {
		if b.session == nil {
			result <- nil
			return nil
		}
		if rest := b.rest(points[0].Device); rest > 0 {
			sleep(busCtx, min(rest, busyPause))
		}
		for _, p := range points {
			b.reporter.states[p].owe()
		}
		lost := b.fetch(busCtx, points)
		var samples []Sample
		for _, p := range points {
			samples = append(samples, b.reporter.states[p].latest)
		}
		result <- samples
		return lost
	})
	select {
	case samples := <-result:
		if samples == nil {
			return nil, errDown
		}
		return samples, nil
	default:
		return nil, err
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

// scaled is the point and, where it has one of its device, its scale_from.
func (p *Point) scaled() []*Point {
	if from := p.Device.point(p.ScaleFrom); p.ScaleFrom != "" && from != nil {
		return []*Point{p, from}
	}
	return []*Point{p}
}

// power is the power of ten that a point's scale_from says, 0 without one; nil
// where that is not known.
func (p *Point) power(sampleOf func(*Point) *Sample) *int {
	power := 0
	if p.ScaleFrom != "" {
		points := p.scaled()
		if len(points) == 1 {
			return nil
		}
		s := sampleOf(points[1])
		if s == nil || s.Quality == Bad {
			return nil
		}
		power = int(s.Value.Int())
	}
	return &power
}

func (p *Point) powerIn(samples []Sample) *int {
	return p.power(func(p *Point) *Sample { return sampleOf(samples, p) })
}

// holds tells whether a point shows exactly what would be written: the same raw
// value.
func (p *Point) holds(shown, written Value, power *int) bool {
	c, err := NewConversion(p.Definition)
	if err != nil || power == nil {
		return false
	}
	is, err := c.Raw(shown, *power)
	if err != nil {
		return false
	}
	to, err := c.Raw(written, *power)
	return err == nil && near(is, to, nil)
}

// agrees tells whether a device shows what was written: exactly, or for numbers
// within the tolerance, by default half a raw step or the digits of a float32.
func (p *part) agrees(shown Value) bool {
	rule := p.point.Verify
	return near(shown, p.value, func(is, to Value) bool {
		if to.whole() && is.whole() && (rule == nil || rule.Tolerance == nil) {
			return near(is, to, nil)
		}
		return math.Abs(is.Float()-to.Float()) <= p.tolerance(to.Float())
	})
}

// near compares values: numbers, also those of lists, as close says; nil is
// exactly.
func near(a, b Value, close func(a, b Value) bool) bool {
	switch {
	case a.kind == List && b.kind == List:
		return slices.EqualFunc(a.List(), b.List(), func(a, b Value) bool { return near(a, b, close) })
	case !a.Numeric() || !b.Numeric():
		return a.Equal(b)
	case close != nil:
		return close(a, b)
	case a.whole() && b.whole():
		return a.bits == b.bits // beyond 2^53 too
	}
	return a.Float() == b.Float()
}

// whole tells whether a value is a whole number by its kind.
func (v Value) whole() bool { return v.kind == Signed || v.kind == Unsigned }

func (p *part) tolerance(written float64) float64 {
	d := p.point.Definition
	if d.Verify != nil && d.Verify.Tolerance != nil {
		return d.Verify.Tolerance.Float
	}
	step := 1.0
	switch {
	case d.Map != nil:
		step = math.Abs((d.Map.To[1].Float - d.Map.To[0].Float) / (d.Map.Raw[1].Float - d.Map.Raw[0].Float))
	case d.Scale != nil:
		step = math.Abs(d.Scale.Float)
	}
	switch {
	case d.Type == Float32:
		return 1e-6 * math.Abs(written)
	case d.Type == Float64:
		return 1e-12 * math.Abs(written)
	case p.power == nil: // its scale_from was dropped
		return max(0.005*math.Abs(written), step/2)
	}
	return step * math.Pow10(*p.power) * 0.500001 // what lies in the middle of two steps may be rounded up
}
