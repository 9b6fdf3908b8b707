package modbus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// What bounds the compiled groups: those of plans, which may be made for ever
// new sets of points, and others.
const (
	mostBatches = 1 << 16
	mostOthers  = 256
)

// session is one connection, or several to one endpoint.
type session struct {
	*Adapter
	windows  []*window                  // one for each connection
	batches  map[**gateway.Point]*batch // Plan's groups, by the address of the first element
	others   map[**gateway.Point]*batch // of other groups
	planned  int                        // of the last Plan
	samples  []gateway.Sample
	one      [1]gateway.Reading // of Read and Reread
	reading  []*batch
	requests []*request
	searches map[*unit]*search
	holdOff  map[*unit]time.Time // no search before
	pdu      []byte
}

var (
	_ gateway.Prober   = (*session)(nil)
	_ gateway.Pacer    = (*session)(nil)
	_ gateway.Rereader = (*session)(nil)
	_ gateway.Gatherer = (*session)(nil)

	_ interface{ Planned() int } = (*session)(nil)
)

func newSession(a *Adapter, clients ...*wire.Client) *session {
	s := &session{Adapter: a, batches: make(map[**gateway.Point]*batch), others: make(map[**gateway.Point]*batch), searches: make(map[*unit]*search), holdOff: make(map[*unit]time.Time)}
	for _, u := range a.atlas.units {
		a.recall(u)
	}
	for _, c := range clients {
		s.windows = append(s.windows, newWindow(c, a.bus.Pipeline))
	}
	return s
}

// Close ends the connections, and requests under way.
func (s *session) Close() error {
	var errs []error
	for _, w := range s.windows {
		errs = append(errs, w.client.Close())
	}
	return errors.Join(errs...)
}

// Read sends the requests of a group, one or a window of them, and gives a
// sample for each of its points.
func (s *session) Read(ctx context.Context, group []*gateway.Point) ([]gateway.Sample, error) {
	if len(group) == 0 {
		return nil, nil
	}
	s.one[0] = gateway.Reading{Group: group}
	err := s.ReadAll(ctx, s.one[:])
	return s.one[0].Samples, err
}

// Reread is Read, but compares answers with the last ones before it decodes any.
func (s *session) Reread(ctx context.Context, group []*gateway.Point) ([]gateway.Sample, time.Time, error) {
	s.one[0] = gateway.Reading{Group: group, Again: true}
	err := s.ReadAll(ctx, s.one[:])
	return s.one[0].Samples, s.one[0].Same, err
}

// Room is how many requests can be in flight.
func (s *session) Room() int { return max(1, s.bus.Pipeline) * len(s.windows) }

// Flights is how many requests a group makes.
func (s *session) Flights(group []*gateway.Point) int { return len(s.batch(group).requests) }

// repeats is when all answers were found to be as the ones before, zero where
// one was not.
func (b *batch) repeats() (at time.Time) {
	if len(b.left) > 0 {
		return at
	}
	for _, r := range b.requests {
		if !r.same {
			return time.Time{}
		}
		if at.IsZero() || r.heard.Before(at) {
			at = r.heard
		}
	}
	return at
}

// ReadAll sends the requests of several groups, and makes the samples of each.
func (s *session) ReadAll(ctx context.Context, readings []gateway.Reading) error {
	points := 0
	for i := range readings {
		points += len(readings[i].Group)
	}
	s.samples = slices.Grow(s.samples[:0], points)[:points]
	s.reading, s.requests = s.reading[:0], s.requests[:0]
	now, rest := time.Now(), s.samples
	for i := range readings {
		n := len(readings[i].Group)
		b := s.batch(readings[i].Group)
		b.samples, rest = rest[:n:n], rest[n:]
		s.reading, s.requests = append(s.reading, b), append(s.requests, b.requests...)
		for _, r := range b.requests {
			r.samples, r.again = b.samples, readings[i].Again
		}
		for _, l := range b.left {
			b.samples[l.slot] = gateway.Sample{Point: l.point, Time: now, Reason: l.why}
		}
		for _, u := range b.units {
			if err := s.wait(ctx, u); err != nil {
				return err
			}
		}
	}
	if err := s.send(ctx, s.requests); err != nil {
		return err
	}
	for i, b := range s.reading {
		if err := s.complete(ctx, b, &readings[i], now); err != nil {
			return err
		}
	}
	return nil
}

// complete does what is left to do about a group after the window. Where its
// answers were not all as the ones before, all of them make samples.
func (s *session) complete(ctx context.Context, b *batch, reading *gateway.Reading, now time.Time) error {
	silent, mute := len(b.requests) > 0, true
	for _, r := range b.requests {
		mute = mute && silence(r.err)
	}
	for _, r := range b.requests {
		if err := s.finish(ctx, r, mute && silence(b.requests[0].err) && r != b.requests[0]); err != nil {
			return err
		}
		silent = silent && !r.same && b.samples[r.readings[0].slot].Silent
	}
	for _, l := range b.left {
		b.samples[l.slot].Silent = silent // as the rest of its unit is
	}
	same := b.repeats()
	if same.IsZero() {
		for _, r := range b.requests {
			if r.same {
				r.fill(r.samples, r.last, r.heard)
			}
		}
	}
	for _, u := range b.units {
		if err := s.learn(ctx, u, now); err != nil {
			return err
		}
	}
	if reading.Same = same; same.IsZero() {
		reading.Samples = b.samples
	}
	return nil
}

// finish does what is left to do about a request after the window: tries it
// again after silence, and finds out why it is refused. A unit that is mute, to
// all requests and to the first once more, is not asked again for each.
func (s *session) finish(ctx context.Context, r *request, mute bool) error {
	q := s.searches[r.at]
	if q != nil && q.generation == r.generation && q.of(r) {
		r.keep(nil)
		return s.seek(ctx, r, q)
	}
	for try := 0; r.err != nil && !mute && s.again(try, r.at, r.err); try++ {
		var data []byte
		if data, r.err = s.once(ctx, r, r.timeout); r.err == nil {
			r.fill(r.samples, data, time.Now())
		}
	}
	if r.err == nil {
		r.failures = 0
		return nil
	}
	if lost := s.lost(ctx, r.err); lost != nil {
		return lost
	}
	r.fail(r.samples, time.Now())
	if s.doubt(r, r.err); s.searches[r.at] != q && refuses(r.err) {
		return s.seek(ctx, r, s.searches[r.at])
	}
	return nil
}

// reason puts an error of one request into the words of a sample.
func reason(err error, timeout time.Duration) string {
	var frame *wire.FrameError
	if errors.Is(err, wire.ErrTimeout) && !errors.As(err, &frame) {
		return fmt.Sprintf("no answer within %s", timeout)
	}
	return err.Error()
}

// lost is the error that ends a session, or a read whose context is over.
func (s *session) lost(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case wire.Broken(err):
		return err
	}
	return nil
}

// single is the request for one place.
func (s *session) single(at *place) (*request, error) {
	r, err := newRequest(s.bus, []*place{at})
	if err == nil {
		r.at = s.atlas.units[r.unit]
	}
	return r, err
}

// again tells whether a read is tried again: after silence, as often as the bus
// allows, where the unit ever answered.
func (s *session) again(try int, u *unit, err error) bool {
	return try < s.bus.Retries && errors.Is(err, wire.ErrTimeout) && u.longest > 0
}

// fetch reads the data of a request that is in no plan.
func (s *session) fetch(ctx context.Context, r *request) ([]byte, error) {
	for try := 0; ; try++ {
		data, err := s.once(ctx, r, r.timeout)
		if err == nil || !s.again(try, r.at, err) {
			return data, err
		}
	}
}

// once reads the data of a request by one exchange.
func (s *session) once(ctx context.Context, r *request, timeout time.Duration) ([]byte, error) {
	reply, err := s.ask(ctx, wire.Request{Unit: r.unit, PDU: r.pdu, Timeout: timeout, Quiet: r.quiet})
	if err != nil {
		return nil, err
	}
	return replyData(reply)
}

// replyData is what stands behind function and byte count.
func replyData(reply []byte) ([]byte, error) {
	if len(reply) < 2 || len(reply) < 2+int(reply[1]) {
		return nil, fmt.Errorf("an answer of %d bytes is too short", len(reply))
	}
	return reply[2 : 2+int(reply[1])], nil
}

// ask makes one exchange, on the first connection. It waits while the unit
// rests.
func (s *session) ask(ctx context.Context, r wire.Request) ([]byte, error) {
	u := s.atlas.units[r.Unit]
	if err := s.wait(ctx, u); err != nil {
		return nil, err
	}
	gateway.Turn(ctx)
	begin := time.Now()
	reply, err := s.windows[0].client.Do(ctx, r)
	u.note(time.Since(begin), err)
	if deaf := s.windows[0].heard(unanswered(err)); deaf != nil && s.bus.Type != "modbus-rtu" {
		return nil, deaf
	}
	return reply, err
}

// wait waits while a unit rests.
func (s *session) wait(ctx context.Context, u *unit) error {
	if u.rest.IsZero() {
		return nil
	}
	if err := sleepUntil(ctx, u.rest); err != nil {
		return err
	}
	u.rest = time.Time{}
	return nil
}
