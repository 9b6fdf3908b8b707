package cloud

import (
	"math/rand/v2"
	"time"
)

// The reconnect delays: quick for as long as an ordinary outage takes, so that
// the first seconds after its end are not lost, then sparing.
const (
	delayStep    = time.Second
	delayQuick   = 3 * time.Second
	delayLongest = time.Minute
	quickFor     = 10 * time.Minute
)

// backoff gives the delays between the attempts of one outage.
type backoff struct {
	fails int
	slow  time.Duration
}

// next is the delay before the next attempt, when the outage has lasted for
// down and the last attempt was refused or just failed.
func (b *backoff) next(down time.Duration, refused bool) time.Duration {
	b.fails++
	delay := min(time.Duration(b.fails)*delayStep, delayQuick)
	if down >= quickFor {
		b.slow = min(max(2*b.slow, 2*delayQuick), delayLongest)
		delay = b.slow
	}
	if refused {
		delay = delayLongest
	}
	return min(jitter(delay), delayLongest)
}

// jitter spreads a delay by a quarter to both sides.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}
