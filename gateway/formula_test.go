package gateway

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/expr-lang/expr"
)

// formulaDevice has a point of each kind.
func formulaDevice() *Device {
	return device("d",
		&Definition{ID: "x", Type: Float64, Poll: time.Second},
		&Definition{ID: "y", Type: Float64, Poll: time.Second},
		&Definition{ID: "n", Type: Uint16, Poll: time.Second},
		&Definition{ID: "b", Type: Bool, Poll: time.Second},
		&Definition{ID: "mode", Type: Uint16, Enum: Enum{{Raw: 0, Label: "auto"}, {Raw: 1, Label: "manual"}}, Poll: time.Second},
		&Definition{ID: "text", Type: String, Length: 8, Poll: time.Second},
		&Definition{ID: "alarms", Type: Flags, Length: 4, Flags: map[int]string{0: "oil_low", 17: "overtemp"}, Poll: time.Second},
		&Definition{ID: "zones", Type: Float32, Count: 3, Poll: time.Second},
		&Definition{ID: "energy", Type: Uint32, Kind: "counter", WrapsAt: decimal("10000"), Scale: decimal("0.1"), Poll: time.Second},
	)
}

var formulaStart = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// worksheet evaluates formulas over samples that a test sets.
type worksheet struct {
	t      *testing.T
	device *Device
	states map[string]*pointState
	now    time.Time
	place  *time.Location
}

func newWorksheet(t *testing.T) *worksheet {
	w := &worksheet{t: t, device: formulaDevice(), states: map[string]*pointState{}, now: formulaStart, place: time.UTC}
	for _, st := range newReporter([]*Device{w.device}, nil).devices[0].points {
		w.states[st.latest.Point.ID] = st
	}
	return w
}

func (w *worksheet) set(name string, v Value) { w.sample(name, Sample{Value: v, Quality: Good}) }

func (w *worksheet) sample(name string, s Sample) {
	st := w.states[name]
	s.Point, s.Time = st.latest.Point, w.now
	st.latest = s
	if st.meter != nil {
		st.meter.note(&s)
	}
}

func (w *worksheet) bind(text string, want OperandKind) *bound {
	w.t.Helper()
	f, faults := w.device.Scope().compile(text, want)
	if len(faults) > 0 {
		w.t.Fatalf("%s: %+v", text, faults)
	}
	return f.bind(func(name string) operand { return operand{&w.states[name].latest, w.states[name].meter} }, w.place)
}

// show is an outcome in one word and its reason.
func show(b *bound, o outcome) string {
	if o.quality == Good {
		return o.value.String()
	}
	return fmt.Sprintf("%s %s %s", o.value, o.quality, b.reason(&o))
}

func (w *worksheet) want(text, want string) {
	w.t.Helper()
	b := w.bind(text, AnyOperand)
	if got := show(b, b.eval(w.now)); got != want {
		w.t.Errorf("%s gives %s, not %s", text, got, want)
	}
}

func TestFormulasGiveWhatTheySay(t *testing.T) {
	w := newWorksheet(t)
	w.set("x", Float32Value(7))
	w.set("y", FloatValue(-2))
	w.set("n", UintValue(0x8005))
	w.set("b", BoolValue(true))
	w.set("mode", TextValue("auto"))
	w.set("text", TextValue("K-17"))
	w.set("alarms", TextValue("oil_low,bit3"))
	w.set("zones", ListValue([]Value{Float32Value(180.5), Float32Value(190), Float32Value(200)}))
	for text, want := range map[string]string{
		"x / 2":                                 "3.5",
		"b ? 100 * x / 50 : 0":                  "14",
		"min(x, y, 3) + max(zones)":             "198",
		"round(mean(zones), 1)":                 "190.2",
		"sum(zones) - zones[0]":                 "390",
		"round(x / 3, 2)":                       "2.33",
		"clamp(x, 0, 5) + abs(y)":               "7",
		"x ** 2 - -y":                           "47",
		`mode == "auto" and not (x < y)`:        "true",
		`mode in ["manual", "auto"]`:            "true",
		`text startsWith "K" ? text + "!" : ""`: "K-17!",
		`text matches "^K-[0-9]+$"`:             "true",
		`"oil_low" in alarms`:                   "true",
		`"overtemp" in alarms`:                  "false",
		"bit(alarms, 3) and bit(n, 15)":         "true",
		"bit(n, 1)":                             "false",
		"good(x) and x in [1, 7]":               "true",
		"zones":                                 "[180.5, 190, 200]",
		"x > y ? mode : text":                   "auto",
	} {
		w.want(text, want)
	}
}

// TestBitsOfNumbersOf64: none of them is lost in a float64.
func TestBitsOfNumbersOf64(t *testing.T) {
	w := newWorksheet(t)
	w.set("n", UintValue(1<<63|1<<53|1))
	w.set("x", FloatValue(5))
	for text, want := range map[string]string{
		"bit(n, 63) and bit(n, 53) and bit(n, 0)": "true",
		"bit(n, 62) or bit(n, 1)":                 "false",
		"bit(x, 2) and not bit(x, 1)":             "true",
	} {
		w.want(text, want)
	}
}

// TestWhatIsNotKnownStaysUnknown: a bad point decides nothing by itself, but
// what the good ones decide is decided.
func TestWhatIsNotKnownStaysUnknown(t *testing.T) {
	w := newWorksheet(t)
	w.set("x", FloatValue(7))
	w.sample("y", Sample{Reason: "no answer within 500ms"})
	w.sample("mode", Sample{Value: IntValue(9), Quality: Uncertain, Reason: reasonUnlabelled})
	w.sample("n", Sample{Value: UintValue(3), Quality: Uncertain, Reason: reasonImplausible})
	w.set("b", BoolValue(true))
	w.set("zones", ListValue([]Value{Float32Value(1), {}, Float32Value(3)}))
	for text, want := range map[string]string{
		"x > y":                     "- bad y: no answer within 500ms",
		"x + y":                     "- bad y: no answer within 500ms",
		"not (y > 3)":               "- bad y: no answer within 500ms",
		"y > 3 or x > 3":            "true",
		"x > 3 or y > 3":            "true",
		"y > 3 and x > 9":           "false",
		"y > 3 and x > 3":           "- bad y: no answer within 500ms",
		"b ? x : y":                 "7",
		"good(y) ? y : x":           "7",
		"not good(y)":               "true",
		`mode == "auto"`:            "false uncertain mode: unlabelled",
		"n + 1":                     "4 uncertain n: implausible",
		"x / 0":                     "- bad the result is no finite number",
		"x / 0 > 3":                 "- bad the result is no finite number",
		"0 / 0":                     "- bad the result is no finite number",
		"(-8) ** 0.5":               "- bad the result is no finite number",
		"mean(zones)":               "- bad the result is no finite number",
		"zones[2]":                  "3",
		"zones[3]":                  "- bad the array is shorter",
		"text":                      "- bad text: not read yet",
		"bit(x, 64)":                "- bad x: there is no such bit",
		`good(n) or n == 3 ? 1 : 0`: "1 uncertain n: implausible",
	} {
		w.want(text, want)
	}
	implausible := w.bind("n == 3", TruthOperand)
	o := implausible.eval(w.now)
	if _, known := o.holds(); known {
		t.Error("an implausible value that may not be sent raises an event")
	}
	w.states["n"].latest.Point.Implausible = "send"
	o = implausible.eval(w.now)
	if is, known := o.holds(); !known || !is {
		t.Error("an implausible value that may be sent decides nothing")
	}
	w.now = w.now.Add(3 * time.Second)
	w.want("x", "7")
	w.now = w.now.Add(time.Millisecond)
	w.want("x", "- bad x: not read for three polls")
}

// TestFormulasAgreeWithExpr: with good operands a formula gives what the
// library gives.
func TestFormulasAgreeWithExpr(t *testing.T) {
	w := newWorksheet(t)
	texts := []string{
		"x + y * 3 - x / y", "x ** 2 ^ 0.5", "-x + +y", "x > y", "x >= y == (y <= x)", "x == y or x != y", "b and x < 3 or not b",
		"not (x in [1, 2, y])", "b ? x : y", "x in [y, 0.5]", `mode == "auto" ? 1 : 2`, `mode in ["manual"]`, `mode contains "a"`,
		`text endsWith mode`, `text + mode == "xauto"`, "text < mode", `text matches "a+"`, "zones[1] + zones[0] > x", "b && !b || b", "b == (x > y)",
		"x not in [1, 2]", "2 * (x + 1) / (y - 3)", "zones == zones", "x < y ? b : not b",
	}
	numbers := []float64{-3, -0.5, 0, 0.5, 1, 2, 1e9, math.Pi}
	for _, text := range texts {
		b := w.bind(text, AnyOperand)
		for i := range 200 {
			x, y := numbers[i%8], numbers[i/8%8]
			mode, word := []string{"auto", "manual"}[i%2], []string{"", "x", "aaa", "manual"}[i%4]
			w.now = w.now.Add(time.Second)
			w.set("x", FloatValue(x))
			w.set("y", FloatValue(y))
			w.set("b", BoolValue(i%3 == 0))
			w.set("mode", TextValue(mode))
			w.set("text", TextValue(word))
			w.set("zones", ListValue([]Value{FloatValue(x), FloatValue(y), FloatValue(2)}))
			want, err := expr.Eval(text, map[string]any{"x": x, "y": y, "b": i%3 == 0, "mode": mode, "text": word, "zones": []float64{x, y, 2}})
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			got := b.eval(w.now)
			if f, ok := want.(float64); ok && (math.IsInf(f, 0) || math.IsNaN(f)) {
				if got.quality != Bad {
					t.Fatalf("%s with x=%v y=%v gives %s, the library %v", text, x, y, got.value, want)
				}
				continue
			}
			if i, ok := want.(int); ok {
				want = float64(i)
			}
			if got.quality == Bad && (math.IsInf(x/y, 0) || math.IsNaN(x/y)) {
				continue
			}
			if fmt.Sprint(want) != fmt.Sprint(plainValue(got.value)) {
				t.Fatalf("%s with x=%v y=%v b=%v mode=%s text=%q gives %v, the library %v", text, x, y, i%3 == 0, mode, word, got.value, want)
			}
		}
	}
}

func plainValue(v Value) any {
	switch v.Kind() {
	case Boolean:
		return v.Bool()
	case Text:
		return v.Text()
	}
	return v.Float()
}

func BenchmarkFormula(b *testing.B) {
	w := newWorksheet(nil)
	w.set("x", FloatValue(7))
	w.set("y", FloatValue(2))
	w.set("mode", TextValue("auto"))
	for _, text := range []string{"100 * x / y", `mode == "auto" and x < y - 5`, `rate(x, "1m")`} {
		b.Run(text, func(b *testing.B) {
			f, _ := w.device.Scope().compile(text, AnyOperand)
			bound := f.bind(func(name string) operand { return operand{sample: &w.states[name].latest} }, time.UTC)
			b.ReportAllocs()
			for b.Loop() {
				bound.eval(w.now)
			}
		})
	}
}

// TestAGuardSeesWhatIsAsked: beside its points a formula may have operands of its own.
func TestAGuardSeesWhatIsAsked(t *testing.T) {
	w := newWorksheet(t)
	w.set("b", BoolValue(false))
	scope := w.device.Scope().With(map[string]Operand{"value": {Kind: WordOperand, Labels: []string{"stop", "run"}}})
	f, faults := scope.compile(`b or value == "stop"`, TruthOperand)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	for asked, want := range map[string]bool{"stop": true, "run": false} {
		b := f.bind(func(name string) operand {
			if name == "value" {
				return constant(TextValue(asked))
			}
			return operand{sample: &w.states[name].latest}
		}, time.UTC)
		if o := b.eval(w.now); o.quality != Good || o.value.Bool() != want {
			t.Errorf("asked %s: %s", asked, show(b, o))
		}
		if !b.newest().Equal(w.now) {
			t.Errorf("its newest sample is of %v", b.newest())
		}
	}
	if !f.fits(scope) || f.fits(w.device.Scope()) {
		t.Error("a formula fits where its operands are the same, and nowhere else")
	}
}

// FuzzFormula: whatever compiles is evaluated without a panic, whatever the
// samples are.
func FuzzFormula(f *testing.F) {
	for _, text := range []string{"x + y > 3 and not b", `rate(x, "1m") - average(y, "day")`, "bit(alarms, 3) or zones[1] in [1, x]", `since(changed(mode)) ** n`, "clamp(delta(energy), min(zones), 5)"} {
		f.Add(text, 1.5, uint8(0x1B))
	}
	f.Fuzz(func(t *testing.T, text string, value float64, pattern uint8) {
		w := newWorksheet(t)
		formula, faults := w.device.Scope().compile(text, AnyOperand)
		if len(faults) > 0 {
			return
		}
		b := formula.bind(func(name string) operand { return operand{&w.states[name].latest, w.states[name].meter} }, time.UTC)
		kinds := []Value{FloatValue(value), TextValue("auto,bit3"), BoolValue(true), {}, ListValue([]Value{FloatValue(value), {}}), IntValue(-1), UintValue(math.MaxUint64), BlobValue([]byte{1})}
		for round := range 8 {
			w.now = w.now.Add(time.Duration(value*float64(round)) + time.Second)
			i := round
			for name := range w.states {
				i++
				w.sample(name, Sample{Value: kinds[i%8], Quality: Quality(pattern >> (i % 8) & 3 % 3)})
			}
			if o := b.eval(w.now); o.quality != Bad && o.value.Numeric() && (math.IsNaN(o.value.Float()) || math.IsInf(o.value.Float(), 0)) {
				t.Errorf("%s gives %s", text, o.value)
			}
		}
	})
}
