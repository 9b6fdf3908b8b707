package cloud

import (
	"time"

	"sluice/gateway"
)

// Hurry makes a session's times short. Each delay before a new attempt is told
// to delayed, if that is set.
func (s *Session) Hurry(delayed func(refused bool)) *Session {
	s.limits.attempt, s.limits.attemptTLS = 3*time.Second, 3*time.Second
	s.limits.write, s.limits.puback, s.limits.steady = time.Second, time.Second, time.Millisecond
	s.limits.delay = func(_ *backoff, _ time.Duration, refused bool) time.Duration {
		if delayed != nil {
			delayed(refused)
		}
		return 20 * time.Millisecond
	}
	return s
}

// Arrivals are a payload as it comes out of the queue, on each topic that takes
// it and on those of streams.
func Arrivals(payload []byte, streams ...string) (all []gateway.Downlink) {
	d := newDownlinks()
	for _, s := range d.subscriptions("u", streams) {
		s.handler(payload)
		a := <-d.waiting
		all = append(all, a.read())
	}
	return all
}
