package sim

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	library "github.com/simonvetter/modbus"

	"sluice/adapters/modbus"
	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

const (
	loopback   = "127.0.0.1"
	mbapHeader = 7 // transaction, protocol, length, unit

	shuffled = 5 * time.Millisecond // what an answer waits at most to be overtaken
)

// bus is one simulated bus: units, the library's server that speaks for them,
// and the front before it.
type bus struct {
	name   string
	rtu    bool // framing
	udp    bool
	secure *tls.Config // for TLS
	line   modbus.Line
	link   string // path that stands for the serial port, else TCP or UDP
	port   int    // of the front, the same after each up
	units  map[byte]*unit

	server  *library.ModbusServer
	backend string // its address
	elapsed func() time.Duration

	counted traffic
	shuffle atomic.Bool
	wire    sync.Mutex // RS-485: one exchange at a time

	mu    sync.Mutex
	front *front // nil while the bus is down
}

func (b *bus) setLine(text string, simulate bool) (err error) {
	if !simulate || !b.rtu {
		return nil
	}
	if text == "" {
		text = "9600 8N1"
	}
	b.line, err = modbus.ParseLine(text)
	return err
}

func (b *bus) addUnits(settings *gateway.Bus, devices []*gateway.Device, o Options) error {
	for _, d := range devices {
		if d.Bus != settings || d.Disabled {
			continue
		}
		u := b.units[byte(d.Unit)]
		if u == nil {
			u = new(unit)
			b.units[byte(d.Unit)] = u
		}
		if err := u.add(d, o); err != nil {
			return fmt.Errorf("device %s: %w", d.Name, err)
		}
	}
	for id, u := range b.units {
		u.finish(o.Holes)
		u.begin(o.Log.With("bus", b.name, "unit", id))
	}
	return nil
}

// serve starts the library's server. It could not tell which port it got, so a
// free one is looked for first, and another where somebody was faster.
func (b *bus) serve(elapsed func() time.Duration) error {
	b.elapsed = elapsed
	for attempt := 1; ; attempt++ {
		free, err := net.Listen("tcp", loopback+":0")
		if err != nil {
			return err
		}
		b.backend = free.Addr().String()
		free.Close()
		b.server, err = library.NewServer(&library.ServerConfiguration{
			URL:        "tcp://" + b.backend,
			Timeout:    365 * 24 * time.Hour, // idle
			MaxClients: 10000,
			Logger:     log.New(io.Discard, "", 0),
		}, handler{b})
		if err != nil {
			return err
		}
		if err = b.server.Start(); err == nil || attempt == 10 {
			return err
		}
	}
}

// up opens the front: for the first time, or at the same place as before.
func (b *bus) up() (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.front != nil {
		return nil
	}
	address := net.JoinHostPort(loopback, strconv.Itoa(b.port))
	switch {
	case b.link != "":
		b.front, err = b.openPort()
		return err
	case b.udp:
		b.front, err = b.openUDP(address)
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	b.port = listener.Addr().(*net.TCPAddr).Port
	if b.secure != nil {
		listener = tls.NewListener(listener, b.secure)
	}
	f := newFront(listener)
	f.run(func() { b.accept(f, listener) })
	b.front = f
	return nil
}

// down closes the front with all its connections.
func (b *bus) down() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.front != nil {
		b.front.close()
		b.front = nil
	}
}

func (b *bus) stop() error { return b.server.Stop() }

func (b *bus) restart() error {
	b.down()
	return b.up()
}

func (b *bus) traffic() *traffic { return &b.counted }

func (b *bus) silence(id int, silent bool) error {
	u := b.units[byte(id)]
	if u == nil {
		return fmt.Errorf("bus %s has no unit %d", b.name, id)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.silent = silent
	return nil
}

func (b *bus) find(device, point string) held {
	for _, u := range b.units {
		for _, f := range u.fields {
			if f.point.Device.Name == device && f.point.ID == point {
				return stored{u, f}
			}
		}
	}
	return nil
}

func (b *bus) accept(f *front, listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		f.run(func() { b.relay(f, conn) })
	}
}

// relay carries requests from one client to the server behind the front.
func (b *bus) relay(f *front, conn io.ReadWriteCloser) {
	if !f.hold(conn) {
		return
	}
	defer f.drop(conn)
	server := &backend{bus: b, front: f}
	defer server.drop()
	if b.rtu {
		b.relayRTU(f, conn, server)
		return
	}
	reply := func(frame []byte) error {
		_, err := conn.Write(frame)
		return err
	}
	for r := bufio.NewReader(conn); ; {
		frame, err := readMBAP(r)
		if err != nil {
			return
		}
		if err := b.respond(f, server, frame, reply); err != nil {
			return
		}
	}
}

// respond answers a request. An answer that waits holds none of the others up.
func (b *bus) respond(f *front, server *backend, frame []byte, reply func([]byte) error) error {
	answer, err := b.answer(server, frame)
	if err != nil || answer == nil {
		return err
	}
	wait := time.Duration(b.counted.delay.Load())
	if b.shuffle.Load() {
		wait += rand.N(shuffled)
	}
	if wait == 0 {
		return reply(answer)
	}
	f.run(func() {
		f.sleep(wait)
		_ = reply(answer) // who does not wait for it is gone
	})
	return nil
}

// relayRTU does the same for RTU frames: units that don't exist don't answer.
func (b *bus) relayRTU(f *front, conn io.ReadWriter, server *backend) {
	for r := bufio.NewReader(conn); ; {
		id, pdu, err := wire.ReadRTURequest(r)
		if err != nil {
			return
		}
		if b.units[id] == nil {
			b.counted.requests.Add(1)
			continue
		}
		b.wire.Lock()
		reply, err := b.answer(server, appendMBAP(nil, id, pdu))
		if len(reply) > mbapHeader {
			line := wire.LineTime(len(pdu)+len(reply)-mbapHeader+6, b.line.Baud, b.line.CharBits())
			f.sleep(time.Duration(b.counted.delay.Load()) + line)
			_, err = conn.Write(wire.AppendRTU(nil, id, reply[mbapHeader:]))
		}
		b.wire.Unlock()
		if err != nil {
			return
		}
	}
}

// answer gives the reply to a request, both as MBAP frames; nil is silence.
func (b *bus) answer(server *backend, frame []byte) ([]byte, error) {
	b.counted.requests.Add(1)
	u := b.units[frame[6]]
	if u != nil && u.isSilent() {
		return nil, nil
	}
	if u != nil && frame[mbapHeader] == wire.FuncMaskWriteRegister && len(frame) == mbapHeader+7 {
		return b.mask(u, frame), nil
	}
	return server.exchange(frame)
}

// mask answers function 22, which the library doesn't know.
func (b *bus) mask(u *unit, frame []byte) []byte {
	word := func(i int) uint16 { return binary.BigEndian.Uint16(frame[mbapHeader+i:]) }
	if code := u.mask(int(word(1)), word(3), word(5), b.elapsed()); code != 0 {
		return exception(frame, code)
	}
	return frame
}
