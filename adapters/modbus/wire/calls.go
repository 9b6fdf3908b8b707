package wire

import (
	"context"
	"encoding/binary"
	"time"
)

// Read reads coils, discrete inputs, holding or input registers, by function 1 to 4. The data is that on the wire: two bytes a
// register, high byte first, or packed bits, lowest first. It is valid until the next request. Timeout 0 is that of Options.
func (c *Client) Read(ctx context.Context, unit, function byte, addr, count uint16, timeout time.Duration) ([]byte, error) {
	c.pdu = AppendRead(c.pdu[:0], function, addr, count)
	reply, err := c.Do(ctx, Request{Unit: unit, PDU: c.pdu, Timeout: timeout})
	if err != nil {
		return nil, err
	}
	return reply[2:], nil
}

// ReadCoils reads up to 2000 coils (function 1). See Bit for the answer, which is valid until the next request.
func (c *Client) ReadCoils(ctx context.Context, unit byte, addr, count uint16) ([]byte, error) {
	return c.Read(ctx, unit, FuncReadCoils, addr, count, 0)
}

// ReadDiscreteInputs reads up to 2000 discrete inputs (function 2), as ReadCoils does.
func (c *Client) ReadDiscreteInputs(ctx context.Context, unit byte, addr, count uint16) ([]byte, error) {
	return c.Read(ctx, unit, FuncReadDiscreteInputs, addr, count, 0)
}

// ReadHoldingRegisters reads up to 125 registers (function 3): 2*count bytes as on the wire, valid until the next request.
func (c *Client) ReadHoldingRegisters(ctx context.Context, unit byte, addr, count uint16) ([]byte, error) {
	return c.Read(ctx, unit, FuncReadHoldingRegisters, addr, count, 0)
}

// ReadInputRegisters reads up to 125 input registers (function 4), as ReadHoldingRegisters does.
func (c *Client) ReadInputRegisters(ctx context.Context, unit byte, addr, count uint16) ([]byte, error) {
	return c.Read(ctx, unit, FuncReadInputRegisters, addr, count, 0)
}

// Bit is bit i of packed coils or discrete inputs.
func Bit(packed []byte, i int) bool { return packed[i/8]>>(i%8)&1 != 0 }

// WriteSingleCoil is function 5.
func (c *Client) WriteSingleCoil(ctx context.Context, unit byte, addr uint16, on bool) error {
	return c.write(ctx, unit, AppendWriteCoil(c.pdu[:0], addr, on))
}

// WriteSingleRegister is function 6.
func (c *Client) WriteSingleRegister(ctx context.Context, unit byte, addr, value uint16) error {
	return c.write(ctx, unit, AppendWriteRegister(c.pdu[:0], addr, value))
}

// WriteMultipleCoils is function 15. Packed has count bits, lowest first, in no more bytes than they need.
func (c *Client) WriteMultipleCoils(ctx context.Context, unit byte, addr, count uint16, packed []byte) error {
	return c.write(ctx, unit, AppendWriteCoils(c.pdu[:0], addr, count, packed))
}

// WriteMultipleRegisters is function 16. Data is two bytes a register, as on the wire.
func (c *Client) WriteMultipleRegisters(ctx context.Context, unit byte, addr uint16, data []byte) error {
	return c.write(ctx, unit, AppendWriteRegisters(c.pdu[:0], addr, data))
}

// MaskWriteRegister is function 22: the unit makes of a register (register & and) | (or &^ and).
func (c *Client) MaskWriteRegister(ctx context.Context, unit byte, addr, and, or uint16) error {
	return c.write(ctx, unit, AppendMaskWrite(c.pdu[:0], addr, and, or))
}

// ReadWriteMultipleRegisters is function 23: the unit writes first, then reads. The answer is valid until the next request.
func (c *Client) ReadWriteMultipleRegisters(ctx context.Context, unit byte, readAddr, readCount, writeAddr uint16, data []byte) ([]byte, error) {
	reply, err := c.Do(ctx, Request{Unit: unit, PDU: AppendReadWrite(c.pdu[:0], readAddr, readCount, writeAddr, data)})
	if err != nil {
		return nil, err
	}
	return reply[2:], nil
}

func (c *Client) write(ctx context.Context, unit byte, pdu []byte) error {
	_, err := c.Do(ctx, Request{Unit: unit, PDU: pdu})
	return err
}

// AppendRead appends the PDU of function 1 to 4.
func AppendRead(dst []byte, function byte, addr, count uint16) []byte {
	return appendWords(append(dst, function), addr, count)
}

// AppendWriteCoil appends the PDU of function 5.
func AppendWriteCoil(dst []byte, addr uint16, on bool) []byte {
	var value uint16
	if on {
		value = 0xFF00
	}
	return appendWords(append(dst, FuncWriteSingleCoil), addr, value)
}

// AppendWriteRegister appends the PDU of function 6.
func AppendWriteRegister(dst []byte, addr, value uint16) []byte {
	return appendWords(append(dst, FuncWriteSingleRegister), addr, value)
}

// AppendWriteCoils appends the PDU of function 15.
func AppendWriteCoils(dst []byte, addr, count uint16, packed []byte) []byte {
	dst = appendWords(append(dst, FuncWriteMultipleCoils), addr, count)
	return append(append(dst, byte(len(packed))), packed...)
}

// AppendWriteRegisters appends the PDU of function 16.
func AppendWriteRegisters(dst []byte, addr uint16, data []byte) []byte {
	dst = appendWords(append(dst, FuncWriteMultipleRegisters), addr, uint16(len(data)/2))
	return append(append(dst, byte(len(data))), data...)
}

// AppendMaskWrite appends the PDU of function 22.
func AppendMaskWrite(dst []byte, addr, and, or uint16) []byte {
	return appendWords(append(dst, FuncMaskWriteRegister), addr, and, or)
}

// AppendReadWrite appends the PDU of function 23.
func AppendReadWrite(dst []byte, readAddr, readCount, writeAddr uint16, data []byte) []byte {
	dst = appendWords(append(dst, FuncReadWriteMultiple), readAddr, readCount, writeAddr, uint16(len(data)/2))
	return append(append(dst, byte(len(data))), data...)
}

func appendWords(dst []byte, words ...uint16) []byte {
	for _, w := range words {
		dst = binary.BigEndian.AppendUint16(dst, w)
	}
	return dst
}
