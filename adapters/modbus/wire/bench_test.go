package wire

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/simonvetter/modbus"
)

// echoServer answers every read of 125 registers with the same frame, as cheaply as it can.
func echoServer(b testing.TB, rtu bool) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	reply := honest(1, AppendRead(nil, 3, 0, 125), 0)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				out := appendMBAP(nil, 0, 1, reply)
				size := mbapHeader + 5
				if rtu {
					out, size = AppendRTU(nil, 1, reply), 8
				}
				in := make([]byte, size)
				for {
					if _, err := io.ReadFull(r, in); err != nil {
						return
					}
					if !rtu {
						binary.BigEndian.PutUint16(out, binary.BigEndian.Uint16(in))
					}
					if _, err := conn.Write(out); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func dial(b testing.TB, addr string) net.Conn {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	return conn
}

// Reading 125 registers over loopback TCP; the server is in the same process.
func BenchmarkTCP(b *testing.B) {
	c := NewTCP(dial(b, echoServer(b, false)), Options{})
	defer func() { _ = c.Close() }()
	benchmark(b, c)
}

func BenchmarkRTUOverTCP(b *testing.B) {
	c := NewRTU(dial(b, echoServer(b, true)), Options{Quiet: -1})
	defer func() { _ = c.Close() }()
	benchmark(b, c)
}

func benchmark(b *testing.B, c *Client) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.ReadHoldingRegisters(ctx, 1, 0, 125); err != nil {
			b.Fatal(err)
		}
	}
}

// What the network alone takes.
func BenchmarkBareTCP(b *testing.B) {
	conn := dial(b, echoServer(b, false))
	defer conn.Close()
	request := appendMBAP(nil, 1, 1, AppendRead(nil, 3, 0, 125))
	reply := make([]byte, 259)
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, reply); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLibraryTCP(b *testing.B) {
	c, err := modbus.NewClient(&modbus.ClientConfiguration{URL: "tcp://" + echoServer(b, false), Timeout: time.Second})
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Open(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.ReadRawBytes(0, 250, modbus.HOLDING_REGISTER); err != nil {
			b.Fatal(err)
		}
	}
}

// The client's own work, without a network.
func BenchmarkFindRTU(b *testing.B) {
	frame := AppendRTU(nil, 1, honest(1, AppendRead(nil, 3, 0, 125), 0))
	h := headOf(AppendRead(nil, 3, 0, 125))
	for b.Loop() {
		if pdu, err := findRTU(frame, 1, &h); pdu == nil || err != nil {
			b.Fatal(err)
		}
	}
}

// A window of reads of 125 registers; one operation is one read.
func BenchmarkWindow(b *testing.B) {
	for _, depth := range []int{1, 2, 4, 8, 16} {
		b.Run(strconv.Itoa(depth), func(b *testing.B) {
			c := NewTCP(dial(b, echoServer(b, false)), Options{Pipeline: depth})
			defer func() { _ = c.Close() }()
			window := fullReads(16)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			each := func(_ int, _ []byte, err error) {
				if err != nil {
					b.Error(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; done += len(window) {
				if err := c.DoWindow(ctx, window[:min(len(window), b.N-done)], each); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func fullReads(n int) []Request {
	requests := make([]Request, n)
	for i := range requests {
		requests[i] = Request{Unit: 1, PDU: AppendRead(nil, 3, 0, 125)}
	}
	return requests
}

func TestWindowDoesNotAllocate(t *testing.T) {
	for _, depth := range []int{1, 8} {
		c := NewTCP(dial(t, echoServer(t, false)), Options{Pipeline: depth, Timeout: time.Minute})
		window := fullReads(16)
		each := func(_ int, _ []byte, err error) {
			if err != nil {
				t.Error(err)
			}
		}
		if n := testing.AllocsPerRun(50, func() { _ = c.DoWindow(t.Context(), window, each) }); n >= 1 {
			t.Errorf("%v allocations in a window of %d", n, depth)
		}
		_ = c.Close()
	}
}
