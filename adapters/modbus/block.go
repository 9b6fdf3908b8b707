package modbus

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

var _ gateway.BlockReader = (*session)(nil)

// ReadBlock reads a block with one request.
func (s *session) ReadBlock(ctx context.Context, d *gateway.Device, b *gateway.RawBlock, framed bool) ([]byte, error) {
	pdu, err := blockRequest(d, b)
	if err != nil {
		return nil, &gateway.ReadError{Err: err}
	}
	reply, err := s.readPDU(ctx, d, pdu)
	switch {
	case err != nil:
		return nil, err
	case framed:
		return wire.AppendRTU(nil, byte(d.Unit), reply), nil
	}
	return slices.Clone(reply[2:]), nil
}

// ReadFrame carries out the request of an RTU frame, where it reads. What the
// unit refuses is answered with the frame of its exception.
func (s *session) ReadFrame(ctx context.Context, d *gateway.Device, frame []byte) ([]byte, error) {
	pdu, err := frameRequest(byte(d.Unit), frame)
	if err != nil {
		return nil, &gateway.ReadError{Err: err}
	}
	reply, err := s.readPDU(ctx, d, pdu)
	var exception wire.Exception
	if errors.As(err, &exception) {
		reply, err = []byte{pdu[0] | 0x80, byte(exception)}, nil
	}
	if err != nil {
		return nil, err
	}
	return wire.AppendRTU(nil, byte(d.Unit), reply), nil
}

// readPDU sends a read request, again after silence as often as the bus allows.
// The reply is valid until the next request.
func (s *session) readPDU(ctx context.Context, d *gateway.Device, pdu []byte) ([]byte, error) {
	u := s.atlas.units[byte(d.Unit)]
	for try := 0; ; try++ {
		reply, err := s.ask(ctx, wire.Request{Unit: byte(d.Unit), PDU: pdu, Timeout: deviceTimeout(s.bus, d), Quiet: deviceQuiet(s.bus, d)})
		if err == nil {
			return reply, nil
		}
		if s.again(try, u, err) {
			continue
		}
		if lost := s.lost(ctx, err); lost != nil {
			return nil, lost
		}
		var exception wire.Exception
		if errors.As(err, &exception) {
			return nil, &gateway.ReadError{Err: err}
		}
		return nil, &gateway.ReadError{Err: errors.New(reason(err, deviceTimeout(s.bus, d)))}
	}
}

// blockRequest is the request that reads a block.
func blockRequest(d *gateway.Device, b *gateway.RawBlock) ([]byte, error) {
	a, err := ParseAddress(b.At, d.Profile.Addressing, cmp.Or(b.Table, d.Profile.Table))
	if err != nil {
		return nil, err
	}
	start := a.Wire + d.Shift
	if most := mostIn(a.Table, d.Profile); b.Count < 1 || b.Count > most {
		return nil, fmt.Errorf("%s are not what one request reads: 1 to %d", a.Table.counted(b.Count), most)
	}
	if start < 0 || start+b.Count > 1<<16 {
		return nil, fmt.Errorf("%s at %s %d are outside of the table", a.Table.counted(b.Count), a.Table, start)
	}
	return wire.AppendRead(nil, readFunctions[a.Table], uint16(start), uint16(b.Count)), nil
}

// frameRequest is the PDU of a frame that asks a unit to read.
func frameRequest(unit byte, frame []byte) ([]byte, error) {
	const size = 8
	if len(frame) < 4 {
		return nil, fmt.Errorf("%d bytes are no RTU frame", len(frame))
	}
	table := slices.Index(readFunctions[:], frame[1])
	switch {
	case wire.CRC(frame) != 0:
		return nil, fmt.Errorf("the checksum of the frame is wrong")
	case frame[0] != unit:
		return nil, fmt.Errorf("the frame is for unit %d, this device is unit %d", frame[0], unit)
	case table < 0:
		return nil, fmt.Errorf("function %d is refused: only 1 to 4, which read, are carried out", frame[1])
	case len(frame) != size:
		return nil, fmt.Errorf("a frame of %d bytes is no read request, which has %d", len(frame), size)
	}
	start, count := int(binary.BigEndian.Uint16(frame[2:])), int(binary.BigEndian.Uint16(frame[4:]))
	if most := mostIn(Table(table), &gateway.Profile{}); count < 1 || count > most || start+count > 1<<16 {
		return nil, fmt.Errorf("%s at %d are not what one request reads: 1 to %d", Table(table).counted(count), start, most)
	}
	return frame[1 : size-2], nil
}
