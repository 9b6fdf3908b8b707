package modbus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// deafAfter is how many requests in a row, or windows of them, nobody may
// answer on a TCP connection before it is taken for dead: a firewall that
// forgot it swallows everything, and TCP itself would notice after a quarter
// of an hour.
const deafAfter = 5

// batch is a group, compiled. Plan makes groups of one request, or of as many
// as can be in flight; what was learnt since can make them more.
type batch struct {
	units      []*unit
	generation int // of what was known of them
	requests   []*request
	left       []leftOut
	points     int
	samples    []gateway.Sample // of the Read under way
}

// leftOut is a point that no request is made for.
type leftOut struct {
	slot  int
	point *gateway.Point
	why   string
}

// Plan divides the points into groups, each for one device's unit.
func (s *session) Plan(points []*gateway.Point) [][]*gateway.Point {
	if now := s.Planned(); now != s.planned || len(s.batches) > mostBatches {
		s.planned = now
		clear(s.batches) // those of older plans; one still in use is made again
	}
	parts := planner{bus: s.bus, atlas: s.atlas}.divide(points)
	var groups [][]*gateway.Point
	for first, last := 0, 0; first < len(parts); first = last {
		group, requests := parts[first].points, 1
		for last = first + 1; last < len(parts) && parts[last].unit == parts[first].unit && parts[last].unit >= 0; last++ {
			if parts[last].why == "" {
				if requests == s.Room() {
					break
				}
				requests++
			}
			group = group[:len(group)+len(parts[last].points)]
		}
		group = slices.Clip(group)
		groups = append(groups, group)
		s.batches[&group[0]] = s.compile(group, parts[first:last])
	}
	return groups
}

// batch is the compiled group: the one that Plan made, or a new one where the
// group is not Plan's, or more is known now.
func (s *session) batch(group []*gateway.Point) *batch {
	key := &group[0]
	b, planned := s.batches[key]
	if !planned {
		b = s.others[key]
	}
	if b != nil && (planned && len(group) == b.points || b.matches(group)) && b.generation == s.generation(b.units) {
		return b
	}
	b = s.compile(group, planner{bus: s.bus, atlas: s.atlas}.divide(group))
	if planned {
		s.batches[key] = b
		return b
	}
	if len(s.others) >= mostOthers {
		clear(s.others)
	}
	s.others[key] = b
	return b
}

// compile makes the requests of a group's parts.
func (s *session) compile(group []*gateway.Point, parts []part) *batch {
	b := &batch{points: len(group)}
	slots := slotsOf(group, parts)
	for i := range parts {
		if parts[i].unit >= 0 {
			b.add(s.atlas.units[byte(parts[i].unit)])
		}
	}
	b.generation = s.generation(b.units)
	for i := range parts {
		s.compilePart(b, &parts[i], slots)
	}
	return b
}

func (s *session) compilePart(b *batch, p *part, slots func(*gateway.Point) int) {
	why := p.why
	if why == "" {
		places := make([]*place, len(p.points))
		for i, point := range p.points {
			places[i] = s.atlas.places[point]
		}
		r, err := newRequest(s.bus, places)
		if err == nil {
			for i := range r.readings {
				r.readings[i].slot = int32(slots(r.readings[i].point))
			}
			r.at = s.atlas.units[r.unit]
			r.generation = s.generation([]*unit{r.at})
			b.requests = append(b.requests, r)
			return
		}
		why = err.Error()
	}
	for _, point := range p.points {
		b.left = append(b.left, leftOut{slots(point), point, why})
	}
}

// slotsOf tells where in the group the points are, when asked part by part:
// they follow each other where Plan made the group of these parts.
func slotsOf(group []*gateway.Point, parts []part) func(*gateway.Point) int {
	if &parts[0].points[0] == &group[0] {
		next := -1
		return func(*gateway.Point) int { next++; return next }
	}
	slots := make(map[*gateway.Point]int, len(group))
	for i, p := range group {
		slots[p] = i
	}
	return func(p *gateway.Point) int { return slots[p] }
}

func (b *batch) add(u *unit) {
	for _, known := range b.units {
		if known == u {
			return
		}
	}
	b.units = append(b.units, u)
}

func (b *batch) matches(group []*gateway.Point) bool {
	if b.points != len(group) {
		return false
	}
	for _, r := range b.requests {
		if !r.matches(group) {
			return false
		}
	}
	for _, l := range b.left {
		if group[l.slot] != l.point {
			return false
		}
	}
	return true
}

// window is the requests that one connection makes in a Read.
type window struct {
	client   *wire.Client
	single   bool // one request at a time
	requests []wire.Request
	reads    []*request
	begin    time.Time
	err      error
	land     func(i int, pdu []byte, err error)
	unheard  int // windows since anybody answered
}

func newWindow(client *wire.Client, pipeline int) *window {
	w := &window{client: client, single: pipeline <= 1}
	w.land = w.take
	return w
}

// send makes the requests, spread over the connections, and fills the samples
// of those that are answered. What came of each is in its err.
func (s *session) send(ctx context.Context, requests []*request) error {
	for _, w := range s.windows {
		w.requests, w.reads, w.err = w.requests[:0], w.reads[:0], nil
	}
	n := 0
	for _, r := range requests {
		r.same = false
		if q := s.searches[r.at]; q != nil && q.generation == r.generation && q.of(r) {
			continue // finish reads it piece by piece
		}
		w := s.windows[n%len(s.windows)]
		w.requests = append(w.requests, requestOf(r))
		w.reads = append(w.reads, r)
		n++
	}
	if len(s.windows) > 1 {
		s.runAll(ctx)
	} else {
		s.windows[0].run(ctx)
	}
	return s.arrive(ctx)
}

// runAll makes the requests of all connections at once.
func (s *session) runAll(ctx context.Context) {
	var others sync.WaitGroup
	defer others.Wait()
	for _, w := range s.windows[1:] {
		if len(w.reads) > 0 {
			others.Go(func() { w.run(ctx) })
		}
	}
	s.windows[0].run(ctx)
}

func requestOf(r *request) wire.Request {
	return wire.Request{Unit: r.unit, PDU: r.pdu, Timeout: r.timeout, Quiet: r.quiet}
}

// arrive notes what came of the windows.
func (s *session) arrive(ctx context.Context) error {
	for _, w := range s.windows {
		if w.err != nil {
			if lost := s.lost(ctx, w.err); lost != nil {
				return lost
			}
			return w.err
		}
		silent := len(w.reads) > 0
		for _, r := range w.reads {
			r.at.note(r.took, r.err)
			silent = silent && unanswered(r.err)
		}
		if len(w.reads) == 0 {
			continue
		}
		if deaf := w.heard(silent); deaf != nil && s.bus.Type != "modbus-rtu" {
			return deaf
		}
	}
	return nil
}

// run makes the requests of one connection.
func (w *window) run(ctx context.Context) {
	if len(w.requests) > 0 {
		w.begin = time.Now()
		w.err = w.client.DoWindow(ctx, w.requests, w.land)
	}
}

// take takes an answer, or why there is none.
func (w *window) take(i int, pdu []byte, err error) {
	r, now := w.reads[i], time.Now()
	r.took = now.Sub(w.begin)
	if w.single {
		w.begin = now
	}
	var data []byte
	if err == nil {
		data, err = replyData(pdu)
	}
	if r.err = err; err != nil {
		return
	}
	if r.heard, r.same = now, r.again && r.repeats(data); !r.same {
		r.fill(r.samples, data, now)
	}
}

// unanswered tells whether nothing came on the connection.
func unanswered(err error) bool {
	if err == nil {
		return false
	}
	var frame *wire.FrameError
	return errors.Is(err, wire.ErrTimeout) && !errors.As(err, &frame)
}

// heard counts what nobody answered; the error is that the connection is dead.
func (w *window) heard(silent bool) error {
	if !silent {
		w.unheard = 0
		return nil
	}
	if w.unheard++; w.unheard < deafAfter {
		return nil
	}
	return &wire.ConnError{Sent: true, Err: fmt.Errorf("nobody answered the last %d requests on this connection", w.unheard)}
}

// generation changes with what is known of the units.
func (s *session) generation(units []*unit) (n int) {
	s.atlas.mu.Lock()
	defer s.atlas.mu.Unlock()
	for _, u := range units {
		n += u.generation
	}
	return n
}

// dueFacts are the unit's facts, when one of them is to be tried again.
func (s *session) dueFacts(u *unit, now time.Time) []fact {
	s.atlas.mu.Lock()
	defer s.atlas.mu.Unlock()
	if u.trial.IsZero() || u.trial.After(now) && u.trial.Sub(now) <= lastTrial {
		return nil
	}
	return u.facts
}
