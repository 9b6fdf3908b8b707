package sim

import (
	"testing"
	"time"

	"sluice/gateway"
)

// definitions are one of each kind of generator.
func definitions() []*gateway.Definition {
	bit := 3
	return []*gateway.Definition{
		{ID: "voltage", At: "0", Type: gateway.Float32, Unit: "V"},
		{ID: "small", At: "0", Type: gateway.Int8, Unit: "W"},
		{ID: "long", At: "0", Type: gateway.Uint64},
		{ID: "bcd", At: "0", Type: gateway.BCD16, Unit: "A", Scale: &gateway.Decimal{Float: 0.01, Places: 2}},
		{ID: "narrow", At: "0", Type: gateway.Float64, Unit: "V", Plausible: &gateway.Range{Low: gateway.Decimal{Float: 1}, High: gateway.Decimal{Float: 2}}},
		{ID: "negative", At: "0", Type: gateway.Int16, Scale: &gateway.Decimal{Float: -0.1, Places: 1}, Unit: "°C"},
		{ID: "running", At: "0", Type: gateway.Bool, Bit: &bit},
		{ID: "state", At: "0", Type: gateway.Uint8, Bits: &gateway.BitRange{Low: 2, High: 3}, Enum: gateway.Enum{{Raw: 0, Label: "a"}, {Raw: 3, Label: "b"}}},
		{ID: "count", At: "0", Type: gateway.Uint32, Kind: "counter"},
		{ID: "curve", At: "0", Type: gateway.Int32, Count: 5, Unit: "mm"},
		{ID: "alarms", At: "0", Type: gateway.Flags, Length: 2, Flags: map[int]string{1: "x"}},
		{ID: "events", At: "0", Type: gateway.Flags, Length: 2, Flags: map[int]string{1: "x", 9: "y"}},
	}
}

func fieldOf(t *testing.T, d *gateway.Definition, seed uint64) *field {
	t.Helper()
	profile := &gateway.Profile{Addressing: "protocol", Table: "holding", Order: gateway.CDAB}
	device := &gateway.Device{Name: "d", Profile: profile}
	device.Points = []*gateway.Point{{Definition: d, Device: device}}
	u := new(unit)
	if err := u.add(device, Options{Seed: seed}); err != nil {
		t.Fatalf("%s: %v", d.ID, err)
	}
	return u.fields[0]
}

func TestGeneratedValuesFitAndMove(t *testing.T) {
	for _, d := range definitions() {
		for seed := range uint64(20) {
			f := fieldOf(t, d, seed)
			seen := make(map[string]bool)
			for now := time.Duration(0); now < 10*time.Minute; now += 1700 * time.Millisecond {
				if err := f.set(f.generate(now)); err != nil {
					t.Fatalf("%s at %v: %v", d.ID, now, err)
				}
				v, quality, reason := f.get()
				if quality != gateway.Good {
					t.Fatalf("%s at %v is %s: %s %s", d.ID, now, v, quality, reason)
				}
				seen[v.String()] = true
			}
			if moves := d.ID != "alarms"; moves != (len(seen) > 1) {
				t.Errorf("%s, seed %d: %d different values in ten minutes", d.ID, seed, len(seen))
			}
		}
	}
}

func TestGeneratedValuesDependOnTheSeedAlone(t *testing.T) {
	for _, d := range definitions()[:4] {
		a, b, c := fieldOf(t, d, 5), fieldOf(t, d, 5), fieldOf(t, d, 6)
		different := false
		for now := time.Duration(0); now < time.Minute; now += 700 * time.Millisecond {
			if !a.generate(now).Equal(b.generate(now)) {
				t.Fatalf("%s at %v is %s and %s with one seed", d.ID, now, a.generate(now), b.generate(now))
			}
			different = different || !a.generate(now).Equal(c.generate(now))
		}
		if !different {
			t.Errorf("%s is the same with another seed", d.ID)
		}
	}
}

func TestCountersRise(t *testing.T) {
	f := fieldOf(t, &gateway.Definition{ID: "energy", At: "0", Type: gateway.Float64, Unit: "kWh"}, 3)
	last := -1.0
	for now := time.Duration(0); now < time.Hour; now += time.Second {
		v := f.generate(now).Float()
		if v <= last {
			t.Fatalf("%v after %v", v, last)
		}
		last = v
	}
	wraps := fieldOf(t, &gateway.Definition{ID: "pieces", At: "0", Type: gateway.Uint16, Kind: "counter", WrapsAt: &gateway.Decimal{Float: 100}}, 3)
	high := 0.0
	for now := time.Duration(0); now < time.Hour; now += time.Second {
		high = max(high, wraps.generate(now).Float())
	}
	if high < 98 || high >= 100 {
		t.Errorf("a counter that wraps at 100 reaches %v", high)
	}
}
