package gateway

import (
	"context"
	"fmt"
	"time"
)

// Frame is what went over a bus, or should have, for people who look for a
// fault. No value of a secret point is in it.
type Frame struct {
	Time   time.Time     `json:"time"`
	Kind   FrameKind     `json:"kind"`
	Unit   string        `json:"unit,omitempty"`   // who was asked, with the device's name
	What   string        `json:"what"`             // read holding 10 to 29; of an answer: what it answers
	Values string        `json:"values,omitempty"` // what it carries
	Error  string        `json:"error,omitempty"`  // why there is no answer, or what it refuses
	Took   time.Duration `json:"took_ns,omitempty"`
	Bytes  string        `json:"bytes,omitempty"` // all of it, in hexadecimal
}

// FrameKind is what became of a frame.
type FrameKind string

// The kinds of frames.
const (
	FrameSent    FrameKind = "sent"
	FrameAnswer  FrameKind = "answer"
	FrameFailed  FrameKind = "failed"  // no valid answer
	FrameDropped FrameKind = "dropped" // nobody waited for it
)

// Tracer is an Adapter whose traffic can be watched.
type Tracer interface {
	// Trace hands every frame to see until stop is called. See is called by the
	// goroutines of the bus and must return at once.
	Trace(see func(Frame)) (stop func())
}

// traceQueue is how many frames may wait for who watches.
const traceQueue = 4096

// Trace gives the frames of a bus until ctx ends. A watcher that is too slow
// misses some.
func (g *Gateway) Trace(ctx context.Context, bus string) (<-chan Frame, error) {
	for _, b := range g.buses {
		if b.bus.Name != bus {
			continue
		}
		tracer, ok := b.adapter.(Tracer)
		if !ok {
			return nil, fmt.Errorf("trace %s: buses of type %s can't be traced", bus, b.bus.Type)
		}
		frames := make(chan Frame, traceQueue)
		stop := tracer.Trace(func(f Frame) {
			select {
			case frames <- f:
			default:
			}
		})
		context.AfterFunc(ctx, stop)
		return frames, nil
	}
	return nil, fmt.Errorf("trace %s: there is no bus of this name with devices", bus)
}
