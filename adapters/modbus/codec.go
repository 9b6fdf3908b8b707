package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"

	"sluice/gateway"
)

// Codec turns the registers of one point into its raw value and back. It is
// made once per Definition and is safe for concurrent use; decoding a number
// allocates nothing.
//
// Values are gateway Values of these kinds: bool Boolean; int8 to int64
// Signed; uint8 to uint64, bcd16, bcd32 Unsigned; float32 Single; float64
// Double; string and flags Text; bytes Blob; time Moment; with count a List.
// A point with bit or bits is its whole register (or 2 or 4, by its type) as
// an Unsigned: picking the bits out belongs to gateway.Conversion.
//
// Numbers of one register are as Modbus has them, high byte first; order is
// about two registers and more. Strings and bytes follow the addresses, and
// BADC and DCBA swap the two bytes of each register. Flags, and times other
// than the unix ones, are defined register by register and have no order.
type Codec struct {
	typ     gateway.Type
	reverse bool // all bytes of a value
	swap    bool // the bytes of each register
	array   bool
	count   int // values
	words   int // registers of one value
	length  int // bytes of a string, bytes or flags value
	pad     byte
	flags   []string // names by bit
	clock   clock
}

var (
	errShort = errors.New("fewer registers than the point has")
	errBCD   = errors.New("not a decimal (BCD) number")
)

// maxWords keeps sizes in reach of int arithmetic; requests are far smaller.
const maxWords = 1 << 16

// NewCodec makes the codec of a point; order is the profile's, where the
// Definition has none of its own. It refuses what Check would.
func NewCodec(d *gateway.Definition, order gateway.Order) (*Codec, error) {
	if d.Order != "" {
		order = d.Order
	}
	c := &Codec{typ: d.Type, length: d.Length, array: d.Count > 0, count: max(1, d.Count)}
	if err := c.shape(d); err != nil {
		return nil, err
	}
	if c.words*c.count > maxWords || c.words > maxWords || c.count > maxWords {
		return nil, fmt.Errorf("%d values of %d registers are more than a table holds", c.count, c.words)
	}
	switch order {
	case gateway.ABCD:
	case gateway.CDAB:
		c.reverse, c.swap = true, true
	case gateway.BADC:
		c.swap = true
	case gateway.DCBA:
		c.reverse = true
	case "":
		if c.ordered() {
			return nil, errNoOrder
		}
	default:
		return nil, fmt.Errorf("order %q is unknown; write ABCD, CDAB, BADC or DCBA", order)
	}
	return c, nil
}

var errNoOrder = errors.New("no order for a value of two registers or more; write order: ABCD (most significant first), CDAB (words swapped), BADC (bytes swapped) or DCBA (all reversed), as the manual says")

// ordered tells whether the value means something else in another order.
func (c *Codec) ordered() bool {
	return c.words > 1 && c.typ != gateway.Flags && (c.typ != gateway.Time || c.clock.count())
}

// shape sets what a value of the type looks like.
func (c *Codec) shape(d *gateway.Definition) (err error) {
	if c.words = typeWords[d.Type]; c.words == 0 {
		if d.Type == "" {
			return errors.New("the point has no type; write type: uint16, int16, float32 …, as the manual says")
		}
		return fmt.Errorf("type %q is unknown; write bool, int8 … int64, uint8 … uint64, float32, float64, bcd16, bcd32, string, bytes, flags or time", d.Type)
	}
	if d.Count < 0 {
		return fmt.Errorf("count %d is negative", d.Count)
	}
	if d.Bit != nil || d.Bits != nil {
		return c.carrier(d)
	}
	switch d.Type {
	case gateway.String, gateway.Bytes, gateway.Flags:
		if d.Length < 1 || d.Length > 2*maxWords {
			return fmt.Errorf("type %s needs a length; write length: and the number of bytes, two for each register", d.Type)
		}
		c.words = (d.Length + 1) / 2
		if d.Pad == "space" {
			c.pad = ' '
		}
		if d.Type == gateway.Flags {
			c.flags, err = flagNames(d)
		}
	case gateway.Time:
		if c.clock, err = newClock(d.Format, d.Zone); err == nil {
			c.words = c.clock.words()
		}
	}
	return err
}

// typeWords is how many registers a type has, 1 for those that say it otherwise.
var typeWords = map[gateway.Type]int{
	gateway.Bool: 1, gateway.Int8: 1, gateway.Int16: 1, gateway.Int32: 2, gateway.Int64: 4,
	gateway.Uint8: 1, gateway.Uint16: 1, gateway.Uint32: 2, gateway.Uint64: 4,
	gateway.Float32: 2, gateway.Float64: 4, gateway.BCD16: 1, gateway.BCD32: 2,
	gateway.String: 1, gateway.Bytes: 1, gateway.Flags: 1, gateway.Time: 1,
}

// carrier makes the codec of the registers that hold a point's bits.
func (c *Codec) carrier(d *gateway.Definition) error {
	switch d.Type {
	case gateway.Bool, gateway.Int8, gateway.Uint8, gateway.Int16, gateway.Uint16:
		c.typ = gateway.Uint16
	case gateway.Int32, gateway.Uint32:
		c.typ = gateway.Uint32
	case gateway.Int64, gateway.Uint64:
		c.typ = gateway.Uint64
	default:
		return fmt.Errorf("type %s has no bits to pick", d.Type)
	}
	low, high := bitRange(d)
	if low < 0 || high >= 16*c.words {
		return fmt.Errorf("bit %d is outside of the %d bits of %s; write type: uint32 or uint64 for more registers", high, 16*c.words, d.Type)
	}
	return nil
}

// bitRange is the first and last bit of a point with bit or bits.
func bitRange(d *gateway.Definition) (low, high int) {
	if d.Bits != nil {
		return d.Bits.Low, d.Bits.High
	}
	return *d.Bit, *d.Bit
}

// Registers is how many registers the point takes.
func (c *Codec) Registers() int { return c.words * c.count }

// Count is how many values the point has: bits in a table of bits.
func (c *Codec) Count() int { return c.count }

// Decode makes the raw value of the point's registers, in wire order. An
// error says why they are no value: BCD digits above 9, a date that does not
// exist.
func (c *Codec) Decode(data []byte) (gateway.Value, error) {
	if len(data) < 2*c.Registers() {
		return gateway.Value{}, errShort
	}
	if !c.array {
		return c.decode(data[:2*c.words])
	}
	list := make([]gateway.Value, c.count)
	for i := range list {
		v, err := c.decode(data[2*c.words*i : 2*c.words*(i+1)])
		if err != nil {
			return gateway.Value{}, err
		}
		list[i] = v
	}
	return gateway.ListValue(list), nil
}

func (c *Codec) decode(data []byte) (gateway.Value, error) {
	switch c.typ {
	case gateway.Bool:
		return gateway.BoolValue(data[0]|data[1] != 0), nil
	case gateway.Int8:
		return gateway.IntValue(int64(int8(data[1]))), nil
	case gateway.Uint8:
		return gateway.UintValue(uint64(data[1])), nil
	case gateway.String, gateway.Bytes:
		return c.decodeText(data), nil
	case gateway.Flags:
		return c.decodeFlags(data), nil
	case gateway.Time:
		return c.clock.decode(c, data)
	}
	u := c.load(data)
	switch c.typ {
	case gateway.Int16:
		return gateway.IntValue(int64(int16(u))), nil
	case gateway.Int32:
		return gateway.IntValue(int64(int32(u))), nil
	case gateway.Int64:
		return gateway.IntValue(int64(u)), nil
	case gateway.Float32:
		return gateway.Float32Value(math.Float32frombits(uint32(u))), nil
	case gateway.Float64:
		return gateway.FloatValue(math.Float64frombits(u)), nil
	case gateway.BCD16, gateway.BCD32:
		n, ok := fromBCD(u)
		if !ok {
			return gateway.Value{}, errBCD
		}
		return gateway.UintValue(n), nil
	}
	return gateway.UintValue(u), nil
}

// load reads a number of 1, 2 or 4 registers.
func (c *Codec) load(data []byte) uint64 {
	switch c.words {
	case 1:
		return uint64(binary.BigEndian.Uint16(data))
	case 2:
		return c.reorder(uint64(binary.BigEndian.Uint32(data)))
	}
	return c.reorder(binary.BigEndian.Uint64(data))
}

// store is the inverse of load.
func (c *Codec) store(u uint64, data []byte) {
	switch c.words {
	case 1:
		binary.BigEndian.PutUint16(data, uint16(u))
	case 2:
		binary.BigEndian.PutUint32(data, uint32(c.reorder(u)))
	default:
		binary.BigEndian.PutUint64(data, c.reorder(u))
	}
}

// reorder puts the bytes of a number of two or four registers into order;
// each order is its own inverse.
func (c *Codec) reorder(u uint64) uint64 {
	if c.reverse {
		u = bits.ReverseBytes64(u)
		if c.words == 2 {
			u >>= 32
		}
	}
	if c.swap {
		u = u>>8&0x00FF00FF00FF00FF | u&0x00FF00FF00FF00FF<<8
	}
	return u
}

func fromBCD(u uint64) (n uint64, ok bool) {
	for shift := 28; shift >= 0; shift -= 4 {
		digit := u >> shift & 0xF
		if digit > 9 {
			return 0, false
		}
		n = n*10 + digit
	}
	return n, true
}

// DecodeBits makes the raw value of a point in a table of bits: the bit at
// position first of the packed bits of an answer, the lowest bit of each byte
// being the first.
func (c *Codec) DecodeBits(packed []byte, first int) (gateway.Value, error) {
	if c.typ != gateway.Bool {
		return gateway.Value{}, fmt.Errorf("type %s is not bool, but its table holds bits", c.typ)
	}
	if first < 0 || first+c.count > 8*len(packed) {
		return gateway.Value{}, errShort
	}
	if !c.array {
		return gateway.BoolValue(packed[first/8]>>(first%8)&1 != 0), nil
	}
	list := make([]gateway.Value, c.count)
	for i := range list {
		n := first + i
		list[i] = gateway.BoolValue(packed[n/8]>>(n%8)&1 != 0)
	}
	return gateway.ListValue(list), nil
}
