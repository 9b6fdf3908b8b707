package wire

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

const maxRTU = 256 // bytes of a frame

// openEnd is how long a reply of a function without a known shape has to be followed by nothing, at least.
const openEnd = 20 * time.Millisecond

// exchangeRTU sends a request into a silent line and waits for its answer.
func (c *Client) exchangeRTU(ctx context.Context, r Request) ([]byte, error) {
	if err := c.silence(ctx, r); err != nil {
		return nil, err
	}
	c.out = AppendRTU(c.out[:0], r.Unit, r.PDU)
	send, receive := FrameTime(r.PDU, c.o.Baud, c.o.CharBits)
	if err := c.send(ctx, c.out, time.Now().Add(r.Timeout+send)); err != nil {
		return nil, err
	}
	begin := time.Now()
	c.tap(Sent, &r, begin, c.out, nil, nil)
	end := begin.Add(send)
	pdu, err := c.receiveRTU(ctx, r, end.Add(r.Timeout+receive))
	c.told = len(c.got)
	if err != nil {
		c.tap(Failed, &r, begin, c.got, nil, err)
		// Until its time is over the unit may answer into whatever is sent.
		c.silentUntil = end.Add(max(r.Timeout, c.o.Hold) + receive)
		c.unanswered(r)
		return nil, err
	}
	c.answered(r, pdu)
	if e, ok := exceptionOf(pdu); ok {
		c.tap(Answer, &r, begin, c.got, nil, e)
		return nil, e
	}
	c.tap(Answer, &r, begin, c.got, pdu, nil)
	return pdu, nil
}

// silence drops what has come since the last answer, and waits until nothing has come for the quiet time.
func (c *Client) silence(ctx context.Context, r Request) error {
	if err := c.begin(); err != nil {
		return err
	}
	quiet := max(c.o.Quiet, r.Quiet)
	limit := time.Now().Add(max(0, time.Until(c.silentUntil)) + r.Timeout + quiet + LineTime(maxRTU, c.o.Baud, c.o.CharBits))
	for {
		last, err := c.take()
		if err != nil {
			return c.fail(false, fmt.Errorf("read: %w", err))
		}
		c.tapDropped(c.got[min(c.told, len(c.got)):], "nobody waited for this")
		c.got, c.noise, c.told = c.got[:0], 0, 0
		ready := last.Add(quiet)
		if ready.Before(c.silentUntil) {
			ready = c.silentUntil
		}
		now := time.Now()
		if !now.Before(ready) {
			return nil
		}
		if now.After(limit) {
			return &FrameError{r.Unit, "nothing sent, the line is never silent"}
		}
		if _, err := c.in.wait(ctx, ready); err != nil {
			return err
		}
	}
}

func (c *Client) receiveRTU(ctx context.Context, r Request, limit time.Time) ([]byte, error) {
	h := headOf(r.PDU)
	open := replySize(h.b[:h.n]) == unknownSize
	for {
		if c.noise > maxNoise {
			return nil, &FrameError{r.Unit, fmt.Sprintf("%d bytes without a valid frame", c.noise)}
		}
		view, ready := c.afterEcho(r, &h)
		if ready {
			pdu, err := findRTU(view, r.Unit, &h)
			if pdu != nil || err != nil {
				return pdu, err
			}
		}
		until := limit
		whole := ready && open && sealed(view) && view[0] == r.Unit && h.answers(view[1:len(view)-2])
		if whole {
			until = time.Now().Add(max(c.o.Quiet, openEnd))
		}
		if ok, err := c.more(ctx, until); err != nil {
			return nil, err
		} else if !ok && whole {
			return view[1 : len(view)-2], nil
		} else if !ok {
			return nil, c.diagnose(r, view, ready)
		}
	}
}

// afterEcho is what came after our own bytes, and whether an answer may be looked for in it. A line that echoes although
// Options don't say so is refused wherever it shows: there, a write would seem to be confirmed by its own echo.
func (c *Client) afterEcho(r Request, h *head) ([]byte, bool) {
	echoed := bytes.HasPrefix(c.got, c.out)
	if c.o.Echo {
		if !echoed {
			return c.got, false
		}
		return c.got[len(c.out):], true
	}
	mirrored := h.n == len(r.PDU) || h.function() == FuncDiagnostics
	return c.got, mirrored || !echoed
}

// findRTU looks for the answer in what has come: after foreign frames, which are passed over whole, and after garbage.
// Two different answers are none: one of them is to another request, and nothing says which.
func findRTU(b []byte, unit byte, h *head) (pdu []byte, err error) {
	inStep := 0
	for i := 0; i+4 < len(b); i++ {
		if i != inStep && (b[i] != unit || b[i+1]&0x7F != h.function()) {
			continue
		}
		n := frameSize(b[i:])
		if n == 0 {
			continue
		}
		found := b[i+1 : i+n-2]
		if b[i] == unit && h.answers(found) {
			if pdu != nil && !bytes.Equal(pdu, found) {
				return nil, &FrameError{unit, "two different answers"}
			}
			pdu = found
		}
		inStep = i + n
		i = inStep - 1
	}
	return pdu, nil
}

// frameSize is the size of the valid reply frame at the beginning of b, 0 where there is none.
func frameSize(b []byte) int {
	n := replySize(b[1:])
	if n <= 0 || n > maxPDU || n+3 > len(b) || !sealed(b[:n+3]) {
		return 0
	}
	return n + 3
}

// diagnose is the error when the time is over.
func (c *Client) diagnose(r Request, view []byte, ready bool) error {
	var reason string
	switch {
	case len(c.got) == 0 || ready && len(view) == 0:
		return timeoutOf(r)
	case !ready && c.o.Echo:
		reason = fmt.Sprintf("own bytes came back changed or not at all: % x", first(view))
	case !ready:
		reason = "own request came back, but the line is not said to echo"
	case len(view) < 5 || frameSize(view) == 0:
		reason = fmt.Sprintf("%d bytes without a valid frame: % x", len(view), first(view))
	case view[0] != r.Unit:
		reason = fmt.Sprintf("answer of unit %d", view[0])
	default:
		reason = mismatch(r.PDU, view[1:frameSize(view)-2])
	}
	return &FrameError{r.Unit, reason}
}

// mismatch describes an answer to something else.
func mismatch(req, pdu []byte) string {
	if len(pdu) > 0 && pdu[0]&0x7F != req[0] {
		return fmt.Sprintf("function %d instead of %d", pdu[0], req[0])
	}
	return fmt.Sprintf("%d bytes that don't fit the request: % x", len(pdu), first(pdu))
}

// first is enough of b for a message.
func first(b []byte) []byte { return b[:min(len(b), 12)] }
