package gateway

import "math"

// Straight is a conversion that is a straight line and nothing else: no bits,
// no labels, no raw values that mean nothing, no plausible range. It gives what
// its Conversion gives, from 24 bytes that all devices of a profile share.
type Straight struct{ factor, offset, power float64 }

// Straight is the short form of the conversion, nil where it has none.
func (c *Conversion) Straight() *Straight {
	d := c.def
	switch {
	case c.identity, c.high >= 0, len(c.invalid) > 0, len(d.Enum) > 0, d.Plausible != nil, d.ScaleFrom != "", d.Type == Bool,
		c.places < 0, c.places > mostPlaces,
		c.places == 0 && !c.float && d.Map == nil: // integers stay integers
		return nil
	}
	return &Straight{c.factor, c.offset, math.Pow10(c.places)}
}

// Engineering converts a number; false leaves it to the Conversion.
func (s *Straight) Engineering(raw Value) (Value, bool) {
	v := raw.Float()*s.factor + s.offset
	if scaled := v * s.power; math.Abs(scaled) < 1<<53 {
		return FloatValue(math.Round(scaled) / s.power), true
	}
	return Value{}, false
}
