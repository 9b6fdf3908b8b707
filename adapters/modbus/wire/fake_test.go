package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// A piece is sent some time after the one before it.
type piece struct {
	after time.Duration
	bytes []byte
}

// A fakeUnit answers for all units on one connection, in order unless it is said not to, with values that tell unit, function, address and question.
type fakeUnit struct {
	rtu       bool
	unordered bool // answers overtake one another

	mu       sync.Mutex
	question uint64                                         // part of the values
	mangle   func(unit byte, req, reply []byte) []piece     // nil: the reply's frame, at once
	frame    func(tid uint16, unit byte, pdu []byte) []byte // how a reply is framed
	tid      uint16
	seen     [][]byte // requests
	running  sync.WaitGroup
}

func newFake(t testing.TB, rtu bool) *fakeUnit {
	f := &fakeUnit{rtu: rtu}
	t.Cleanup(f.running.Wait)
	f.frame = func(tid uint16, unit byte, pdu []byte) []byte { return appendMBAP(nil, tid, unit, pdu) }
	if rtu {
		f.frame = func(_ uint16, unit byte, pdu []byte) []byte { return AppendRTU(nil, unit, pdu) }
	}
	return f
}

// connect makes a connection to the unit; the end of the connection ends its goroutines.
func (f *fakeUnit) connect() net.Conn {
	near, far := net.Pipe()
	if f.unordered {
		sending := make(chan struct{}, 1)
		f.running.Go(func() {
			f.serve(far, func(pieces []piece) { f.running.Go(func() { overtake(far, sending, pieces) }) })
		})
		return near
	}
	out := make(chan piece, 10000)
	f.running.Go(func() {
		defer close(out)
		f.serve(far, func(pieces []piece) {
			for _, p := range pieces {
				out <- p
			}
		})
	})
	f.running.Go(func() {
		for p := range out {
			time.Sleep(p.after)
			if _, err := far.Write(p.bytes); err != nil {
				break
			}
		}
		for range out {
		}
	})
	return near
}

// overtake sends the pieces of one answer when its time has come, whatever else is on the way.
func overtake(conn net.Conn, sending chan struct{}, pieces []piece) {
	for i, p := range pieces {
		time.Sleep(p.after)
		if i == 0 {
			sending <- struct{}{}
			defer func() { <-sending }()
		}
		if _, err := conn.Write(p.bytes); err != nil {
			return
		}
	}
}

func (f *fakeUnit) client(o Options) *Client {
	if f.rtu {
		return NewRTU(f.connect(), o)
	}
	return NewTCP(f.connect(), o)
}

func (f *fakeUnit) serve(conn net.Conn, deliver func([]piece)) {
	r := bufio.NewReader(conn)
	for {
		unit, pdu, err := f.request(r)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.seen = append(f.seen, append([]byte{unit}, pdu...))
		reply := honest(unit, pdu, f.question)
		pieces := []piece{{0, f.frame(f.tid, unit, reply)}}
		if f.mangle != nil {
			pieces = f.mangle(unit, pdu, reply)
		}
		f.mu.Unlock()
		deliver(pieces)
	}
}

func (f *fakeUnit) request(r *bufio.Reader) (byte, []byte, error) {
	if f.rtu {
		return ReadRTURequest(r)
	}
	h := make([]byte, mbapHeader)
	if _, err := io.ReadFull(r, h); err != nil {
		return 0, nil, err
	}
	pdu := make([]byte, word(h[4:])-1)
	_, err := io.ReadFull(r, pdu)
	f.mu.Lock()
	f.tid = binary.BigEndian.Uint16(h)
	f.mu.Unlock()
	return h[6], pdu, err
}

// ask sets what the next question is and how its answers are mangled.
func (f *fakeUnit) ask(question uint64, mangle func(unit byte, req, reply []byte) []piece) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.question, f.mangle, f.seen = question, mangle, nil
}

func (f *fakeUnit) requests() [][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

// honest is the right reply PDU.
func honest(unit byte, req []byte, question uint64) []byte {
	switch req[0] {
	case 1, 2, 3, 4:
		size := 2 * word(req[3:])
		if req[0] < 3 {
			size = packed(word(req[3:]))
		}
		return append([]byte{req[0], byte(size)}, values(unit, req[0], word(req[1:]), size, question)...)
	case 23:
		return append([]byte{23, req[4] * 2}, values(unit, 23, word(req[1:]), int(req[4])*2, question)...)
	case 5, 6, 22:
		return req
	case 15, 16:
		return req[:5]
	}
	return []byte{req[0] | 0x80, 1}
}

// values are the bytes that a read of an address gives while a question is asked.
func values(unit, function byte, addr, size int, question uint64) []byte {
	b := make([]byte, 0, size+8)
	for i := 0; len(b) < size; i++ {
		h := fnv.New64a()
		_ = binary.Write(h, binary.BigEndian, []uint64{uint64(unit), uint64(function), uint64(addr + i), question})
		b = binary.BigEndian.AppendUint16(b, uint16(h.Sum64()>>24))
	}
	return b[:size]
}

// A mangler spoils answers in every way that a line, a converter or a bad device does.
type mangler struct {
	f       *fakeUnit
	rng     *rand.Rand
	timeout time.Duration
	held    []byte    // a frame to be sent behind the next one
	busy    time.Time // the line holds answers back until then
}

var mangleKinds = []string{
	"good", "good", "good", "late", "late", "much later", "doubled", "doubled late", "truncated", "flipped", "unit", "function",
	"bytes+1", "bytes-1", "count+1", "count-1", "tid", "swapped", "garbage before", "garbage after", "foreign before", "half", "half late", "bytewise", "silence", "exception",
}

func newMangler(f *fakeUnit, seed uint64) *mangler {
	return &mangler{f: f, rng: rand.New(rand.NewPCG(seed, 2)), timeout: unitTimeout}
}

// release forgets what was held back.
func (m *mangler) release() {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	m.held = nil
}

// forged are answers with a good checksum to what nobody asked; a flipped bit in a transaction id makes one too. Where they are
// late as well, nothing can tell them from the answer to a later question.
var forged = []string{"tid", "unit", "function", "count+1", "count-1", "foreign before"}

func (m *mangler) mangle(unit byte, req, reply []byte) []piece {
	kind := mangleKinds[m.rng.IntN(len(mangleKinds))]
	if (slices.Contains(forged, kind) || !m.f.rtu && kind == "flipped") && time.Now().Before(m.busy) {
		kind = "silence"
	}
	pieces := m.apply(kind, unit, req, reply)
	if now := time.Now(); m.busy.Before(now) {
		m.busy = now
	}
	for _, p := range pieces {
		m.busy = m.busy.Add(p.after)
	}
	return pieces
}

func (m *mangler) apply(kind string, unit byte, req, reply []byte) []piece {
	tid := m.f.tid
	frame := m.f.frame(tid, unit, reply)
	at := func(after time.Duration, b ...[]byte) []piece { return []piece{{after, bytes.Join(b, nil)}} }
	cut := 1 + m.rng.IntN(len(frame)-1)
	changed := func(edit func(p []byte) []byte) []piece {
		return at(0, m.f.frame(tid, unit, edit(bytes.Clone(reply))))
	}
	if m.held != nil {
		held := m.held
		m.held = nil
		return at(0, frame, held)
	}
	switch kind {
	case "late":
		return at(m.timeout+time.Duration(m.rng.Int64N(int64(m.timeout))), frame)
	case "much later":
		return at(m.timeout*time.Duration(2+m.rng.IntN(6)), frame)
	case "doubled":
		return append(at(0, frame), at(time.Duration(m.rng.IntN(1500))*time.Microsecond, frame)...)
	case "doubled late":
		return at(m.timeout+time.Duration(m.rng.Int64N(int64(m.timeout))), frame, frame)
	case "truncated":
		return at(0, frame[:cut])
	case "flipped":
		bit := m.rng.IntN(8 * len(frame))
		if !m.f.rtu {
			bit = m.rng.IntN(8 * 8) // without a checksum a flipped value can't be seen
		}
		frame[bit/8] ^= 1 << (bit % 8)
		return at(0, frame)
	case "unit":
		return at(0, m.f.frame(tid, unit+1, reply))
	case "function":
		return changed(func(p []byte) []byte { p[0] ^= 7; return p })
	case "bytes+1":
		return changed(func(p []byte) []byte { p[1]++; return p })
	case "bytes-1":
		return changed(func(p []byte) []byte { p[1]--; return p })
	case "count+1":
		return changed(func(p []byte) []byte { p[1] += 2; return append(p, 1, 2) })
	case "count-1":
		return changed(func(p []byte) []byte { p[1] -= 2; return p[:len(p)-2] })
	case "tid":
		return at(0, m.f.frame(tid-1, unit+1, reply))
	case "swapped":
		m.held = frame
		return nil
	case "garbage before":
		if m.f.rtu {
			return at(0, m.noise(), frame)
		}
		return at(0, frame)
	case "garbage after":
		if m.f.rtu {
			return at(0, frame, m.noise())
		}
		return at(0, frame)
	case "foreign before":
		return at(0, m.f.frame(tid-2, unit+1, honest(unit+1, req, 1)), frame)
	case "half":
		return append(at(0, frame[:cut]), at(m.timeout/4, frame[cut:])...)
	case "half late":
		return append(at(0, frame[:cut]), at(m.timeout*5/4, frame[cut:])...)
	case "bytewise":
		var list []piece
		for i := range frame {
			list = append(list, piece{time.Microsecond * 100, frame[i : i+1]})
		}
		return list
	case "silence":
		return nil
	case "exception":
		codes := []byte{1, 2, 3, 4, 5, 6, 10, 11}
		return at(0, m.f.frame(tid, unit, []byte{req[0] | 0x80, codes[m.rng.IntN(len(codes))]}))
	}
	return at(0, frame)
}

func (m *mangler) noise() []byte {
	b := make([]byte, 1+m.rng.IntN(20))
	for i := range b {
		b[i] = byte(m.rng.Uint32())
	}
	return b
}

// usable fails the test where an error is none that leaves the connection usable.
func usable(t *testing.T, err error) {
	t.Helper()
	var e Exception
	if err != nil && !errors.Is(err, ErrTimeout) && !errors.As(err, &e) {
		t.Fatalf("error %v, want none, a timeout or an exception", err)
	}
}
