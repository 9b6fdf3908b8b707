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

// tooFast notes a message that the cloud ignored.
func (p *pace) tooFast(at time.Time) {
	p.shrunk, p.probed = at, at
	if p.probing {
		p.probing, p.refused = false, p.slower*9/10
		return
	}
	p.refused = p.now()
	p.slower = min(slowest, 2*max(p.refused, retryAtLeast))
}

// taken notes a message that the cloud stored.
func (p *pace) taken(at time.Time) {
	if p.slower == 0 {
		return
	}
	if p.probing {
		p.probing, p.refused = false, p.refused*9/10
	}
	for at.Sub(p.shrunk) >= time.Minute {
		p.shrunk = p.shrunk.Add(time.Minute)
		p.slower = max(p.slower*9/10, p.refused*11/10)
	}
	if p.slower <= p.interval {
		p.slower = 0
	}
}
