package gateway

import (
	"context"
	"sync"
	"time"
)

// rank is the order of the messages of one username: the lowest goes first.
type rank int

const (
	rankReply   rank = iota // replies to commands, and what was read back
	rankAlarm               // events of severity alarm, and those before them
	rankLive                // attributes as they change
	rankEvent               // other events
	rankStream              // custom streams
	rankBacklog             // attributes that are late
)

// fairShare is how many messages of others may go before a waiting one.
const fairShare = 3

// bucket is what all lanes of one username spend from: the right to send one
// message, once in an interval. Of those that wait, the one of the lowest rank
// goes next, but nobody waits for more than fairShare others.
type bucket struct {
	backlog time.Duration // after a message that is late, in place of the pace's interval

	mu     sync.Mutex
	pace   pace
	next   time.Time // no message before this
	claims []*claim  // in the order of their arrival
	timer  *time.Timer
}

// claim is a message that waits for its slot.
type claim struct {
	rank    rank
	passed  int // others that went before it
	granted chan ticket
}

// ticket is the right to send one message now.
type ticket struct {
	sent   time.Time
	before time.Time // when the message before it was sent
	next   time.Time // that it put off the next message to
	probe  bool      // it comes sooner than the pace allows, to see whether it may
}

// take waits for the right to send a message.
func (b *bucket) take(ctx context.Context, r rank) (ticket, error) {
	c := &claim{rank: r, granted: make(chan ticket, 1)}
	b.mu.Lock()
	b.claims = append(b.claims, c)
	b.grant()
	b.mu.Unlock()
	for {
		select {
		case t := <-c.granted:
			return t, nil
		case <-ctx.Done():
			b.withdraw(c)
			return ticket{}, ctx.Err()
		case <-time.After(TurnEvery):
			Turn(ctx)
		}
	}
}

// grant gives out the slots that have come, and has itself called for the next.
func (b *bucket) grant() {
	for len(b.claims) > 0 {
		now := time.Now()
		if wait := b.next.Sub(now); wait > 0 {
			b.wake(wait)
			return
		}
		i := b.best()
		c := b.claims[i]
		b.claims = append(b.claims[:i], b.claims[i+1:]...)
		for _, other := range b.claims {
			other.passed++
		}
		interval := b.pace.interval
		if c.rank == rankBacklog {
			interval = b.backlog
		}
		t := ticket{sent: now, before: b.pace.latest, probe: b.pace.begin(now)}
		b.pace.latest = now
		b.next = now.Add(b.pace.next(now, interval))
		t.next = b.next
		c.granted <- t
	}
}

// best is the claim that goes next.
func (b *bucket) best() int {
	best := 0
	for i, c := range b.claims {
		if c.passed >= fairShare {
			return i
		}
		if c.rank < b.claims[best].rank {
			best = i
		}
	}
	return best
}

func (b *bucket) wake(wait time.Duration) {
	if b.timer != nil {
		b.timer.Stop()
	}
	b.timer = time.AfterFunc(wait, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.grant()
	})
}

// withdraw takes back a claim, or the slot that it was given meanwhile.
func (b *bucket) withdraw(c *claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, other := range b.claims {
		if other == c {
			b.claims = append(b.claims[:i], b.claims[i+1:]...)
			break
		}
	}
	select {
	case t := <-c.granted:
		b.refund(t)
	default:
	}
	if len(b.claims) == 0 && b.timer != nil {
		b.timer.Stop()
	}
}

// giveBack says that nothing was sent with a ticket.
func (b *bucket) giveBack(t ticket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refund(t)
}

func (b *bucket) refund(t ticket) {
	if b.next.Equal(t.next) { // else another message has gone since
		b.next = t.sent
		b.pace.probing = t.probe
		b.pace.latest = t.before
	}
	b.grant()
}

// taken notes that the cloud stored what was sent with a ticket.
func (b *bucket) taken(t ticket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pace.taken(t.sent, t.probe)
}

// tooFast notes that the cloud ignored what was sent with a ticket. All lanes
// wait until it is ready again.
func (b *bucket) tooFast(t ticket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pace.tooFast(t.sent, t.before, t.probe)
	b.next = time.Now().Add(jitter(b.pace.now()))
}

// interval is the shortest time between two messages now.
func (b *bucket) interval() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pace.now()
}

// late is the shortest time between two messages that are late.
func (b *bucket) late() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(b.backlog, b.pace.slower)
}
