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
	probing  bool          // the last interval was a probe
	shrunk   time.Time
	probed   time.Time
}

const (
	slowest    = 60 * time.Second
	probeEvery = 10 * time.Minute
)

// now is the interval in force.
func (p *pace) now() time.Duration { return max(p.interval, p.slower) }

// next is the time to wait after a message that was sent at a time.
func (p *pace) next(sent time.Time) time.Duration {
	if p.slower == 0 {
		return p.interval
	}
	if p.probing = sent.Sub(p.probed) >= probeEvery; p.probing {
		p.probed = sent
		return max(p.interval, p.slower*9/10)
	}
	return p.slower
}

// tooFast notes that the cloud ignored a message that was sent at a time.
func (p *pace) tooFast(sent time.Time) {
	gap := min(sent.Sub(p.stored), slowest)
	p.refused = max(p.refused, gap)
	p.shrunk, p.probed = sent, sent
	if p.probing {
		p.probing, p.slower = false, max(p.slower, p.floor())
		return
	}
	p.slower = min(slowest, 2*max(gap, p.interval, retryAtLeast))
}

// floor is the shortest interval that is likely to be taken.
func (p *pace) floor() time.Duration { return min(p.refused*11/10, slowest) }

// taken notes that the cloud stored a message that was sent at a time.
func (p *pace) taken(sent time.Time) {
	p.stored = sent
	if p.slower == 0 {
		return
	}
	if p.probing {
		p.probing, p.refused = false, p.refused*9/10
	}
	for sent.Sub(p.shrunk) >= time.Minute {
		p.shrunk = p.shrunk.Add(time.Minute)
		p.slower = max(p.slower*9/10, p.floor())
	}
	if p.slower <= p.interval {
		p.slower, p.refused = 0, 0
	}
}
