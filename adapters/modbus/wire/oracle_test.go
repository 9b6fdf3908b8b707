package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/simonvetter/modbus"
)

// memory is the field behind the library's server.
type memory struct {
	mu        sync.Mutex
	coils     [2000]bool
	registers [2000]uint16
}

func (m *memory) bits(r *modbus.CoilsRequest) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if int(r.Addr)+int(r.Quantity) > len(m.coils) {
		return nil, modbus.ErrIllegalDataAddress
	}
	part := m.coils[r.Addr : r.Addr+r.Quantity]
	if r.IsWrite {
		copy(part, r.Args)
	}
	return slices.Clone(part), nil
}

func (m *memory) words(addr, count uint16, args []uint16) ([]uint16, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if int(addr)+int(count) > len(m.registers) {
		return nil, modbus.ErrIllegalDataAddress
	}
	part := m.registers[addr : addr+count]
	copy(part, args)
	return slices.Clone(part), nil
}

func (m *memory) HandleCoils(r *modbus.CoilsRequest) ([]bool, error) { return m.bits(r) }

func (m *memory) HandleDiscreteInputs(r *modbus.DiscreteInputsRequest) ([]bool, error) {
	return m.bits(&modbus.CoilsRequest{Addr: r.Addr, Quantity: r.Quantity})
}

func (m *memory) HandleHoldingRegisters(r *modbus.HoldingRegistersRequest) ([]uint16, error) {
	return m.words(r.Addr, r.Quantity, r.Args)
}

func (m *memory) HandleInputRegisters(r *modbus.InputRegistersRequest) ([]uint16, error) {
	return m.words(r.Addr, r.Quantity, nil)
}

// library starts the library's server on a free port, and its client beside ours.
func library(t *testing.T) (*Client, *modbus.ModbusClient) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	server, err := modbus.NewServer(&modbus.ServerConfiguration{URL: "tcp://" + addr}, &memory{})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	oracle, err := modbus.NewClient(&modbus.ClientConfiguration{URL: "tcp://" + addr, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := oracle.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = oracle.Close() })
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := NewTCP(conn, Options{Timeout: 5 * time.Second})
	t.Cleanup(func() { _ = c.Close() })
	return c, oracle
}

// Both clients do the same against the same memory, one after the other, and must see the same.
func TestSameAsTheLibrary(t *testing.T) {
	c, oracle := library(t)
	rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
	for range 3000 {
		addr, count := uint16(rng.IntN(2020)), uint16(1+rng.IntN(123))
		op := rng.IntN(8)
		ours, theirs := do(t, c, oracle, rng, op, addr, count)
		if ours != theirs {
			t.Fatalf("operation %d, %d from %d: %s, the library says %s", op, count, addr, ours, theirs)
		}
	}
}

func do(t *testing.T, c *Client, oracle *modbus.ModbusClient, rng *rand.Rand, op int, addr, count uint16) (ours, theirs string) {
	ctx := t.Context()
	var data []byte
	var bits []bool
	var raw []byte
	var err, theirErr error
	switch op {
	case 0:
		data, err = c.ReadCoils(ctx, 1, addr, count)
		bits, theirErr = oracle.ReadCoils(addr, count)
		return outcome(unpack(data, count, err), err), outcome(bits, theirErr)
	case 1:
		data, err = c.ReadDiscreteInputs(ctx, 1, addr, count)
		bits, theirErr = oracle.ReadDiscreteInputs(addr, count)
		return outcome(unpack(data, count, err), err), outcome(bits, theirErr)
	case 2:
		data, err = c.ReadHoldingRegisters(ctx, 1, addr, count)
		raw, theirErr = oracle.ReadRawBytes(addr, 2*count, modbus.HOLDING_REGISTER)
		return outcome(data, err), outcome(raw, theirErr)
	case 3:
		data, err = c.ReadInputRegisters(ctx, 1, addr, count)
		raw, theirErr = oracle.ReadRawBytes(addr, 2*count, modbus.INPUT_REGISTER)
		return outcome(data, err), outcome(raw, theirErr)
	case 4:
		on := rng.IntN(2) == 1
		return outcome(0, c.WriteSingleCoil(ctx, 1, addr, on)), outcome(0, oracle.WriteCoil(addr, on))
	case 5:
		value := uint16(rng.Uint32())
		return outcome(0, c.WriteSingleRegister(ctx, 1, addr, value)), outcome(0, oracle.WriteRegister(addr, value))
	case 6:
		bits = make([]bool, count)
		raw = make([]byte, packed(int(count)))
		for i := range bits {
			if bits[i] = rng.IntN(2) == 1; bits[i] {
				raw[i/8] |= 1 << (i % 8)
			}
		}
		err = c.WriteMultipleCoils(ctx, 1, addr, count, raw)
		return outcome(readBack(oracle.ReadCoils(addr, count))(err), err), outcome(bits, oracle.WriteCoils(addr, bits))
	default:
		words := make([]uint16, count)
		for i := range words {
			words[i] = uint16(rng.Uint32())
			raw = binary.BigEndian.AppendUint16(raw, words[i])
		}
		err = c.WriteMultipleRegisters(ctx, 1, addr, raw)
		return outcome(readBack(oracle.ReadRegisters(addr, count, modbus.HOLDING_REGISTER))(err), err), outcome(words, oracle.WriteRegisters(addr, words))
	}
}

// readBack is what the library reads after our write.
func readBack[T any](got []T, err error) func(writeErr error) []T {
	return func(writeErr error) []T {
		if err != nil && writeErr == nil {
			return nil
		}
		return got
	}
}

func unpack(data []byte, count uint16, err error) []bool {
	if err != nil {
		return nil
	}
	bits := make([]bool, count)
	for i := range bits {
		bits[i] = Bit(data, i)
	}
	return bits
}

// outcome is a result as text. Every error of this test is the same exception.
func outcome(value any, err error) string {
	if err == IllegalDataAddress || err == modbus.ErrIllegalDataAddress {
		return "illegal data address"
	}
	return fmt.Sprintf("%v %v", value, err)
}

func TestFunctionsTheLibraryHasNot(t *testing.T) {
	for _, rtu := range []bool{false, true} {
		inBubble(t, rtu, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
			if err := c.MaskWriteRegister(t.Context(), 1, 4, 0xF2, 0x25); err != nil {
				t.Error(err)
			}
			data, err := c.ReadWriteMultipleRegisters(t.Context(), 1, 7, 2, 9, []byte{1, 2})
			if err != nil || !bytes.Equal(data, values(1, 23, 7, 4, 0)) {
				t.Errorf("% x, %v", data, err)
			}
			if got := f.requests(); !bytes.Equal(got[1], []byte{1, 23, 0, 7, 0, 2, 0, 9, 0, 1, 2, 1, 2}) {
				t.Errorf("% x", got)
			}
		})
	}
}
