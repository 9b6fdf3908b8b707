package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// MaxPipeline bounds Options.Pipeline.
const MaxPipeline = 64

// A flight is a request of a window that is not answered yet.
type flight struct {
	tid   uint16
	index int
	begin time.Time
	limit time.Time
}

// DoWindow sends requests without waiting for the answers, as many at a time as Options.Pipeline says, and takes the answers in
// any order. Each is called once for every request, with its reply PDU, valid until each returns, or the error that Do would
// return; it must not use the client. A request's timeout runs from when it is sent, answered ones before it or not.
//
// The error is that of ctx or a *ConnError. Then the requests that each was not called for are not answered, and may have been
// sent. With RTU framing, Pipeline 1, and where a request wants silence before it, they are sent one after the other, as by Do.
func (c *Client) DoWindow(ctx context.Context, requests []Request, each func(i int, pdu []byte, err error)) error {
	if c.depth > 1 && c.o.Quiet <= 0 && !slices.ContainsFunc(requests, func(r Request) bool { return r.Quiet > 0 }) {
		return c.window(ctx, requests, each)
	}
	for i, r := range requests {
		pdu, err := c.Do(ctx, r)
		if err != nil && (Broken(err) || errors.Is(err, ctx.Err())) {
			return err
		}
		each(i, pdu, err)
	}
	return nil
}

func (c *Client) window(ctx context.Context, requests []Request, each func(int, []byte, error)) error {
	if err := c.usable(ctx); err != nil {
		return err
	}
	if err := c.begin(); err != nil {
		return err
	}
	c.flying = c.flying[:0]
	for next := 0; ; {
		var err error
		if next, err = c.launch(ctx, requests, next, each); err != nil {
			return err
		}
		if len(c.flying) == 0 {
			return nil
		}
		ok, err := c.more(ctx, c.soonest())
		if err != nil {
			return err
		}
		if !ok {
			err = c.expire(requests, each)
		} else {
			err = c.land(requests, each)
		}
		if err != nil {
			return err
		}
	}
}

// launch fills the window, and sends what is new in it as one piece.
func (c *Client) launch(ctx context.Context, requests []Request, next int, each func(int, []byte, error)) (int, error) {
	c.out = c.out[:0]
	launched := len(c.flying)
	var longest time.Duration
	for ; next < len(requests) && len(c.flying) < c.depth; next++ {
		r := &requests[next]
		if err := checkRequest(r.PDU); err != nil {
			each(next, nil, err)
			continue
		}
		c.tid++
		c.out = appendMBAP(c.out, c.tid, r.Unit, r.PDU)
		c.flying = append(c.flying, flight{tid: c.tid, index: next})
		longest = max(longest, c.timeout(r))
	}
	for rest := c.out; len(rest) > 0; {
		piece := rest
		if c.datagrams {
			piece, _ = splitMBAP(rest)
		}
		if err := c.send(ctx, piece, time.Now().Add(longest)); err != nil {
			return next, err
		}
		rest = rest[len(piece):]
	}
	now := time.Now()
	rest := c.out
	for i := launched; i < len(c.flying); i++ {
		f := &c.flying[i]
		r := &requests[f.index]
		f.begin, f.limit = now, now.Add(c.timeout(r))
		frame := rest[:mbapHeader+len(r.PDU)]
		rest = rest[len(frame):]
		c.tap(Sent, r, now, frame, nil, nil)
	}
	return next, nil
}

func (c *Client) timeout(r *Request) time.Duration {
	if r.Timeout > 0 {
		return r.Timeout
	}
	return c.o.Timeout
}

func (c *Client) soonest() time.Time {
	limit := c.flying[0].limit
	for _, f := range c.flying[1:] {
		if f.limit.Before(limit) {
			limit = f.limit
		}
	}
	return limit
}

// land takes the answers that have come. Those without a flight are to requests given up.
func (c *Client) land(requests []Request, each func(int, []byte, error)) error {
	for {
		frame, err := c.frameMBAP()
		if frame == nil || err != nil {
			return err
		}
		tid := binary.BigEndian.Uint16(frame)
		i := slices.IndexFunc(c.flying, func(f flight) bool { return f.tid == tid })
		if i < 0 {
			c.tapDropped(frame, lateMBAP)
			continue
		}
		index, begin := c.flying[i].index, c.flying[i].begin
		c.flying = slices.Delete(c.flying, i, i+1)
		if c.swallowed(frame, requests) {
			return c.fail(true, fmt.Errorf("%w: an answer has another one in it", errOutOfStep))
		}
		c.noise = 0
		pdu, err := c.acceptMBAP(frame, &requests[index], begin)
		each(index, pdu, err)
	}
}

// swallowed says whether the header of an answer to another request in flight is in a frame: then the frame was cut on its way,
// and is filled up with what came behind it. Data that looks like that ends a good connection once in a long time, and no more.
func (c *Client) swallowed(frame []byte, requests []Request) bool {
	if c.datagrams {
		return false
	}
	for i := mbapHeader + 5; i+1 < len(frame); i++ {
		if length := frame[i]; length < 2 || frame[i-1]|frame[i-2]|frame[i-3] != 0 {
			continue
		}
		tid, unit := word(frame[i-5:]), frame[i+1]
		if slices.ContainsFunc(c.flying, func(f flight) bool { return int(f.tid) == tid && requests[f.index].Unit == unit }) {
			return true
		}
	}
	return false
}

// expire gives up the requests whose time is over. Half a frame may be the beginning of an answer to one that has time left; where
// there is none, the stream can't be trusted.
func (c *Client) expire(requests []Request, each func(int, []byte, error)) error {
	now := time.Now()
	hopeful := slices.ContainsFunc(c.flying, func(f flight) bool { return now.Before(f.limit) })
	if n := len(c.got) - c.used; n > 0 && !hopeful {
		return c.fail(true, fmt.Errorf("%w: %d bytes of an answer at the timeout", errOutOfStep, n))
	}
	c.flying = slices.DeleteFunc(c.flying, func(f flight) bool {
		if now.Before(f.limit) {
			return false
		}
		r := requests[f.index]
		r.Timeout = c.timeout(&r)
		err := timeoutOf(r)
		c.tap(Failed, &r, f.begin, nil, nil, err)
		each(f.index, nil, err)
		return true
	})
	return nil
}
