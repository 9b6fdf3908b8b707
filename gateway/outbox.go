package gateway

import (
	"context"
	"sync"
	"time"
)

// outbox sends the replies of one user, in order. One that a disconnect catches
// is kept for a minute.
type outbox struct {
	user    string
	uplink  Downlinker
	office  *office
	waiting chan letter

	mu     sync.Mutex
	second time.Time
	busy   int // replies of that second that said busy
}

// letter is a reply on its way.
type letter struct {
	payload []byte
	until   time.Time
	entry   *entry // that it belongs to, nil without an id
}

const (
	replyFor    = 60 * time.Second
	mostReplies = 200
	mostBusy    = 10 // in a second
)

func newOutbox(user string, uplink Downlinker, d *office) *outbox {
	return &outbox{user: user, uplink: uplink, office: d, waiting: make(chan letter, mostReplies)}
}

// inherit takes over what waits and nobody else knows: the others are in the ledger.
func (o *outbox) inherit(old *outbox) {
	for {
		select {
		case l := <-old.waiting:
			if l.entry == nil {
				o.waiting <- l
			}
		default:
			return
		}
	}
}

// put queues a reply; a full queue drops it. The cloud that asks again gets the
// stored one.
func (o *outbox) put(payload []byte, e *entry) {
	select {
	case o.waiting <- letter{payload, time.Now().Add(replyFor), e}:
	default:
		o.office.stats.RepliesDropped.Add(1)
	}
}

// answer puts a reply; of those that say busy only some.
func (o *outbox) answer(payload []byte, e *entry, busy bool) {
	if busy && !o.mayBeBusy() {
		o.office.stats.RepliesDropped.Add(1)
		return
	}
	o.put(payload, e)
}

// mayBeBusy tells whether another reply that says busy may go out now.
func (o *outbox) mayBeBusy() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := time.Now(); now.Sub(o.second) >= time.Second {
		o.second, o.busy = now, 0
	}
	o.busy++
	return o.busy <= mostBusy
}

// run sends until ctx ends.
func (o *outbox) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-o.waiting:
			o.send(ctx, l)
		}
	}
}

// send sends one reply until the broker has it, or its time is over.
func (o *outbox) send(ctx context.Context, l letter) {
	ctx, cancel := context.WithDeadline(ctx, l.until)
	defer cancel()
	for ctx.Err() == nil {
		err := o.uplink.SendReply(ctx, l.payload)
		if err == nil {
			if l.entry != nil {
				o.office.ledger.sent(l.entry)
			}
			return
		}
		sleep(ctx, retryAtLeast)
	}
	o.office.stats.RepliesDropped.Add(1)
}
