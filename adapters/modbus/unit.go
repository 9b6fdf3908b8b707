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
	missed  int           // probes without an answer, in a row

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
	if err == nil {
		u.answers++
	} else if !u.refused(err) {
		return
	}
	u.busy = 0
	u.longest = max(u.longest, took)
}

// refused tells whether an error is an answer too. A unit that says that it is
// busy rests.
func (u *unit) refused(err error) bool {
	var refusal wire.Exception
	if !errors.As(err, &refusal) || silence(refusal) {
		return false
	}
	if busy(refusal) {
		u.busy = min(max(2*u.busy, firstBusy), mostBusy)
		u.rests(u.busy)
		return false
	}
	return true
}

// busy tells whether an error is the unit's word that it is at work.
func busy(err error) bool {
	return errors.Is(err, wire.Acknowledge) || errors.Is(err, wire.ServerDeviceBusy)
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
	if err == nil {
		return false // before the variables, which are allocated
	}
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
// answer, times three. Where the unit says nothing, every second probe reads
// another of its points instead: some units are silent about a register that
// they do not have, and that may be the probe.
func (s *session) Probe(ctx context.Context, p *gateway.Point) (gateway.Sample, error) {
	sample := gateway.Sample{Point: p, Time: time.Now()}
	at := s.atlas.places[p]
	if at == nil {
		sample.Reason = p.ID + " is not a point of this bus"
		return sample, nil
	}
	u := s.atlas.units[byte(p.Device.Unit)]
	asked := u.probe(at, s.atlas)
	r, err := s.single(asked)
	if err != nil {
		sample.Reason = err.Error()
		return sample, nil
	}
	timeout := u.patience(r.timeout)
	data, err := s.once(ctx, r, timeout)
	sample.Time = time.Now()
	switch {
	case err != nil:
		if u.missed++; !silence(err) {
			u.missed = 0
		}
		sample.Reason, sample.Silent = reason(err, timeout), silence(err)
		return sample, s.lost(ctx, err)
	case asked != at:
		sample.Reason = "not read, but " + asked.point.ID + " was"
		return sample, nil
	}
	u.missed = 0
	return r.sample(&r.readings[0], data, sample.Time), nil
}

// probe is the place that a probe reads.
func (u *unit) probe(at *place, a *atlas) *place {
	if u.missed%2 == 0 {
		return at
	}
	skip := u.missed / 2
	for range 2 {
		for _, d := range u.devices {
			for _, p := range d.Points {
				if other := a.places[p]; p.Access == "w" || other == at || other == nil {
					continue
				} else if skip == 0 {
					return other
				}
				skip--
			}
		}
		skip = 0 // there are fewer: the first one
	}
	return at
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
