package modbus

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway"
)

// counted is a connection that knows that it was closed.
type counted struct {
	net.Conn
	open *atomic.Int32
}

func (c counted) Close() error {
	c.open.Add(-1)
	return c.Conn.Close()
}

// dialled is an adapter whose connections end at a unit that answers requests
// to some units, and fail from a number on.
func dialled(t *testing.T, bus *gateway.Bus, fails int, answers ...byte) (a *Adapter, open, dials *atomic.Int32) {
	t.Helper()
	first, second := device(bus, drive(), "first", 1), device(bus, drive(), "second", 2)
	made, err := New(gateway.Env{}, bus, []*gateway.Device{first, second})
	if err != nil {
		t.Fatal(err)
	}
	a = made.(*Adapter)
	open, dials = new(atomic.Int32), new(atomic.Int32)
	a.dial = func(context.Context) (io.ReadWriteCloser, error) {
		if dials.Add(1) == int32(fails) {
			return nil, errors.New("no more connections")
		}
		near, far := net.Pipe()
		go answer(far, answers)
		open.Add(1)
		return counted{near, open}, nil
	}
	return a, open, dials
}

// answer refuses what is asked of some units, and is silent for the others.
func answer(conn net.Conn, units []byte) {
	for {
		tid, unit, pdu, err := readRequest(conn)
		if err != nil {
			return
		}
		for _, u := range units {
			if u == unit {
				_, _ = conn.Write([]byte{byte(tid >> 8), byte(tid), 0, 0, 0, 3, unit, pdu[0] | 0x80, 2})
			}
		}
	}
}

func TestOpenMakesAllConnectionsOrNone(t *testing.T) {
	a, open, dials := dialled(t, &gateway.Bus{Name: "b", Type: "modbus-tcp", Host: "h", Connections: 3}, 0)
	s, err := a.Open(t.Context())
	if err != nil || dials.Load() != 3 || open.Load() != 3 {
		t.Fatalf("%d dialled, %d open, error %v; want 3", dials.Load(), open.Load(), err)
	}
	if err := s.Close(); err != nil || open.Load() != 0 {
		t.Errorf("%d open after close, %v", open.Load(), err)
	}
	a, open, _ = dialled(t, &gateway.Bus{Name: "b", Type: "modbus-tcp", Host: "h", Connections: 3}, 3)
	if s, err := a.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "connection 3 of 3: no more connections") {
		t.Errorf("session %v, error %v", s, err)
	}
	if open.Load() != 0 {
		t.Errorf("%d connections left open", open.Load())
	}
}

func TestOpenOfUDPNeedsAnAnswerOfAnyUnit(t *testing.T) {
	bus := func() *gateway.Bus {
		return &gateway.Bus{Name: "b", Type: "modbus-udp", Host: "h", Timeout: time.Second}
	}
	synctest.Test(t, func(t *testing.T) {
		a, _, _ := dialled(t, bus(), 0, 2)
		s, err := a.Open(t.Context())
		if err != nil {
			t.Fatalf("one unit answers: %v", err)
		}
		s.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		a, open, _ := dialled(t, bus(), 0)
		begin := time.Now()
		if _, err := a.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "nobody answers at udp h:502") {
			t.Errorf("nobody answers: %v", err)
		}
		if took := time.Since(begin); took != 2*time.Second || open.Load() != 0 {
			t.Errorf("given up after %v with %d open, want each unit's timeout and none", took, open.Load())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		a, open, _ := dialled(t, bus(), 0)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := a.Open(ctx); !errors.Is(err, context.DeadlineExceeded) || open.Load() != 0 {
			t.Errorf("out of time: %v, %d open", err, open.Load())
		}
	})
}
