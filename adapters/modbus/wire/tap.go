package wire

import (
	"sync/atomic"
	"time"
)

// An Event is what a Tap sees. Its bytes are valid during the call only.
type Event struct {
	Kind    EventKind
	Time    time.Time
	Unit    byte          // that was asked
	Request []byte        // PDU of the request it belongs to; nil where that is not known
	Frame   []byte        // all bytes, as they were on the connection; nil where none came
	PDU     []byte        // of an Answer with data
	Took    time.Duration // of Answer and Failed: since the request
	Err     error         // of Failed, and of an Answer that is an Exception
	Why     string        // of Dropped
}

// EventKind is what happened.
type EventKind uint8

// The kinds of events.
const (
	Sent    EventKind = iota // a request
	Answer                   // a valid reply to it, data or exception
	Failed                   // no valid reply
	Dropped                  // bytes that nobody waited for
)

// A Tap lets somebody watch what connections send and receive. One can serve several connections. While nobody watches it costs
// a look at one pointer a request.
type Tap struct{ see atomic.Pointer[func(Event)] }

// Watch hands every event to see, which is called by the goroutines that use the connections and must return at once; nil ends it.
func (t *Tap) Watch(see func(Event)) {
	if see == nil {
		t.see.Store(nil)
		return
	}
	t.see.Store(&see)
}

// watched tells whether anybody watches.
func (t *Tap) watched() bool { return t != nil && t.see.Load() != nil }

// tap hands an event to who watches, if anybody does. begin is when the request was sent.
func (c *Client) tap(kind EventKind, r *Request, begin time.Time, frame, pdu []byte, err error) {
	if !c.o.Tap.watched() {
		return
	}
	see := c.o.Tap.see.Load()
	if see == nil {
		return
	}
	e := Event{Kind: kind, Time: time.Now(), Unit: r.Unit, Request: r.PDU, Frame: frame, PDU: pdu, Err: err}
	if kind != Sent {
		e.Took = e.Time.Sub(begin)
	}
	(*see)(e)
}

// tapDropped hands on bytes that nobody waited for.
func (c *Client) tapDropped(frame []byte, why string) {
	if c.o.Tap == nil || len(frame) == 0 {
		return
	}
	if see := c.o.Tap.see.Load(); see != nil {
		(*see)(Event{Kind: Dropped, Time: time.Now(), Frame: frame, Why: why})
	}
}
