package wire

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"time"
)

// forget is when the answer to a request is no longer expected: longer than a converter's network stalls.
const forget = 30 * time.Second

var errBroadcast = errors.New("unit 0 is a broadcast on a serial line: nobody answers")

// A unitState is what RTU framing remembers of a unit, for want of a transaction id.
type unitState struct {
	stale []unansweredHead // since the last sure answer: replies to them may still come
	good  [2][5]byte       // reads that were answered with data, the latest first; their heads differ
}

type unansweredHead struct {
	head head
	at   time.Time
}

// exchangeInStep is exchangeRTU for a unit that may be behind: before a request is sent whose reply could be confused with that
// to an unanswered one, the unit has to answer a different one.
func (c *Client) exchangeInStep(ctx context.Context, r Request) ([]byte, error) {
	if r.Unit == 0 {
		return nil, errBroadcast
	}
	if u := c.units[r.Unit]; u != nil && len(u.stale) > 0 {
		u.stale = slices.DeleteFunc(u.stale, func(s unansweredHead) bool { return time.Since(s.at) > forget })
		if u.expects(r.PDU) {
			if err := c.catchUp(ctx, r, u); err != nil {
				return nil, err
			}
		}
	}
	return c.exchangeRTU(ctx, r)
}

// catchUp makes a throw-away read with a reply of another shape. Unit and line answer in order: when its data is here, nothing
// older can follow. So it is with its exception, unless that can be the late one of an unanswered request: then others of the
// function would tell no more.
func (c *Client) catchUp(ctx context.Context, r Request, u *unitState) error {
	var refusedBy [FuncReadInputRegisters + 1]bool
	for pdu := range others(r.PDU, u.good) {
		if refusedBy[pdu[0]] || u.expects(pdu) {
			continue
		}
		_, err := c.exchangeRTU(ctx, Request{Unit: r.Unit, PDU: pdu, Timeout: r.Timeout, Quiet: r.Quiet})
		var refused Exception
		if err != nil && !errors.As(err, &refused) || refused == GatewayPathUnavailable || refused == GatewayTargetNoResponse {
			return err // a converter's word that the unit is silent
		}
		if len(u.stale) == 0 {
			return nil
		}
		refusedBy[pdu[0]] = true
	}
	return &FrameError{r.Unit, "nothing sent, there may be answers to earlier requests on the way"}
}

// expects says whether a reply could be that to an unanswered request, also one with less data than that asked for.
func (u *unitState) expects(req []byte) bool {
	h := headOf(req)
	return slices.ContainsFunc(u.stale, func(s unansweredHead) bool {
		return s.head == h || s.head.counted() && h.counted() && s.head.b[0] == h.b[0] && s.head.b[1] > h.b[1]
	})
}

func (c *Client) unit(id byte) *unitState {
	u := c.units[id]
	if u == nil {
		u = &unitState{}
		c.units[id] = u
	}
	return u
}

func (c *Client) unanswered(r Request) {
	u, h := c.unit(r.Unit), headOf(r.PDU)
	u.stale = slices.DeleteFunc(u.stale, func(s unansweredHead) bool { return s.head == h })
	u.stale = append(u.stale, unansweredHead{h, time.Now()})
}

// answered draws the conclusions from a reply. An exception tells only its function: where a request with that function is
// unanswered, the exception may be the answer to that, and the one to this may still come.
func (c *Client) answered(r Request, reply []byte) {
	u := c.unit(r.Unit)
	_, refused := exceptionOf(reply)
	if refused && slices.ContainsFunc(u.stale, func(s unansweredHead) bool { return s.head.function() == r.PDU[0] }) {
		c.unanswered(r)
		return
	}
	u.stale = u.stale[:0]
	if !refused {
		u.remember(r.PDU)
	}
}

func (u *unitState) remember(req []byte) {
	if req[0] > FuncReadInputRegisters || bytes.Equal(u.good[0][:], req) {
		return
	}
	if u.good[0][0] != 0 && headOf(u.good[0][:]) != headOf(req) {
		u.good[1] = u.good[0]
	}
	copy(u.good[0][:], req)
}

// others are reads that could be made instead of a request, the safest first: what the unit has answered before, then parts of
// what is asked, then the sibling table and more than what is asked, then the other two tables: an exception tells as much.
func others(req []byte, good [2][5]byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for _, g := range good {
			if g[0] != 0 && !yield(g[:]) {
				return
			}
		}
		function, sibling, addr, count, step, most := similar(req)
		for n := count - step; n > 0; n -= step {
			if !yield(AppendRead(nil, function, uint16(addr), uint16(n))) {
				return
			}
		}
		for n := 1; n <= most && addr+n <= 1<<16; n += step {
			if !yield(AppendRead(nil, sibling, uint16(addr), uint16(n))) {
				return
			}
			if n > count && !yield(AppendRead(nil, function, uint16(addr), uint16(n))) {
				return
			}
		}
		for f := byte(FuncReadCoils); f <= FuncReadInputRegisters; f++ {
			if f != function && f != sibling && !yield(AppendRead(nil, f, uint16(addr), 1)) {
				return
			}
		}
	}
}

// similar is the read that is like a request, its sibling function, and what makes another byte count.
func similar(req []byte) (function, sibling byte, addr, count, step, most int) {
	if len(req) >= 5 {
		addr = word(req[1:])
	}
	function, sibling, step, most = FuncReadHoldingRegisters, FuncReadInputRegisters, 1, MaxReadRegisters
	switch req[0] {
	case FuncReadInputRegisters:
		function, sibling = sibling, function
	case FuncReadCoils, FuncWriteSingleCoil, FuncWriteMultipleCoils:
		function, sibling, step, most = FuncReadCoils, FuncReadDiscreteInputs, 8, MaxReadBits
	case FuncReadDiscreteInputs:
		function, sibling, step, most = FuncReadDiscreteInputs, FuncReadCoils, 8, MaxReadBits
	}
	if req[0] <= FuncReadInputRegisters {
		return function, sibling, addr, word(req[3:]), step, most
	}
	return function, sibling, addr, 2 * step, step, most // one step of the function itself comes first
}
