package gateway

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
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

// Tracer is an Adapter that shows its frames. Of others a trace shows what is
// read, written and told of points.
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
	buses, _ := g.loops()
	for _, b := range buses {
		if b.bus.Name != bus {
			continue
		}
		frames := make(chan Frame, traceQueue)
		see := func(f Frame) {
			select {
			case frames <- f:
			default:
			}
		}
		trace := b.watchers.add
		if tracer, ok := b.adapter.(Tracer); ok {
			trace = tracer.Trace
		}
		context.AfterFunc(ctx, trace(see))
		return frames, nil
	}
	return nil, fmt.Errorf("trace %s: there is no bus of this name with devices", bus)
}

// watchers are those who watch a bus whose adapter shows no frames: they see
// what is asked and told of its points.
type watchers struct {
	some atomic.Bool
	mu   sync.Mutex
	all  map[*func(Frame)]bool
}

func (w *watchers) add(see func(Frame)) (remove func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = make(map[*func(Frame)]bool)
	}
	w.all[&see] = true
	w.some.Store(true)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, &see)
		w.some.Store(len(w.all) > 0)
	}
}

// told shows samples: an answer where begin is set, else what a device said by
// itself. An error is that of the connection.
func (w *watchers) told(what string, samples []Sample, begin time.Time, err error) {
	if !w.some.Load() {
		return
	}
	f := Frame{Time: time.Now().UTC(), Kind: FrameAnswer, What: what}
	if !begin.IsZero() {
		f.Took = f.Time.Sub(begin)
	}
	if err != nil {
		f.Kind, f.Error = FrameFailed, err.Error()
	} else {
		f.What += fmt.Sprintf(" %d points", len(samples))
		f.Values = valuesOf(samples)
	}
	if len(samples) > 0 {
		f.Unit = samples[0].Point.Device.Name
	}
	w.show(f)
}

// wrote shows a write.
func (w *watchers) wrote(p *Point, v Value, begin time.Time, err error) {
	if !w.some.Load() {
		return
	}
	f := Frame{Time: time.Now().UTC(), Kind: FrameAnswer, Unit: p.Device.Name, What: "write " + p.ID, Values: v.String(), Took: time.Since(begin)}
	if err != nil {
		f.Kind, f.Error = FrameFailed, err.Error()
	}
	if p.Secret {
		f.Values = "***"
		if err != nil {
			f.Error = "not written" // the reason may quote the value
		}
	}
	w.show(f)
}

func (w *watchers) show(f Frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for see := range w.all {
		(*see)(f)
	}
}

// valuesOf puts samples into words.
func valuesOf(samples []Sample) string {
	var text []byte
	for i := range samples {
		s := &samples[i]
		if i > 0 {
			text = append(text, ' ')
		}
		text = append(append(text, s.Point.ID...), '=')
		switch {
		case s.Quality == Bad:
			text = append(append(append(text, '('), s.Reason...), ')')
		case s.Point.Secret:
			text = append(text, "***"...)
		default:
			text = s.Value.AppendText(text)
		}
	}
	return string(text)
}
