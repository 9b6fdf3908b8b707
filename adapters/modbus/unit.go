package modbus

import (
	"context"
	"errors"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

const (
	leastPatience = 100 * time.Millisecond // of a probe
	firstBusy     = 50 * time.Millisecond  // rest of a unit that says that it is busy
	mostBusy      = time.Second            // doubling up to this
)

// unit is what is known of a unit of the bus. It outlives sessions.
type unit struct {
	devices []*gateway.Device // in it

	// Of the session's goroutine:
	longest time.Duration // that an answer took; 0: there never was one
	answers int           // with data
	rest    time.Time     // not to be asked before
	busy    time.Duration // rest that a busy unit was last given

	// Guarded by the atlas:
	facts      []fact
	generation int       // changes with the facts that matter to a plan
	trial      time.Time // when to try a refused read again
	recalled   bool      // what earlier runs learnt is in facts
}

// name is that of its first device.
func (u *unit) name() string { return u.devices[0].Name }

// note takes the outcome of a request into account.
func (u *unit) note(took time.Duration, err error) {
	var refusal wire.Exception
	switch {
	case err == nil:
		u.answers++
	case !errors.As(err, &refusal) || silence(refusal):
		return
	case refusal == wire.Acknowledge || refusal == wire.ServerDeviceBusy:
		u.busy = min(max(2*u.busy, firstBusy), mostBusy)
		u.rests(u.busy)
		return
	}
	u.busy = 0
	u.longest = max(u.longest, took)
}

// rests keeps the unit from being asked for that long.
func (u *unit) rests(d time.Duration) {
	if until := time.Now().Add(d); until.After(u.rest) {
		u.rest = until
	}
}

// patience is how long a probe waits, where a read would wait for timeout.
func (u *unit) patience(timeout time.Duration) time.Duration {
	if u.longest == 0 {
		return timeout
	}
	return min(max(3*u.longest, leastPatience), timeout)
}

// silence tells whether an error means that the unit gave no answer at all. A
// gateway's word that it got none counts too.
func silence(err error) bool {
	var frame *wire.FrameError
	var refusal wire.Exception
	if errors.As(err, &refusal) {
		return refusal == wire.GatewayPathUnavailable || refusal == wire.GatewayTargetNoResponse
	}
	return errors.Is(err, wire.ErrTimeout) && !errors.As(err, &frame)
}

// Rest is how long the device's unit must not be asked now: after a write, or
// while it says that it is busy.
func (s *session) Rest(d *gateway.Device) time.Duration {
	if u := s.atlas.units[byte(d.Unit)]; u != nil && !u.rest.IsZero() {
		return max(0, time.Until(u.rest))
	}
	return 0
}

// Probe reads one point once, waiting no longer than the unit ever took to
// answer, times three.
func (s *session) Probe(ctx context.Context, p *gateway.Point) (gateway.Sample, error) {
	bad := func(why string, silent bool) gateway.Sample {
		return gateway.Sample{Point: p, Time: time.Now(), Reason: why, Silent: silent}
	}
	at := s.atlas.places[p]
	if at == nil {
		return bad(p.ID+" is not a point of this bus", false), nil
	}
	r, err := s.single(at)
	if err != nil {
		return bad(err.Error(), false), nil
	}
	timeout := r.at.patience(r.timeout)
	data, err := s.once(ctx, r, timeout)
	if err != nil {
		return bad(reason(err, timeout), silence(err)), s.lost(ctx, err)
	}
	return r.sample(&r.readings[0], data, time.Now()), nil
}

func sleepUntil(ctx context.Context, until time.Time) error {
	wait := time.Until(until)
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
