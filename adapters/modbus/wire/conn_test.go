package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// newScripted is a connection whose far end answers the first bytes it gets with some pieces. Done waits for it.
func newScripted(pieces ...[]byte) (near net.Conn, done func()) {
	near, far := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer far.Close()
		b := make([]byte, 300)
		if _, err := far.Read(b); err != nil {
			return
		}
		for _, p := range pieces {
			if _, err := far.Write(p); err != nil {
				return
			}
		}
		for {
			if _, err := far.Read(b); err != nil {
				return
			}
		}
	}()
	return near, func() { <-ended }
}

// plain hides the deadlines of a connection.
type plain struct{ io.ReadWriteCloser }

func both(t *testing.T, test func(t *testing.T, open func(conn io.ReadWriteCloser, o Options) *Client)) {
	for name, open := range map[string]func(io.ReadWriteCloser, Options) *Client{
		"tcp":       NewTCP,
		"tcp plain": func(c io.ReadWriteCloser, o Options) *Client { return NewTCP(plain{c}, o) },
		"rtu":       NewRTU,
		"rtu plain": func(c io.ReadWriteCloser, o Options) *Client { return NewRTU(plain{c}, o) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, open) })
		})
	}
}

func TestCancelEndsDoAndLeavesTheConnectionUsable(t *testing.T) {
	both(t, func(t *testing.T, open func(io.ReadWriteCloser, Options) *Client) {
		near, done := newScripted()
		c := open(near, Options{Timeout: time.Minute})
		defer func() { _ = c.Close(); done() }()
		ctx, cancel := context.WithCancel(t.Context())
		var cancelled time.Time
		time.AfterFunc(time.Second, func() { cancelled = time.Now(); cancel() })
		_, err := c.ReadHoldingRegisters(ctx, 1, 0, 1)
		if !errors.Is(err, context.Canceled) || Broken(err) || time.Since(cancelled) > 50*time.Millisecond {
			t.Errorf("error %v after %v", err, time.Since(cancelled))
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.ReadHoldingRegisters(ctx, 2, 0, 1); !errors.Is(err, context.DeadlineExceeded) || Broken(err) {
			t.Errorf("error %v", err)
		}
	})
}

func TestCancelEndsABlockedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := NewTCP(near, Options{Timeout: time.Minute})
		defer func() { _ = c.Close() }()
		read := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.ReadHoldingRegisters(ctx, 1, 0, 1)
			return err
		}
		if err := read(); !errors.Is(err, context.DeadlineExceeded) || Broken(err) {
			t.Errorf("nothing written: %v", err)
		}
		go func() { _, _ = far.Read(make([]byte, 3)) }()
		if err := read(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("part written: %v", err)
		}
		if err := read(); !Broken(err) {
			t.Errorf("after a cut request: %v", err)
		}
	})
}

func TestClosedConnectionIsBroken(t *testing.T) {
	both(t, func(t *testing.T, open func(io.ReadWriteCloser, Options) *Client) {
		near, far := net.Pipe()
		c := open(near, Options{})
		go func() { _, _ = far.Read(make([]byte, 100)); _ = far.Close() }()
		_, err := c.ReadHoldingRegisters(t.Context(), 1, 0, 1)
		// A pipe whose other end is closed says EOF to a Read, and ErrClosedPipe to SetReadDeadline.
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe)
		var broken *ConnError
		if !errors.As(err, &broken) || !broken.Sent || !ended {
			t.Errorf("error %v", err)
		}
		_, err = c.ReadHoldingRegisters(t.Context(), 1, 0, 1)
		if !errors.As(err, &broken) || broken.Sent {
			t.Errorf("second error %v", err)
		}
		_ = c.Close()
		_ = c.Close()
	})
}

func TestIdleCloseIsKnownBeforeSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := NewRTU(near, Options{})
		defer func() { _ = c.Close() }()
		_ = far.Close()
		synctest.Wait()
		var broken *ConnError
		if _, err := c.ReadHoldingRegisters(t.Context(), 1, 0, 1); !errors.As(err, &broken) || broken.Sent {
			t.Errorf("error %v", err)
		}
	})
}

func TestCloseEndsDo(t *testing.T) {
	both(t, func(t *testing.T, open func(io.ReadWriteCloser, Options) *Client) {
		near, done := newScripted()
		c := open(near, Options{Timeout: time.Hour})
		time.AfterFunc(time.Second, func() { _ = c.Close() })
		start := time.Now()
		if _, err := c.ReadHoldingRegisters(t.Context(), 1, 0, 1); !Broken(err) || time.Since(start) > 2*time.Second {
			t.Errorf("error %v after %v", err, time.Since(start))
		}
		done()
	})
}

func TestMBAPOutOfStepIsBroken(t *testing.T) {
	good := appendMBAP(nil, 1, 1, []byte{3, 2, 0, 7})
	for name, pieces := range map[string][][]byte{
		"protocol":     {{0, 1, 0, 1, 0, 5, 1, 3, 2, 0, 7}},
		"length 0":     {{0, 1, 0, 0, 0, 0, 1, 3, 2, 0, 7}},
		"length 1":     {{0, 1, 0, 0, 0, 1, 1, 3, 2, 0, 7}},
		"length 255":   {{0, 1, 0, 0, 0, 255, 1, 3, 2, 0, 7}},
		"half a frame": {good[:9]},
	} {
		synctest.Test(t, func(t *testing.T) {
			near, done := newScripted(pieces...)
			c := NewTCP(near, Options{})
			if _, err := c.ReadHoldingRegisters(t.Context(), 1, 0, 1); !Broken(err) || !strings.Contains(err.Error(), "out of step") {
				t.Errorf("%s: %v", name, err)
			}
			_ = c.Close()
			done()
		})
	}
}

func TestMBAPWrongAnswerNeedsNoMoreWaiting(t *testing.T) {
	inBubble(t, false, Options{Timeout: time.Hour}, func(t *testing.T, f *fakeUnit, c *Client) {
		for _, pdu := range [][]byte{{4, 4, 1, 2, 3, 4}, {3, 2, 1, 2}, {3, 4, 1, 2, 3, 4, 5}, {3}, {0x84, 2}} {
			f.ask(1, script(f, func([]byte, byte) []piece { return []piece{{0, f.frame(f.tid, 1, pdu)}} }))
			wantError(t, c, 1, 0, 2, ErrTimeout)
		}
		want(t, c, 1, 0, 2, 1)
	})
}

func TestNoGoroutineSpinsOnEmptyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := &emptyReads{closed: make(chan struct{})}
		c := NewRTU(conn, Options{Timeout: time.Second})
		if _, err := c.ReadHoldingRegisters(t.Context(), 1, 0, 1); !errors.Is(err, ErrTimeout) {
			t.Errorf("error %v", err)
		}
		_ = c.Close()
		if conn.reads > 1100 {
			t.Errorf("%d reads in a second", conn.reads)
		}
	})
}

// emptyReads is a port whose reads time out at once.
type emptyReads struct {
	reads  int
	closed chan struct{}
}

func (e *emptyReads) Read([]byte) (int, error) {
	select {
	case <-e.closed:
		return 0, io.EOF
	default:
		e.reads++
		return 0, nil
	}
}
func (e *emptyReads) Write(b []byte) (int, error) { return len(b), nil }
func (e *emptyReads) Close() error                { close(e.closed); return nil }

// TestTCPQuietTime: a request waits for the silence that a unit or converter wants, in a window too; without one it waits for nothing.
func TestTCPQuietTime(t *testing.T) {
	ask := Request{Unit: 1, PDU: AppendRead(nil, 3, 0, 1)}
	slow := Request{Unit: 1, PDU: ask.PDU, Quiet: 20 * time.Millisecond}
	inBubble(t, false, Options{Pipeline: 4}, func(t *testing.T, f *fakeUnit, c *Client) {
		wantQuiet(t, c, ask, 0)
		wantQuiet(t, c, slow, 20*time.Millisecond)
		start := time.Now()
		if err := c.DoWindow(t.Context(), []Request{ask, slow, slow}, func(_ int, _ []byte, err error) {
			if err != nil {
				t.Error(err)
			}
		}); err != nil || time.Since(start) != 40*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ended, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := c.Do(ended, slow); err != context.DeadlineExceeded {
			t.Error(err)
		}
	})
	inBubble(t, false, Options{Quiet: 5 * time.Millisecond}, func(t *testing.T, f *fakeUnit, c *Client) {
		wantQuiet(t, c, ask, 5*time.Millisecond)
	})
}
