package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A windowMangler spoils the answers to requests that are in flight together.
type windowMangler struct {
	*mangler
	datagrams bool
	cut       bool    // an answer was cut: what follows comes whole and in order
	crossed   *parcel // waits for another answer to change transactions with
}

type parcel struct {
	tid  uint16
	unit byte
	pdu  []byte
}

// mangle is mangler's, but that nothing is forged so that it fits another request in flight: there is no telling that.
func (m *windowMangler) mangle(unit byte, req, reply []byte) []piece {
	now, tid := time.Now(), m.f.tid
	frame := m.f.frame(tid, unit, reply)
	if m.cut {
		return []piece{{0, frame}}
	}
	if c := m.crossed; c != nil && (c.unit != unit || c.pdu[0] != reply[0] || len(c.pdu) != len(reply)) {
		m.crossed = nil
		return []piece{{0, append(m.f.frame(c.tid, unit, reply), m.f.frame(tid, c.unit, c.pdu)...)}}
	}
	kind := append(mangleKinds, "crossed", "slow")[m.rng.IntN(len(mangleKinds)+2)]
	if kind == "truncated" && (now.Before(m.busy) || m.held != nil || m.crossed != nil) {
		kind = "good"
	}
	var pieces []piece
	switch {
	case m.held != nil:
		pieces = m.apply(kind, unit, req, reply)
	case kind == "crossed":
		m.crossed = &parcel{tid, unit, reply}
	case kind == "slow":
		pieces = []piece{{time.Duration(m.rng.Int64N(int64(m.timeout))), frame}}
	case kind == "unit":
		pieces = []piece{{0, m.f.frame(tid, unit|0x40, reply)}}
	case kind == "tid":
		pieces = []piece{{0, m.f.frame(tid-1, unit|0x40, reply)}}
	case kind == "foreign before":
		pieces = []piece{{0, append(m.f.frame(tid-2, unit|0x40, honest(unit, req, 1)), frame...)}}
	case kind == "flipped":
		bits := []int{0, 1, 2, 3, 4, 5, 6, 7, 14, 15} // of a transaction id, far from those in flight
		if bit := m.rng.IntN(len(bits) + 48); bit < len(bits) {
			flip(frame, bits[bit])
		} else {
			flip(frame, bit-len(bits)+16)
		}
		pieces = []piece{{0, frame}}
	case kind == "garbage before" && m.datagrams:
		pieces = []piece{{0, m.noise()}, {0, frame}}
	default:
		m.cut = kind == "truncated" && !m.datagrams
		pieces = m.apply(kind, unit, req, reply)
	}
	for _, p := range pieces {
		if at := now.Add(p.after + 2*m.timeout); m.busy.Before(at) && p.after > 0 {
			m.busy = at
		}
	}
	return pieces
}

func flip(frame []byte, bit int) { frame[bit/8] ^= 1 << (bit % 8) }

func (m *windowMangler) reconnected() {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	m.held, m.crossed, m.cut, m.busy = nil, nil, false, time.Time{}
}

var windowKinds = map[string]func(net.Conn, Options) *Client{
	"tcp": func(c net.Conn, o Options) *Client { return NewTCP(c, o) },
	"udp": NewUDP,
}

func TestNoWrongValueInAWindow(t *testing.T) {
	for name, open := range windowKinds {
		for _, depth := range []int{1, 2, 3, 8, 16} {
			t.Run(fmt.Sprint(name, " ", depth), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { hammerWindow(t, name == "udp", open, depth, rand.Uint64()) })
			})
		}
	}
}

func hammerWindow(t *testing.T, datagrams bool, open func(net.Conn, Options) *Client, depth int, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	f := newFake(t, false)
	f.unordered = true
	m := &windowMangler{mangler: newMangler(f, seed), datagrams: datagrams}
	var good, bad, broken, lost int
	var c *Client
	for round := uint64(0); good+bad+lost < mangledAnswers; round++ {
		if c == nil {
			m.reconnected()
			c = open(f.connect(), Options{Timeout: m.timeout, Pipeline: depth})
		}
		requests := make([]Request, 1+rng.IntN(2*depth))
		for i := range requests {
			unit, function, addr, count := question(rng)
			requests[i] = Request{Unit: unit, PDU: AppendRead(nil, function, addr, count)}
		}
		f.ask(round, m.mangle)
		called := make([]int, len(requests))
		err := c.DoWindow(t.Context(), requests, func(i int, pdu []byte, err error) {
			called[i]++
			switch r := requests[i]; {
			case err == nil && bytes.Equal(pdu, honest(r.Unit, r.PDU, round)):
				good++
			case err == nil:
				t.Errorf("seed %d, round %d: wrong value", seed, round)
			default:
				usable(t, err)
				bad++
			}
		})
		if most := slices.Max(called); most > 1 || err == nil && slices.Min(called) == 0 {
			t.Fatalf("seed %d, round %d: called %v", seed, round, called)
		}
		for _, n := range called {
			lost += 1 - n
		}
		if err != nil {
			if !Broken(err) {
				t.Fatal(err)
			}
			broken++
			_ = c.Close()
			synctest.Wait() // until what it still asked is dealt with
			c = nil
		}
	}
	if c != nil {
		_ = c.Close()
	}
	t.Logf("%d good, %d bad, %d connections broken with %d requests in flight", good, bad, broken, lost)
	if good < mangledAnswers/10 || datagrams && broken > 0 {
		t.Errorf("%d good of %d, %d connections broken", good, mangledAnswers, broken)
	}
}

func reads(n int) []Request {
	requests := make([]Request, n)
	for i := range requests {
		requests[i] = Request{Unit: byte(1 + i), PDU: AppendRead(nil, 3, uint16(10*i), 2)}
	}
	return requests
}

func inWindow(t *testing.T, o Options, test func(t *testing.T, f *fakeUnit, c *Client)) {
	for name, open := range windowKinds {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t, false)
				f.unordered = true
				c := open(f.connect(), o)
				defer func() { _ = c.Close() }()
				test(t, f, c)
			})
		})
	}
}

func TestWindowHoldsAsManyAsItIsSaid(t *testing.T) {
	const delay = 100 * time.Millisecond
	for _, depth := range []int{0, 1, 3, 8} {
		inWindow(t, Options{Timeout: time.Second, Pipeline: depth}, func(t *testing.T, f *fakeUnit, c *Client) {
			f.ask(1, func(unit byte, req, reply []byte) []piece { return []piece{{delay, f.frame(f.tid, unit, reply)}} })
			start, got := time.Now(), 0
			err := c.DoWindow(t.Context(), reads(24), func(i int, pdu []byte, err error) { got++ })
			if want := delay * time.Duration(24/max(1, depth)); err != nil || got != 24 || time.Since(start) != want {
				t.Errorf("%d answers in %v, want 24 in %v; error %v", got, time.Since(start), want, err)
			}
		})
	}
}

func TestWindowTakesAnswersInAnyOrder(t *testing.T) {
	inWindow(t, Options{Timeout: time.Second, Pipeline: 4}, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, func(unit byte, req, reply []byte) []piece {
			return []piece{{time.Duration(10-unit) * time.Millisecond, f.frame(f.tid, unit, reply)}}
		})
		requests := reads(4)
		var order []int
		err := c.DoWindow(t.Context(), requests, func(i int, pdu []byte, err error) {
			order = append(order, i)
			if err != nil || !bytes.Equal(pdu, honest(requests[i].Unit, requests[i].PDU, 1)) {
				t.Errorf("request %d: % x, %v", i, pdu, err)
			}
		})
		if err != nil || !slices.Equal(order, []int{3, 2, 1, 0}) {
			t.Errorf("order %v, error %v", order, err)
		}
	})
}

func TestWindowGivesEachRequestItsOwnError(t *testing.T) {
	inWindow(t, Options{Timeout: 100 * time.Millisecond, Pipeline: 8}, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, func(unit byte, req, reply []byte) []piece {
			switch unit {
			case 2:
				return nil
			case 3:
				reply = []byte{req[0] | 0x80, 2}
			case 4:
				reply = []byte{req[0], 2, 0, 0}
			case 7:
				return []piece{{300 * time.Millisecond, f.frame(f.tid, unit, reply)}}
			}
			return []piece{{0, f.frame(f.tid, unit, reply)}}
		})
		requests := reads(7)
		requests[4].PDU = []byte{3, 0, 0, 0, 0}
		requests[6].Timeout = time.Second
		got := make([]error, len(requests))
		if err := c.DoWindow(t.Context(), requests, func(i int, pdu []byte, err error) { got[i] = err }); err != nil {
			t.Fatal(err)
		}
		for i, want := range []error{nil, ErrTimeout, IllegalDataAddress, ErrTimeout, errShape, nil, nil} {
			var frame *FrameError
			if !errors.Is(got[i], want) || errors.As(got[i], &frame) != (i == 3) {
				t.Errorf("request %d: %v, want %v", i, got[i], want)
			}
		}
	})
}

func TestWindowEndsWithItsContext(t *testing.T) {
	inWindow(t, Options{Timeout: time.Hour, Pipeline: 4}, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, func(unit byte, req, reply []byte) []piece {
			if unit == 1 {
				return []piece{{0, f.frame(f.tid, unit, reply)}}
			}
			return []piece{{2 * time.Second, f.frame(f.tid, unit, reply)}}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start, called := time.Now(), 0
		err := c.DoWindow(ctx, reads(4), func(i int, pdu []byte, err error) { called++ })
		if !errors.Is(err, context.DeadlineExceeded) || Broken(err) || called != 1 || time.Since(start) > 2*time.Second {
			t.Errorf("%d answers after %v, error %v", called, time.Since(start), err)
		}
		time.Sleep(2 * time.Second) // the late answers are nobody's
		f.ask(2, nil)
		requests := reads(4)
		err = c.DoWindow(t.Context(), requests, func(i int, pdu []byte, err error) {
			if err != nil || !bytes.Equal(pdu, honest(requests[i].Unit, requests[i].PDU, 2)) {
				t.Errorf("request %d: % x, %v", i, pdu, err)
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestWindowOnRTUGoesOneByOne(t *testing.T) {
	inBubble(t, true, Options{Pipeline: 8}, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, func(unit byte, req, reply []byte) []piece {
			if unit == 2 {
				return nil
			}
			return []piece{{0, f.frame(f.tid, unit, reply)}}
		})
		requests := reads(4)
		var order []int
		err := c.DoWindow(t.Context(), requests, func(i int, pdu []byte, err error) {
			order = append(order, i)
			if wrong := err == nil && !bytes.Equal(pdu, honest(requests[i].Unit, requests[i].PDU, 1)); wrong || errors.Is(err, ErrTimeout) != (i == 1) {
				t.Errorf("request %d: % x, %v", i, pdu, err)
			}
		})
		if err != nil || !slices.Equal(order, []int{0, 1, 2, 3}) {
			t.Errorf("order %v, error %v", order, err)
		}
	})
}

func TestCutAnswerInAWindowIsNotFilledUp(t *testing.T) {
	exception := func(req []byte) []byte { return []byte{req[0] | 0x80, 4} }
	zeros := func(req []byte) []byte { return []byte{req[0], 4, 0, 0, 0, 0} }
	for missing := 1; missing <= 40; missing++ {
		for _, next := range []func([]byte) []byte{exception, zeros} {
			synctest.Test(t, func(t *testing.T) { cutFirst(t, missing, next) })
		}
	}
}

// cutFirst lets the first of two answers be too short by some bytes.
func cutFirst(t *testing.T, missing int, next func([]byte) []byte) {
	f := newFake(t, false)
	c := NewTCP(f.connect(), Options{Timeout: time.Second, Pipeline: 4})
	defer func() { _ = c.Close() }()
	f.ask(1, func(unit byte, req, reply []byte) []piece {
		if unit == 1 {
			frame := f.frame(f.tid, unit, reply)
			return []piece{{0, frame[:len(frame)-missing]}}
		}
		return []piece{{0, f.frame(f.tid, unit, next(req))}}
	})
	requests := reads(4)
	requests[0].PDU = AppendRead(nil, 3, 0, 20)
	err := c.DoWindow(t.Context(), requests, func(i int, pdu []byte, err error) {
		if i == 0 && err == nil {
			t.Errorf("%d bytes cut off: % x", missing, pdu)
		}
	})
	if !Broken(err) {
		t.Errorf("%d bytes cut off: %v", missing, err)
	}
}

func TestWindowOfABrokenConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := NewTCP(near, Options{Pipeline: 4})
		defer func() { _ = c.Close() }()
		go func() { _, _ = far.Read(make([]byte, 100)); _ = far.Close() }()
		for range 2 {
			err := c.DoWindow(t.Context(), reads(4), func(i int, pdu []byte, err error) { t.Errorf("request %d: % x, %v", i, pdu, err) })
			if !Broken(err) {
				t.Errorf("error %v", err)
			}
		}
	})
}
