package gateway

// Formulas: the expressions of computed points, events, streams, guards and
// steps. An expression is compiled once, against a Scope, into a formula that
// devices of one kind share; each device binds it to its own samples:
//
//	f, faults := device.Scope().compile(text, TruthOperand)
//	b := f.bind(find, timezone)     // find gives the sample of each name
//	r := b.eval(now)                // r.value, r.quality, r.reason
//
// The language is expr-lang's, evaluated here, because a value of the field may
// be missing: what is not known stays not known. A formula gives a value where
// the good samples decide it (true or unknown is true), and otherwise none,
// with the name of the point that it waited for and why. Numbers are float64;
// a result that is no finite number is no value.
//
// changed, increase, since, rate, delta and average remember what was, from
// the first evaluation on: a formula with one of them is evaluated whenever its
// points have new samples. rate is the change per second, delta the change
// since the last sample or within a window; "day" begins at the site's
// midnight. A counter's are never negative: see meter.

import (
	"math"
	"strings"
	"time"
)

// formula is a compiled expression. It never changes, and several devices and
// goroutines may share it.
type formula struct {
	text  string
	names []string // of its operands, by slot
	kinds []Operand
	root  node
	calls []callSpec // functions with a memory, those inside others first
}

// node gives the value of a part of a formula, None when it is not known.
type node func(*bound) Value

// compile makes the formula of an expression, or says what is wrong with it.
// The formula has the names of the expression in any case.
func (s Scope) compile(text string, want OperandKind) (*formula, []Fault) {
	tree, used, faults := s.typed(text, want)
	f := &formula{text: text, names: used}
	if len(faults) > 0 {
		return f, faults
	}
	for _, name := range used {
		operand, _ := s(name)
		f.kinds = append(f.kinds, operand)
	}
	b := builder{formula: f}
	f.root = b.build(tree.Node)
	return f, b.faults
}

// fits tells whether the formula can be used in another scope too.
func (f *formula) fits(s Scope) bool {
	for i, name := range f.names {
		if operand, ok := s(name); !ok || !operand.Equal(f.kinds[i]) {
			return false
		}
	}
	return true
}

// operand is where a formula finds a value: the latest sample of a point, which
// changes in its place, and what the point has counted, where it is a counter.
type operand struct {
	sample *Sample
	meter  *meter
}

// constant is an operand that is always good, such as a parameter or the value
// that a guard looks at.
func constant(v Value) operand { return operand{sample: &Sample{Value: v, Quality: Good}} }

// bound is a formula of one device, with what its functions remember.
type bound struct {
	*formula
	operands []operand
	calls    []call
	place    *time.Location

	// Of the evaluation under way.
	now      time.Time
	missing  remark // why there may be no value
	doubtful remark // why it may be uncertain
	withheld bool   // it rests on an operand that may not be reported
}

// remark is what is wrong with an operand: its sample's reason, or a cause.
type remark struct {
	noted bool
	slot  int // -1 for none
	cause string
}

// note keeps the first remark.
func (r *remark) note(slot int, cause string) {
	if !r.noted {
		*r = remark{true, slot, cause}
	}
}

// bind connects a formula with the samples of a device. Days begin in the time
// zone.
func (f *formula) bind(find func(name string) operand, place *time.Location) *bound {
	b := &bound{formula: f, place: place, operands: make([]operand, len(f.names)), calls: make([]call, len(f.calls))}
	for i, name := range f.names {
		b.operands[i] = find(name)
	}
	return b
}

// outcome is what an evaluation gave. A withheld value rests on one that may not be
// reported, because it is implausible.
type outcome struct {
	value    Value
	quality  Quality
	withheld bool
	why      remark
}

// holds tells whether a condition is known to be true, and whether it is known.
func (o *outcome) holds() (is, known bool) {
	known = o.quality != Bad && !o.withheld
	return known && o.value.Bool(), known
}

// eval evaluates the formula for samples that were taken until now.
func (b *bound) eval(now time.Time) outcome {
	b.now = now
	for i := range b.calls {
		b.calls[i].advance(b, &b.formula.calls[i])
	}
	b.missing, b.doubtful, b.withheld = remark{}, remark{}, false
	v := b.root(b)
	switch {
	case v.kind == None:
		return outcome{quality: Bad, why: b.missing}
	case b.doubtful.noted:
		return outcome{value: v, quality: Uncertain, withheld: b.withheld, why: b.doubtful}
	}
	return outcome{value: v, quality: Good}
}

// reason says why an outcome is not good: "pressure: no answer within 500ms".
func (b *bound) reason(o *outcome) string {
	why := o.why
	if !why.noted || why.slot < 0 {
		return why.cause
	}
	if why.cause == "" {
		why.cause = b.operands[why.slot].sample.Reason
	}
	if why.cause == "" {
		why.cause = reasonStale
	}
	return b.names[why.slot] + ": " + why.cause
}

// newest is the time of the newest sample that the formula looks at.
func (b *bound) newest() (t time.Time) {
	for i := range b.operands {
		if s := b.operands[i].sample; s.Time.After(t) {
			t = s.Time
		}
	}
	return t
}

const reasonStale = "not read for three polls"

// leastStale is the age below which no sample is stale: a slow pass over a fast
// device is no failure.
const leastStale = 3 * time.Second

// stale tells whether a sample is too old to say what is. A subscribed point
// is silent as long as it does not change; its adapter makes it bad when the
// subscription is.
func (s *Sample) stale(now time.Time) bool {
	p := s.Point
	if p == nil || p.Poll <= 0 || now.Sub(s.Time) <= max(3*p.Poll, leastStale) {
		return false
	}
	return p.Device.Profile == nil || p.Device.Profile.Protocol != "opcua" || p.Device.Profile.Mode == "poll"
}

// usable tells whether a sample has a value that says what is, and whether it
// is a certain one.
func (b *bound) usable(slot int) (is, certain bool) {
	s := b.operands[slot].sample
	if s.Quality == Bad || s.Value.kind == None || s.stale(b.now) {
		return false, false
	}
	return true, s.Quality == Good
}

// load is the value of an operand, and notes what is wrong with it.
func (b *bound) load(slot int) Value {
	is, certain := b.usable(slot)
	if !is {
		b.missing.note(slot, "")
		return Value{}
	}
	s := b.operands[slot].sample
	if !certain {
		b.doubtful.note(slot, "")
		b.withheld = b.withheld || !s.sendable()
	}
	return s.Value
}

// sendable tells whether the value of a sample may leave the gateway: a good
// one, one without a label, one that the device itself calls uncertain.
func (s *Sample) sendable() bool {
	switch s.Quality {
	case Good:
		return true
	case Uncertain:
		return !s.withheld && (!strings.HasPrefix(s.Reason, reasonImplausible) || s.Point != nil && s.Point.Implausible == "send")
	}
	return false
}

// finite is a number as a Value, None for what is no finite number.
func (b *bound) finite(f float64) Value {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		b.missing.note(-1, "the result is no finite number")
		return Value{}
	}
	return FloatValue(f)
}
