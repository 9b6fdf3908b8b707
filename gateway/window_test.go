package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// series feeds a formula with samples of one point, "seconds=value …", and gives
// what it said each time.
func (w *worksheet) series(b *bound, point, samples string) string {
	w.t.Helper()
	var out []string
	for sample := range strings.FieldsSeq(samples) {
		at, text, _ := strings.Cut(sample, "=")
		seconds, err := time.ParseDuration(at)
		if err != nil {
			w.t.Fatal(err)
		}
		w.now = formulaStart.Add(seconds)
		var v float64
		if _, err := fmt.Sscan(text, &v); err != nil {
			w.sample(point, Sample{Reason: text})
		} else {
			w.set(point, FloatValue(v))
		}
		o := b.eval(w.now)
		out = append(out, show(b, o))
	}
	return strings.Join(out, " · ")
}

func TestFunctionsRememberWhatWas(t *testing.T) {
	for _, tt := range []struct{ text, samples, want string }{
		{"changed(x)", "0s=1 1s=1 2s=2 3s=timeout 4s=2 5s=3", "false · false · true · - bad x: timeout · false · true"},
		{"increase(x)", "0s=1 1s=1 2s=3 3s=2 4s=timeout 5s=4", "false · false · true · false · - bad x: timeout · true"},
		{"delta(x)", "0s=10 1s=12 2s=timeout 3s=11.5", "0 · 2 · - bad x: timeout · -0.5"},
		{"since(x > 5)", "0s=1 1s=6 3s=7 4s=2 5s=9 7.5s=9", "0 · 0 · 2 · 0 · 0 · 2.5"},
		{"since(x > 5)", "0s=6 1s=timeout 3s=7", "0 · - bad x: timeout · 3"},
		{`rate(x, "10s")`, "0s=0 1s=2 2s=4 12s=4 22s=4", "- bad x: one sample is no rate · 2 · 2 · 0 · 0"},
		{`delta(x, "10s")`, "0s=0 4s=8 10s=20 15s=30 20s=30", "0 · 8 · 20 · 20 · 10"},
		{`average(x, "4s")`, "0s=10 1s=20 2s=20 3s=40 4s=0 5s=0 6s=0", "10 · 10 · 15 · 16.666666666666668 · 22.5 · 20 · 15"},
		// After 20 s without samples the last value no longer counts.
		{`average(x, "1m")`, "0s=10 2s=10 22s=50 24s=50", "10 · 10 · 10 · 30"},
	} {
		w := newWorksheet(t)
		if got := w.series(w.bind(tt.text, AnyOperand), "x", tt.samples); got != tt.want {
			t.Errorf("%s of %s:\n%s, not\n%s", tt.text, tt.samples, got, tt.want)
		}
	}
}

// TestCountersNeverRunBackwards: a wrap goes on counting, a reset counts nothing and is
// flagged, and one that shows 0 for a moment is not taken for a reset.
func TestCountersNeverRunBackwards(t *testing.T) {
	for _, tt := range []struct{ text, samples, want string }{
		{`delta(energy)`, "0s=990 1s=999 2s=3 3s=4", "0 · 9 · 4 · 1"},
		{`delta(energy, "1h")`, "0s=990 1s=timeout 2s=5", "0 · - bad energy: timeout · 15"},
		{`delta(energy)`, "0s=300 1s=2 2s=3", "0 · 0 uncertain energy: the counter was reset · 1"},
		{`delta(energy, "1h")`, "0s=300 1s=301 2s=2 3s=5", "0 · 1 · 1 uncertain energy: the counter was reset · 4 uncertain energy: the counter was reset"},
		{`delta(energy, "1h")`, "0s=300 1s=301 2s=0 3s=303", "0 · 1 · 1 uncertain energy: the counter was reset · 3"},
		{`average(energy, "4s")`, "0s=990 1s=3 2s=3", "990 · 990 · 496.5"},
		{`increase(energy)`, "0s=998 1s=3 2s=3", "false · true · false"},
		{`rate(energy, "10s")`, "0s=998 1s=0 2s=2", "- bad energy: one sample is no rate · 2 · 2"},
	} {
		w := newWorksheet(t)
		if got := w.series(w.bind(tt.text, AnyOperand), "energy", tt.samples); got != tt.want {
			t.Errorf("%s of %s:\n%s, not\n%s", tt.text, tt.samples, got, tt.want)
		}
	}
	w := newWorksheet(t)
	w.series(w.bind("energy", AnyOperand), "energy", "0s=300")
	w.sample("energy", Sample{Value: FloatValue(5), Quality: Uncertain, Reason: reasonImplausible})
	if m := w.states["energy"].meter; m.total != 300 || m.resets > 0 {
		t.Errorf("an implausible value makes it %v with %d resets", m.total, m.resets)
	}
}

// TestAResetStaysFlagged: also when the formula is worked out for the sake of
// other points.
func TestAResetStaysFlagged(t *testing.T) {
	w := newWorksheet(t)
	b := w.bind(`delta(energy, "1h") + x`, AnyOperand)
	w.set("x", FloatValue(0))
	w.series(b, "energy", "0s=300 1s=301 2s=2")
	w.set("x", FloatValue(5))
	if got := show(b, b.eval(w.now)); got != "6 uncertain energy: the counter was reset" {
		t.Error(got)
	}
}

// TestDaysBeginAtTheSitesMidnight: also on the two days that have not 24 hours.
func TestDaysBeginAtTheSitesMidnight(t *testing.T) {
	place := func(name string) *time.Location {
		l, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	berlin, havana := place("Europe/Berlin"), place("America/Havana")
	for _, tt := range []struct {
		day   time.Time
		hours int
	}{
		{time.Date(2026, 3, 28, 0, 0, 0, 0, berlin), 24},
		{time.Date(2026, 3, 29, 0, 0, 0, 0, berlin), 23},
		{time.Date(2026, 10, 25, 0, 0, 0, 0, berlin), 25},
		{time.Date(2026, 3, 8, 1, 0, 0, 0, havana), 23}, // at midnight it is one o'clock
		{time.Date(2026, 11, 1, 0, 0, 0, 0, havana), 25},
	} {
		w := newWorksheet(t)
		w.place = tt.day.Location()
		delta, rate, average := w.bind(`delta(x, "day")`, AnyOperand), w.bind(`rate(x, "day") * 3600`, AnyOperand), w.bind(`average(x, "day")`, AnyOperand)
		// One unit an hour, from 90 minutes before midnight on; midnight lies between two samples.
		begin := tt.day.Add(-90 * time.Minute)
		for at := begin; ; at = at.Add(20 * time.Minute) {
			w.now = at
			w.states["x"].latest.Point.Definition.Poll = 20 * time.Minute
			w.set("x", FloatValue(at.Sub(begin).Hours()))
			d, r, a := delta.eval(at), rate.eval(at), average.eval(at)
			today := at.Sub(tt.day).Hours()
			if next := time.Date(tt.day.Year(), tt.day.Month(), tt.day.Day()+1, 0, 0, 0, 0, w.place); !at.Before(next) {
				if want := at.Sub(next).Hours(); differs(d.value, want) {
					t.Errorf("%s: the next day begins with %s, not %v", tt.day.Format(time.DateOnly), d.value, want)
				}
				if length := next.Sub(tt.day).Hours(); length != float64(tt.hours) {
					t.Errorf("%s has %v hours", tt.day.Format(time.DateOnly), length)
				}
				break
			}
			if today > 0 && (differs(d.value, today) || differs(r.value, 1)) {
				t.Fatalf("%v after midnight of %s: delta %s, rate %s an hour", at.Sub(tt.day), tt.day.Format(time.DateOnly), d.value, r.value)
			}
			// A value counts until the next one, 20 minutes later: 10 minutes behind on average.
			if want := 1.5 + today/2 - 1.0/6; today > 1 && (a.value.Float()-want > 0.2 || want-a.value.Float() > 0.2) {
				t.Fatalf("%v after midnight: average %s, not about %v", at.Sub(tt.day), a.value, want)
			}
		}
	}
}

// differs tells whether a value is not what it should be, but for rounding.
func differs(v Value, want float64) bool {
	difference := v.Float() - want
	return !(difference < 1e-6 && difference > -1e-6)
}

func TestWindowsHaveBoundedMemory(t *testing.T) {
	w := newWorksheet(t)
	rate, average := w.bind(`rate(x, "1h")`, AnyOperand), w.bind(`average(x, "1h")`, AnyOperand)
	for i := range 50_000 {
		w.now = formulaStart.Add(time.Duration(i) * 200 * time.Millisecond)
		w.set("x", FloatValue(float64(i)))
		r, a := rate.eval(w.now), average.eval(w.now)
		if i > 20_000 && (differs(r.value, 5) || r.quality != Good || a.value.Float() < float64(i)-9200 || a.value.Float() > float64(i)-8800) {
			t.Fatalf("after %d samples: rate %s, average %s", i, r.value, a.value)
		}
	}
	for _, b := range []*bound{rate, average} {
		if n := cap(b.calls[0].past.marks); n > 2*windowSlots+8 {
			t.Errorf("%s remembers %d marks", b.text, n)
		}
	}
}
