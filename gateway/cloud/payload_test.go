package cloud

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
	"sluice/gateway"
)

var noon = time.Date(2025, 6, 18, 8, 15, 7, 181_000_000, time.UTC)

func report(values ...gateway.Attribute) gateway.Record {
	return gateway.Record{Kind: gateway.ReportRecord, Time: noon, Values: values}
}

func TestAttributesAreTheseBytes(t *testing.T) {
	for _, c := range []struct {
		name   string
		value  gateway.Value
		golden string
	}{
		{"switch", gateway.BoolValue(true), `{"switch":true}`},
		{"off", gateway.BoolValue(false), `{"off":false}`},
		{"temperature", gateway.FloatValue(28.5), `{"temperature":28.5}`},
		{"voltage", gateway.Float32Value(230.1), `{"voltage":230.1}`},
		{"whole", gateway.FloatValue(1200), `{"whole":1200}`},
		{"third", gateway.FloatValue(1.0 / 3), `{"third":0.3333333333333333}`},
		{"small", gateway.FloatValue(1e-7), `{"small":1e-07}`},
		{"micro", gateway.FloatValue(1e-6), `{"micro":0.000001}`},
		{"large", gateway.FloatValue(1e21), `{"large":1e+21}`},
		{"energy", gateway.FloatValue(1e20), `{"energy":100000000000000000000}`},
		{"count", gateway.IntValue(-42), `{"count":-42}`},
		{"exact", gateway.IntValue(1 << 53), `{"exact":9007199254740992}`},
		{"beyond", gateway.IntValue(1<<53 + 1), `{"beyond":"9007199254740993"}`},
		{"below", gateway.IntValue(-1<<53 - 1), `{"below":"-9007199254740993"}`},
		{"lowest", gateway.IntValue(math.MinInt64), `{"lowest":"-9223372036854775808"}`},
		{"total", gateway.UintValue(1 << 53), `{"total":9007199254740992}`},
		{"wrapped", gateway.UintValue(math.MaxUint64), `{"wrapped":"18446744073709551615"}`},
		{"text", gateway.TextValue("a\"b\\c\n\x00é\u2028"), "{\"text\":\"a\\\"b\\\\c\\u000a\\u0000é\u2028\"}"},
		{"broken", gateway.TextValue("a\xffb\xe2\x82"), "{\"broken\":\"a\ufffdb\ufffd\ufffd\"}"},
		{"bytes", gateway.BlobValue([]byte{0, 0xAB, 0xFF}), `{"bytes":"00abff"}`},
		{"at", gateway.TimeValue(noon), `{"at":1750234507181}`},
		{"list", gateway.ListValue([]gateway.Value{gateway.UintValue(1), gateway.FloatValue(math.NaN()), gateway.TextValue("x"), {}}), `{"list":[1,null,"x",null]}`},
		{"empty", gateway.ListValue(nil), `{"empty":[]}`},
		{"nan", gateway.FloatValue(math.NaN()), `{}`},
		{"inf", gateway.FloatValue(math.Inf(1)), `{}`},
		{"inf", gateway.Float32Value(float32(math.Inf(-1))), `{}`},
		{"none", gateway.Value{}, `{}`},
	} {
		if got := string(AppendAttributes(nil, report(gateway.Attribute{Name: c.name, Value: c.value}), "")); got != c.golden {
			t.Errorf("%s is\n%s, want\n%s", c.name, got, c.golden)
		}
	}
}

func TestAttributesKeepTheirOrderAndCarryTheirTimeWhenAsked(t *testing.T) {
	r := report(
		gateway.Attribute{Name: "bad", Value: gateway.FloatValue(math.NaN())},
		gateway.Attribute{Name: "temperature", Value: gateway.FloatValue(28.5)},
		gateway.Attribute{Name: "switch", Value: gateway.BoolValue(true)},
	)
	if got, want := string(AppendAttributes([]byte("x"), r, "")), `x{"temperature":28.5,"switch":true}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := string(AppendAttributes(nil, r, "sample_ts")), `{"temperature":28.5,"switch":true,"sample_ts":1750234507181}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := string(AppendAttributes(nil, report(), "sample_ts")), `{}`; got != want {
		t.Errorf("a report without a value is %s, want %s", got, want)
	}
}

func TestEncodingAllocatesNothing(t *testing.T) {
	r := report(
		gateway.Attribute{Name: "temperature", Value: gateway.FloatValue(28.5)},
		gateway.Attribute{Name: "state", Value: gateway.TextValue("running")},
		gateway.Attribute{Name: "total", Value: gateway.UintValue(math.MaxUint64)},
	)
	dst := make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() { AppendAttributes(dst, r, "sample_ts") }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// wanted is what a decoder should find for a value, and whether it is sent.
func wanted(v gateway.Value) (any, bool) {
	switch v.Kind() {
	case gateway.Boolean:
		return v.Bool(), true
	case gateway.Signed, gateway.Moment:
		if v.Int() > 1<<53 || v.Int() < -1<<53 {
			return strconv.FormatInt(v.Int(), 10), true
		}
		return json.Number(strconv.FormatInt(v.Int(), 10)), true
	case gateway.Unsigned:
		if v.Uint() > 1<<53 {
			return strconv.FormatUint(v.Uint(), 10), true
		}
		return json.Number(strconv.FormatUint(v.Uint(), 10)), true
	case gateway.Single, gateway.Double:
		return v, !math.IsNaN(v.Float()) && !math.IsInf(v.Float(), 0)
	case gateway.Text:
		return strings.ToValidUTF8(v.Text(), "\ufffd"), true
	case gateway.Blob:
		return v.String(), true
	}
	return nil, false
}

func sameValue(t *rapid.T, name string, v gateway.Value, got any) {
	want, sent := wanted(v)
	if v.Kind() == gateway.List {
		list, ok := got.([]any)
		if !ok || len(list) != len(v.List()) {
			t.Fatalf("%s is %v, want %v", name, got, v)
		}
		for i, x := range v.List() {
			sameValue(t, name, x, list[i])
		}
		return
	}
	if !sent {
		if got != nil {
			t.Fatalf("%s is %v, want nothing for %v", name, got, v)
		}
		return
	}
	if f, ok := want.(gateway.Value); ok {
		bits := map[gateway.Kind]int{gateway.Single: 32, gateway.Double: 64}[v.Kind()]
		number, err := strconv.ParseFloat(string(got.(json.Number)), bits)
		if err != nil || number != f.Float() {
			t.Fatalf("%s is %v, want %v", name, got, v)
		}
		return
	}
	if text, ok := got.(string); ok && !utf8.ValidString(text) {
		t.Fatalf("%s is not UTF-8: %q", name, text)
	}
	// Invalid bytes are replaced one by one, not run by run.
	if text, ok := got.(string); ok && v.Kind() == gateway.Text && !utf8.ValidString(v.Text()) {
		if got, want = strings.ReplaceAll(text, "\ufffd", ""), strings.ToValidUTF8(strings.ReplaceAll(v.Text(), "\ufffd", ""), ""); got != want {
			t.Fatalf("%s is %q, want %q", name, got, want)
		}
		return
	}
	if got != want {
		t.Fatalf("%s is %#v, want %#v", name, got, want)
	}
}

func anyValue(depth int) *rapid.Generator[gateway.Value] {
	kinds := []*rapid.Generator[gateway.Value]{
		rapid.Just(gateway.Value{}),
		rapid.Map(rapid.Bool(), gateway.BoolValue),
		rapid.Map(rapid.Int64(), gateway.IntValue),
		rapid.Map(rapid.Uint64(), gateway.UintValue),
		rapid.Map(rapid.Uint32(), func(b uint32) gateway.Value { return gateway.Float32Value(math.Float32frombits(b)) }),
		rapid.Map(rapid.Uint64(), func(b uint64) gateway.Value { return gateway.FloatValue(math.Float64frombits(b)) }),
		rapid.Map(rapid.Float64(), gateway.FloatValue),
		rapid.Map(rapid.String(), gateway.TextValue),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) gateway.Value { return gateway.TextValue(string(b)) }),
		rapid.Map(rapid.SliceOf(rapid.Byte()), gateway.BlobValue),
		rapid.Map(rapid.Int64(), func(ms int64) gateway.Value { return gateway.TimeValue(time.UnixMilli(ms)) }),
	}
	if depth > 0 {
		kinds = append(kinds, rapid.Map(rapid.SliceOfN(anyValue(depth-1), 0, 5), gateway.ListValue))
	}
	return rapid.OneOf(kinds...)
}

// checkRoundTrip holds for every record: the output is JSON without
// duplicates, and decodes to the same values.
func checkRoundTrip(t *rapid.T) {
	names := rapid.SliceOfNDistinct(rapid.String(), 0, 12, rapid.ID[string]).Draw(t, "names")
	var values []gateway.Attribute
	for _, name := range names {
		values = append(values, gateway.Attribute{Name: name, Value: anyValue(2).Draw(t, "value")})
	}
	payload := AppendAttributes(nil, report(values...), "")
	decoder := json.NewDecoder(strings.NewReader(string(payload)))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil || decoder.More() || !utf8.Valid(payload) {
		t.Fatalf("%q is not strict JSON: %v", payload, err)
	}
	sent := 0
	for _, a := range values {
		got, ok := object[a.Name]
		if ok {
			sent++
		}
		if !ok && sendable(a.Value) {
			t.Fatalf("%q misses %q", payload, a.Name)
		}
		sameValue(t, a.Name, a.Value, got)
	}
	if sent != len(object) {
		t.Fatalf("%q has keys that the record has not", payload)
	}
}

func TestAnyReportIsJSONAndDecodesToTheSame(t *testing.T) { rapid.Check(t, checkRoundTrip) }

func FuzzAttributes(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkRoundTrip)) }

func TestLargeReportIsSplitByPoints(t *testing.T) {
	var values []gateway.Attribute
	for i := range 5000 {
		values = append(values, gateway.Attribute{Name: "point_" + strconv.Itoa(i), Value: gateway.TextValue(strings.Repeat("x", 30))})
	}
	messages, err := appendReport(nil, report(values...), "sample_ts")
	if err != nil || len(messages) < 4 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	next := 0
	for _, m := range messages {
		var object map[string]any
		if err := json.Unmarshal(m, &object); err != nil || len(m) > MaxMessage {
			t.Fatalf("a message of %d bytes, %v", len(m), err)
		}
		if object["sample_ts"] != float64(noon.UnixMilli()) {
			t.Fatalf("a message without its time: %.100s", m)
		}
		for range len(object) - 1 {
			if _, ok := object[values[next].Name]; !ok {
				t.Fatalf("%s is missing or out of order", values[next].Name)
			}
			next++
		}
	}
	if next != len(values) {
		t.Errorf("%d of %d points were sent", next, len(values))
	}
}

func TestValueThatFitsNoMessageIsRefused(t *testing.T) {
	_, err := appendReport(nil, report(
		gateway.Attribute{Name: "small", Value: gateway.BoolValue(true)},
		gateway.Attribute{Name: "huge", Value: gateway.TextValue(strings.Repeat("x", MaxMessage))}), "")
	var refusal *gateway.Refusal
	if !errors.As(err, &refusal) || !strings.Contains(err.Error(), "huge takes 64011 bytes") {
		t.Errorf("error is %v", err)
	}
}

func TestReportWithoutValuesNeedsNoMessage(t *testing.T) {
	messages, err := appendReport(nil, report(gateway.Attribute{Name: "nan", Value: gateway.FloatValue(math.NaN())}), "sample_ts")
	if len(messages) != 0 || err != nil {
		t.Errorf("%q, %v", messages, err)
	}
}

func BenchmarkAppendAttributes(b *testing.B) {
	var values []gateway.Attribute
	for i := range 10 {
		values = append(values, gateway.Attribute{Name: "point_" + strconv.Itoa(i), Value: gateway.Float32Value(230.1)})
	}
	r, dst := report(values...), make([]byte, 0, 1024)
	for b.Loop() {
		dst = AppendAttributes(dst[:0], r, "")
	}
	b.SetBytes(int64(len(dst)))
}
