package sim

import (
	"bytes"
	"net"
)

// maxDatagram is longer than any frame, so that one that is too long shows.
const maxDatagram = 512

// openUDP opens the socket of a bus and answers on it.
func (b *bus) openUDP(address string) (*front, error) {
	socket, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, err
	}
	b.port = socket.LocalAddr().(*net.UDPAddr).Port
	f := newFront(socket)
	f.run(func() { b.relayUDP(f, socket) })
	return f, nil
}

// relayUDP answers datagrams; one that is not exactly a frame is nobody's.
func (b *bus) relayUDP(f *front, socket net.PacketConn) {
	server := &backend{bus: b, front: f}
	defer server.drop()
	for buffer := make([]byte, maxDatagram); ; {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			return
		}
		datagram := bytes.NewReader(bytes.Clone(buffer[:n]))
		frame, err := readMBAP(datagram)
		if err != nil || datagram.Len() > 0 || frame[2] != 0 || frame[3] != 0 {
			continue
		}
		reply := func(answer []byte) error {
			_, err := socket.WriteTo(answer, from)
			return err
		}
		if err := b.respond(f, server, frame, reply); err != nil {
			return
		}
	}
}
