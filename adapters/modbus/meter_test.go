package modbus

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// meter is a unit on TCP whose registers hold their address, and whose bits are
// set where that is odd.
type meter struct {
	mu     sync.Mutex
	asked  []string
	delay  time.Duration
	flying int // requests, and the most that there were
	most   int
	refuse func(first, last int) byte // exception for a read; silent for silence, short for half an answer
}

const silent, short = 0xFF, 0xFE

// serve answers each request as soon as its delay is over, in any order.
func (m *meter) serve(conn net.Conn) {
	var answers sync.WaitGroup
	defer answers.Wait()
	var line sync.Mutex
	head := make([]byte, 7)
	for {
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		pdu := make([]byte, binary.BigEndian.Uint16(head[4:])-1)
		if _, err := io.ReadFull(conn, pdu); err != nil {
			return
		}
		m.mu.Lock()
		reply := m.reply(pdu)
		m.flying++
		m.most = max(m.most, m.flying)
		m.mu.Unlock()
		frame := append(slices.Clone(head), reply...)
		binary.BigEndian.PutUint16(frame[4:], uint16(len(reply)+1))
		answers.Go(func() {
			time.Sleep(m.delay)
			m.mu.Lock()
			m.flying--
			m.mu.Unlock()
			line.Lock()
			defer line.Unlock()
			if reply != nil {
				_, _ = conn.Write(frame)
			}
		})
	}
}

func (m *meter) reply(pdu []byte) []byte {
	first, n := int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
	m.asked = append(m.asked, fmt.Sprintf("%d+%d", first, n))
	switch code := m.refuse(first, first+n-1); code {
	case 0:
	case silent:
		return nil
	case short:
		n /= 2
	default:
		return []byte{pdu[0] | 0x80, code}
	}
	if pdu[0] == wire.FuncReadCoils || pdu[0] == wire.FuncReadDiscreteInputs {
		reply := append([]byte{pdu[0], byte((n + 7) / 8)}, make([]byte, (n+7)/8)...)
		for i := range n {
			reply[2+i/8] |= byte((first+i)%2) << (i % 8)
		}
		return reply
	}
	reply := []byte{pdu[0], byte(2 * n)}
	for i := range n {
		reply = binary.BigEndian.AppendUint16(reply, uint16(first+i))
	}
	return reply
}

// take gives what was asked since the last take.
func (m *meter) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.asked
	m.asked = nil
	return was
}

func (m *meter) set(refuse func(first, last int) byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = refuse
}

// touches refuses what has one of the registers in it.
func touches(code byte, registers ...int) func(int, int) byte {
	return func(first, last int) byte {
		for _, r := range registers {
			if first <= r && r <= last {
				return code
			}
		}
		return 0
	}
}

func nothing(int, int) byte { return 0 }

// memory is a state that a test keeps.
type memory map[string][]byte

func (m memory) Get(bucket, key string) ([]byte, error) { return m[bucket+"/"+key], nil }
func (m memory) Put(bucket, key string, v []byte) error { m[bucket+"/"+key] = v; return nil }

// failer is a test or a property.
type failer interface {
	Helper()
	Fatalf(string, ...any)
}

// onMeter opens a session to a meter.
func onMeter(t failer, m *meter, state gateway.State, d *gateway.Device) (*session, func()) {
	t.Helper()
	a, err := New(gateway.Env{State: state}, d.Bus, []*gateway.Device{d})
	if err != nil {
		t.Fatalf("%v", err)
	}
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); m.serve(far) }()
	s := newSession(a.(*Adapter), wire.NewTCP(near, wire.Options{Timeout: d.Bus.Timeout}))
	return s, func() { s.Close(); far.Close(); <-done }
}

// cycle reads all points once, as the bus loop does, and gives those that are
// not good, with their reasons. A good one has to have its right value.
func cycle(t failer, s *session, groups [][]*gateway.Point) map[string]string {
	t.Helper()
	bad := make(map[string]string)
	for _, group := range groups {
		samples, err := s.Read(ctx(t), group)
		if err != nil {
			t.Fatalf("%v", err)
		}
		for i, x := range samples {
			at := s.atlas.places[x.Point]
			switch {
			case x.Point != group[i] || x.Time.IsZero():
				t.Fatalf("sample %d is %+v, want one of %s", i, x, group[i].ID)
			case x.Quality != gateway.Good:
				bad[x.Point.ID] = x.Reason
			case at.address.Table.Bits():
				if x.Value.List()[0].Bool() != (at.start%2 == 1) {
					t.Fatalf("%s is %s", x.Point.ID, x.Value)
				}
			case !strings.HasPrefix(x.Value.String(), fmt.Sprintf("%04x", at.start)) || len(x.Value.String()) != 4*(at.end-at.start):
				t.Fatalf("%s is %s, at %d", x.Point.ID, x.Value, at.start)
			}
		}
	}
	return bad
}

func run(first, count, size int) (spans [][2]int) {
	for i := range count {
		spans = append(spans, [2]int{first + i*size, size})
	}
	return spans
}

func learner(table string, timeout time.Duration, spans ...[2]int) *gateway.Device {
	bus := &gateway.Bus{Name: "b", Type: "modbus-tcp", Host: "localhost", Timeout: timeout}
	return device(bus, profileOf(table, spans...), "d", 1)
}
