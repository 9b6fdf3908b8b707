package gateway

import (
	"encoding"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestScalarsAreReadAsText(t *testing.T) {
	for _, c := range []struct {
		into encoding.TextUnmarshaler
		text string
		want string
	}{
		{new(Size), "512MB", "512000000"}, {new(Size), "1.5kB", "1500"}, {new(Size), "1MiB", "1048576"},
		{new(Decimal), "0100", "{100 0 0100}"}, {new(Decimal), "0x8000", "{32768 0 0x8000}"}, {new(Decimal), "-0.05", "{-0.05 2 -0.05}"},
		{new(Decimal), "1e-3", "{0.001 3 1e-3}"}, {new(Decimal), "12.50e1", "{125 1 12.50e1}"},
		{new(BitRange), "0..3", "{0 3}"}, {new(Deadband), "2%", "{0.02 true}"}, {new(Deadband), "0.5", "{0.5 false}"},
		{new(Gap), "auto", "{true 0}"}, {new(Gap), "12", "{false 12}"},
		{new(Rate), "1/1s", "{1 1s}"}, {new(Rate), "10/min", "{10 1m0s}"}, {new(Rate), "6/h", "{6 1h0m0s}"},
		{new(Span), "3s", "{3s 0}"}, {new(Span), "3 samples", "{0s 3}"}, {new(Hold), "2s", "{{2s 0} {2s 0}}"},
	} {
		err := c.into.UnmarshalText([]byte(c.text))
		if got := strings.TrimPrefix(fmt.Sprint(c.into), "&"); err != nil || got != c.want && fmt.Sprint(deref(c.into)) != c.want {
			t.Errorf("%T %s: got %v, %v", c.into, c.text, deref(c.into), err)
		}
	}
}

func deref(v any) any {
	if s, ok := v.(*Size); ok {
		return int64(*s)
	}
	return v
}

func TestWrongScalarsSayWhatToWrite(t *testing.T) {
	for _, c := range []struct {
		into       encoding.TextUnmarshaler
		text, says string
	}{
		{new(Size), "512", "no unit: write 512MB"}, {new(Size), "many", "is not a number with a unit"},
		{new(Decimal), "0,01", "decimal comma: write 0.01"}, {new(Decimal), "1_000", "not a number"}, {new(Decimal), "NaN", "not a number"}, {new(Decimal), "0xZZ", "not a hexadecimal"},
		{new(Range), "65..45", "write 45..65"}, {new(BitRange), "3..0", "range of bits"}, {new(BitRange), "3", "range of bits"},
		{new(Deadband), "-1", "negative"}, {new(Gap), "200", "0 to 125"}, {new(Rate), "often", "such as 1/1s"}, {new(Rate), "0/s", "such as"},
		{new(Span), "0 samples", "1 to 1000"}, {new(Assignments), "x", "{ point: value }"}, {new(OwnEvents), "all", "none or a list"}, {new(BusLogin), "bob", "anonymous"},
		{new(Expression), " ", "missing"},
	} {
		if err := c.into.UnmarshalText([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%T %q: %v", c.into, c.text, err)
		}
	}
}

func TestDurationsNeedAUnit(t *testing.T) {
	for text, want := range map[string]time.Duration{"300ms": 300 * time.Millisecond, "5s": 5 * time.Second, "1.5h": 90 * time.Minute, "30d": 720 * time.Hour, "0s": 0} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for text, says := range map[string]string{"15": "write 15ms, 15s or 15m", "5 min": "written 5m", "5min": "written 5m", "": "is not", "-3s": "is not", "1e99s": "is not", "99999999999d": "is not"} {
		if _, err := ParseDuration(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestWholeNumbersAreNeverOctal(t *testing.T) {
	for text, want := range map[string]int64{"0100": 100, "00017": 17, "0x10": 16, "-3": -3, "+4": 4, "-0x1": -1} {
		if got, err := ParseInt(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1.5", "1_000", "0o7", "0b1", "--1", "+-1", "0x", "99999999999999999999"} {
		if n, err := ParseInt(text); err == nil {
			t.Errorf("%q is %d", text, n)
		}
	}
}

func TestEnumKeepsItsOrder(t *testing.T) {
	var e Enum
	for _, entry := range [][2]string{{"3", "running"}, {"0x0", "stopped"}} {
		if err := e.UnmarshalEntry(entry[0], entry[1]); err != nil {
			t.Fatal(err)
		}
	}
	if label, ok := e.Label(0); !ok || label != "stopped" || e[0].Label != "running" {
		t.Errorf("%v", e)
	}
	if raw, ok := e.Raw("running"); !ok || raw != 3 {
		t.Errorf("%v", e)
	}
	for _, entry := range [][2]string{{"3", "again"}, {"4", "running"}, {"x", "y"}} {
		if e.UnmarshalEntry(entry[0], entry[1]) == nil {
			t.Errorf("%v is taken", entry)
		}
	}
}
