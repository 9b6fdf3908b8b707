package gateway

import "time"

// pace is the shortest time between two messages of one username. The cloud's
// limit is not documented, so it is found: refused as too fast, the interval
// doubles, then shrinks 10 % a minute down to a tenth above what was refused.
// Every ten minutes one message probes whether the limit has gone.
type pace struct {
	interval time.Duration // configured
	slower   time.Duration // in force since the cloud said "too fast"; 0: the configured one is
	refused  time.Duration // longest interval known to be too short
	stored   time.Time     // when the last message that was stored was sent
	latest   time.Time     // when the last one was sent that was not refused
	probing  bool          // the next message is a probe
	shrunk   time.Time
	probed   time.Time
}

const (
	slowest    = 60 * time.Second
	probeEvery = 10 * time.Minute
)

// now is the interval in force.
func (p *pace) now() time.Duration { return max(p.interval, p.slower) }

// begin tells whether the message that is sent at a time is a probe: after a
// quiet time it tells nothing about the limit.
func (p *pace) begin(sent time.Time) (probe bool) {
	probe = p.probing && sent.Sub(p.stored) < p.slower
	p.probing = false
	return probe
}

// next is the time to wait after a message that was sent at a time, where an
// interval is configured.
func (p *pace) next(sent time.Time, interval time.Duration) time.Duration {
	if p.slower == 0 {
		return interval
	}
	if p.probing = sent.Sub(p.probed) >= probeEvery; p.probing {
		p.probed = sent
		return max(interval, p.slower*9/10)
	}
	return max(interval, p.slower)
}

// tooFast notes that the cloud ignored a message that was sent at a time.
func (p *pace) tooFast(sent, before time.Time, probe bool) {
	if p.latest.Equal(sent) {
		p.latest = p.stored
	}
	if before.Before(p.stored) {
		before = p.stored
	}
	if before.IsZero() { // when the process before has sent its last is not known
		p.slower = min(slowest, 2*max(p.slower, p.interval, retryAtLeast))
		p.shrunk, p.probed, p.probing = sent, sent, false
		return
	}
	gap := min(sent.Sub(before), slowest)
	p.refused = max(p.refused, gap)
	p.shrunk, p.probed, p.probing = sent, sent, false
	if probe {
		p.slower = max(p.slower, p.floor())
		return
	}
	p.slower = min(slowest, 2*max(gap, p.interval, retryAtLeast))
}

// floor is the shortest interval that is likely to be taken.
func (p *pace) floor() time.Duration { return min(p.refused*11/10, slowest) }

// taken notes that the cloud stored a message that was sent at a time.
func (p *pace) taken(sent time.Time, probe bool) {
	p.stored = sent
	if p.slower == 0 {
		return
	}
	if probe {
		p.refused = p.refused * 9 / 10
	}
	for sent.Sub(p.shrunk) >= time.Minute {
		p.shrunk = p.shrunk.Add(time.Minute)
		p.slower = max(p.slower*9/10, p.floor())
	}
	if p.slower <= p.interval {
		p.slower, p.refused = 0, 0
	}
}
