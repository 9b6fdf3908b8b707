package wire

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const unitTimeout = 100 * time.Millisecond

// script answers the requests one after the other; a nil step is the honest answer.
func script(f *fakeUnit, steps ...func(frame []byte, unit byte) []piece) func(byte, []byte, []byte) []piece {
	n := 0
	return func(unit byte, _, reply []byte) []piece {
		frame := f.frame(f.tid, unit, reply)
		n++
		if n <= len(steps) && steps[n-1] != nil {
			return steps[n-1](frame, unit)
		}
		return []piece{{0, frame}}
	}
}

func late(after time.Duration) func([]byte, byte) []piece {
	return func(frame []byte, _ byte) []piece { return []piece{{after, frame}} }
}

func silent([]byte, byte) []piece { return nil }

func inBubble(t *testing.T, rtu bool, o Options, test func(t *testing.T, f *fakeUnit, c *Client)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, rtu)
		if o.Timeout == 0 {
			o.Timeout = unitTimeout
		}
		c := f.client(o)
		defer func() { _ = c.Close() }()
		test(t, f, c)
	})
}

func want(t *testing.T, c *Client, unit byte, addr, count uint16, question uint64) {
	t.Helper()
	data, err := c.ReadHoldingRegisters(t.Context(), unit, addr, count)
	if err != nil || !bytes.Equal(data, values(unit, 3, int(addr), int(2*count), question)) {
		t.Errorf("unit %d, %d from %d: % x, %v", unit, count, addr, data, err)
	}
}

func wantError(t *testing.T, c *Client, unit byte, addr, count uint16, target error) {
	t.Helper()
	if data, err := c.ReadHoldingRegisters(t.Context(), unit, addr, count); !errors.Is(err, target) {
		t.Errorf("unit %d, %d from %d: % x, %v, want %v", unit, count, addr, data, err, target)
	}
}

func TestRTULateAnswerIsNotTheNextOne(t *testing.T) {
	inBubble(t, true, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, script(f, late(350*time.Millisecond)))
		wantError(t, c, 1, 10, 2, ErrTimeout)
		f.ask(2, nil)
		wantError(t, c, 1, 20, 2, ErrTimeout) // the throw-away read: the line is still held back
		wantError(t, c, 1, 20, 2, ErrTimeout)
		want(t, c, 1, 20, 2, 2)
	})
}

// A unit that has fewer registers than it is asked for may answer with those.
func TestRTULateAndShortAnswerIsNotTheNextOne(t *testing.T) {
	for _, before := range []uint16{0, 1, 4} { // what the unit has answered before, which the throw-away read prefers
		inBubble(t, true, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
			if before > 0 {
				want(t, c, 1, 40, before, 0)
			}
			f.ask(1, script(f, func([]byte, byte) []piece {
				short := append([]byte{3, 4}, values(1, 3, 10, 4, 1)...)
				return []piece{{unitTimeout + 10*time.Millisecond, AppendRTU(nil, 1, short)}}
			}))
			wantError(t, c, 1, 10, 3, ErrTimeout)
			f.ask(2, nil)
			want(t, c, 1, 20, 2, 2)
			want(t, c, 1, 20, 1, 2)
		})
	}
}

func TestRTUThrowAwayReadIsWhatTheUnitAnsweredBefore(t *testing.T) {
	inBubble(t, true, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
		want(t, c, 1, 40, 6, 0)
		f.ask(1, script(f, silent))
		wantError(t, c, 1, 10, 1, ErrTimeout)
		f.ask(2, nil)
		want(t, c, 1, 10, 1, 2)
		if got := f.requests(); !bytes.Equal(slices.Concat(got...), []byte{1, 3, 0, 40, 0, 6, 1, 3, 0, 10, 0, 1}) {
			t.Errorf("requests % x", got)
		}
	})
}

func TestRTUOtherUnitsAndShapesNeedNoThrowAwayRead(t *testing.T) {
	inBubble(t, true, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, script(f, silent))
		wantError(t, c, 1, 10, 2, ErrTimeout)
		want(t, c, 2, 10, 2, 1)
		want(t, c, 1, 10, 3, 1)
		want(t, c, 1, 11, 2, 1) // the unit is in step since the last one
		if got := len(f.requests()); got != 4 {
			t.Errorf("%d requests, want 4", got)
		}
	})
}

func TestRTULateExceptionProvesNothing(t *testing.T) {
	inBubble(t, true, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
		// The refusal of the first read comes late and looks like that of the second one, whose data is late as well.
		f.ask(1, script(f, func(_ []byte, unit byte) []piece {
			return []piece{{110 * time.Millisecond, AppendRTU(nil, unit, []byte{0x83, 2})}}
		}, late(20*time.Millisecond)))
		wantError(t, c, 1, 10, 2, ErrTimeout)
		wantError(t, c, 1, 20, 3, IllegalDataAddress)
		f.ask(2, nil)
		want(t, c, 1, 30, 3, 2)
	})
}

func TestRTUUnitThatRefusesThrowAwayReads(t *testing.T) {
	inBubble(t, true, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, func(unit byte, req, reply []byte) []piece {
			if !bytes.Equal(req, []byte{3, 0, 9, 0, 1}) {
				reply = []byte{req[0] | 0x80, 2}
			}
			return []piece{{0, AppendRTU(nil, unit, reply)}}
		})
		want(t, c, 1, 9, 1, 1)
		c.unanswered(Request{Unit: 1, PDU: AppendRead(nil, 3, 9, 1)})
		want(t, c, 1, 9, 1, 1) // the sibling function's refusal is proof
		for _, function := range []byte{3, 4} {
			c.unanswered(Request{Unit: 1, PDU: AppendRead(nil, function, 9, 1)})
		}
		want(t, c, 1, 9, 1, 1) // and so is that of another table
		for function := byte(1); function <= 4; function++ {
			c.unanswered(Request{Unit: 1, PDU: AppendRead(nil, function, 9, 1)})
		}
		wantError(t, c, 1, 9, 1, ErrTimeout)
		time.Sleep(forget + time.Second)
		want(t, c, 1, 9, 1, 1)
	})
}

func TestRTUDoubledAnswerShiftsNothing(t *testing.T) {
	inBubble(t, true, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
		for i := range uint64(20) {
			f.ask(i, script(f, func(frame []byte, _ byte) []piece {
				return []piece{{0, frame}, {time.Millisecond, frame}}
			}))
			want(t, c, 1, uint16(i), 2, i)
		}
	})
}

func TestRTUForeignFrameKeepsTheTimerRunning(t *testing.T) {
	inBubble(t, true, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, script(f, func([]byte, byte) []piece {
			foreign := AppendRTU(nil, 9, honest(9, AppendRead(nil, 3, 0, 2), 5))
			return []piece{{30 * time.Millisecond, foreign}, {30 * time.Millisecond, foreign}}
		}))
		start := time.Now()
		_, err := c.ReadHoldingRegisters(t.Context(), 1, 0, 2)
		if took := time.Since(start); took < unitTimeout || took > unitTimeout+5*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "answer of unit 9") {
			t.Errorf("error %v", err)
		}
	})
}

func TestRTUFrameInsideAForeignFrameIsNotTaken(t *testing.T) {
	inner := AppendRTU(nil, 1, []byte{3, 4, 1, 2, 3, 4})
	outer := AppendRTU(nil, 9, append([]byte{3, byte(len(inner))}, inner...))
	h := headOf(AppendRead(nil, 3, 0, 2))
	if pdu, err := findRTU(outer, 1, &h); pdu != nil || err != nil {
		t.Errorf("% x, %v", pdu, err)
	}
}

func TestRTUTwoDifferentAnswersAreNone(t *testing.T) {
	inBubble(t, true, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, script(f, func(frame []byte, unit byte) []piece {
			stale := AppendRTU(nil, unit, honest(unit, AppendRead(nil, 3, 77, 2), 0))
			return []piece{{0, append(stale, frame...)}}
		}))
		wantError(t, c, 1, 0, 2, ErrTimeout)
		start := time.Now()
		want(t, c, 1, 0, 2, 1)
		if took := time.Since(start); took < unitTimeout {
			t.Errorf("line held silent for %v only", took)
		}
	})
}

func TestRTUTimeoutIncludesLineTime(t *testing.T) {
	o := Options{Timeout: unitTimeout, Baud: 1200}
	inBubble(t, true, o, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, script(f, late(2300*time.Millisecond)))
		want(t, c, 1, 0, 125, 1)
	})
	send, receive := FrameTime(AppendRead(nil, 3, 0, 125), 1200, 0)
	if send.Round(time.Millisecond) != 73*time.Millisecond || receive.Round(time.Millisecond) != 2338*time.Millisecond {
		t.Errorf("frame time %v and %v", send, receive)
	}
}

func TestRTUQuietTime(t *testing.T) {
	for baud, want := range map[int]time.Duration{9600: 4010 * time.Microsecond, 19200: 2005 * time.Microsecond, 115200: 1750 * time.Microsecond, 0: 1750 * time.Microsecond} {
		if got := QuietTime(baud, 0).Round(time.Microsecond); got != want {
			t.Errorf("%d Bd: %v, want %v", baud, got, want)
		}
		inBubble(t, true, Options{Baud: baud}, func(t *testing.T, f *fakeUnit, c *Client) {
			wantQuiet(t, c, Request{Unit: 1, PDU: AppendRead(nil, 3, 0, 1)}, want)
			wantQuiet(t, c, Request{Unit: 1, PDU: AppendRead(nil, 3, 0, 1), Quiet: 20 * time.Millisecond}, 20*time.Millisecond)
		})
	}
}

func wantQuiet(t *testing.T, c *Client, r Request, quiet time.Duration) {
	t.Helper()
	if _, err := c.Do(t.Context(), Request{Unit: 1, PDU: AppendRead(nil, 3, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := c.Do(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start).Round(time.Microsecond); took != quiet {
		t.Errorf("quiet for %v, want %v", took, quiet)
	}
}

func TestRTUHold(t *testing.T) {
	inBubble(t, true, Options{Hold: time.Second}, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, script(f, silent))
		start := time.Now()
		wantError(t, c, 1, 0, 2, ErrTimeout)
		want(t, c, 2, 0, 2, 1)
		if took := time.Since(start); took < time.Second || took > 1010*time.Millisecond {
			t.Errorf("next request after %v", took)
		}
	})
}

func TestRTULineThatIsNeverSilent(t *testing.T) {
	inBubble(t, true, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, script(f, func(frame []byte, _ byte) []piece {
			return slices.Repeat([]piece{{time.Millisecond, []byte{0x55}}}, 1000)
		}))
		wantError(t, c, 1, 0, 2, ErrTimeout)
		wantError(t, c, 2, 0, 2, ErrTimeout)
		time.Sleep(time.Second)
		want(t, c, 2, 0, 2, 1)
	})
}

func TestRTUEcho(t *testing.T) {
	echo := func(unit byte, req, reply []byte) []piece {
		return []piece{{0, AppendRTU(nil, unit, req)}, {10 * time.Millisecond, AppendRTU(nil, unit, reply)}}
	}
	inBubble(t, true, Options{Echo: true}, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, echo)
		want(t, c, 1, 0, 2, 1)
		if err := c.WriteSingleRegister(t.Context(), 1, 5, 6); err != nil {
			t.Error(err)
		}
		f.ask(2, func(unit byte, req, _ []byte) []piece { return []piece{{0, AppendRTU(nil, unit, req)}} })
		if err := c.WriteSingleRegister(t.Context(), 1, 5, 7); !errors.Is(err, ErrTimeout) {
			t.Errorf("write confirmed by its own echo: %v", err)
		}
		f.ask(3, nil)
		wantError(t, c, 2, 0, 2, ErrTimeout) // no echo at all
	})
	inBubble(t, true, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
		f.ask(1, echo)
		_, err := c.ReadHoldingRegisters(t.Context(), 1, 0, 2)
		if err == nil || !strings.Contains(err.Error(), "echo") {
			t.Errorf("undeclared echo: %v", err)
		}
	})
}

func TestRTUFunctionWithoutShapeEndsWithSilence(t *testing.T) {
	frame := AppendRTU(nil, 1, []byte{0x41, 1, 2, 3, 4})
	synctest.Test(t, func(t *testing.T) {
		near, far := newScripted(frame[:4], frame[4:])
		c := NewRTU(near, Options{Timeout: unitTimeout})
		defer func() { _ = c.Close(); far() }()
		got, err := c.Do(t.Context(), Request{Unit: 1, PDU: []byte{0x41, 1}})
		if err != nil || !bytes.Equal(got, []byte{0x41, 1, 2, 3, 4}) {
			t.Errorf("% x, %v", got, err)
		}
	})
}

func TestRTUUnit0IsRefused(t *testing.T) {
	inBubble(t, true, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
		if _, err := c.Do(context.Background(), Request{PDU: AppendRead(nil, 3, 0, 1)}); err == nil || Broken(err) {
			t.Errorf("error %v", err)
		}
	})
}
