package gateway

import (
	"fmt"
	"math"
	"time"
)

// derived is a computed point. It is reported like a point, and other formulas
// see it like one.
type derived struct {
	state  *pointState
	bound  *bound
	places int // decimals, -1 for as many as mean something

	said   remark // what reason is about
	inner  string
	reason string
}

// derive makes the computed points, those that others need first.
func (r *rules) derive() error {
	d := r.device.device
	byID := map[string]*Computed{}
	for _, c := range d.Computed {
		byID[c.ID] = c
	}
	made := map[string]bool{}
	var visit func(c *Computed) error
	visit = func(c *Computed) error {
		if made[c.ID] {
			return nil
		}
		made[c.ID] = true
		f, err := r.book.formula(d, c.Value.Text, NumberOperand)
		if err != nil {
			return fmt.Errorf("computed point %s: %w", c.ID, err)
		}
		for _, name := range f.names {
			if other := byID[name]; other != nil {
				if err := visit(other); err != nil {
					return err
				}
			}
		}
		return r.addComputed(c)
	}
	for _, c := range d.Computed {
		if err := visit(c); err != nil {
			return err
		}
	}
	return nil
}

func (r *rules) addComputed(c *Computed) error {
	b, err := r.bind(c.Value, NumberOperand)
	if err != nil {
		return fmt.Errorf("computed point %s: %w", c.ID, err)
	}
	d := r.device.device
	def := &Definition{ID: c.ID, As: c.As, Label: c.Label, Type: Float64, Access: "r", Unit: c.Unit, Decimals: c.Decimals, Deadband: c.Deadband, Implausible: "send"}
	if d.Profile != nil {
		def.Report = d.Profile.Report
	}
	for _, o := range b.operands {
		def.Poll = max(def.Poll, o.sample.Point.Poll)
		def.Secret = def.Secret || o.sample.Point.Secret
	}
	name := c.As
	if name == "" {
		name = c.ID
	}
	st := &pointState{device: r.device, computed: true}
	st.latest = Sample{Point: &Point{Definition: def, Device: d, Name: d.Prefix + name}, Reason: "not worked out yet"}
	r.device.points = append(r.device.points, st)
	places := -1
	if c.Decimals != nil {
		places = *c.Decimals
	}
	r.computed = append(r.computed, &derived{state: st, bound: b, places: places})
	return nil
}

// work gives the computed point a new sample, of the time of its newest point.
func (c *derived) work(now time.Time) {
	o := c.bound.eval(now)
	s := Sample{Point: c.state.latest.Point, Time: c.bound.newest(), Quality: o.quality, withheld: o.withheld}
	if len(c.bound.operands) == 0 { // a constant
		s.Time = now
	}
	if o.quality != Good {
		s.Reason = c.explain(&o)
	}
	if o.quality != Bad {
		s.Value = FloatValue(tidy(o.value.Float(), c.places))
	}
	c.state.take(&s) // no poll reads it
}

// explain is the reason of an outcome; a point that stays bad costs nothing.
func (c *derived) explain(o *outcome) string {
	inner := ""
	if o.why.slot >= 0 && o.why.noted {
		inner = c.bound.operands[o.why.slot].sample.Reason
	}
	if c.reason == "" || c.said != o.why || c.inner != inner {
		c.said, c.inner, c.reason = o.why, inner, c.bound.reason(o)
	}
	return c.reason
}

// digits are those that a computed number is worth: the arithmetic leaves noise
// behind them.
const digits = 12

// tidy rounds to decimals, or where that is -1 to digits.
func tidy(v float64, places int) float64 {
	if places < 0 && v != 0 {
		places = digits - int(math.Ceil(math.Log10(math.Abs(v))))
	}
	return round(v, places)
}
