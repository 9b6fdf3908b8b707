package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// maxWrite is the most registers that the protocol allows in one write.
const maxWrite = 123

// Write encodes a value with the codec that reads it and sends it once, behind
// what unlocks the point.
func (s *session) Write(ctx context.Context, p *gateway.Point, value gateway.Value) error {
	err := s.write(ctx, p, value)
	var refused *gateway.WriteError
	if err == nil || errors.As(err, &refused) || wire.Broken(err) {
		return err
	}
	return &gateway.WriteError{Err: err}
}

func (s *session) write(ctx context.Context, p *gateway.Point, value gateway.Value) error {
	at := s.atlas.places[p]
	if at == nil {
		return fmt.Errorf("%s is not a point of this bus", p.ID)
	}
	pdu, err := s.writeRequest(ctx, at, value)
	if err != nil {
		return err
	}
	if p.Needs == "unlock" {
		pdu = slices.Clone(pdu)
		if err := s.unlock(ctx, p.Device); err != nil {
			return err
		}
	}
	return s.sendWrite(ctx, p, pdu)
}

// sendWrite sends a write request. An error that leaves open whether the unit
// took it says so.
func (s *session) sendWrite(ctx context.Context, p *gateway.Point, pdu []byte) error {
	err := s.put(ctx, p.Device, pdu)
	switch {
	case errors.Is(err, wire.ServerDeviceBusy):
		return &gateway.WriteError{Err: err, Busy: true}
	case errors.Is(err, wire.Acknowledge): // it is doing it
		return &gateway.WriteError{Err: err, Unknown: true, Once: true}
	case errors.Is(err, wire.GatewayTargetNoResponse): // it may have done it
		return &gateway.WriteError{Err: err, Unknown: true}
	case errors.Is(err, wire.ErrTimeout):
		return &gateway.WriteError{Err: errors.New(reason(err, deviceTimeout(s.bus, p.Device))), Unknown: true}
	case ctx.Err() != nil && err != nil && !wire.Broken(err):
		return &gateway.WriteError{Err: err, Unknown: true}
	}
	return err
}

// put makes one exchange with a device, after which it may want a rest.
func (s *session) put(ctx context.Context, d *gateway.Device, pdu []byte) error {
	_, err := s.ask(ctx, wire.Request{Unit: byte(d.Unit), PDU: pdu, Timeout: deviceTimeout(s.bus, d), Quiet: deviceQuiet(s.bus, d)})
	if wait := d.Profile.AfterWrite; wait > 0 {
		s.atlas.units[byte(d.Unit)].rests(wait)
	}
	return err
}

// writeRequest makes the PDU that writes the value, reading first what the
// value depends on.
func (s *session) writeRequest(ctx context.Context, at *place, value gateway.Value) ([]byte, error) {
	target, err := writeTarget(at)
	if err != nil {
		return nil, err
	}
	exponent := 0
	if at.exponent != nil {
		raw, err := s.readNow(ctx, at.exponent)
		if wire.Broken(err) {
			return nil, err
		}
		var why string
		if exponent, why = exponentOf(at.exponent, raw, err); why != "" {
			return nil, errors.New(why)
		}
	}
	raw, err := at.conversion.Raw(value, exponent)
	switch {
	case err != nil:
		return nil, err
	case target.Table == Coil:
		return s.coilRequest(at, target, raw)
	case at.point.Bit != nil || at.point.Bits != nil:
		return s.bitRequest(ctx, at, target, raw)
	}
	data := make([]byte, 2*at.codec.Registers())
	if err := at.codec.Encode(raw, data); err != nil {
		return nil, err
	}
	return s.registerRequest(at, target, data)
}

// writeTarget is where a point is written: where it is read, or at write.at.
func writeTarget(at *place) (Address, error) {
	target := Address{Table: at.address.Table, Wire: at.start}
	d := at.point.Device
	if w := at.point.Definition.Write; w != nil && w.At != "" {
		var err error
		if target, err = ParseAddress(w.At, d.Profile.Addressing, d.Profile.Table); err != nil {
			return target, fmt.Errorf("write.at: %w", err)
		}
		target.Wire += d.Shift
		if target.Table.Bits() != at.address.Table.Bits() {
			return target, fmt.Errorf("%s can't be written as %s; write the address of %s", at.address.Table.one(), target.Table.one(), at.address.Table.one())
		}
	}
	switch {
	case !target.Table.Writable():
		return target, fmt.Errorf("%s can't be written", target.Table.one())
	case d.Unit == 0:
		return target, errors.New("unit 0 is never written: behind a gateway it means all units")
	case target.Wire < 0 || target.Wire+at.size() > 65536:
		return target, outside(target.Table, target.Wire, target.Wire+at.size(), d.Shift)
	}
	return target, nil
}

// writeFunction is auto, single or multiple.
func writeFunction(d *gateway.Definition, profile *gateway.Profile) string {
	if d.Write != nil && d.Write.Function != "" {
		return d.Write.Function
	}
	if profile.WriteFunction != "" {
		return profile.WriteFunction
	}
	return "auto"
}

func (s *session) coilRequest(at *place, target Address, raw gateway.Value) ([]byte, error) {
	count := at.codec.Count()
	packed := make([]byte, (count+7)/8)
	if err := at.codec.EncodeBits(raw, packed, 0); err != nil {
		return nil, err
	}
	function := writeFunction(at.point.Definition, at.point.Device.Profile)
	if function == "single" && count > 1 {
		return nil, fmt.Errorf("%d coils can't be written by single", count)
	}
	if count == 1 && function != "multiple" {
		s.pdu = wire.AppendWriteCoil(s.pdu[:0], uint16(target.Wire), packed[0]&1 != 0)
	} else {
		s.pdu = wire.AppendWriteCoils(s.pdu[:0], uint16(target.Wire), uint16(count), packed)
	}
	return s.pdu, nil
}

func (s *session) registerRequest(at *place, target Address, data []byte) ([]byte, error) {
	profile := at.point.Device.Profile
	function, count := writeFunction(at.point.Definition, profile), len(data)/2
	most := maxWrite
	if profile.MaxWrite > 0 {
		most = min(most, profile.MaxWrite)
	}
	switch {
	case function == "single" && count > 1:
		return nil, fmt.Errorf("%d registers can't be written by single", count)
	case count > most:
		return nil, fmt.Errorf("%d registers are more than the %d of one write", count, most)
	case count == 1 && function != "multiple":
		s.pdu = wire.AppendWriteRegister(s.pdu[:0], uint16(target.Wire), binary.BigEndian.Uint16(data))
	default:
		s.pdu = wire.AppendWriteRegisters(s.pdu[:0], uint16(target.Wire), data)
	}
	return s.pdu, nil
}

// bitRequest changes some bits of the registers and no others: in the unit
// itself (fc22), or by what was just read (rmw).
func (s *session) bitRequest(ctx context.Context, at *place, target Address, raw gateway.Value) ([]byte, error) {
	mask, set, err := at.bitMasks(raw)
	if err != nil {
		return nil, err
	}
	rule := at.point.Definition.Write
	switch {
	case rule != nil && rule.Mask == "fc22":
		return s.maskRequest(target, mask, set)
	case rule != nil && rule.Mask == "rmw":
	default:
		return nil, errors.New("a bit is written with mask: fc22, or rmw where the unit has no mask write")
	}
	timeout := deviceTimeout(s.bus, at.point.Device)
	s.pdu = wire.AppendRead(s.pdu[:0], readFunctions[Holding], uint16(target.Wire), uint16(len(mask)/2))
	reply, err := s.ask(ctx, wire.Request{Unit: byte(at.point.Device.Unit), PDU: s.pdu, Timeout: timeout, Quiet: deviceQuiet(s.bus, at.point.Device)})
	if err != nil {
		if wire.Broken(err) {
			return nil, err
		}
		return nil, fmt.Errorf("read before the write: %s", reason(err, timeout))
	}
	data, err := replyData(reply)
	if err != nil || len(data) != len(mask) {
		return nil, fmt.Errorf("read before the write: %d bytes instead of %d", len(data), len(mask))
	}
	data = slices.Clone(data)
	for i := range data {
		data[i] = data[i]&^mask[i] | set[i]
	}
	return s.registerRequest(at, target, data)
}

// bitMasks are, in wire order, the bits of a point and what they shall be.
func (at *place) bitMasks(raw gateway.Value) (mask, set []byte, err error) {
	low, high := bitRange(at.point.Definition)
	ones := ^uint64(0) >> (63 - (high - low))
	if raw.Kind() == gateway.List || raw.Int() < 0 && raw.Kind() == gateway.Signed && high-low < 63 || raw.Uint() > ones {
		return nil, nil, fmt.Errorf("%s does not fit into bits %d to %d", raw, low, high)
	}
	mask, set = make([]byte, 2*at.codec.Registers()), make([]byte, 2*at.codec.Registers())
	if err := at.codec.Encode(gateway.UintValue(ones<<low), mask); err != nil {
		return nil, nil, err
	}
	return mask, set, at.codec.Encode(gateway.UintValue(raw.Uint()<<low), set)
}

// maskRequest is a mask write to the one register that has the bits.
func (s *session) maskRequest(target Address, mask, set []byte) ([]byte, error) {
	register := -1
	for i := 0; i < len(mask); i += 2 {
		if mask[i]|mask[i+1] == 0 {
			continue
		}
		if register >= 0 {
			return nil, errors.New("bits of two registers can't be written by one mask write")
		}
		register = i / 2
	}
	and := ^binary.BigEndian.Uint16(mask[2*register:])
	s.pdu = wire.AppendMaskWrite(s.pdu[:0], uint16(target.Wire+register), and, binary.BigEndian.Uint16(set[2*register:]))
	return s.pdu, nil
}

// readNow reads one point on its own, before a write that depends on it.
func (s *session) readNow(ctx context.Context, at *place) (gateway.Value, error) {
	r, err := s.single(at)
	if err != nil {
		return gateway.Value{}, err
	}
	data, err := s.fetch(ctx, r)
	if err != nil {
		if !wire.Broken(err) {
			err = errors.New(reason(err, r.timeout))
		}
		return gateway.Value{}, err
	}
	return r.raw(at, data, r.offset(at))
}
