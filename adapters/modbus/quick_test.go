package modbus

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"sluice/gateway"
)

// TestQuickIsRight compares the quick way with Codec and Conversion, for all
// types and orders, with and without keys that forbid it.
func TestQuickIsRight(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	quickly, straight := 0, 0
	for range 20000 {
		types := append(numberTypes, gateway.Bool)
		d := &gateway.Definition{ID: "p", At: "0", Type: types[random.IntN(len(types))], Order: orders[random.IntN(4)]}
		if random.IntN(3) == 0 {
			keys(d, random.IntN(7))
		}
		at := &place{point: &gateway.Point{Definition: d, Device: &gateway.Device{Profile: &gateway.Profile{}}}}
		var err error
		if at.model, err = newModel(d, &gateway.Profile{Addressing: "protocol", Table: "holding"}); err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 8)
		binary.BigEndian.PutUint64(data, random.Uint64()|uint64(random.IntN(2))*0x7FF07F800000<<16)
		raw, err := at.codec.Decode(data)
		if err != nil {
			continue
		}
		want, quality, why := at.conversion.Engineering(raw, 0)
		got, ok := quickOf(at).value(data, 0)
		if ok && at.straight != nil {
			got, ok = at.straight.Engineering(got)
			straight++
		}
		if !ok {
			continue
		}
		quickly++
		if quality != gateway.Good || why != "" || !got.Equal(want) {
			t.Fatalf("%s %s of %X: quick %v (kind %d), else %v (kind %d) %v", d.Type, d.Order, data, got, got.Kind(), want, want.Kind(), quality)
		}
	}
	if quickly < 8000 || straight < 1000 {
		t.Errorf("%d values the quick way, %d of them scaled", quickly, straight)
	}
}

// keys sets something that makes more of a value than its registers.
func keys(d *gateway.Definition, n int) {
	zero := 0
	switch n {
	case 0:
		d.Decimals = &zero
	case 4:
		d.Scale = &gateway.Decimal{Float: 0.01, Places: 2}
	case 5:
		d.Scale, d.Offset = &gateway.Decimal{Float: 0.5, Places: 1}, &gateway.Decimal{Float: -40}
	case 6:
		d.Map = &gateway.LinearMap{Raw: [2]gateway.Decimal{{Float: 4000}, {Float: 20000}}, To: [2]gateway.Decimal{{Float: 0}, {Float: 16}}}
	case 1:
		d.Plausible = &gateway.Range{}
	case 2:
		d.Enum = gateway.Enum{{Raw: 0, Label: "x"}}
	case 3:
		if d.Type != gateway.Float32 && d.Type != gateway.Float64 && d.Type != gateway.BCD16 && d.Type != gateway.BCD32 {
			d.Bit = &zero
		}
	}
}
