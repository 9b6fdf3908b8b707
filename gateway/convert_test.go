package gateway

import (
	"math"
	"testing"
)

func decimal(s string) *Decimal {
	var d Decimal
	if err := d.UnmarshalText([]byte(s)); err != nil {
		panic(err)
	}
	return &d
}

func ranges(texts ...string) Ranges {
	list := make(Ranges, len(texts))
	for i, s := range texts {
		if err := list[i].UnmarshalText([]byte(s)); err != nil {
			panic(err)
		}
	}
	return list
}

func number(i int) *int { return &i }

func linear(raw0, raw1, to0, to1 string) *LinearMap {
	return &LinearMap{Raw: [2]Decimal{*decimal(raw0), *decimal(raw1)}, To: [2]Decimal{*decimal(to0), *decimal(to1)}}
}

func TestEngineeringUnits(t *testing.T) {
	plausible := ranges("45..65")[0]
	tests := []struct {
		name     string
		def      Definition
		raw      Value
		exponent int
		want     string
		quality  Quality
		reason   string
	}{
		{"an integer stays one", Definition{Type: Uint16}, UintValue(7), 0, "7", Good, ""},
		{"12 × 0.1 is 1.2", Definition{Type: Uint16, Scale: decimal("0.1")}, UintValue(12), 0, "1.2", Good, ""},
		{"3 × 0.01 is 0.03", Definition{Type: Int16, Scale: decimal("0.01")}, IntValue(3), 0, "0.03", Good, ""},
		{"scale in exponent notation", Definition{Type: Uint16, Scale: decimal("1e-3")}, UintValue(35), 0, "0.035", Good, ""},
		{"offset", Definition{Type: Uint16, Scale: decimal("0.1"), Offset: decimal("-40")}, UintValue(655), 0, "25.5", Good, ""},
		{"whole scale stays exact beyond 2^53", Definition{Type: Int64, Scale: decimal("10")}, IntValue(900719925474099301), 0, "9007199254740993010", Good, ""},
		{"whole scale that overflows becomes a float", Definition{Type: Int64, Scale: decimal("10")}, IntValue(math.MaxInt64), 0, "9.223372036854776e+19", Good, ""},
		{"64 bits stay exact", Definition{Type: Uint64}, UintValue(18446744073709551615), 0, "18446744073709551615", Good, ""},
		{"float32 keeps its digits", Definition{Type: Float32}, Float32Value(230.1), 0, "230.1", Good, ""},
		{"float32 with scale keeps float32 digits", Definition{Type: Float32, Scale: decimal("0.001")}, Float32Value(230.1), 0, "0.2301", Good, ""},
		{"decimals round", Definition{Type: Float32, Decimals: number(1)}, Float32Value(3.14159), 0, "3.1", Good, ""},
		{"decimals round whole", Definition{Type: Float64, Decimals: number(0)}, FloatValue(1499.5), 0, "1500", Good, ""},
		{"map", Definition{Type: Uint16, Map: linear("4000", "20000", "0", "16")}, UintValue(12000), 0, "8", Good, ""},
		{"map gives few digits", Definition{Type: Uint16, Map: linear("0", "27648", "0", "10")}, UintValue(13824), 0, "5", Good, ""},
		{"scale_from -2", Definition{Type: Int16, ScaleFrom: "sf"}, IntValue(23012), -2, "230.12", Good, ""},
		{"scale_from 3", Definition{Type: Int16, ScaleFrom: "sf"}, IntValue(12), 3, "12000", Good, ""},
		{"invalid as a number", Definition{Type: Uint16, Invalid: ranges("65535")}, UintValue(65535), 0, "-", Bad, "invalid"},
		{"invalid in a range", Definition{Type: Uint16, Invalid: ranges("0x8000", "0..3599")}, UintValue(3599), 0, "-", Bad, "invalid"},
		{"invalid beside a range", Definition{Type: Uint16, Invalid: ranges("0x8000", "0..3599")}, UintValue(3600), 0, "3600", Good, ""},
		{"invalid 0x8000 is the pattern of an int16", Definition{Type: Int16, Invalid: ranges("0x8000")}, IntValue(-32768), 0, "-", Bad, "invalid"},
		{"invalid 64-bit pattern", Definition{Type: Uint64, Invalid: ranges("0xFFFFFFFFFFFFFFFF")}, UintValue(math.MaxUint64), 0, "-", Bad, "invalid"},
		{"beside the 64-bit pattern", Definition{Type: Uint64, Invalid: ranges("0xFFFFFFFFFFFFFFFF")}, UintValue(math.MaxUint64 - 1), 0, "18446744073709551614", Good, ""},
		{"NaN is never a value", Definition{Type: Float32}, Float32Value(float32(math.NaN())), 0, "-", Bad, "invalid"},
		{"Inf is never a value", Definition{Type: Float64}, FloatValue(math.Inf(1)), 0, "-", Bad, "invalid"},
		{"one bit", Definition{Type: Bool, Bit: number(10)}, UintValue(0x0400), 0, "true", Good, ""},
		{"another bit", Definition{Type: Bool, Bit: number(9)}, UintValue(0x0400), 0, "false", Good, ""},
		{"some bits", Definition{Type: Uint8, Bits: &BitRange{4, 7}}, UintValue(0xABCD), 0, "12", Good, ""},
		{"signed bits", Definition{Type: Int16, Bits: &BitRange{0, 3}}, IntValue(0x0F), 0, "-1", Good, ""},
		{"all 64 bits", Definition{Type: Uint64, Bits: &BitRange{0, 63}}, UintValue(math.MaxUint64), 0, "18446744073709551615", Good, ""},
		{"label", Definition{Type: Uint8, Bits: &BitRange{0, 1}, Enum: Enum{{0, "stopped"}, {3, "running"}}}, UintValue(0xFF), 0, "running", Good, ""},
		{"no label", Definition{Type: Uint16, Enum: Enum{{0, "stopped"}}}, UintValue(9), 0, "9", Uncertain, "unlabelled"},
		{"plausible", Definition{Type: Float32, Plausible: &plausible}, Float32Value(50), 0, "50", Good, ""},
		{"implausible", Definition{Type: Float32, Plausible: &plausible}, Float32Value(80), 0, "80", Uncertain, "implausible"},
		{"text", Definition{Type: String}, TextValue("SN-17"), 0, "SN-17", Good, ""},
		{"list", Definition{Type: Uint16, Scale: decimal("0.1"), Invalid: ranges("0xFFFF")}, ListValue([]Value{UintValue(1), UintValue(65535)}), 0, "[0.1, -]", Bad, "invalid at [1]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := NewConversion(&tt.def)
			if err != nil {
				t.Fatal(err)
			}
			v, quality, reason := c.Engineering(tt.raw, tt.exponent)
			if v.String() != tt.want || quality != tt.quality || reason != tt.reason {
				t.Errorf("got %s %s %q, want %s %s %q", v, quality, reason, tt.want, tt.quality, tt.reason)
			}
		})
	}
}

func TestRawValues(t *testing.T) {
	tests := []struct {
		name     string
		def      Definition
		value    Value
		exponent int
		want     string
		err      string
	}{
		{"rounds to the nearest raw step", Definition{Type: Uint16, Scale: decimal("0.01")}, FloatValue(35.004), 0, "3500", ""},
		{"offset", Definition{Type: Int16, Scale: decimal("0.1"), Offset: decimal("-40")}, FloatValue(25.5), 0, "655", ""},
		{"scale_from", Definition{Type: Int16, ScaleFrom: "sf"}, FloatValue(230.12), -2, "23012", ""},
		{"map", Definition{Type: Uint16, Map: linear("4000", "20000", "0", "16")}, FloatValue(8), 0, "12000", ""},
		{"64 bits stay exact", Definition{Type: Uint64}, UintValue(math.MaxUint64), 0, "18446744073709551615", ""},
		{"label", Definition{Type: Uint16, Enum: Enum{{1, "stop"}, {18, "run"}}}, TextValue("run"), 0, "18", ""},
		{"unknown label", Definition{Type: Uint16, Enum: Enum{{1, "stop"}, {18, "run"}}}, TextValue("go"), 0, "", `"go" is none of stop, run`},
		{"a number for an enum", Definition{Type: Uint16, Enum: Enum{{1, "stop"}}}, IntValue(1), 0, "", `"1" is none of stop`},
		{"too large", Definition{Type: Uint64}, FloatValue(1e30), 0, "", "1e+30 is too large for uint64"},
		{"NaN", Definition{Type: Float32}, FloatValue(math.NaN()), 0, "", "NaN is not a number that can be written"},
		{"bits", Definition{Type: Uint8, Bits: &BitRange{4, 7}}, UintValue(15), 0, "15", ""},
		{"too many bits", Definition{Type: Uint8, Bits: &BitRange{4, 7}}, UintValue(16), 0, "", "16 does not fit into 4 bits"},
		{"signed bits", Definition{Type: Int16, Bits: &BitRange{0, 3}}, IntValue(-8), 0, "8", ""},
		{"too negative", Definition{Type: Int16, Bits: &BitRange{0, 3}}, IntValue(-9), 0, "", "-9 does not fit into 4 bits"},
		{"text for a number", Definition{Type: Uint16}, TextValue("x"), 0, "", `"x" is no value for a uint16`},
		{"a number for a bool", Definition{Type: Bool}, IntValue(1), 0, "", "1 is not true or false"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := NewConversion(&tt.def)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := c.Raw(tt.value, tt.exponent)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("got %s, %v, want error %q", raw, err, tt.err)
				}
				return
			}
			if err != nil || raw.String() != tt.want {
				t.Errorf("got %s, %v, want %s", raw, err, tt.want)
			}
		})
	}
}

func TestConversionRefusesContradictions(t *testing.T) {
	for name, def := range map[string]Definition{
		"bit and bits":    {Type: Uint16, Bit: number(1), Bits: &BitRange{0, 1}},
		"bit of a float":  {Type: Float32, Bit: number(1)},
		"map and scale":   {Type: Uint16, Scale: decimal("2"), Map: linear("0", "1", "0", "1")},
		"scale 0":         {Type: Uint16, Scale: decimal("0")},
		"map of one raw":  {Type: Uint16, Map: linear("5", "5", "0", "1")},
		"map to one":      {Type: Uint16, Map: linear("0", "5", "1", "1")},
		"bit 64":          {Type: Uint64, Bit: number(64)},
		"map, scale_from": {Type: Uint16, ScaleFrom: "x", Map: linear("0", "1", "0", "1")},
	} {
		if _, err := NewConversion(&def); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestConversionRoundTrip: what is read can be written back, for every 16-bit
// raw value and scales that field devices use.
func TestConversionRoundTrip(t *testing.T) {
	for _, scale := range []string{"1", "0.1", "0.01", "0.001", "10", "0.0625", "-0.1", "0.00390625"} {
		c, err := NewConversion(&Definition{Type: Int16, Scale: decimal(scale), Offset: decimal("-12.5")})
		if err != nil {
			t.Fatal(err)
		}
		for raw := math.MinInt16; raw <= math.MaxInt16; raw++ {
			v, _, _ := c.Engineering(IntValue(int64(raw)), 0)
			back, err := c.Raw(v, 0)
			if err != nil || back.Int() != int64(raw) {
				t.Fatalf("scale %s: %d became %s became %s, %v", scale, raw, v, back, err)
			}
		}
	}
}
