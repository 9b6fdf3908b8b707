package gateway

import (
	"fmt"
	"strings"
	"time"
)

// demand is a guard, expect or until of one device: an expression that is
// judged by samples read for it. It belongs to the bus's goroutine.
type demand struct {
	text   string
	points []*Point           // to be read before, also for what is computed
	names  map[string]*Sample // parameters, and value
	secret map[string]bool    // of these
	inner  []computation      // computed values, those inside others first
	bound  *bound
	seen   []*Sample // by name, for messages
	what   []string
}

type computation struct {
	bound  *bound
	sample *Sample
}

// compileDemand makes the condition of a device. more are the names that it
// knows beside the device's.
func (b *busLoop) compileDemand(d *Device, e *Expression, more map[string]Operand, place *time.Location) (*demand, error) {
	f, faults := d.Scope().With(more).compile(e.Text, TruthOperand)
	if len(faults) > 0 {
		return nil, fmt.Errorf("condition %q: %s", e.Text, faults[0].Text)
	}
	c := &demand{text: e.Text, names: make(map[string]*Sample), secret: make(map[string]bool)}
	for name, o := range more {
		c.names[name], c.secret[name] = &Sample{}, o.Secret
	}
	var fault error
	find := func(name string) operand {
		o, err := b.operandFor(d, c, name, place, 0)
		if err != nil {
			fault = err
		}
		c.seen, c.what = append(c.seen, o.sample), append(c.what, name)
		return o
	}
	c.bound = f.bind(find, place)
	return c, fault
}

const deepestComputed = 20

// operandFor finds what a name stands for: a parameter, the latest sample of a
// point, or a computed value.
func (b *busLoop) operandFor(d *Device, c *demand, name string, place *time.Location, depth int) (operand, error) {
	if s := c.names[name]; s != nil && depth == 0 {
		return operand{sample: s}, nil
	}
	if p := d.point(name); p != nil {
		c.points = appendNew(c.points, p)
		st := b.reporter.states[p]
		return operand{sample: &st.latest, meter: st.meter}, nil
	}
	s := &Sample{Reason: "it is not there"}
	for _, computed := range d.Computed {
		if computed.ID != name || depth == deepestComputed {
			continue
		}
		f, faults := d.Scope().compile(computed.Value.Text, NumberOperand)
		if len(faults) > 0 {
			return operand{sample: s}, fmt.Errorf("computed %s: %s", name, faults[0].Text)
		}
		var fault error
		inner := f.bind(func(name string) operand {
			o, err := b.operandFor(d, c, name, place, depth+1)
			if err != nil {
				fault = err
			}
			return o
		}, place)
		c.inner = append(c.inner, computation{inner, s})
		return operand{sample: s}, fault
	}
	return operand{sample: s}, fmt.Errorf("there is no %s", name)
}

// judge evaluates a condition whose points have just been read. It counts as
// not met where a value is bad or uncertain.
func (c *demand) judge(with map[string]Value) (met bool, why string) {
	now := time.Now()
	for name, s := range c.names {
		*s = Sample{Value: with[name], Quality: Good}
		if s.Value.kind == None {
			s.Quality = Bad
		}
	}
	for _, in := range c.inner {
		o := in.bound.eval(now)
		*in.sample = Sample{Time: now, Value: o.value, Quality: o.quality, Reason: in.bound.reason(&o)}
	}
	o := c.bound.eval(now)
	if o.quality != Good {
		return false, c.bound.reason(&o)
	}
	return o.value.Bool(), c.state()
}

// state is what the names stand for now: "remote is false, fault_code is 3".
func (c *demand) state() string {
	var words []string
	for i, s := range c.seen {
		shown := s.Value.String()
		switch {
		case c.secret[c.what[i]]:
			shown = "***"
		case s.Point != nil:
			shown = s.Point.show(s.Value)
		}
		if s.Quality == Bad {
			shown = "unknown"
		}
		words = append(words, c.what[i]+" is "+shown)
	}
	return strings.Join(words, ", ")
}

// refusal says which guard does not hold, and why.
func (c *demand) refusal(with map[string]Value) error {
	met, why := c.judge(with)
	if met {
		return nil
	}
	return fmt.Errorf("guard %q does not hold: %s", c.text, why)
}
