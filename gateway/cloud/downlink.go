package cloud

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"sluice/gateway"
)

// What waits to be read. A message is read within microseconds, so these are
// reached only in a flood.
const (
	mostWaiting      = 256
	mostWaitingBytes = 1 << 20
)

// arrival is a downlink as it came.
type arrival struct {
	kind    Kind
	stream  string
	payload []byte // nil where it is too long
	size    int
	at      time.Time
	stalled bool
}

// downlinks is the queue between the library's goroutine and Receive.
type downlinks struct {
	waiting chan arrival
	bytes   atomic.Int64 // of what waits
	dropped atomic.Uint64
	stalled atomic.Pointer[time.Time] // when a message was last read from a line that was stalled; nil: never
}

func newDownlinks() *downlinks { return &downlinks{waiting: make(chan arrival, mostWaiting)} }

// subscriptions are those of the downlinks of a user.
func (d *downlinks) subscriptions(user string, streams []string) []subscription {
	var all []subscription
	for _, kind := range []Kind{AttributesPush, CommandSend, AttributesGetResponse} {
		all = append(all, subscription{kind.Topic(user), false, func(payload []byte) { d.put(arrival{kind: kind, payload: payload}) }})
	}
	for _, stream := range streams {
		all = append(all, subscription{DataSet.Stream(user, stream), false, func(payload []byte) {
			d.put(arrival{kind: DataSet, stream: stream, payload: payload})
		}})
	}
	return all
}

// put queues a message, or counts it as dropped.
func (d *downlinks) put(a arrival) {
	a.at, a.size = time.Now(), len(a.payload)
	if stalled := d.stalled.Load(); stalled != nil {
		a.stalled = a.at.Sub(*stalled) < stallEcho // by the monotonic clock
	}
	if a.size > maxDownlink {
		a.payload = nil
	}
	if size := int64(len(a.payload)); d.bytes.Add(size) > mostWaitingBytes {
		d.bytes.Add(-size)
		d.dropped.Add(1)
		return
	}
	select {
	case d.waiting <- a:
	default:
		d.bytes.Add(-int64(len(a.payload)))
		d.dropped.Add(1)
	}
}

// Receive waits for the next message of the platform.
func (s *Session) Receive(ctx context.Context) (gateway.Downlink, error) {
	select {
	case a := <-s.down.waiting:
		s.down.bytes.Add(-int64(len(a.payload)))
		return a.read(), nil
	case <-ctx.Done():
		return gateway.Downlink{}, ctx.Err()
	}
}

// read turns the wire form into the domain's.
func (a *arrival) read() gateway.Downlink {
	d := gateway.Downlink{Arrived: a.at, Stalled: a.stalled}
	switch a.kind {
	case AttributesPush:
		d.Kind = gateway.PushDownlink
	case CommandSend:
		d.Kind = gateway.CommandDownlink
	case AttributesGetResponse:
		d.Kind = gateway.StateDownlink
	case DataSet:
		d.Kind, d.Stream, d.Body = gateway.StreamDownlink, a.stream, a.payload
	}
	switch {
	case a.size > maxDownlink:
		d.Err = fmt.Errorf("a message of %d bytes, the most is %d", a.size, maxDownlink)
	case a.kind == DataSet:
	default:
		if d.Err = ParseDownlink(&d, a.payload); d.Err != nil {
			d.Body = a.payload
		}
	}
	return d
}

// ParseDownlink reads the payload of a push, a command or a state into d. An
// error leaves what was read up to there.
func ParseDownlink(d *gateway.Downlink, payload []byte) error {
	r := &reader{text: payload}
	var err error
	switch d.Kind {
	case gateway.PushDownlink:
		d.Values = r.asked()
	case gateway.CommandDownlink:
		err = r.command(d)
	case gateway.StateDownlink:
		err = r.state(d)
	default:
		return errors.New("this message is free of form")
	}
	r.end()
	if fault := r.fault(); fault != nil {
		return fault
	}
	return err
}

// ParseParams reads the parameters that a stream brings for a command.
func (s *Session) ParseParams(payload []byte) ([]gateway.Asked, error) {
	d := gateway.Downlink{Kind: gateway.PushDownlink}
	err := ParseDownlink(&d, payload)
	return d.Values, err
}

// Connected tells whether there is a connection.
func (s *Session) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current != nil
}

// asked reads an object of names and values.
func (r *reader) asked() []gateway.Asked {
	var all []gateway.Asked
	r.object(func(name string) {
		v, raw := r.raw()
		if r.err == nil && r.doubled == nil {
			all = append(all, gateway.Asked{Name: name, Value: v, Raw: raw})
		}
	})
	return all
}

// maxToken is the length of an id that is echoed.
const maxToken = 200

// command reads method, params and id; other keys are skipped.
func (r *reader) command(d *gateway.Downlink) (err error) {
	r.object(func(key string) {
		switch key {
		case "method":
			v, raw := r.raw()
			if d.Method = v.Text(); r.err == nil && (v.Kind() != gateway.Text || d.Method == "") {
				err = fmt.Errorf("method is %.40s, not a name", raw)
			}
		case "params":
			if r.peek() == 'n' {
				r.value() // null
			} else {
				d.Values = r.asked()
			}
		case "id":
			v, raw := r.raw()
			switch {
			case v.Kind() == gateway.None && raw != "null" || v.Kind() == gateway.List || len(raw) > maxToken:
				err = fmt.Errorf("id is %.40s, not a number or a text", raw)
			case raw != "null":
				d.ID = raw
			}
		default:
			r.value()
		}
	})
	if d.Method == "" && err == nil {
		err = errors.New("the command has no method")
	}
	return err
}

// state reads the answer to attributes_get.
func (r *reader) state(d *gateway.Downlink) (err error) {
	r.object(func(key string) {
		switch key {
		case "error_code":
			if _, raw := r.raw(); raw != "0" {
				err = fmt.Errorf("the platform answers with error code %.40s", raw)
			}
		case "attributes":
			d.Values = r.asked()
		default:
			r.value()
		}
	})
	return err
}
