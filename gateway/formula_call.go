package gateway

import (
	"math"
	"slices"
	"time"

	"github.com/expr-lang/expr/ast"
)

// call builds a function's node.
func (b *builder) call(n *ast.CallNode) node {
	callee, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		return b.fault(n, "this is no function")
	}
	name := callee.Value
	if functions[name].remembers {
		return b.remembering(name, n)
	}
	switch name {
	case "good":
		slot := b.slot(n.Arguments[0].(*ast.IdentifierNode).Value)
		return func(b *bound) Value {
			is, certain := b.usable(slot)
			return BoolValue(is && certain)
		}
	case "bit":
		return b.bit(n)
	}
	arguments := b.all(n.Arguments)
	f := plain[name]
	return func(b *bound) Value {
		var space [4]float64
		numbers := space[:0]
		for _, argument := range arguments {
			v := argument(b)
			if v.kind == None {
				return v
			}
			if v.kind != List {
				numbers = append(numbers, v.Float())
				continue
			}
			for _, x := range v.List() {
				numbers = append(numbers, x.Float())
			}
		}
		return b.finite(f(numbers))
	}
}

// plain are the functions of numbers. An array with a value that is missing
// has a NaN in it, and so has the result.
var plain = map[string]func(x []float64) float64{
	"min":   func(x []float64) float64 { return extreme(x, math.Min) },
	"max":   func(x []float64) float64 { return extreme(x, math.Max) },
	"sum":   total,
	"mean":  func(x []float64) float64 { return total(x) / float64(len(x)) },
	"abs":   func(x []float64) float64 { return math.Abs(x[0]) },
	"clamp": func(x []float64) float64 { return math.Min(math.Max(x[0], x[1]), x[2]) },
	"round": func(x []float64) float64 {
		if len(x) == 1 {
			return math.Round(x[0])
		}
		return round(x[0], int(x[1]))
	},
}

func extreme(x []float64, f func(a, b float64) float64) float64 {
	if len(x) == 0 {
		return math.NaN()
	}
	m := x[0]
	for _, v := range x[1:] {
		m = f(m, v)
	}
	return m
}

func total(x []float64) (sum float64) {
	for _, v := range x {
		sum += v
	}
	return sum
}

// bit takes one bit of a whole number, or of flags by its number.
func (b *builder) bit(n *ast.CallNode) node {
	x, index := b.build(n.Arguments[0]), b.build(n.Arguments[1])
	slot := -1
	if id, ok := n.Arguments[0].(*ast.IdentifierNode); ok {
		slot = b.slot(id.Value)
		if b.formula.kinds[slot].Kind == NumberOperand { // a float64 has not all bits of a number of 64
			x = func(b *bound) Value { return b.load(slot) }
		}
	}
	return known(x, index, func(b *bound, v, i Value) Value {
		bit := int(i.Float())
		switch {
		case v.kind == List && slot >= 0 && b.operands[slot].sample.Point != nil:
			name := b.operands[slot].sample.Point.flagName(bit)
			return BoolValue(slices.ContainsFunc(v.List(), func(flag Value) bool { return flag.text == name }))
		case v.kind == List, v.kind == Text, bit < 0, bit > 63:
			b.missing.note(slot, "there is no such bit")
			return Value{}
		}
		if v.kind == Signed || v.kind == Unsigned {
			return BoolValue(v.bits>>bit&1 != 0)
		}
		return BoolValue(int64(v.Float())>>bit&1 != 0)
	})
}

// callSpec is a function with a memory, as it is written.
type callSpec struct {
	name      string
	text      string // under which its memory is kept
	slot      int    // of its point
	condition node   // of since
	window    window
}

func (b *builder) remembering(name string, n *ast.CallNode) node {
	spec := callSpec{name: name, text: n.String(), slot: -1}
	if name == "since" {
		spec.condition = b.build(n.Arguments[0])
	} else {
		spec.slot = b.slot(n.Arguments[0].(*ast.IdentifierNode).Value)
	}
	if len(n.Arguments) > 1 {
		spec.window, _ = parseWindow(n.Arguments[1].(*ast.StringNode).Value)
	}
	i := len(b.formula.calls)
	b.formula.calls = append(b.formula.calls, spec)
	return func(b *bound) Value {
		c := &b.calls[i]
		if c.value.kind == None {
			b.missing.note(c.why.slot, c.why.cause)
		} else if c.flag != "" {
			b.doubtful.note(spec.slot, c.flag)
		}
		return c.value
	}
}

// call is what one function remembers, and what it gives now.
type call struct {
	value Value
	why   remark // why it gives nothing
	flag  string // why it is uncertain
	by    float64

	seen  time.Time // of the last sample that was taken in
	last  Value     // changed
	count float64   // increase, delta
	begun bool      // last and count are of a sample
	since time.Time // when the condition of since became true
	past  *past     // rate, delta, average
}

// advance takes in the sample of the call's point, where it is new.
func (c *call) advance(b *bound, spec *callSpec) {
	if spec.condition != nil {
		c.wait(b, spec.condition)
		return
	}
	s := b.operands[spec.slot].sample
	if is, _ := b.usable(spec.slot); !is || !s.sendable() {
		c.value, c.why = Value{}, remark{true, spec.slot, ""}
		return
	}
	fresh := s.Time.After(c.seen) || c.seen.IsZero()
	c.seen = s.Time
	switch {
	case spec.name == "changed":
		c.value = BoolValue(fresh && c.begun && !s.Value.Equal(c.last))
		c.last, c.begun = s.Value, true
	case spec.name == "increase":
		c.step(b, spec, fresh)
		c.value = BoolValue(fresh && c.by > 0)
	case spec.window == window{}: // delta(x)
		if c.step(b, spec, fresh); fresh {
			c.value = b.finite(c.by)
		}
	case fresh || c.value.kind == None:
		c.look(b, spec)
	}
}

// counted is the value of a point that changes are counted of: of a counter
// what it has counted in all its rounds.
func (b *bound) counted(slot int) float64 {
	if m := b.operands[slot].meter; m != nil {
		return m.total
	}
	return b.operands[slot].sample.Value.Float()
}

// step takes in the change since the last sample.
func (c *call) step(b *bound, spec *callSpec, fresh bool) {
	if !fresh {
		return
	}
	c.flag = ""
	now := b.counted(spec.slot)
	if c.by = now - c.count; !c.begun {
		c.by = 0
	}
	c.count, c.begun = now, true
	if m := b.operands[spec.slot].meter; m != nil && m.resetAt.Equal(c.seen) {
		c.flag = reasonReset
	}
}

// wait measures how long a condition has been true, in seconds.
func (c *call) wait(b *bound, condition node) {
	b.missing = remark{}
	v := condition(b)
	switch {
	case v.kind == None:
		c.value, c.why = v, b.missing
		return
	case v.bits == 0:
		c.since = time.Time{}
		c.value = FloatValue(0)
		return
	case c.since.IsZero():
		c.since = b.now
	}
	c.value = FloatValue(max(0, b.now.Sub(c.since).Seconds()))
}

// look takes a sample into the call's window and works its result out.
func (c *call) look(b *bound, spec *callSpec) {
	if c.past == nil {
		c.past = &past{epoch: b.now}
	}
	s, p := b.operands[spec.slot].sample, c.past
	c.flag = ""
	value := b.counted(spec.slot)
	if spec.name == "average" {
		value = s.Value.Float()
	}
	hold := leastStale
	if s.Point != nil {
		hold = max(hold, 3*s.Point.Poll)
	}
	p.take(spec.window, s.Time, value, hold, b.place)
	first := p.first(spec.window)
	span := (p.now.at - first.at).Seconds()
	switch {
	case spec.name == "delta":
		c.value = b.finite(p.now.value - first.value)
	case spec.name == "rate" && span == 0:
		c.value, c.why = Value{}, remark{true, spec.slot, "one sample is no rate"}
	case spec.name == "rate":
		c.value = b.finite((p.now.value - first.value) / span)
	case p.now.covered == first.covered:
		c.value = b.finite(value)
	default:
		c.value = b.finite((p.now.area - first.area) / (p.now.covered - first.covered))
	}
	if m := b.operands[spec.slot].meter; m != nil && spec.name != "average" && m.resets > 0 && m.resetAt.Sub(p.epoch) > first.at {
		c.flag = reasonReset
	}
}
