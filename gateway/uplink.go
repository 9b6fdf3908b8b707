package gateway

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"sluice/buffer"
)

// lane takes the records of one kind and one username out of the buffer, in
// order, and hands them to the cloud. It deletes a record only when the cloud
// confirmed it.
type lane struct {
	name    string // in the buffer
	user    string
	kind    RecordKind
	account *account
	uplink  Uplink
	buffer  *buffer.Buffer
	bucket  *bucket // shared by the lanes of the username
	clock   *clock
	gaps    gapEvent
	stats   *Stats
	log     *slog.Logger
	beat    Beat
	stop    func() // ends run, once it has begun

	first      parsed           // in the buffer
	next       time.Time        // not before this
	took       [4]time.Duration // by the last messages that were confirmed, from the wait for their slots on
	alone      uint64           // up to this number records go out by themselves: something is wrong with one of them
	again      *message         // goes out once more as it was
	doubt      doubt            // about the first record
	dissection *dissection      // of the first record, once it is refused for good
	held       *held            // with backlog: latest
	released   bool             // what was held is confirmed, and still in the buffer
	forward    doubt            // about what goes ahead
	mute       *Record          // went ahead and was never answered: the next message is its probe
	drain      drain
	lossy      bool      // reports were lost, and the points not renewed since
	renewed    time.Time // the last time

	stream   string        // of a history: the data stream that it goes to
	collects bool          // it holds the rows of a stream of a device, see batch.go
	batch    Batch         // of those
	patience time.Duration // until they make a message
}

// parsed is a record of the buffer that was read already.
type parsed struct {
	seq    uint64
	record Record
}

// message is a record on its way: merged of several, acknowledged together.
type message struct {
	record Record
	first  uint64 // sequence number of its first record
	last   uint64 // and of its last
	merged int    // records in it
	probe  bool   // sent ahead of the first record, to see whether it is answered
	ahead  bool   // not from the lane: sent before all that waits

	superseded int             // values that newer ones have replaced (backlog: latest)
	whole      bool            // it is not sent in parts, unless it is refused for good
	older      []buffer.Record // those of its reports that a history has to keep
}

// include says that the record of that number is in the message, too.
func (m *message) include(seq uint64) {
	if m.merged == 0 {
		m.first = seq
	}
	m.last, m.merged = seq, m.merged+1
}

const (
	batch        = 1000    // records taken at once; what latest merges until it keeps that
	batchFew     = 50      // of those that are merged, at first: a slot seldom holds many
	batchValues  = 8_000   // of records taken at once
	olderMost    = 1 << 20 // bytes of reports that are merged, where a history keeps them
	alarmsWithin = 100     // events that are searched for an alarm
	retryAtLeast = 100 * time.Millisecond
	refusedWait  = time.Second
)

// run publishes until ctx ends.
func (l *lane) run(ctx context.Context) {
	ctx = WithBeat(ctx, &l.beat)
	l.begin(ctx)
	l.work(ctx, false)
	if d := l.dissection; d != nil && d.seq == 0 {
		l.account.putBack(d.whole) // for who comes next
	}
	if l.mute != nil {
		l.account.putBack(*l.mute)
	}
}

// work publishes until ctx ends, or until nothing waits.
func (l *lane) work(ctx context.Context, ends bool) {
	for ctx.Err() == nil {
		_ = Sleep(ctx, time.Until(l.next))
		r, waiting := l.rank()
		if !waiting {
			if ends && l.buffer.Len(l.name) == 0 {
				return
			}
			select {
			case <-ctx.Done():
			case <-l.buffer.Ready(l.name):
			case <-l.account.wakes(l.kind):
			case <-time.After(l.idle()):
			}
			continue
		}
		if l.await(ctx) != nil {
			continue
		}
		begin := time.Now()
		if t, err := l.bucket.take(ctx, r); err == nil && l.publish(ctx, t, l.take(ctx)) {
			copy(l.took[:], l.took[1:])
			l.took[3] = min(time.Since(begin), slowest)
		}
	}
}

// idle is how long the lane sleeps when nothing is to go out and nothing comes.
func (l *lane) idle() time.Duration {
	if l.patience > 0 {
		return min(l.patience, TurnEvery)
	}
	return TurnEvery
}

// begin goes on where the program has ended, also where it did so with another
// backlog.
func (l *lane) begin(ctx context.Context) {
	if l.kind != ReportRecord {
		return
	}
	if err := l.account.loadWritten(); err != nil {
		l.log.Error("what was written in the backlog is lost: a setpoint may be replayed", "lane", l.name, "error", err)
	}
	l.loadHeld()
	if l.account.backlog == stream {
		past := l.account.newLane(historyLane(l.user), ReportRecord, l)
		past.loadHeld()
		l.divertHeld(ctx)
		past.divertHeld(ctx) // which is older
		l.divert(ctx)
		return
	}
	past := l.account.newLane(historyLane(l.user), ReportRecord, l)
	past.loadHeld()
	past.work(ctx, true)
	l.lossy = l.lossy || past.lossy
}

// publish sends messages with a ticket and decides what becomes of them. It tells
// whether all are confirmed.
func (l *lane) publish(ctx context.Context, t ticket, messages []message) bool {
	if len(messages) == 0 {
		l.bucket.giveBack(t)
		return false
	}
	records := make([]Record, len(messages))
	for i, m := range messages {
		records[i] = m.record
	}
	n, err := l.uplink.Publish(ctx, records)
	l.confirmed(messages[:n], t)
	switch {
	case n == len(messages):
	case ctx.Err() == nil:
		l.failed(messages[n], t, err)
	case messages[n].ahead:
		l.account.putBack(messages[n].record) // for who comes next
	}
	return n == len(messages)
}

func (l *lane) confirmed(messages []message, t ticket) {
	if len(messages) == 0 {
		return
	}
	l.bucket.taken(t)
	l.stats.LastConfirmed.Store(time.Now().UnixNano())
	if len(messages[0].record.Values) > 0 { // else there was nothing to answer
		l.muted()
	}
	switch {
	case l.dissection != nil && messages[0].probe: // it goes out again in its turn
		l.refusePart(othersAreAnswered)
		return
	case l.dissection != nil:
		l.doubt = doubt{}
		if l.dissection.parts = l.dissection.parts[1:]; len(l.dissection.parts) == 0 {
			l.settle()
		}
		return
	}
	l.again = nil
	if messages[0].ahead {
		l.account.landed()
		l.stats.Confirmed.Add(1)
		l.forward = doubt{}
		return
	}
	if messages[0].probe && !l.unconfirmable() {
		return // the record in front of it is still there
	}
	last := messages[len(messages)-1].last
	for _, m := range messages {
		l.stats.Confirmed.Add(1)
		l.stats.Merged.Add(int64(m.merged - 1))
		l.stats.Superseded.Add(int64(m.superseded))
	}
	l.first = parsed{}
	l.settleMerged(messages[len(messages)-1])
	l.drain.note(time.Now(), l.buffer.Len(l.name))
	l.doubt = doubt{}
	if l.kind == ReportRecord {
		l.release()
		l.account.passed(last)
	}
}

// failed decides what becomes of the first message that was not confirmed. It
// stays where it is, unless it can never be confirmed.
func (l *lane) failed(m message, t ticket, err error) {
	var refusal *Refusal
	wait := retryAtLeast
	l.again = nil
	if !errors.Is(err, ErrLost) {
		l.doubt.lost = 0
	}
	switch {
	case m.ahead:
		wait = l.failedAhead(m, t, err)
	case errors.Is(err, ErrTooFast):
		l.stats.TooFast.Add(1)
		l.bucket.tooFast(t)
	case errors.As(err, &refusal):
		l.refuse(m, refusal.Error())
		wait = refusedWait
	case errors.Is(err, ErrUnanswered):
		l.unanswered(m)
		l.unmute()
	case errors.Is(err, ErrLost):
		l.lost(m)
	}
	l.next = time.Now().Add(jitter(wait))
}

// failedAhead keeps what was to go out ahead for another time, and what is newer
// by then with it. What the cloud refuses again and again is taken apart, what
// connections end with put aside; what is never answered waits for another message
// to be.
func (l *lane) failedAhead(m message, t ticket, err error) (wait time.Duration) {
	var refusal *Refusal
	before := l.forward
	l.forward = doubt{}
	switch {
	case errors.As(err, &refusal) && before.refused+1 >= refusals:
		l.dissect(0, m.record, refusal.Error())
		return refusedWait
	case errors.As(err, &refusal):
		l.forward.refused = before.refused + 1
		l.account.putBack(m.record)
		return refusedWait
	case errors.Is(err, ErrLost) && before.lost+1 >= 2*losses && l.copyAside(&m.record, endsConnections):
		l.account.landed()
		return retryAtLeast
	case errors.Is(err, ErrLost):
		l.forward.lost = before.lost + 1
	case errors.Is(err, ErrTooFast):
		l.stats.TooFast.Add(1)
		l.bucket.tooFast(t)
	case errors.Is(err, ErrUnanswered) && l.mute == nil:
		l.forward.unanswered = before.unanswered + 1
		if l.forward.probes() {
			l.forward, l.mute = doubt{}, &m.record
			return retryAtLeast
		}
	}
	l.account.putBack(m.record)
	if errors.Is(err, ErrUnanswered) {
		l.unmute()
	}
	return retryAtLeast
}

// jitter makes a wait up to an eighth longer.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/8+1) }

// quarantine puts a record aside and tells whether that worked.
func (l *lane) quarantine(seq uint64, reason string) bool {
	return l.isAside(seq, reason, l.buffer.Quarantine(l.name, seq, reason))
}

// isAside tells whether a record has been put aside, and says so.
func (l *lane) isAside(seq uint64, reason string, err error) bool {
	if err != nil {
		l.log.Error("put record aside", "lane", l.name, "record", seq, "error", err)
		return false
	}
	l.stats.Quarantined.Add(1)
	l.log.Warn("record put aside in quarantine", "lane", l.name, "record", seq, "reason", reason)
	return true
}
