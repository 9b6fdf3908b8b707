//go:build !lean

package sim

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

const (
	messageHeader = 8 // type, chunk, size
	longest       = 16 << 20
	inFlight      = 1024 // messages that a delay can hold
)

// up opens the front: for the first time, or at the same place as before.
func (v *server) up() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.front != nil {
		return nil
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(v.port)))
	if err != nil {
		return err
	}
	v.port = listener.Addr().(*net.TCPAddr).Port
	f, backend := newFront(listener), v.backend
	f.run(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f.run(func() { v.relay(f, conn, backend) })
		}
	})
	v.front = f
	return nil
}

// down closes the front with all its connections.
func (v *server) down() {
	v.mu.Lock()
	f := v.front
	v.front = nil
	v.mu.Unlock()
	if f != nil {
		f.close()
	}
}

// relay joins a client to the server behind the front, until one hangs up.
func (v *server) relay(f *front, client net.Conn, backend string) {
	if !f.hold(client) {
		return
	}
	defer f.drop(client)
	behind, err := net.Dial("tcp", backend)
	if err != nil || !f.hold(behind) {
		return
	}
	defer f.drop(behind)
	f.run(func() {
		v.carry(f, behind, client, true)
		f.drop(behind)
	})
	v.carry(f, client, behind, false)
}

// message is one chunk of the protocol, with the time when it came.
type message struct {
	bytes []byte
	came  time.Time
}

// carry takes messages from one side to the other. Answers wait as long as the
// bus is slow; nothing goes on while it is silent.
func (v *server) carry(f *front, to io.Writer, from io.Reader, requests bool) {
	messages, done := make(chan message, inFlight), make(chan struct{})
	defer close(done)
	f.run(func() {
		defer close(messages)
		for r := bufio.NewReader(from); ; {
			m, err := readMessage(r)
			if err != nil {
				return
			}
			if requests && string(m[:4]) == "MSGF" {
				v.counted.requests.Add(1)
			}
			select {
			case messages <- message{m, time.Now()}:
			case <-done:
				return
			}
		}
	})
	for m := range messages {
		if !requests {
			f.sleep(time.Duration(v.counted.delay.Load()) - time.Since(m.came))
		}
		v.wait(f)
		if _, err := to.Write(m.bytes); err != nil {
			return
		}
	}
}

// wait returns when the server is not silent, or the front is closed.
func (v *server) wait(f *front) {
	v.mu.Lock()
	quiet := v.quiet
	v.mu.Unlock()
	if quiet == nil {
		return
	}
	select {
	case <-quiet:
	case <-f.ended:
	}
}

func readMessage(r io.Reader) ([]byte, error) {
	header := make([]byte, messageHeader)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(header[4:])
	if size < messageHeader || size > longest {
		return nil, fmt.Errorf("a message of %d bytes", size)
	}
	m := append(header, make([]byte, size-messageHeader)...)
	_, err := io.ReadFull(r, m[messageHeader:])
	return m, err
}
