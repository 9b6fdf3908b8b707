package sim

import (
	"encoding/binary"
	"fmt"
	"time"

	"sluice/adapters/modbus"
	"sluice/gateway"
)

// field is a point in the memory of its unit.
type field struct {
	point      *gateway.Point
	codec      *modbus.Codec
	conversion *gateway.Conversion
	table      modbus.Table
	start      int
	cells      []*cell
	exponent   *field // of its scale_from
	scales     bool   // it is somebody's exponent
	generate   func(now time.Duration) gateway.Value

	written bool // a client or Set did: it moves no more
	moved   time.Duration
}

// Whole values are made before the bits that stand in the same registers.
const layers = 2

func newField(p *gateway.Point) (*field, error) {
	f := &field{point: p}
	at, err := modbus.ParseAddress(p.At, p.Device.Profile.Addressing, p.Device.Profile.Table)
	if err != nil {
		return nil, err
	}
	if f.codec, err = modbus.NewCodec(p.Definition, p.Device.Profile.Order); err != nil {
		return nil, err
	}
	if f.conversion, err = gateway.NewConversion(p.Definition); err != nil {
		return nil, err
	}
	f.table, f.start = at.Table, at.Wire+p.Device.Shift
	if f.start < 0 || f.start+f.size() > 1<<16 {
		return nil, fmt.Errorf("%s lies outside of its table with shift %d", at, p.Device.Shift)
	}
	return f, nil
}

func (f *field) size() int {
	if f.table.Bits() {
		return f.codec.Count()
	}
	return f.codec.Registers()
}

func (f *field) layer() int { return layer(f.point.Definition) }

func layer(d *gateway.Definition) int {
	if d.Bit != nil || d.Bits != nil {
		return 1
	}
	return 0
}

// set puts a value in engineering units into the cells.
func (f *field) set(v gateway.Value) error {
	raw, err := f.conversion.Raw(v, f.power())
	if err != nil {
		return err
	}
	data := f.load()
	if f.table.Bits() {
		err = f.codec.EncodeBits(raw, data, 0)
	} else {
		if f.layer() > 0 {
			if raw, err = f.merge(data, raw); err != nil {
				return err
			}
		}
		err = f.codec.Encode(raw, data)
	}
	if err == nil {
		f.store(data)
	}
	return err
}

// get is the value in engineering units.
func (f *field) get() (gateway.Value, gateway.Quality, string) {
	decode := f.codec.Decode
	if f.table.Bits() {
		decode = func(data []byte) (gateway.Value, error) { return f.codec.DecodeBits(data, 0) }
	}
	raw, err := decode(f.load())
	if err != nil {
		return gateway.Value{}, gateway.Bad, err.Error()
	}
	return f.conversion.Engineering(raw, f.power())
}

// power is the exponent of a scale_from, 0 without one.
func (f *field) power() int {
	if f.exponent == nil {
		return 0
	}
	v, _, _ := f.exponent.get()
	return int(v.Int())
}

// merge puts the bits of a point into the number that its registers hold.
func (f *field) merge(data []byte, bits gateway.Value) (gateway.Value, error) {
	whole, err := f.codec.Decode(data)
	if err != nil {
		return whole, err
	}
	return mergeBits(f.point.Definition, whole, bits)
}

// mergeBits puts the bits of a point into a whole number, or those of a list
// into as many.
func mergeBits(d *gateway.Definition, whole, bits gateway.Value) (gateway.Value, error) {
	if whole.Kind() == gateway.List {
		if len(whole.List()) != len(bits.List()) {
			return whole, fmt.Errorf("%d values, the point has %d", len(bits.List()), len(whole.List()))
		}
		list := make([]gateway.Value, len(whole.List()))
		for i := range list {
			list[i], _ = mergeBits(d, whole.List()[i], bits.List()[i])
		}
		return gateway.ListValue(list), nil
	}
	low, high := 0, 0
	if d.Bits != nil {
		low, high = d.Bits.Low, d.Bits.High
	} else {
		low, high = *d.Bit, *d.Bit
	}
	mask := uint64(1)<<(high-low)<<1 - 1
	return gateway.UintValue(whole.Uint()&^(mask<<low) | bits.Uint()&mask<<low), nil
}

// load gives the cells as they go over the wire.
func (f *field) load() []byte {
	if f.table.Bits() {
		packed := make([]byte, (len(f.cells)+7)/8)
		for i, c := range f.cells {
			packed[i/8] |= byte(c.value) << (i % 8)
		}
		return packed
	}
	data := make([]byte, 0, 2*len(f.cells))
	for _, c := range f.cells {
		data = binary.BigEndian.AppendUint16(data, c.value)
	}
	return data
}

func (f *field) store(data []byte) {
	for i, c := range f.cells {
		if f.table.Bits() {
			c.value = uint16(data[i/8] >> (i % 8) & 1)
		} else {
			c.value = binary.BigEndian.Uint16(data[2*i:])
		}
	}
}
