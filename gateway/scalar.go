package gateway

// scalar.go holds the scalars of the site file that are more than a string:
// each reads its own text (encoding.TextUnmarshaler), so that YAML never
// interprets a number, and says what it takes when the text is wrong.

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes; written 512MB, 2GB, 64kB.
type Size int64

// UnmarshalText reads a number with a unit: B, kB, MB, GB (powers of 1,000), KiB, MiB, GiB.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := splitUnit(string(text))
	factor, ok := map[string]float64{"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]
	value, err := strconv.ParseFloat(number, 64)
	switch {
	case err == nil && unit == "":
		return fmt.Errorf("size %q has no unit: write 512MB, 2GB or 64kB", text)
	case err != nil || !ok || value < 0 || value*factor > 1<<53:
		return fmt.Errorf("size %q is not a number with a unit such as 512MB, 2GB or 64kB", text)
	}
	*s = Size(value * factor)
	return nil
}

// ParseDuration reads a number with a unit of time: 300ms, 5s, 4m, 2h, 30d.
func ParseDuration(text string) (time.Duration, error) {
	number, unit := splitUnit(text)
	factor, ok := map[string]time.Duration{"us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[unit]
	value, err := strconv.ParseFloat(number, 64)
	switch {
	case err == nil && unit == "":
		return 0, fmt.Errorf("duration %q has no unit: write %sms, %ss or %sm", text, number, number, number)
	case strings.TrimSpace(unit) == "min" && err == nil:
		return 0, fmt.Errorf("duration %q: minutes are written %sm", text, number)
	case err != nil || !ok || value < 0 || value*float64(factor) > math.MaxInt64/4:
		return 0, fmt.Errorf("duration %q is not a number with a unit such as 300ms, 5s, 4m, 2h or 30d", text)
	}
	return time.Duration(value * float64(factor)), nil
}

func splitUnit(text string) (number, unit string) {
	text = strings.TrimSpace(text)
	end := strings.IndexFunc(text, func(r rune) bool { return !strings.ContainsRune("0123456789.", r) })
	if end < 0 {
		return text, ""
	}
	return text[:end], text[end:]
}

// Decimal is a number as it was written: Float for arithmetic, Places for
// rounding, Text for people. Hexadecimal (0x8000) is taken too.
type Decimal struct {
	Float  float64
	Places int // digits behind the point, after the exponent
	Text   string
}

// UnmarshalText reads a decimal or hexadecimal number; 0100 is one hundred.
func (d *Decimal) UnmarshalText(text []byte) error {
	s := string(text)
	if strings.HasPrefix(strings.TrimLeft(s, "-+"), "0x") {
		n, err := strconv.ParseInt(s, 0, 64)
		if u, uerr := strconv.ParseUint(strings.TrimPrefix(s, "+"), 0, 64); err != nil && uerr == nil {
			*d = Decimal{Float: float64(u), Text: s}
			return nil
		}
		if err != nil {
			return fmt.Errorf("%q is not a hexadecimal number", s)
		}
		*d = Decimal{Float: float64(n), Text: s}
		return nil
	}
	if strings.Count(s, ",") == 1 && !strings.Contains(s, ".") {
		return fmt.Errorf("%q has a decimal comma: write %s", s, strings.Replace(s, ",", ".", 1))
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || strings.ContainsAny(s, "_xXpP") {
		return fmt.Errorf("%q is not a number", s)
	}
	*d = Decimal{Float: f, Places: places(s), Text: s}
	return nil
}

// places is the number of digits behind the point of a decimal text.
func places(s string) int {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	_, fraction, _ := strings.Cut(mantissa, ".")
	e, _ := strconv.Atoi(exponent)
	return max(0, len(fraction)-e)
}

// ParseInt reads a whole number: decimal, where 0100 is one hundred, or
// hexadecimal with 0x.
func ParseInt(text string) (int64, error) {
	digits, base := strings.TrimLeft(text, "+-"), 10
	if hex, ok := strings.CutPrefix(digits, "0x"); ok {
		digits, base = hex, 16
	}
	sign := text[:len(text)-len(strings.TrimLeft(text, "+-"))]
	n, err := strconv.ParseInt(strings.TrimPrefix(sign, "+")+digits, base, 64)
	if err != nil || len(sign) > 1 {
		return 0, fmt.Errorf("%q is not a whole number", text)
	}
	return n, nil
}

// Range is a closed range of numbers; a single number is a range of one.
type Range struct{ Low, High Decimal }

// UnmarshalText reads 45..65, 0..0xFF or a single number.
func (r *Range) UnmarshalText(text []byte) error {
	low, high, isRange := strings.Cut(string(text), "..")
	if err := r.Low.UnmarshalText([]byte(strings.TrimSpace(low))); err != nil {
		return err
	}
	r.High = r.Low
	if isRange {
		if err := r.High.UnmarshalText([]byte(strings.TrimSpace(high))); err != nil {
			return err
		}
	}
	if r.Low.Float > r.High.Float {
		return fmt.Errorf("range %q runs backwards: write %s..%s", text, r.High.Text, r.Low.Text)
	}
	return nil
}

// Contains tells whether v lies in the range, ends included.
func (r *Range) Contains(v float64) bool { return v >= r.Low.Float && v <= r.High.Float }

// Ranges is a list of ranges.
type Ranges []Range

// BitRange is a range of bits, both ends included; 0 is the least significant.
type BitRange struct{ Low, High int }

// UnmarshalText reads 0..3.
func (b *BitRange) UnmarshalText(text []byte) error {
	low, high, ok := strings.Cut(string(text), "..")
	l, err1 := strconv.Atoi(strings.TrimSpace(low))
	h, err2 := strconv.Atoi(strings.TrimSpace(high))
	if !ok || err1 != nil || err2 != nil || l < 0 || h > 63 || l > h {
		return fmt.Errorf("bits %q is not a range of bits from 0 to 63 such as 0..3", text)
	}
	*b = BitRange{l, h}
	return nil
}

// Deadband is the smallest change worth a report: absolute in engineering
// units, or relative to the last reported value.
type Deadband struct {
	Value    float64
	Relative bool // Value 0.02 is 2%
}

// UnmarshalText reads 0.5 or 2%.
func (d *Deadband) UnmarshalText(text []byte) error {
	s, percent := strings.CutSuffix(string(text), "%")
	var number Decimal
	if err := number.UnmarshalText([]byte(strings.TrimSpace(s))); err != nil {
		return err
	}
	if number.Float < 0 {
		return fmt.Errorf("deadband %q is negative", text)
	}
	*d = Deadband{Value: number.Float, Relative: percent}
	if percent {
		d.Value /= 100
	}
	return nil
}

// Gap is how many registers may be read for nothing; Auto decides by cost.
type Gap struct {
	Auto      bool
	Registers int
}

// UnmarshalText reads auto or 0 to 125.
func (g *Gap) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*g = Gap{Auto: true}
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 || n > 125 {
		return fmt.Errorf("max_gap %q is neither auto nor a number from 0 to 125", text)
	}
	*g = Gap{Registers: n}
	return nil
}

// Rate is a number of times in a time: 1/1s, 6/h, 10/min.
type Rate struct {
	Count int
	Per   time.Duration
}

// UnmarshalText reads a count, a slash and a time; the unit alone means one of it.
func (r *Rate) UnmarshalText(text []byte) error {
	count, per, ok := strings.Cut(string(text), "/")
	n, err := strconv.Atoi(count)
	unit := map[string]time.Duration{"s": time.Second, "min": time.Minute, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[per]
	if unit == 0 {
		unit, _ = ParseDuration(per)
	}
	if !ok || err != nil || n < 1 || unit <= 0 {
		return fmt.Errorf("%q is not a count and a time such as 1/1s, 10/min or 6/h", text)
	}
	*r = Rate{Count: n, Per: unit}
	return nil
}

// Secret is a password or key, or a reference to one: secret:<name>,
// file:<path> or env:<NAME>. It is printed as *** everywhere.
type Secret string

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// Reference splits secret:, file: and env: from the name behind it; kind is ""
// for a secret in clear.
func (s Secret) Reference() (kind, name string) {
	for _, kind := range []string{"secret", "file", "env"} {
		if name, ok := strings.CutPrefix(string(s), kind+":"); ok {
			return kind, name
		}
	}
	return "", string(s)
}

// OwnEvents says which of the gateway's own events are reported.
type OwnEvents map[string]bool

// OwnEventNames are the gateway's own events.
var OwnEventNames = []string{"device_offline", "bus_down", "write_refused", "pulse_stuck", "gap"}

// UnmarshalText reads none.
func (o *OwnEvents) UnmarshalText(text []byte) error {
	if string(text) != "none" {
		return fmt.Errorf("own_events takes none or a list such as [%s]", strings.Join(OwnEventNames[:2], ", "))
	}
	*o = OwnEvents{}
	return nil
}

// UnmarshalEntry adds one event.
func (o *OwnEvents) UnmarshalEntry(name, _ string) error {
	if !slices.Contains(OwnEventNames, name) {
		return fmt.Errorf("%q is none of the gateway's own events: %s", name, strings.Join(OwnEventNames, ", "))
	}
	if *o == nil {
		*o = OwnEvents{}
	}
	(*o)[name] = true
	return nil
}

const maxLabels = 1000 // looked up one by one

// EnumLabel is the label of one raw value.
type EnumLabel struct {
	Raw   int64
	Label string
}

// Enum holds the labels of raw values, in the order of the file.
type Enum []EnumLabel

// Label finds the label of a raw value.
func (e Enum) Label(raw int64) (string, bool) {
	for _, l := range e {
		if l.Raw == raw {
			return l.Label, true
		}
	}
	return "", false
}

// Raw finds the raw value of a label.
func (e Enum) Raw(label string) (int64, bool) {
	for _, l := range e {
		if l.Label == label {
			return l.Raw, true
		}
	}
	return 0, false
}

// UnmarshalEntry adds the label of one raw value.
func (e *Enum) UnmarshalEntry(raw, label string) error {
	n, err := ParseInt(raw)
	if len(*e) >= maxLabels {
		return fmt.Errorf("an enum has at most %d labels", maxLabels)
	}
	if err != nil {
		return fmt.Errorf("%w: an enum is { 0: stopped, 1: running }", err)
	}
	if before, ok := e.Label(n); ok {
		return fmt.Errorf("raw value %s already has the label %q", raw, before)
	}
	if _, ok := e.Raw(label); ok {
		return fmt.Errorf("label %q already stands for another raw value", label)
	}
	*e = append(*e, EnumLabel{Raw: n, Label: label})
	return nil
}
