package sim

import (
	"math"
	"math/rand/v2"
	"regexp"
	"time"

	"sluice/gateway"
)

// generator gives the value of a point, in engineering units, at a time after
// Start.
type generator = func(now time.Duration) gateway.Value

// trouble is in the names of points that are at rest in a plant that runs.
var trouble = regexp.MustCompile(`(?i)fault|alarm|error|trip|warning`)

const noiseStep = 200 * time.Millisecond // a value is noisy, but not between two reads of one cycle

// scaling is what a scale_from has to do with a point.
type scaling struct {
	exponent bool // it is one
	power    int  // it has one, with this value
}

// newGenerator chooses what a point looks like by its definition. What can be
// written stands still until somebody does.
func newGenerator(d *gateway.Definition, s scaling, seed uint64) generator {
	g := newSingle(d, s, seed)
	if d.Count > 0 {
		g = newList(d, s, seed)
	}
	if d.Access == "rw" || d.Access == "w" {
		v := g(0)
		return func(time.Duration) gateway.Value { return v }
	}
	return g
}

func newList(d *gateway.Definition, s scaling, seed uint64) generator {
	elements := make([]generator, d.Count)
	for i := range elements {
		elements[i] = newSingle(d, s, seed+uint64(i))
	}
	return func(now time.Duration) gateway.Value {
		list := make([]gateway.Value, len(elements))
		for i, g := range elements {
			list[i] = g(now)
		}
		return gateway.ListValue(list)
	}
}

func newSingle(d *gateway.Definition, s scaling, seed uint64) generator {
	switch {
	case s.exponent:
		return constant(power(d))
	case len(d.Enum) > 0:
		return steps(d, seed)
	}
	switch d.Type {
	case gateway.Bool:
		return toggles(d, seed)
	case gateway.String:
		text := "SIM-" + d.ID
		return constant(gateway.TextValue(text[:min(len(text), d.Length)]))
	case gateway.Bytes:
		blob := make([]byte, d.Length)
		for i := range blob {
			blob[i] = byte(seed >> (8 * (i % 8)))
		}
		return constant(gateway.BlobValue(blob))
	case gateway.Flags:
		return flags(d, seed)
	case gateway.Time:
		return func(time.Duration) gateway.Value { return gateway.TimeValue(time.Now().Truncate(time.Second)) }
	}
	return number(d, s, seed)
}

// power is what a scale factor says: tenths, where it can be negative.
func power(d *gateway.Definition) gateway.Value {
	return gateway.IntValue(int64(max(-1, lowest(d))))
}

func constant(v gateway.Value) generator {
	return func(time.Duration) gateway.Value { return v }
}

// period is a time that is the point's own, so that nothing moves in step.
func period(seed uint64, shortest time.Duration) time.Duration {
	return shortest + time.Duration(seed%1000)*shortest/1000
}

// steps goes through the labels of an enum.
func steps(d *gateway.Definition, seed uint64) generator {
	every, labels := period(seed, 8*time.Second), len(d.Enum)
	if trouble.MatchString(d.ID) {
		labels = 1
	}
	return func(now time.Duration) gateway.Value {
		return gateway.TextValue(d.Enum[int(now/every)%labels].Label)
	}
}

func toggles(d *gateway.Definition, seed uint64) generator {
	if trouble.MatchString(d.ID) {
		return constant(gateway.BoolValue(false))
	}
	every, first := period(seed, 15*time.Second), seed>>20&1
	return func(now time.Duration) gateway.Value {
		return gateway.BoolValue((uint64(now/every)+first)&1 != 0)
	}
}

// flags is mostly none, and one of the named flags after the other.
func flags(d *gateway.Definition, seed uint64) generator {
	var names []string
	for bit := range 8 * d.Length {
		if name, ok := d.Flags[bit]; ok && !trouble.MatchString(d.ID) {
			names = append(names, "", name)
		}
	}
	every := period(seed, 20*time.Second)
	return func(now time.Duration) gateway.Value {
		if len(names) == 0 {
			return gateway.TextValue("")
		}
		return gateway.TextValue(names[int(now/every)%len(names)])
	}
}

// number moves around what is usual, or counts.
func number(d *gateway.Definition, s scaling, seed uint64) generator {
	low, high := limits(d, s)
	if c, ok := counts[d.Unit]; ok {
		return counter(c, high, seed)
	} else if d.Kind == "counter" {
		return counter(pieces, high, seed)
	}
	w := waveOf(d, low, high)
	if w.swing == 0 {
		return constant(gateway.FloatValue(w.middle))
	}
	long := period(seed, 30*time.Second).Seconds()
	phase := float64(seed>>32&0xFFFF) / 0xFFFF
	return func(now time.Duration) gateway.Value {
		sine := math.Sin(2 * math.Pi * (now.Seconds()/long + phase))
		return gateway.FloatValue(w.middle + w.swing*(0.9*sine+0.1*noise(seed, now)))
	}
}

// noise is a number from -1 to 1 that depends on the seed and the time alone.
func noise(seed uint64, now time.Duration) float64 {
	source := rand.NewPCG(seed, uint64(now/noiseStep))
	return float64(source.Uint64()>>11)/(1<<52) - 1
}

// counter rises from a start of its own and begins at 0 again after its limit.
func counter(c count, limit float64, seed uint64) generator {
	share := 0.5 + float64(seed%1000)/1000
	start, rate := min(c.start*share, limit/2), c.rate*share
	return func(now time.Duration) gateway.Value {
		return gateway.FloatValue(math.Mod(start+rate*now.Seconds(), limit))
	}
}

// waveOf is the usual value of the unit, where it lies within what the point
// says of itself, else the middle of that.
func waveOf(d *gateway.Definition, low, high float64) wave {
	unitless := d.Unit == "" && d.Scale == nil && d.ScaleFrom == ""
	said := true
	switch {
	case d.Plausible != nil:
		low, high = max(low, d.Plausible.Low.Float), min(high, d.Plausible.High.Float)
	case d.Min != nil && d.Max != nil:
		low, high = max(low, d.Min.Float), min(high, d.Max.Float)
	case d.Map != nil:
		low, high = min(d.Map.To[0].Float, d.Map.To[1].Float), max(d.Map.To[0].Float, d.Map.To[1].Float)
	default:
		said = false
	}
	if unitless && !said && (trouble.MatchString(d.ID) || d.Bit != nil || d.Bits != nil) {
		return wave{} // a code: all is well
	}
	w, ok := usual[d.Unit]
	if !ok && !said {
		w, ok = usual["%"], true
	}
	if ok && w.middle-w.swing >= low && w.middle+w.swing <= high {
		return w
	}
	if !said {
		low = max(low, min(0, high)) // a type too small for the unit's usual values
	}
	return wave{middle: low/2 + high/2, swing: (high - low) / 10}
}

// limits is what the type can hold, in engineering units.
func limits(d *gateway.Definition, s scaling) (low, high float64) {
	low, high = lowest(d), highest(d)
	if d.WrapsAt != nil {
		high = min(high, d.WrapsAt.Float)
	}
	scale, offset := math.Pow10(s.power), 0.0
	if d.Scale != nil {
		scale *= d.Scale.Float
	}
	if d.Offset != nil {
		offset = d.Offset.Float
	}
	if m := d.Map; m != nil {
		scale = (m.To[1].Float - m.To[0].Float) / (m.Raw[1].Float - m.Raw[0].Float)
		offset = m.To[0].Float - m.Raw[0].Float*scale
	}
	low, high = low*scale+offset, high*scale+offset
	return min(low, high), max(low, high)
}
