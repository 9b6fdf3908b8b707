package modbus

import (
	"bytes"
	"cmp"
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
	return s.WriteBlock(ctx, []*gateway.Point{p}, []gateway.Value{value})
}

// WriteBlock sends the values of several points with one request, also to bits
// of one register. The points must be side by side: what is between them is
// nobody's to write.
func (s *session) WriteBlock(ctx context.Context, points []*gateway.Point, values []gateway.Value) error {
	err := s.write(ctx, points, values)
	var refused *gateway.WriteError
	if err == nil || errors.As(err, &refused) || wire.Broken(err) {
		return err
	}
	return &gateway.WriteError{Err: err}
}

func (s *session) write(ctx context.Context, points []*gateway.Point, values []gateway.Value) error {
	patches := make([]patch, len(points))
	locked := false
	for i, p := range points {
		at := s.atlas.places[p]
		if at == nil {
			return fmt.Errorf("%s is not a point of this bus", p.ID)
		}
		var err error
		if patches[i], err = s.patchOf(ctx, at, values[i]); err != nil {
			return err
		}
		locked = locked || p.Needs == "unlock"
	}
	pdu, err := s.writeRequest(ctx, patches...)
	if err != nil {
		return err
	}
	if locked {
		pdu = slices.Clone(pdu)
		if err := s.unlock(ctx, points[0].Device); err != nil {
			return err
		}
	}
	return s.sendWrite(ctx, points[0], pdu)
}

// sendWrite sends a write request. An error that leaves open whether the unit
// took it says so.
func (s *session) sendWrite(ctx context.Context, p *gateway.Point, pdu []byte) error {
	err := s.put(ctx, p.Device, pdu)
	var refusal wire.Exception
	if errors.As(err, &refusal) {
		return refusedWrite(refusal)
	}
	switch {
	case errors.Is(err, wire.ErrTimeout):
		return &gateway.WriteError{Err: errors.New(reason(err, deviceTimeout(s.bus, p.Device))), Unknown: true}
	case ctx.Err() != nil && err != nil && !wire.Broken(err):
		return &gateway.WriteError{Err: err, Unknown: true}
	}
	return err
}

// refusedWrite is what an exception says about a write.
func refusedWrite(e wire.Exception) *gateway.WriteError {
	switch e {
	case wire.IllegalFunction, wire.IllegalDataAddress, wire.IllegalDataValue, wire.GatewayPathUnavailable:
		return &gateway.WriteError{Err: e}
	case wire.ServerDeviceBusy:
		return &gateway.WriteError{Err: e, Busy: true}
	case wire.GatewayTargetNoResponse: // it may have done it
		return &gateway.WriteError{Err: e, Unknown: true}
	}
	return &gateway.WriteError{Err: e, Unknown: true, Once: true} // it is doing it, or failed in the middle of it
}

// put makes one exchange with a device, after which it may want a rest.
func (s *session) put(ctx context.Context, d *gateway.Device, pdu []byte) error {
	_, err := s.ask(ctx, wire.Request{Unit: byte(d.Unit), PDU: pdu, Timeout: deviceTimeout(s.bus, d), Quiet: deviceQuiet(s.bus, d)})
	if wait := d.Profile.AfterWrite; wait > 0 {
		s.atlas.units[byte(d.Unit)].rests(wait)
	}
	return err
}

// patch is what a write changes.
type patch struct {
	at        *place
	target    Address
	mask, set []byte // which bits, and to what: two bytes for a register, one for a coil
}

// unit is how many bytes stand for a register, or a coil.
func (p *patch) unit() int {
	if p.target.Table.Bits() {
		return 1
	}
	return 2
}

// whole tells whether no bit stays as it is.
func (p *patch) whole() bool { return bytes.Count(p.mask, []byte{0xFF}) == len(p.mask) }

// patchOf is the value on the wire, reading first what it depends on.
func (s *session) patchOf(ctx context.Context, at *place, value gateway.Value) (p patch, err error) {
	p.at = at
	if p.target, err = writeTarget(at); err != nil {
		return p, err
	}
	exponent := 0
	if at.exponent != nil {
		raw, err := s.readNow(ctx, at.exponent)
		if wire.Broken(err) {
			return p, err
		}
		var why string
		if exponent, why = exponentOf(at.exponent, raw, err); why != "" {
			return p, errors.New(why)
		}
	}
	raw, err := at.conversion.Raw(value, exponent)
	switch {
	case err != nil:
		return p, err
	case p.target.Table == Coil:
		return p, p.coils(raw)
	case at.point.Bit != nil || at.point.Bits != nil:
		p.mask, p.set, err = at.bitMasks(raw)
		return p, err
	}
	p.set = make([]byte, 2*at.codec.Registers())
	p.mask = bytes.Repeat([]byte{0xFF}, len(p.set))
	return p, at.codec.Encode(raw, p.set)
}

func (p *patch) coils(raw gateway.Value) error {
	count := p.at.codec.Count()
	packed := make([]byte, (count+7)/8)
	if err := p.at.codec.EncodeBits(raw, packed, 0); err != nil {
		return err
	}
	p.mask, p.set = bytes.Repeat([]byte{0xFF}, count), make([]byte, count)
	for i := range p.set {
		p.set[i] = packed[i/8] >> (i % 8) & 1
	}
	return nil
}

// writeRequest makes the PDU of one request that changes all that the patches
// change, and nothing else.
func (s *session) writeRequest(ctx context.Context, patches ...patch) ([]byte, error) {
	p, err := joined(patches)
	switch {
	case err != nil:
		return nil, err
	case p.target.Table == Coil:
		return s.coilRequest(&p)
	case p.whole():
		return s.registerRequest(&p, p.set)
	}
	mask := ""
	for i := range patches {
		switch rule := patches[i].at.point.Definition.Write; {
		case patches[i].whole():
		case rule == nil || rule.Mask == "":
			return nil, errors.New("a bit is written with mask: fc22, or rmw where the unit has no mask write")
		case mask != "" && mask != rule.Mask:
			return nil, fmt.Errorf("%s and others of its block have different masks", patches[i].at.point.ID)
		default:
			mask = rule.Mask
		}
	}
	if mask == "fc22" {
		return s.maskRequest(&p)
	}
	return s.changeRequest(ctx, &p)
}

// joined is one patch for all, which must be side by side.
func joined(patches []patch) (patch, error) {
	sorted := slices.Clone(patches)
	slices.SortStableFunc(sorted, func(a, b patch) int { return a.target.Wire - b.target.Wire })
	all := sorted[0]
	all.mask, all.set = slices.Clone(all.mask), slices.Clone(all.set)
	for i := range sorted[1:] {
		last, p := &sorted[i], &sorted[i+1]
		from := (p.target.Wire - all.target.Wire) * p.unit()
		switch {
		case p.target.Table != all.target.Table:
			return all, fmt.Errorf("%s and %s are not in one table, and can't be written by one request", last.at.point.ID, p.at.point.ID)
		case from > len(all.mask):
			return all, fmt.Errorf("%s and %s are not side by side, and can't be written by one request", last.at.point.ID, p.at.point.ID)
		}
		if more := from + len(p.mask) - len(all.mask); more > 0 {
			all.mask, all.set = append(all.mask, make([]byte, more)...), append(all.set, make([]byte, more)...)
		}
		for j := range p.mask {
			if all.mask[from+j]&p.mask[j] != 0 {
				return all, fmt.Errorf("%s shares bits with another point of the request", p.at.point.ID)
			}
			all.mask[from+j] |= p.mask[j]
			all.set[from+j] |= p.set[j]
		}
	}
	return all, nil
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

func (s *session) coilRequest(p *patch) ([]byte, error) {
	count := len(p.set)
	function := writeFunction(p.at.point.Definition, p.at.point.Device.Profile)
	if function == "single" && count > 1 {
		return nil, fmt.Errorf("%d coils can't be written by single", count)
	}
	if count == 1 && function != "multiple" {
		s.pdu = wire.AppendWriteCoil(s.pdu[:0], uint16(p.target.Wire), p.set[0] != 0)
		return s.pdu, nil
	}
	packed := make([]byte, (count+7)/8)
	for i, on := range p.set {
		packed[i/8] |= on << (i % 8)
	}
	s.pdu = wire.AppendWriteCoils(s.pdu[:0], uint16(p.target.Wire), uint16(count), packed)
	return s.pdu, nil
}

func (s *session) registerRequest(p *patch, data []byte) ([]byte, error) {
	profile := p.at.point.Device.Profile
	function, count := writeFunction(p.at.point.Definition, profile), len(data)/2
	most := mostWritten(profile)
	switch {
	case function == "single" && count > 1:
		return nil, fmt.Errorf("%d registers can't be written by single", count)
	case count > most:
		return nil, fmt.Errorf("%d registers are more than the %d of one write", count, most)
	case count == 1 && function != "multiple":
		s.pdu = wire.AppendWriteRegister(s.pdu[:0], uint16(p.target.Wire), binary.BigEndian.Uint16(data))
	default:
		s.pdu = wire.AppendWriteRegisters(s.pdu[:0], uint16(p.target.Wire), data)
	}
	return s.pdu, nil
}

// mostWritten is how many registers one write may have.
func mostWritten(p *gateway.Profile) int { return min(maxWrite, cmp.Or(p.MaxWrite, maxWrite)) }

// changeRequest changes some bits of registers by what was just read (rmw).
func (s *session) changeRequest(ctx context.Context, p *patch) ([]byte, error) {
	d := p.at.point.Device
	timeout := deviceTimeout(s.bus, d)
	s.pdu = wire.AppendRead(s.pdu[:0], readFunctions[Holding], uint16(p.target.Wire), uint16(len(p.mask)/2))
	reply, err := s.ask(ctx, wire.Request{Unit: byte(d.Unit), PDU: s.pdu, Timeout: timeout, Quiet: deviceQuiet(s.bus, d)})
	if err != nil {
		if wire.Broken(err) {
			return nil, err
		}
		return nil, fmt.Errorf("read before the write: %s", reason(err, timeout))
	}
	data, err := replyData(reply)
	if err != nil || len(data) != len(p.mask) {
		return nil, fmt.Errorf("read before the write: %d bytes instead of %d", len(data), len(p.mask))
	}
	data = slices.Clone(data)
	for i := range data {
		data[i] = data[i]&^p.mask[i] | p.set[i]
	}
	return s.registerRequest(p, data)
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

// maskRequest is a mask write to the one register that has the bits (fc22): the
// unit itself leaves the others alone.
func (s *session) maskRequest(p *patch) ([]byte, error) {
	register := -1
	for i := 0; i < len(p.mask); i += 2 {
		if p.mask[i]|p.mask[i+1] == 0 {
			continue
		}
		if register >= 0 {
			return nil, errors.New("bits of two registers can't be written by one mask write")
		}
		register = i / 2
	}
	and := ^binary.BigEndian.Uint16(p.mask[2*register:])
	s.pdu = wire.AppendMaskWrite(s.pdu[:0], uint16(p.target.Wire+register), and, binary.BigEndian.Uint16(p.set[2*register:]))
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
