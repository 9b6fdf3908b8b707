package gateway

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Conversion turns the raw values of one Definition into engineering units and
// back. It is compiled once and safe for several goroutines.
type Conversion struct {
	def       *Definition
	low, high int // bits to take; high < 0 takes all
	signed    bool
	single    bool // float32: results keep float32 digits
	float     bool
	factor    float64
	offset    float64
	places    int // decimals of the result, -1 leaves it
	identity  bool
	invalid   []rawRange
}

// rawRange is a range of raw values: as numbers, or for hexadecimal texts of a
// float as bit patterns.
type rawRange struct {
	low, high float64
	lowBits   uint64
	highBits  uint64
	pattern   bool
}

// mostPlaces is the number of decimals beyond which rounding a float64 to
// decimals does more harm than good.
const mostPlaces = 15

// NewConversion compiles the conversion of a point.
func NewConversion(d *Definition) (*Conversion, error) {
	c := &Conversion{def: d, high: -1, factor: 1, places: -1}
	switch d.Type {
	case Int8, Int16, Int32, Int64:
		c.signed = true
	case Float32:
		c.single, c.float = true, true
	case Float64:
		c.float = true
	}
	if err := c.setBits(d); err != nil {
		return nil, err
	}
	if err := c.setScale(d); err != nil {
		return nil, err
	}
	for _, r := range d.Invalid {
		c.invalid = append(c.invalid, c.rawRange(r))
	}
	return c, nil
}

func (c *Conversion) setBits(d *Definition) error {
	switch {
	case d.Bit != nil && d.Bits != nil:
		return fmt.Errorf("bit and bits exclude each other")
	case d.Bit != nil:
		c.low, c.high = *d.Bit, *d.Bit
	case d.Bits != nil:
		c.low, c.high = d.Bits.Low, d.Bits.High
	}
	if c.high > 63 || c.low < 0 {
		return fmt.Errorf("bits go from 0 to 63")
	}
	if c.high >= 0 && c.float {
		return fmt.Errorf("a %s has no bits to take", d.Type)
	}
	return nil
}

func (c *Conversion) setScale(d *Definition) error {
	if d.Map != nil && (d.Scale != nil || d.Offset != nil || d.ScaleFrom != "") {
		return fmt.Errorf("map takes the place of scale, offset and scale_from")
	}
	scaled := 0
	if d.Scale != nil {
		if d.Scale.Float == 0 {
			return fmt.Errorf("scale 0 makes every value the same")
		}
		c.factor, scaled = d.Scale.Float, d.Scale.Places
	}
	if d.Offset != nil {
		c.offset, scaled = d.Offset.Float, max(scaled, d.Offset.Places)
	}
	if m := d.Map; m != nil {
		if m.Raw[0].Float == m.Raw[1].Float || m.To[0].Float == m.To[1].Float {
			return fmt.Errorf("map needs two different raw values and two different results")
		}
		c.factor = (m.To[1].Float - m.To[0].Float) / (m.Raw[1].Float - m.Raw[0].Float)
		c.offset = m.To[0].Float - m.Raw[0].Float*c.factor
		// Twelve digits: far finer than any register, far coarser than the noise of the arithmetic.
		scaled = 12 - int(math.Ceil(math.Log10(max(math.Abs(m.To[0].Float), math.Abs(m.To[1].Float)))))
	}
	c.identity = d.Scale == nil && d.Offset == nil && d.Map == nil && d.ScaleFrom == ""
	if !c.identity && !c.float {
		c.places = scaled
	}
	if d.Decimals != nil {
		c.places, c.identity = *d.Decimals, false
	}
	return nil
}

// rawRange compiles one invalid range. A hexadecimal text is the bit pattern
// as the manual prints it: 0x8000 of an int16 is -32768.
func (c *Conversion) rawRange(r Range) rawRange {
	hex := func(d Decimal) (uint64, bool) {
		if !strings.HasPrefix(d.Text, "0x") {
			return 0, false
		}
		u, err := strconv.ParseUint(d.Text[2:], 16, 64)
		return u, err == nil
	}
	low, lowHex := hex(r.Low)
	high, highHex := hex(r.High)
	if lowHex && highHex && (c.float || c.signed || low > 1<<53) {
		return rawRange{lowBits: low, highBits: high, pattern: true}
	}
	return rawRange{low: r.Low.Float, high: r.High.Float}
}

func (c *Conversion) isInvalid(raw Value) bool {
	if c.float && math.IsNaN(raw.Float()) {
		return true
	}
	for i := range c.invalid {
		r := &c.invalid[i]
		if r.pattern {
			if p := c.pattern(raw); p >= r.lowBits && p <= r.highBits {
				return true
			}
		} else if f := raw.Float(); f >= r.low && f <= r.high {
			return true
		}
	}
	return false
}

// pattern is the raw value's bits as they stand in its registers.
func (c *Conversion) pattern(raw Value) uint64 {
	switch c.def.Type {
	case Int8:
		return raw.bits & 0xFF
	case Int16:
		return raw.bits & 0xFFFF
	case Int32:
		return raw.bits & 0xFFFFFFFF
	case Float32:
		return uint64(math.Float32bits(float32(raw.Float())))
	}
	return raw.bits
}

// Engineering turns a decoded value (before bits are taken from it) into
// engineering units. exponent is the value of the point's scale_from, 0
// without one. The reason says why a value is not good.
func (c *Conversion) Engineering(raw Value, exponent int) (Value, Quality, string) {
	if raw.kind == List {
		return c.list(raw, exponent)
	}
	if raw.kind == None {
		return raw, Bad, "no value"
	}
	if c.isInvalid(raw) {
		return Value{}, Bad, "invalid"
	}
	raw = c.take(raw)
	if len(c.def.Enum) > 0 {
		if label, ok := c.def.Enum.Label(raw.Int()); ok {
			return TextValue(label), Good, ""
		}
		return raw, Uncertain, "unlabelled"
	}
	if !raw.Numeric() {
		return raw, Good, ""
	}
	v := c.scale(raw, exponent)
	if f := v.Float(); math.IsInf(f, 0) || math.IsNaN(f) {
		return Value{}, Bad, "invalid"
	} else if p := c.def.Plausible; p != nil && !p.Contains(f) {
		return v, Uncertain, "implausible"
	}
	return v, Good, ""
}

// list converts the elements; the list is as good as its worst one, and one
// that has no value stands as None.
func (c *Conversion) list(raw Value, exponent int) (Value, Quality, string) {
	elements, worst, why := make([]Value, len(raw.List())), Good, ""
	for i, x := range raw.List() {
		v, quality, reason := c.Engineering(x, exponent)
		elements[i] = v
		if quality < worst {
			worst, why = quality, fmt.Sprintf("%s at [%d]", reason, i)
		}
	}
	return ListValue(elements), worst, why
}

// take extracts the bits of a point with bit or bits; a signed type's highest
// bit is its sign. A bool is a Boolean whatever it came from.
func (c *Conversion) take(raw Value) Value {
	if c.high >= 0 {
		width := c.high - c.low + 1
		bits := raw.bits >> c.low
		if width < 64 {
			bits &= 1<<width - 1
		}
		raw = UintValue(bits)
		if c.signed {
			raw = IntValue(int64(bits<<(64-width)) >> (64 - width))
		}
	}
	if c.def.Type == Bool && len(c.def.Enum) == 0 {
		return BoolValue(raw.bits != 0)
	}
	return raw
}

func (c *Conversion) scale(raw Value, exponent int) Value {
	if c.identity {
		return raw
	}
	if c.places == 0 && exponent == 0 && c.def.Map == nil {
		if v, ok := c.scaleInteger(raw); ok {
			return v
		}
	}
	v := raw.Float()*c.factor + c.offset
	places := c.places
	if exponent != 0 {
		// Dividing by 10^n is exact where multiplying by 10^-n is not.
		if v = raw.Float() * c.factor; exponent < 0 {
			v /= math.Pow10(-exponent)
		} else {
			v *= math.Pow10(exponent)
		}
		v += c.offset
		if c.def.Decimals == nil && places >= 0 {
			places = max(0, places-exponent)
		}
	}
	if c.single && places < 0 {
		return Float32Value(float32(v))
	}
	return FloatValue(round(v, places))
}

// scaleInteger scales integers by integers without leaving them, so that 64
// bits stay exact.
func (c *Conversion) scaleInteger(raw Value) (Value, bool) {
	factor, offset := int64(c.factor), int64(c.offset)
	if c.float || float64(factor) != c.factor || float64(offset) != c.offset || raw.kind == Unsigned && raw.bits > math.MaxInt64 {
		return Value{}, false
	}
	n := raw.Int()
	scaled := n * factor
	if n != 0 && (scaled/n != factor || n == -1 && factor == math.MinInt64) {
		return Value{}, false
	}
	sum := scaled + offset
	if (sum > scaled) != (offset > 0) && offset != 0 {
		return Value{}, false
	}
	return IntValue(sum), true
}

// round rounds to decimal places, where the float has that many.
func round(v float64, places int) float64 {
	if places < 0 || places > mostPlaces {
		return v
	}
	p := math.Pow10(places)
	if scaled := v * p; math.Abs(scaled) < 1<<53 {
		return math.Round(scaled) / p
	}
	return v
}

// Raw turns a value in engineering units into the raw value nearest to it: for
// a point with bit or bits the value of those bits alone, not shifted. The
// codec refuses what does not fit the type.
func (c *Conversion) Raw(eng Value, exponent int) (Value, error) {
	switch {
	case eng.kind == List:
		return c.rawList(eng, exponent)
	case len(c.def.Enum) > 0:
		return c.rawEnum(eng)
	case c.def.Type == Bool:
		if eng.kind != Boolean {
			return Value{}, fmt.Errorf("%s is not true or false", eng)
		}
		return eng, nil
	case !eng.Numeric():
		return c.rawOther(eng)
	}
	if c.identity && !c.float && (eng.kind == Signed || eng.kind == Unsigned) {
		return c.fits(eng)
	}
	v := eng.Float() - c.offset
	if exponent < 0 {
		v *= math.Pow10(-exponent)
	} else {
		v /= math.Pow10(exponent)
	}
	v /= c.factor
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return Value{}, fmt.Errorf("%s is not a number that can be written", eng)
	case c.single:
		if math.IsInf(float64(float32(v)), 0) {
			return Value{}, fmt.Errorf("%s is too large for %s", eng, c.def.Type)
		}
		return Float32Value(float32(v)), nil
	case c.float:
		return FloatValue(v), nil
	}
	return c.integer(v, eng)
}

func (c *Conversion) integer(v float64, eng Value) (Value, error) {
	v = math.RoundToEven(v)
	switch {
	case v < 0 && v >= math.MinInt64:
		return c.fits(IntValue(int64(v)))
	case v >= 0 && v < 1<<64:
		return c.fits(UintValue(uint64(v)))
	}
	return Value{}, fmt.Errorf("%s is too large for %s", eng, c.def.Type)
}

// fits refuses what does not fit into the bits of a point.
func (c *Conversion) fits(v Value) (Value, error) {
	if c.high < 0 {
		return v, nil
	}
	width := c.high - c.low + 1
	if v.kind == Signed && v.Int() < 0 {
		if !c.signed || width < 64 && v.Int() < -1<<(width-1) {
			return Value{}, fmt.Errorf("%s does not fit into %d bits", v, width)
		}
		if width < 64 {
			return UintValue(v.bits & (1<<width - 1)), nil
		}
		return v, nil
	}
	room := width
	if c.signed {
		room--
	}
	if room < 64 && v.bits>>room != 0 {
		return Value{}, fmt.Errorf("%s does not fit into %d bits", v, width)
	}
	return v, nil
}

func (c *Conversion) rawList(eng Value, exponent int) (Value, error) {
	elements := make([]Value, len(eng.List()))
	for i, x := range eng.List() {
		raw, err := c.Raw(x, exponent)
		if err != nil {
			return Value{}, fmt.Errorf("[%d]: %w", i, err)
		}
		elements[i] = raw
	}
	return ListValue(elements), nil
}

func (c *Conversion) rawEnum(eng Value) (Value, error) {
	if eng.kind == Text {
		if raw, ok := c.def.Enum.Raw(eng.text); ok {
			return IntValue(raw), nil
		}
	}
	labels := make([]string, len(c.def.Enum))
	for i, l := range c.def.Enum {
		labels[i] = l.Label
	}
	return Value{}, fmt.Errorf("%q is none of %s", eng.String(), strings.Join(labels, ", "))
}

func (c *Conversion) rawOther(eng Value) (Value, error) {
	want := map[Type]Kind{String: Text, Flags: Text, Bytes: Blob, Time: Moment}[c.def.Type]
	if eng.kind != want || want == None {
		return Value{}, fmt.Errorf("%q is no value for a %s", eng.String(), c.def.Type)
	}
	return eng, nil
}
