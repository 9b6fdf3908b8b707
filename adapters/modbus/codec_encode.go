package modbus

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"sluice/gateway"
)

// Encode puts a raw value into the point's registers, in wire order: the
// inverse of Decode. What does not fit is refused and data left unspecified.
func (c *Codec) Encode(v gateway.Value, data []byte) error {
	if len(data) < 2*c.Registers() {
		return errShort
	}
	if !c.array {
		return c.encode(v, data[:2*c.words])
	}
	list, err := c.elements(v)
	for i := 0; i < len(list) && err == nil; i++ {
		err = c.encode(list[i], data[2*c.words*i:2*c.words*(i+1)])
	}
	return err
}

// EncodeBits is the inverse of DecodeBits; it leaves the other bits alone.
func (c *Codec) EncodeBits(v gateway.Value, packed []byte, first int) error {
	if c.typ != gateway.Bool {
		return fmt.Errorf("type %s is not bool, but its table holds bits", c.typ)
	}
	if first < 0 || first+c.count > 8*len(packed) {
		return errShort
	}
	list := []gateway.Value{v}
	if c.array {
		var err error
		if list, err = c.elements(v); err != nil {
			return err
		}
	}
	for i, v := range list {
		on, err := boolean(v)
		if err != nil {
			return err
		}
		n := first + i
		packed[n/8] &^= 1 << (n % 8)
		if on {
			packed[n/8] |= 1 << (n % 8)
		}
	}
	return nil
}

func (c *Codec) elements(v gateway.Value) ([]gateway.Value, error) {
	if v.Kind() != gateway.List {
		return nil, fmt.Errorf("%s is not a list of %d values", v, c.count)
	}
	if len(v.List()) != c.count {
		return nil, fmt.Errorf("a list of %d values, the point has %d", len(v.List()), c.count)
	}
	return v.List(), nil
}

func (c *Codec) encode(v gateway.Value, data []byte) error {
	switch c.typ {
	case gateway.String, gateway.Bytes:
		return c.encodeText(v, data)
	case gateway.Flags:
		return c.encodeFlags(v, data)
	case gateway.Time:
		return c.clock.encode(c, v, data)
	}
	u, err := c.number(v)
	if err == nil {
		c.store(u, data)
	}
	return err
}

// number makes the bit pattern of a value of one of the number types.
func (c *Codec) number(v gateway.Value) (uint64, error) {
	switch c.typ {
	case gateway.Bool:
		on, err := boolean(v)
		if on {
			return 1, err
		}
		return 0, err
	case gateway.Int8:
		return c.signed(v, 8)
	case gateway.Int16:
		return c.signed(v, 16)
	case gateway.Int32:
		return c.signed(v, 32)
	case gateway.Int64:
		return c.signed(v, 64)
	case gateway.Uint8:
		return c.unsigned(v, math.MaxUint8)
	case gateway.Uint16:
		return c.unsigned(v, math.MaxUint16)
	case gateway.Uint32:
		return c.unsigned(v, math.MaxUint32)
	case gateway.BCD16:
		u, err := c.unsigned(v, 9999)
		return toBCD(u), err
	case gateway.BCD32:
		u, err := c.unsigned(v, 99999999)
		return toBCD(u), err
	case gateway.Float32, gateway.Float64:
		return c.float(v)
	}
	return c.unsigned(v, math.MaxUint64)
}

func (c *Codec) misfit(v gateway.Value) error {
	return fmt.Errorf("%s does not fit %s", v, c.typ)
}

// signed gives the two's complement; one of 8 bits is extended to the register.
func (c *Codec) signed(v gateway.Value, size int) (uint64, error) {
	i, ok := int64(0), false
	switch v.Kind() {
	case gateway.Signed, gateway.Boolean:
		i, ok = v.Int(), true
	case gateway.Unsigned:
		i, ok = v.Int(), v.Uint() <= math.MaxInt64
	case gateway.Single, gateway.Double:
		f := v.Float()
		i, ok = int64(f), f == math.Trunc(f) && f >= -1<<63 && f < 1<<63
	}
	if !ok || i<<(64-size)>>(64-size) != i {
		return 0, c.misfit(v)
	}
	return uint64(i), nil
}

func (c *Codec) unsigned(v gateway.Value, most uint64) (uint64, error) {
	u, ok := uint64(0), false
	switch v.Kind() {
	case gateway.Unsigned, gateway.Boolean:
		u, ok = v.Uint(), true
	case gateway.Signed:
		u, ok = v.Uint(), v.Int() >= 0
	case gateway.Single, gateway.Double:
		f := v.Float()
		u, ok = uint64(f), f == math.Trunc(f) && f >= 0 && f < 1<<64
	}
	if !ok || u > most {
		return 0, c.misfit(v)
	}
	return u, nil
}

func (c *Codec) float(v gateway.Value) (uint64, error) {
	if !v.Numeric() {
		return 0, c.misfit(v)
	}
	if c.typ == gateway.Float64 {
		return math.Float64bits(v.Float()), nil
	}
	f := float32(v.Float())
	if math.IsInf(float64(f), 0) && !math.IsInf(v.Float(), 0) {
		return 0, c.misfit(v)
	}
	return uint64(math.Float32bits(f)), nil
}

// boolean takes a Boolean, and the numbers 0 and 1.
func boolean(v gateway.Value) (bool, error) {
	if v.Kind() == gateway.Boolean || v.Numeric() && (v.Float() == 0 || v.Float() == 1) {
		return v.Bool(), nil
	}
	return false, fmt.Errorf("%s is neither true nor false", v)
}

func toBCD(n uint64) (u uint64) {
	for shift := 0; n > 0; shift += 4 {
		u |= n % 10 << shift
		n /= 10
	}
	return u
}

// swapped copies the characters of registers in reading order.
func (c *Codec) swapped(dst, src []byte) {
	copy(dst, src)
	if c.swap != c.reverse { // BADC and DCBA
		for i := 0; i+1 < len(dst); i += 2 {
			dst[i], dst[i+1] = dst[i+1], dst[i]
		}
	}
}

// decodeText reads a string up to its padding, or all bytes. Text that is not
// UTF-8 gets the replacement character, so that it can travel as JSON.
func (c *Codec) decodeText(data []byte) gateway.Value {
	var array [256]byte
	buffer := array[:]
	if len(data) > len(buffer) {
		buffer = make([]byte, len(data))
	}
	buffer = buffer[:len(data)]
	c.swapped(buffer, data)
	text := buffer[:c.length]
	if c.typ == gateway.Bytes {
		return gateway.BlobValue(text)
	}
	if c.pad == 0 {
		for i, b := range text {
			if b == 0 {
				text = text[:i]
				break
			}
		}
	}
	for c.pad != 0 && len(text) > 0 && text[len(text)-1] == c.pad {
		text = text[:len(text)-1]
	}
	return gateway.TextValue(strings.ToValidUTF8(string(text), "\uFFFD"))
}

func (c *Codec) encodeText(v gateway.Value, data []byte) error {
	text := v.Text()
	switch {
	case c.typ == gateway.Bytes && (v.Kind() != gateway.Blob || len(text) != c.length):
		return fmt.Errorf("%s is not %d bytes", v, c.length)
	case c.typ == gateway.String && v.Kind() != gateway.Text:
		return c.misfit(v)
	case len(text) > c.length:
		return fmt.Errorf("%q is longer than %d bytes", text, c.length)
	case c.typ == gateway.String && strings.IndexByte(text, 0) >= 0:
		return fmt.Errorf("%q has a NUL", text)
	}
	padded := make([]byte, len(data))
	for i := copy(padded, text); i < len(padded); i++ {
		padded[i] = c.pad
	}
	c.swapped(data, padded)
	return nil
}

// flagNames lists the names by bit: those of the Definition, bit7 for the rest.
func flagNames(d *gateway.Definition) ([]string, error) {
	names := make([]string, 8*d.Length)
	for i := range names {
		names[i] = "bit" + strconv.Itoa(i)
	}
	for bit, name := range d.Flags {
		if bit < 0 || bit >= len(names) {
			return nil, fmt.Errorf("flag %s: bit %d is outside of %d bytes", name, bit, d.Length)
		}
		names[bit] = name
	}
	return names, nil
}

// decodeFlags names the bits that are set. Bit n is bit n mod 16 of register
// n div 16.
func (c *Codec) decodeFlags(data []byte) gateway.Value {
	text := ""
	for bit, name := range c.flags {
		if data[bit/16*2+1-bit%16/8]>>(bit%8)&1 == 0 {
			continue
		}
		if text != "" {
			text += ","
		}
		text += name
	}
	return gateway.TextValue(text)
}

func (c *Codec) encodeFlags(v gateway.Value, data []byte) error {
	if v.Kind() != gateway.Text {
		return c.misfit(v)
	}
	clear(data)
	if v.Text() == "" {
		return nil
	}
	for name := range strings.SplitSeq(v.Text(), ",") {
		bit := c.flagBit(strings.TrimSpace(name))
		if bit < 0 {
			return fmt.Errorf("%q is not one of the flags", name)
		}
		data[bit/16*2+1-bit%16/8] |= 1 << (bit % 8)
	}
	return nil
}

func (c *Codec) flagBit(name string) int {
	for bit, n := range c.flags {
		if n == name {
			return bit
		}
	}
	return -1
}
