package gateway

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Fit turns what is asked for a point into the value that would be written, in
// engineering units, or says why it is refused. Nothing is clamped; a number is
// rounded to the nearest raw step. Switches come as true or false, 1 or 0, ON or
// OFF; numbers also as text; times as ms since 1970 or RFC 3339. An error never
// tells the value of a secret point.
func (p *Point) Fit(asked Value) (Value, error) {
	f := fitting{point: p, def: p.Definition}
	return f.fit(asked)
}

// fitting is one value on trial.
type fitting struct {
	point *Point
	def   *Definition
}

func (f *fitting) fit(asked Value) (Value, error) {
	if f.def.Count <= 1 {
		return f.scalar(asked)
	}
	list := asked.List()
	if asked.kind != List || len(list) != f.def.Count {
		return Value{}, f.refuse(asked, "is not a list of %d values", f.def.Count)
	}
	fitted := make([]Value, len(list))
	for i, x := range list {
		v, err := f.scalar(x)
		if err != nil {
			return Value{}, fmt.Errorf("[%d]: %w", i, err)
		}
		fitted[i] = v
	}
	return ListValue(fitted), nil
}

// refuse says what is wrong with a value: "setpoint 62 is above max 50 Hz".
func (f *fitting) refuse(asked Value, format string, args ...any) error {
	shown := short(asked.String())
	if f.def.Secret {
		shown = "***"
	}
	return fmt.Errorf("%s %s %s", f.point.ID, shown, fmt.Sprintf(format, args...))
}

// short bounds what a message repeats of a value.
func short(text string) string {
	if len(text) > 60 {
		return strings.ToValidUTF8(text[:57], "") + "…"
	}
	return text
}

func (f *fitting) scalar(asked Value) (Value, error) {
	switch asked.kind {
	case None:
		return Value{}, fmt.Errorf("%s takes a value, not null, an object or a number that is none", f.point.ID)
	case List:
		return Value{}, f.refuse(asked, "is a list, and the point one value")
	}
	switch d := f.def; {
	case len(d.Enum) > 0:
		return f.label(asked)
	case d.Type == Bool:
		return f.truth(asked)
	case d.Type == String, d.Type == Flags:
		return f.text(asked)
	case d.Type == Bytes:
		return f.blob(asked)
	case d.Type == Time:
		return f.moment(asked)
	}
	return f.number(asked)
}

func (f *fitting) label(asked Value) (Value, error) {
	if _, ok := f.def.Enum.Raw(asked.text); !ok || asked.kind != Text {
		var labels []string
		for _, l := range f.def.Enum[:min(20, len(f.def.Enum))] {
			labels = append(labels, l.Label)
		}
		return Value{}, f.refuse(asked, "is none of %s", strings.Join(labels, ", "))
	}
	return asked, nil
}

func (f *fitting) truth(asked Value) (Value, error) {
	switch strings.ToLower(asked.String()) {
	case "true", "on", "1":
		return BoolValue(true), nil
	case "false", "off", "0":
		return BoolValue(false), nil
	}
	return Value{}, f.refuse(asked, "is neither true nor false")
}

func (f *fitting) text(asked Value) (Value, error) {
	switch {
	case asked.kind != Text:
		return Value{}, f.refuse(asked, "is no text")
	case f.def.Length > 0 && len(asked.text) > f.def.Length && f.def.Type == String:
		return Value{}, f.refuse(asked, "is longer than %d bytes", f.def.Length)
	}
	return asked, nil
}

func (f *fitting) blob(asked Value) (Value, error) {
	b, err := hex.DecodeString(asked.text)
	switch {
	case asked.kind != Text || err != nil:
		return Value{}, f.refuse(asked, "is not hexadecimal")
	case f.def.Length > 0 && len(b) != f.def.Length:
		return Value{}, f.refuse(asked, "is %d bytes, not %d", len(b), f.def.Length)
	}
	return BlobValue(b), nil
}

func (f *fitting) moment(asked Value) (Value, error) {
	if t, err := time.Parse(time.RFC3339, asked.text); err == nil {
		return TimeValue(t), nil
	}
	if asked.kind != Text && asked.Numeric() && math.Abs(asked.Float()) < 1<<53 {
		return TimeValue(time.UnixMilli(asked.Int())), nil
	}
	return Value{}, f.refuse(asked, "is no time: ms since 1970, or 2026-01-31T12:00:00Z")
}

// number holds limits, step and type. The limits hold for what is asked and for
// what it is rounded to.
func (f *fitting) number(asked Value) (Value, error) {
	v := asked
	if asked.kind == Text {
		v = numberOf(asked.text)
	}
	if !v.Numeric() || math.IsNaN(v.Float()) || math.IsInf(v.Float(), 0) {
		return Value{}, f.refuse(asked, "is no number")
	}
	if err := errors.Join(f.limits(v), f.step(v)); err != nil {
		return Value{}, err
	}
	rounded, err := f.round(v)
	if err != nil {
		return Value{}, err
	}
	return rounded, f.limits(rounded)
}

// numberOf reads a number exactly; the zero Value is none.
func numberOf(text string) Value {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return IntValue(i)
	}
	if u, err := strconv.ParseUint(text, 10, 64); err == nil {
		return UintValue(u)
	}
	var d Decimal
	if d.UnmarshalText([]byte(text)) != nil {
		return Value{}
	}
	return FloatValue(d.Float)
}

func (f *fitting) limits(v Value) error {
	d, x := f.def, v.Float()
	switch {
	case d.Max != nil && x > d.Max.Float:
		return f.refuse(v, "is above max %s%s", d.Max.Text, f.unit())
	case d.Min != nil && x < d.Min.Float:
		return f.refuse(v, "is below min %s%s", d.Min.Text, f.unit())
	}
	return nil
}

func (f *fitting) unit() string {
	if f.def.Unit == "" {
		return ""
	}
	return " " + f.def.Unit
}

func (f *fitting) step(v Value) error {
	d, from := f.def, Decimal{Text: "0"}
	if d.Step == nil {
		return nil
	}
	if d.Min != nil {
		from = *d.Min
	}
	if steps := (v.Float() - from.Float) / d.Step.Float; math.Abs(steps-math.Round(steps)) > 1e-6 {
		return f.refuse(v, "is not %s plus a multiple of step %s%s", from.Text, d.Step.Text, f.unit())
	}
	return nil
}

// round gives the value that the device will show: of the nearest raw one. A
// point whose scale is in the device is rounded there.
func (f *fitting) round(v Value) (Value, error) {
	if f.def.ScaleFrom != "" {
		return v, nil
	}
	c, err := NewConversion(f.def)
	if err != nil {
		return Value{}, err
	}
	raw, err := c.Raw(v, 0)
	if err != nil {
		return Value{}, f.refuse(v, "can't be written: %v", err)
	}
	if low, high, ok := rangeOf(f.def.Type); ok && c.high < 0 && (raw.Float() < low || raw.Float() > high) {
		return Value{}, f.refuse(v, "does not fit into %s", f.def.Type)
	}
	if c.high >= 0 {
		return v, nil
	}
	rounded, quality, _ := c.Engineering(raw, 0)
	if quality == Bad || !rounded.Numeric() {
		return Value{}, f.refuse(v, "means \"no value\" to the device")
	}
	return rounded, nil
}

// rangeOf is what a whole number's type holds.
func rangeOf(t Type) (low, high float64, ok bool) {
	switch t {
	case Int8:
		return math.MinInt8, math.MaxInt8, true
	case Int16:
		return math.MinInt16, math.MaxInt16, true
	case Int32:
		return math.MinInt32, math.MaxInt32, true
	case Uint8:
		return 0, math.MaxUint8, true
	case Uint16:
		return 0, math.MaxUint16, true
	case Uint32:
		return 0, math.MaxUint32, true
	case Uint64:
		return 0, math.MaxUint64, true
	case BCD16:
		return 0, 9999, true
	case BCD32:
		return 0, 99999999, true
	}
	return 0, 0, false
}
