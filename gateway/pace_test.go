package gateway

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// ignorant is a platform that ignores what comes sooner than its limit after
// the last message that it stored.
type ignorant struct {
	limit  func(elapsed time.Duration) time.Duration
	stored time.Duration
	forget bool // the control: what is learnt of a rejection is lost
}

// play sends as the pace says, for a time, and gives the times of the
// rejections and of what was stored.
func (p *ignorant) play(start pace, duration time.Duration) (rejected, stored []time.Duration) {
	begin := time.Unix(1e9, 0)
	pace := start
	p.stored = -time.Hour
	for at := time.Duration(0); at < duration; {
		now := begin.Add(at)
		probe := pace.begin(now)
		if at-p.stored < p.limit(at) {
			rejected = append(rejected, at)
			pace.tooFast(now, time.Time{}, probe)
			if p.forget {
				pace = start
			}
			at += pace.now()
			continue
		}
		p.stored = at
		stored = append(stored, at)
		pace.taken(now, probe)
		at += pace.next(now, start.interval)
	}
	return rejected, stored
}

// between counts the times in [from, to).
func between(times []time.Duration, from, to time.Duration) (n int) {
	for _, t := range times {
		if t >= from && t < to {
			n++
		}
	}
	return n
}

// TestPaceFindsTheLimit: the platform's limit goes from 1 s to 5 s and back.
func TestPaceFindsTheLimit(t *testing.T) {
	p := &ignorant{limit: func(elapsed time.Duration) time.Duration {
		if elapsed >= time.Hour && elapsed < 4*time.Hour {
			return 5 * time.Second
		}
		return time.Second
	}}
	rejected, stored := p.play(pace{interval: time.Second}, 8*time.Hour)
	if n := between(rejected, 0, time.Hour); n > 0 {
		t.Errorf("%d rejections within the limit", n)
	}
	settling, settled := between(rejected, time.Hour, time.Hour+9*time.Minute), between(rejected, time.Hour+30*time.Minute, 4*time.Hour)
	sent := between(stored, time.Hour+30*time.Minute, 4*time.Hour)
	t.Logf("after the change %d rejections, later %d in %d messages", settling, settled, sent)
	if settling > 3 || settled*100 > sent {
		t.Errorf("%d rejections after the change, then %d in %d messages", settling, settled, sent)
	}
	if allowed := int(150 * time.Minute / (5 * time.Second)); sent*100 < allowed*90 {
		t.Errorf("%d messages where %d are allowed", sent, allowed)
	}
	if n := between(stored, 7*time.Hour, 8*time.Hour); n < 3600*90/100 {
		t.Errorf("three hours after the limit has gone back to 1 s: %d messages an hour", n)
	}
	control := &ignorant{limit: p.limit, forget: true}
	rejected, _ = control.play(pace{interval: time.Second}, 2*time.Hour)
	if n := between(rejected, time.Hour, time.Hour+9*time.Minute); n <= 3 {
		t.Errorf("the control, which learns nothing, has %d rejections after the change", n)
	}
}

// TestAMessageAfterAQuietTimeIsNoProbe: that it is taken tells nothing about the
// limit, and what was learnt stays.
func TestAMessageAfterAQuietTimeIsNoProbe(t *testing.T) {
	begin := time.Unix(1e9, 0)
	for _, c := range []struct {
		after time.Duration // since the last message
		probe bool
	}{{9 * time.Second, true}, {9999 * time.Millisecond, true}, {10 * time.Second, false}, {time.Hour, false}} {
		p := pace{interval: time.Second, slower: 10 * time.Second, refused: 9 * time.Second, shrunk: begin, probed: begin.Add(-probeEvery), stored: begin}
		if wait := p.next(begin, time.Second); wait != 9*time.Second {
			t.Errorf("the next slot comes after %v", wait)
		}
		sent := begin.Add(c.after)
		probe := p.begin(sent)
		p.shrunk = sent
		p.taken(sent, probe)
		if lower := p.refused < 9*time.Second; probe != c.probe || lower != c.probe {
			t.Errorf("after %v: probe %v, and %v is refused", c.after, probe, p.refused)
		}
	}
}

// TestPaceOfAPlatformThatNeverStores stays bounded.
func TestPaceOfAPlatformThatNeverStores(t *testing.T) {
	p := &ignorant{limit: func(time.Duration) time.Duration { return 1000 * time.Hour }}
	rejected, _ := p.play(pace{interval: time.Second}, 2*time.Hour)
	if n := between(rejected, time.Hour, 2*time.Hour); n != 60 {
		t.Errorf("%d tries an hour", n)
	}
	p.forget = true
	rejected, _ = p.play(pace{interval: time.Second}, 2*time.Hour)
	if n := between(rejected, time.Hour, 2*time.Hour); n != 3600 {
		t.Errorf("the control, which learns nothing: %d tries an hour", n)
	}
}

// TestPaceIsMeasuredFromTheMessageBefore: a report and an event every half
// minute, a platform that wants 1.5 s between two messages and answers when it
// has stored it, 1.1 s later: the pace stays near its limit.
func TestPaceIsMeasuredFromTheMessageBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1500 * time.Millisecond
		var mu sync.Mutex
		var last time.Time
		refused := 0
		p := &platform{start: time.Now()}
		p.refuse = func(time.Duration, Record) error {
			mu.Lock()
			early := !last.IsZero() && time.Since(last) < limit
			if early {
				refused++
			} else {
				last = time.Now()
			}
			mu.Unlock()
			if early {
				return ErrTooFast
			}
			time.Sleep(1100 * time.Millisecond) // until it is stored
			return nil
		}
		r := newRig(t, newBuffer(t), second(replay), answering{p})
		defer r.close(t)
		r.play(t, time.Hour, func() {
			for i := range 110 {
				r.storeFor("u", report("n", i))
				if i > 0 {
					r.storeFor("u", event("e", Info))
				}
				time.Sleep(30 * time.Second)
				if i == 3 {
					if pace := r.bucketOf("u").interval(); pace > 4*limit {
						t.Errorf("after two minutes: the platform takes a message each %v, the pace is one each %v", limit, pace)
					}
				}
			}
			if pace := r.bucketOf("u").interval(); pace > 4*limit {
				t.Errorf("after an hour: the platform takes a message each %v, the pace is one each %v; %d reports and %d events wait", limit, pace, r.store.Len("u"), r.store.Len("u/events"))
			}
		})
		t.Logf("%d refused", refused)
	})
}
