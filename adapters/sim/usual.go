package sim

import (
	"math"

	"sluice/gateway"
)

// wave is a value that moves around its middle.
type wave struct{ middle, swing float64 }

// usual is what the values of a small factory look like, by unit.
var usual = map[string]wave{
	"V": {230, 4}, "kV": {20, 0.2}, "mV": {60, 5}, "A": {12, 3}, "mA": {12, 2}, "Hz": {50, 0.04},
	"W": {8000, 1500}, "kW": {8, 1.5}, "MW": {0.8, 0.1}, "VA": {8500, 1500}, "kVA": {8.5, 1.5}, "var": {1500, 300}, "kvar": {1.5, 0.3},
	"°C": {40, 2}, "C": {40, 2}, "K": {313, 2}, "°F": {104, 4}, "%": {55, 10}, "%RH": {45, 5}, "‰": {30, 5},
	"bar": {6, 0.4}, "mbar": {1013, 6}, "Pa": {101300, 600}, "hPa": {1013, 6}, "kPa": {101.3, 0.6}, "MPa": {0.6, 0.04}, "psi": {87, 5},
	"l/s": {0.3, 0.05}, "l/min": {20, 3}, "l/h": {1200, 150}, "m3/h": {12, 1.5}, "m³/h": {12, 1.5}, "kg/h": {180, 20}, "Nm3/h": {40, 5}, "Nm³/h": {40, 5},
	"rpm": {1450, 15}, "1/min": {1450, 15}, "min-1": {1450, 15}, "Nm": {35, 5}, "N": {200, 20}, "kN": {80, 8},
	"mm": {120, 10}, "cm": {80, 8}, "m": {2.5, 0.2}, "mm/s": {2.8, 0.5}, "m/s": {1.2, 0.2}, "g": {250, 5}, "kg": {480, 20}, "t": {2.4, 0.1},
	"ppm": {600, 80}, "µS/cm": {450, 30}, "pH": {7.2, 0.2}, "lx": {500, 60}, "dB": {72, 4}, "ms": {40, 5}, "s": {18, 2}, "min": {12, 2},
}

// count is something that rises by so much a second.
type count struct{ start, rate float64 }

// pieces is what a counter of anything else counts.
var pieces = count{1000, 0.5}

// counts is what is only ever counted, by unit.
var counts = map[string]count{
	"Wh": {12e6, 2.2}, "kWh": {12000, 0.0022}, "MWh": {120, 2.2e-6}, "VAh": {13e6, 2.4}, "kVAh": {13000, 0.0024},
	"varh": {2e6, 0.4}, "kvarh": {2000, 0.0004}, "m3": {5000, 0.0033}, "m³": {5000, 0.0033}, "l": {50000, 0.33}, "h": {8000, 1.0 / 3600},
}

// lowest and highest are the raw numbers that fit a point, or what no
// measurement reaches.
func lowest(d *gateway.Definition) float64 {
	switch d.Type {
	case gateway.Int8, gateway.Int16, gateway.Int32, gateway.Int64:
		return -math.Ldexp(1, width(d)-1)
	case gateway.Float32, gateway.Float64:
		return -1e12
	}
	return 0
}

func highest(d *gateway.Definition) float64 {
	switch d.Type {
	case gateway.Int8, gateway.Int16, gateway.Int32, gateway.Int64:
		return math.Ldexp(1, width(d)-1) - 1
	case gateway.Float32, gateway.Float64:
		return 1e12
	case gateway.BCD16:
		return 9999
	case gateway.BCD32:
		return 99999999
	}
	return math.Ldexp(1, width(d)) - 1
}

// width is how many bits a number has.
func width(d *gateway.Definition) int {
	switch {
	case d.Bit != nil:
		return 1
	case d.Bits != nil:
		return d.Bits.High - d.Bits.Low + 1
	}
	switch d.Type {
	case gateway.Bool:
		return 1
	case gateway.Int8, gateway.Uint8:
		return 8
	case gateway.Int16, gateway.Uint16:
		return 16
	case gateway.Int32, gateway.Uint32:
		return 32
	}
	return 64
}
