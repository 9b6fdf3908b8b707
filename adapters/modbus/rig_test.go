package modbus

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	sv "github.com/simonvetter/modbus"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// slave is a scripted RTU unit with holding registers.
type slave struct {
	mu     sync.Mutex
	regs   [64]uint16
	log    []string                    // the PDUs that came, in hexadecimal
	answer func(pdu []byte) (r []byte) // instead of the registers; nil is silence
}

func (s *slave) serve(conn io.ReadWriteCloser) {
	for r := bufio.NewReader(conn); ; {
		unit, pdu, err := wire.ReadRTURequest(r)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.log = append(s.log, fmt.Sprintf("%X", pdu))
		answer := s.answer
		if answer == nil {
			answer = s.reply
		}
		reply := answer(pdu)
		s.mu.Unlock()
		if reply != nil {
			if _, err := conn.Write(wire.AppendRTU(nil, unit, reply)); err != nil {
				return
			}
		}
	}
}

// reply answers reads from the registers and confirms writes.
func (s *slave) reply(pdu []byte) []byte {
	at := binary.BigEndian.Uint16(pdu[1:])
	switch pdu[0] {
	case wire.FuncReadHoldingRegisters:
		n := binary.BigEndian.Uint16(pdu[3:])
		reply := []byte{pdu[0], byte(2 * n)}
		for i := range n {
			reply = binary.BigEndian.AppendUint16(reply, s.regs[(at+i)%64])
		}
		return reply
	case wire.FuncWriteMultipleCoils, wire.FuncWriteMultipleRegisters:
		return pdu[:5]
	case wire.FuncReadCoils, wire.FuncReadDiscreteInputs, wire.FuncReadInputRegisters:
		return []byte{pdu[0] | 0x80, 1}
	}
	return slices.Clone(pdu)
}

// take gives what came since the last take.
func (s *slave) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.log
	s.log = nil
	return was
}

func (s *slave) script(answer func([]byte) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// onSlave opens a session to a slave of its own.
func onSlave(t testing.TB, bus *gateway.Bus, devices ...*gateway.Device) (*session, *slave) {
	t.Helper()
	a, err := New(gateway.Env{}, bus, devices)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	unit := &slave{}
	done := make(chan struct{})
	go func() { defer close(done); unit.serve(far) }()
	s := newSession(a.(*Adapter), wire.NewRTU(near, wire.Options{Timeout: bus.Timeout, Quiet: time.Millisecond, Tap: &a.(*Adapter).tap}))
	t.Cleanup(func() { s.Close(); far.Close(); <-done })
	return s, unit
}

func serialBus(timeout time.Duration) *gateway.Bus {
	return &gateway.Bus{Name: "line", Type: "modbus-rtu", Port: "/dev/x", Line: "115200 8N1", Timeout: timeout}
}

// drive has a point for each way to write.
func drive() *gateway.Profile {
	decimal := func(text string) *gateway.Decimal {
		d := new(gateway.Decimal)
		if err := d.UnmarshalText([]byte(text)); err != nil {
			panic(err)
		}
		return d
	}
	p := &gateway.Profile{Name: "drive", Addressing: "protocol", Table: "holding", Order: "CDAB"}
	p.Points = []*gateway.Definition{
		{ID: "speed", At: "1", Type: "uint16", Scale: decimal("0.1")},
		{ID: "power", At: "2", Type: "float32"},
		{ID: "enable", At: "coil:3", Type: "bool"},
		{ID: "lamps", At: "coil:8", Type: "bool", Count: 3},
		{ID: "bit", At: "5", Type: "bool", Bit: bit(3), Write: &gateway.WriteRule{Mask: "fc22"}},
		{ID: "high", At: "6", Type: "uint32", Bits: &gateway.BitRange{Low: 16, High: 19}, Write: &gateway.WriteRule{Mask: "fc22"}},
		{ID: "rmw", At: "5", Type: "uint8", Bits: &gateway.BitRange{Low: 4, High: 7}, Write: &gateway.WriteRule{Mask: "rmw"}},
		{ID: "bare", At: "5", Type: "bool", Bit: bit(1)},
		{ID: "mode", At: "10", Type: "uint16", Enum: gateway.Enum{{Raw: 0, Label: "stop"}, {Raw: 0x12, Label: "run"}}},
		{ID: "elsewhere", At: "11", Type: "int16", Write: &gateway.WriteRule{At: "21"}},
		{ID: "multiple", At: "12", Type: "int16", Write: &gateway.WriteRule{Function: "multiple"}},
		{ID: "exponent", At: "13", Type: "int16"},
		{ID: "scaled", At: "14", Type: "int16", ScaleFrom: "exponent"},
		{ID: "name", At: "30", Type: "string", Length: 4},
		{ID: "measured", At: "input:1", Type: "uint16"},
		{ID: "batch", At: "40", Type: "uint16", Block: "recipe"},
		{ID: "weight", At: "41", Type: "float32", Block: "recipe"},
		{ID: "enter", At: "43", Type: "bool", Bit: bit(0), Block: "recipe", Write: &gateway.WriteRule{Mask: "rmw"}},
		{ID: "run", At: "50", Type: "bool", Bit: bit(0), Block: "word", Write: &gateway.WriteRule{Mask: "fc22"}},
		{ID: "reverse", At: "50", Type: "bool", Bit: bit(4), Block: "word", Write: &gateway.WriteRule{Mask: "fc22"}},
		{ID: "open", At: "coil:30", Type: "bool", Block: "flaps"},
		{ID: "shut", At: "coil:31", Type: "bool", Block: "flaps"},
	}
	return p
}

func point(t testing.TB, d *gateway.Device, id string) *gateway.Point {
	t.Helper()
	for _, p := range d.Points {
		if p.ID == id {
			return p
		}
	}
	t.Fatalf("no point %s", id)
	return nil
}

// library is a Modbus TCP server of simonvetter/modbus.
type library struct {
	mu     sync.Mutex
	word   [256]uint16
	bits   [256]bool
	broken uint16 // register from which on there are exceptions
	delay  time.Duration
}

func (l *library) HandleCoils(r *sv.CoilsRequest) ([]bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.IsWrite {
		copy(l.bits[r.Addr:], r.Args)
	}
	return l.bits[r.Addr : r.Addr+r.Quantity], nil
}

func (l *library) HandleDiscreteInputs(r *sv.DiscreteInputsRequest) ([]bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bits[r.Addr : r.Addr+r.Quantity], nil
}

func (l *library) HandleHoldingRegisters(r *sv.HoldingRegistersRequest) ([]uint16, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	time.Sleep(l.delay)
	if r.Addr+r.Quantity > l.broken {
		return nil, sv.ErrIllegalDataAddress
	}
	if r.IsWrite {
		copy(l.word[r.Addr:], r.Args)
	}
	return slices.Clone(l.word[r.Addr : r.Addr+r.Quantity]), nil
}

func (l *library) HandleInputRegisters(r *sv.InputRegistersRequest) ([]uint16, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.word[r.Addr : r.Addr+r.Quantity]), nil
}

// onLibrary opens a session to such a server.
func onLibrary(t testing.TB, l *library, timeout time.Duration, profile *gateway.Profile) (gateway.Session, *gateway.Device, *sv.ModbusServer) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	server, err := sv.NewServer(&sv.ServerConfiguration{URL: fmt.Sprintf("tcp://127.0.0.1:%d", port), Timeout: time.Minute, Logger: log.New(io.Discard, "", 0)}, l)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	bus := &gateway.Bus{Name: "tcp", Type: "modbus-tcp", Host: "127.0.0.1", Port: itoa(port), Timeout: timeout}
	d := device(bus, profile, "d", 1)
	a, err := New(gateway.Env{}, bus, []*gateway.Device{d})
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, d, server
}

// readAll reads all points and gives "id=value" or "id!reason" by point.
func readAll(t testing.TB, s gateway.Session, d *gateway.Device) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, g := range s.Plan(d.Points) {
		samples, err := s.Read(t.Context(), g)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range samples {
			if all[x.Point.ID] = x.Value.String(); x.Quality == gateway.Bad {
				all[x.Point.ID] = "!" + x.Reason
			}
		}
	}
	return all
}

// ctx is the context of a test, or of a property.
func ctx(t any) context.Context {
	if t, ok := t.(interface{ Context() context.Context }); ok {
		return t.Context()
	}
	return context.Background()
}
