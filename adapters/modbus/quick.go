package modbus

import (
	"encoding/binary"
	"math"
	"math/bits"

	"sluice/gateway"
)

// quick decodes the values that most points have, plain numbers and bits, which
// go out as they come in or by a straight line. It stands in the reading itself: with 10,000 points,
// following pointers to codec, conversion and Definition takes three times as
// long as the work. Codec and Conversion say what is right; a test compares.
type quick struct {
	kind          gateway.Kind // None: not for this point
	words         uint8        // registers; 0 is a table of bits
	reverse, swap bool
}

// quickOf is the quick way of a point, if it has one.
func quickOf(at *place) quick {
	d, c := at.point.Definition, at.codec
	if c.array || at.straight == nil && !plain(d) {
		return quick{}
	}
	q := quick{words: uint8(c.words), reverse: c.reverse, swap: c.swap}
	switch d.Type {
	case gateway.Int16, gateway.Int32, gateway.Int64:
		q.kind = gateway.Signed
	case gateway.Uint16, gateway.Uint32, gateway.Uint64:
		q.kind = gateway.Unsigned
	case gateway.Float32, gateway.Float64:
		q.kind = gateway.Single
	case gateway.Bool:
		q.kind = gateway.Boolean
	default:
		return quick{}
	}
	if at.address.Table.Bits() {
		q.words = 0
	}
	return q
}

// plain tells whether the point's raw value is its value.
func plain(d *gateway.Definition) bool {
	return d.Bit == nil && d.Bits == nil && len(d.Enum) == 0 && len(d.Invalid) == 0 && d.Plausible == nil &&
		d.Scale == nil && d.Offset == nil && d.Map == nil && d.ScaleFrom == "" && d.Decimals == nil
}

// value decodes a value; false leaves it to Codec and Conversion.
func (q quick) value(data []byte, offset int) (gateway.Value, bool) {
	if q.kind == gateway.None || offset < 0 {
		return gateway.Value{}, false
	}
	if q.words == 0 {
		if offset >= 8*len(data) {
			return gateway.Value{}, false
		}
		return gateway.BoolValue(data[offset/8]>>(offset%8)&1 != 0), true
	}
	if offset+2*int(q.words) > len(data) {
		return gateway.Value{}, false
	}
	u := q.load(data[offset:])
	switch q.kind {
	case gateway.Boolean:
		return gateway.BoolValue(u != 0), true
	case gateway.Signed:
		free := 64 - 16*q.words
		return gateway.IntValue(int64(u<<free) >> free), true
	case gateway.Unsigned:
		return gateway.UintValue(u), true
	}
	if q.words == 2 {
		f := math.Float32frombits(uint32(u))
		return gateway.Float32Value(f), f-f == 0 // neither infinite nor NaN
	}
	f := math.Float64frombits(u)
	return gateway.FloatValue(f), f-f == 0
}

// load reads a number of 1, 2 or 4 registers.
func (q quick) load(data []byte) (u uint64) {
	switch q.words {
	case 1:
		return uint64(binary.BigEndian.Uint16(data))
	case 2:
		u = uint64(binary.BigEndian.Uint32(data))
		if q.reverse {
			u = uint64(bits.ReverseBytes32(uint32(u)))
		}
	default:
		u = binary.BigEndian.Uint64(data)
		if q.reverse {
			u = bits.ReverseBytes64(u)
		}
	}
	if q.swap {
		u = u>>8&0x00FF00FF00FF00FF | u&0x00FF00FF00FF00FF<<8
	}
	return u
}
