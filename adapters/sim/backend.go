package sim

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"sluice/adapters/modbus/wire"
)

// backend is a connection to the library's server, made when it is needed.
type backend struct {
	bus   *bus
	front *front
	conn  net.Conn
}

// exchange carries one request. The library hangs up on a malformed one, where
// devices answer exception 3.
func (s *backend) exchange(frame []byte) ([]byte, error) {
	if s.conn == nil {
		conn, err := net.Dial("tcp", s.bus.backend)
		if err != nil {
			return nil, err
		}
		if !s.front.hold(conn) {
			return nil, net.ErrClosed
		}
		s.conn = conn
	}
	if _, err := s.conn.Write(frame); err == nil {
		if reply, err := readMBAP(s.conn); err == nil {
			return reply, nil
		}
	}
	s.drop()
	return exception(frame, byte(wire.IllegalDataValue)), nil
}

func (s *backend) drop() {
	if s.conn != nil {
		s.front.drop(s.conn)
		s.conn = nil
	}
}

// readMBAP reads one frame; its bytes go on as they are, so that the other
// side judges them.
func readMBAP(r io.Reader) ([]byte, error) {
	frame := make([]byte, mbapHeader, mbapHeader+253)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(frame[4:])) - 1
	if size < 1 || size > 253 {
		return nil, fmt.Errorf("a frame of %d bytes", size)
	}
	frame = frame[:mbapHeader+size]
	_, err := io.ReadFull(r, frame[mbapHeader:])
	return frame, err
}

func appendMBAP(dst []byte, id byte, pdu []byte) []byte {
	dst = append(dst, 0, 0, 0, 0, 0, byte(len(pdu)+1), id)
	return append(dst, pdu...)
}

// exception is the frame that refuses a request.
func exception(request []byte, code byte) []byte {
	reply := appendMBAP(nil, request[6], []byte{0x80 | request[mbapHeader], code})
	copy(reply, request[:2])
	return reply
}
