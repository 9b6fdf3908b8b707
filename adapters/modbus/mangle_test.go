package modbus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

const (
	mangledAnswers = 35_000 // on each kind of bus, 105,000 in all
	mangledTimeout = 100 * time.Millisecond
	adapterReads   = 500 // then a new adapter, which has learnt nothing yet
)

// A liar answers for two units whose registers tell unit, address and the read
// under way, and spoils the answers as lines, converters and bad devices do.
// It answers in order.
type liar struct {
	rtu     bool
	rng     *rand.Rand
	running sync.WaitGroup

	mu      sync.Mutex
	read    uint16 // number of the read under way
	answers int
}

// tangle is what the liar remembers of one connection.
type tangle struct {
	held []byte // a frame to come behind the next one
	cut  bool   // an answer was cut on MBAP: only whole ones follow
}

// spoilt is part of an answer, some time after the one before.
type spoilt struct {
	after time.Duration
	bytes []byte
}

var lies = []string{
	"none", "none", "none", "late", "much later", "doubled", "doubled late", "truncated", "flipped", "swapped", "garbage before", "garbage after",
	"unit", "function", "transaction", "short", "half", "half late", "bytewise", "silence", "exception",
}

func (l *liar) dial(context.Context) (io.ReadWriteCloser, error) {
	near, far := net.Pipe()
	out := make(chan spoilt, 10000)
	l.running.Go(func() {
		defer close(out)
		l.serve(far, out)
	})
	l.running.Go(func() {
		for s := range out {
			time.Sleep(s.after)
			if _, err := far.Write(s.bytes); err != nil {
				break
			}
		}
		for range out {
		}
	})
	return near, nil
}

func (l *liar) serve(conn net.Conn, out chan<- spoilt) {
	var state tangle
	for r := bufio.NewReader(conn); ; {
		var tid uint16
		unit, pdu, err := byte(0), []byte(nil), error(nil)
		if l.rtu {
			unit, pdu, err = wire.ReadRTURequest(r)
		} else {
			tid, unit, pdu, err = readRequest(r)
		}
		if err != nil {
			return
		}
		l.mu.Lock()
		l.answers++
		pieces := l.spoil(&state, tid, unit, pdu)
		l.mu.Unlock()
		for _, p := range pieces {
			out <- p
		}
	}
}

func readRequest(r io.Reader) (tid uint16, unit byte, pdu []byte, err error) {
	h := make([]byte, 7)
	if _, err = io.ReadFull(r, h); err != nil {
		return 0, 0, nil, err
	}
	pdu = make([]byte, binary.BigEndian.Uint16(h[4:])-1)
	_, err = io.ReadFull(r, pdu)
	return binary.BigEndian.Uint16(h), h[6], pdu, err
}

func (l *liar) frame(tid uint16, unit byte, pdu []byte) []byte {
	if l.rtu {
		return wire.AppendRTU(nil, unit, pdu)
	}
	b := binary.BigEndian.AppendUint16(nil, tid)
	b = append(b, 0, 0, 0, byte(len(pdu)+1), unit)
	return append(b, pdu...)
}

// truth is the reply to a read: even registers tell unit, table and address,
// odd ones the read.
func (l *liar) truth(unit byte, req []byte) []byte {
	addr, count := binary.BigEndian.Uint16(req[1:]), binary.BigEndian.Uint16(req[3:])
	reply := []byte{req[0], byte(2 * count)}
	for a := addr; a < addr+count; a++ {
		word := l.read
		if a%2 == 0 {
			word = where(unit, req[0], a)
		}
		reply = binary.BigEndian.AppendUint16(reply, word)
	}
	return reply
}

func where(unit, function byte, addr uint16) uint16 {
	return uint16(unit)<<12 | uint16(function)<<8 | addr
}

func (l *liar) spoil(state *tangle, tid uint16, unit byte, req []byte) []spoilt {
	reply := l.truth(unit, req)
	frame := l.frame(tid, unit, reply)
	at := func(after time.Duration, b ...[]byte) []spoilt { return []spoilt{{after, bytes.Join(b, nil)}} }
	if state.cut {
		return at(0, frame)
	}
	if held := state.held; held != nil {
		state.held = nil
		return at(0, frame, held)
	}
	late := mangledTimeout + time.Duration(l.rng.Int64N(int64(mangledTimeout)))
	part := 1 + l.rng.IntN(len(frame)-1)
	switch lies[l.rng.IntN(len(lies))] {
	case "late":
		return at(late, frame)
	case "much later":
		return at(3*late, frame)
	case "doubled":
		return append(at(0, frame), at(time.Millisecond, frame)...)
	case "doubled late":
		return at(late, frame, frame)
	case "truncated":
		state.cut = !l.rtu
		return at(0, frame[:part])
	case "flipped":
		l.flip(frame)
		return at(0, frame)
	case "swapped":
		state.held = frame
		return nil
	case "garbage before":
		return at(0, l.garbage(), frame)
	case "garbage after":
		return at(0, frame, l.garbage())
	case "unit":
		return at(0, l.frame(tid, unit|0x40, reply))
	case "function":
		reply[0] ^= 0x20
		return at(0, l.frame(tid, unit, reply))
	case "transaction":
		return at(0, l.frame(tid-1, unit|0x40, reply), frame)
	case "short": // by a byte: late, whole registers would be the answer to a smaller read
		reply[1]--
		return at(0, l.frame(tid, unit, reply[:len(reply)-1]))
	case "half":
		return append(at(0, frame[:part]), at(mangledTimeout/4, frame[part:])...)
	case "half late":
		return append(at(0, frame[:part]), at(mangledTimeout*5/4, frame[part:])...)
	case "bytewise":
		var list []spoilt
		for i := range frame {
			list = append(list, at(100*time.Microsecond, frame[i:i+1])...)
		}
		return list
	case "silence":
		return nil
	case "exception":
		return at(0, l.frame(tid, unit, []byte{req[0] | 0x80, byte(1 + l.rng.IntN(11))}))
	}
	return at(0, frame)
}

// flip changes a bit where that can be seen: MBAP has no checksum, and a
// transaction near to the right one is that of another request.
func (l *liar) flip(frame []byte) {
	bit := l.rng.IntN(8 * len(frame))
	if !l.rtu {
		if bit = l.rng.IntN(8 + 48); bit >= 8 {
			bit += 8
		}
	}
	frame[bit/8] ^= 1 << (bit % 8)
}

// garbage is what a bad line adds; a stream has none.
func (l *liar) garbage() []byte {
	if !l.rtu {
		return nil
	}
	b := make([]byte, 1+l.rng.IntN(20))
	for i := range b {
		b[i] = byte(l.rng.Uint32())
	}
	return b
}

// telling is a profile whose requests all look alike.
func telling() *gateway.Profile {
	p := &gateway.Profile{Name: "telling", Addressing: "protocol", Table: "holding", Order: "ABCD", MaxRegisters: 4}
	for i := range 12 {
		for _, table := range []string{"holding", "input"} {
			p.Points = append(p.Points, &gateway.Definition{ID: fmt.Sprint(table[:1], i), At: fmt.Sprint(table, ":", 2*i), Type: "uint32"})
		}
	}
	return p
}

func TestNoWrongValueThroughASession(t *testing.T) {
	for _, bus := range []gateway.Bus{
		{Name: "tcp", Type: "modbus-tcp", Retries: 1},
		{Name: "pipeline", Type: "modbus-tcp", Retries: 1, Pipeline: 4},
		{Name: "rtu", Type: "modbus-rtu-over-tcp", Retries: 1},
	} {
		t.Run(bus.Name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { lieTo(t, &bus, rand.Uint64()) })
		})
	}
}

func lieTo(t *testing.T, bus *gateway.Bus, seed uint64) {
	bus.Host, bus.Timeout = "plc.example", mangledTimeout
	l := &liar{rtu: bus.Type != "modbus-tcp", rng: rand.New(rand.NewPCG(seed, 1))}
	rng := rand.New(rand.NewPCG(seed, 2))
	defer func() {
		if t.Failed() {
			t.Log("seed", seed)
		}
	}()
	defer l.running.Wait()
	count := make(map[gateway.Quality]int)
	lost := 0
	for l.answered() < mangledAnswers {
		profile := telling()
		devices := []*gateway.Device{device(bus, profile, "one", 1), device(bus, profile, "two", 2)}
		a, err := New(gateway.Env{}, bus, devices)
		if err != nil {
			t.Fatal(err)
		}
		a.(*Adapter).dial = l.dial
		lost += l.question(t, rng, a, append(devices[0].Points, devices[1].Points...), count)
	}
	t.Logf("%d answers: %d good samples, %d bad, %d sessions lost", l.answered(), count[gateway.Good], count[gateway.Bad], lost)
	if good := count[gateway.Good]; good < mangledAnswers/4 {
		t.Errorf("%d good samples of %d answers", good, mangledAnswers)
	}
}

func (l *liar) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers
}

// question reads groups by chance, and knows the right values.
func (l *liar) question(t *testing.T, rng *rand.Rand, a gateway.Adapter, points []*gateway.Point, count map[gateway.Quality]int) (lost int) {
	var s gateway.Session
	var groups [][]*gateway.Point
	for range adapterReads {
		if s == nil {
			var err error
			if s, err = a.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			groups = s.Plan(points)
		}
		l.mu.Lock()
		l.read++
		l.mu.Unlock()
		group := groups[rng.IntN(len(groups))]
		samples, err := s.Read(t.Context(), group)
		if err != nil {
			lost++
			s.Close()
			s = nil
			continue
		}
		for i, x := range samples {
			count[x.Quality]++
			if x.Point != group[i] || x.Quality == gateway.Good && x.Value.Uint() != l.value(group[i]) {
				t.Errorf("%s is %s, want %d", group[i].ID, x.Value, l.value(group[i]))
			}
		}
	}
	if s != nil {
		s.Close()
	}
	return lost
}

// value is what a point holds while a read is under way.
func (l *liar) value(p *gateway.Point) uint64 {
	at, err := ParseAddress(p.At, "protocol", "holding")
	if err != nil {
		panic(err)
	}
	return uint64(where(byte(p.Device.Unit), readFunctions[at.Table], uint16(at.Wire)))<<16 | uint64(l.read)
}
