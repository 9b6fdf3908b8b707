package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const mbapHeader = 7 // transaction, protocol, length, unit

// exchangeMBAP sends a request and waits for the frame with its transaction id. Others are answers to requests given up.
func (c *Client) exchangeMBAP(ctx context.Context, r Request) ([]byte, error) {
	if err := c.pause(ctx, r.Quiet); err != nil {
		return nil, err
	}
	defer func() { c.ended = time.Now() }()
	if err := c.begin(); err != nil {
		return nil, err
	}
	c.tid++
	c.out = appendMBAP(c.out[:0], c.tid, r.Unit, r.PDU)
	begin := time.Now()
	limit := begin.Add(r.Timeout)
	if err := c.ask(ctx, &r, begin, limit); err != nil {
		return nil, err
	}
	for {
		frame, err := c.frameMBAP()
		if err != nil {
			c.tap(Failed, &r, begin, c.got[c.used:], nil, err)
			return nil, err
		}
		if frame != nil && binary.BigEndian.Uint16(frame) == c.tid {
			c.silent = false
			return c.acceptMBAP(frame, &r, begin)
		}
		if frame != nil {
			c.tapDropped(frame, lateMBAP)
			continue
		}
		if ok, err := c.more(ctx, limit); err != nil {
			c.tap(Failed, &r, begin, nil, nil, err)
			return nil, err
		} else if !ok {
			err := c.unansweredMBAP(r)
			c.tap(Failed, &r, begin, nil, nil, err)
			return nil, err
		}
	}
}

// pause waits until there was no request for the quiet time: some units, and many converters, lose one that follows too soon.
func (c *Client) pause(ctx context.Context, quiet time.Duration) error {
	if quiet = max(quiet, c.o.Quiet); quiet <= 0 {
		return nil
	}
	wait := time.Until(c.ended.Add(quiet))
	if wait <= 0 {
		return nil
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask sends the request, and where it can waits for the answer at the same time.
func (c *Client) ask(ctx context.Context, r *Request, begin, limit time.Time) error {
	d, ok := c.in.(*direct)
	apart := !ok || c.raw == nil || c.silent || c.o.Tap.watched()
	c.silent = true
	if apart {
		if err := c.send(ctx, c.out, limit); err != nil {
			return err
		}
		c.tap(Sent, r, begin, c.out, nil, nil)
		return nil
	}
	n, err := d.ask(ctx, begin, limit, c.out)
	switch {
	case err != nil && n < 0:
		return err
	case err != nil:
		return c.fail(true, fmt.Errorf("write: %w", err))
	case n < len(c.out):
		return c.sendRest(ctx, c.out, n, limit)
	}
	return nil
}

const lateMBAP = "answer to a request given up"

// frameMBAP takes the next whole frame; nil is none yet. On a stream it counts only if what is known of the bytes behind it can be
// a frame too: where an answer was cut and others follow, it would end somewhere in those.
func (c *Client) frameMBAP() ([]byte, error) {
	b := c.got[c.used:]
	if c.datagrams {
		c.used = len(c.got)
		if frame, err := splitMBAP(b); err == nil && len(frame) == len(b) {
			return frame, nil
		}
		return nil, nil
	}
	frame, err := splitMBAP(b)
	if err == nil && frame != nil {
		_, err = splitMBAP(b[len(frame):])
	}
	if err == nil && frame == nil && c.noise > maxNoise*c.depth {
		err = fmt.Errorf("%w: %d bytes of other answers", errOutOfStep, c.noise)
	}
	if err != nil {
		return nil, c.fail(true, err)
	}
	c.used += len(frame)
	return frame, nil
}

// acceptMBAP checks the frame of the right transaction. No other one will come, so a wrong one needs no more waiting.
func (c *Client) acceptMBAP(frame []byte, r *Request, begin time.Time) ([]byte, error) {
	pdu, err := checkMBAP(frame, r)
	kind := Answer
	if _, refused := err.(Exception); err != nil && !refused {
		kind = Failed
	}
	c.tap(kind, r, begin, frame, pdu, err)
	return pdu, err
}

func checkMBAP(frame []byte, r *Request) ([]byte, error) {
	pdu := frame[mbapHeader:]
	h := headOf(r.PDU)
	switch {
	case frame[6] != r.Unit:
		return nil, &FrameError{r.Unit, fmt.Sprintf("answer of unit %d", frame[6])}
	case !h.answers(pdu):
		return nil, &FrameError{r.Unit, mismatch(r.PDU, pdu)}
	}
	if e, ok := exceptionOf(pdu); ok {
		return nil, e
	}
	return pdu, nil
}

// unansweredMBAP is the error at the timeout. Half a frame means that the stream can't be trusted: the other half would be
// read as the beginning of the next answer.
func (c *Client) unansweredMBAP(r Request) error {
	if n := len(c.got) - c.used; n > 0 {
		return c.fail(true, fmt.Errorf("out of step: %d bytes of an answer at the timeout of %v", n, r.Timeout))
	}
	return timeoutOf(r)
}

func appendMBAP(dst []byte, tid uint16, unit byte, pdu []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, tid)
	dst = append(dst, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(pdu)+1))
	dst = append(dst, unit)
	return append(dst, pdu...)
}

var errOutOfStep = errors.New("out of step")

// splitMBAP takes the first frame off b; nil is not complete yet.
func splitMBAP(b []byte) ([]byte, error) {
	for i := 2; i < min(len(b), 5); i++ {
		if b[i] != 0 { // protocol, and the high byte of the length
			return nil, badHeader(b)
		}
	}
	if len(b) < 6 {
		return nil, nil
	}
	length := int(b[5])
	if length < 2 || length > maxPDU+1 {
		return nil, badHeader(b)
	}
	if len(b) < 6+length {
		return nil, nil
	}
	return b[:6+length], nil
}

func badHeader(b []byte) error {
	return fmt.Errorf("%w: a frame begins with % x", errOutOfStep, first(b))
}
