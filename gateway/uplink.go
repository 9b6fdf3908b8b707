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
	name   string // in the buffer
	user   string
	kind   RecordKind
	uplink Uplink
	buffer *buffer.Buffer
	bucket *bucket // shared by the lanes of the username
	gaps   gapEvent
	stats  *Stats
	log    *slog.Logger
	beat   Beat

	next       time.Time   // not before this
	alone      uint64      // up to this number records go out by themselves: something is wrong with one of them
	again      *message    // goes out once more as it was
	doubt      doubt       // about the first record
	dissection *dissection // of the first record, once it is refused for good
}

// message is a record on its way: merged of several, acknowledged together.
type message struct {
	record Record
	first  uint64 // sequence number of its first record
	last   uint64 // and of its last
	merged int    // records in it
	probe  bool   // sent ahead of the first record, to see whether it is answered
}

const (
	batch        = 1000 // records taken at once: the most that one message merges
	alarmsWithin = 100  // events that are searched for an alarm
	retryAtLeast = 100 * time.Millisecond
	refusedWait  = time.Second
)

// run publishes until ctx ends.
func (l *lane) run(ctx context.Context) {
	ctx = WithBeat(ctx, &l.beat)
	for ctx.Err() == nil {
		_ = Sleep(ctx, time.Until(l.next))
		r, waiting := l.rank()
		if !waiting {
			select {
			case <-ctx.Done():
			case <-l.buffer.Ready(l.name):
			case <-time.After(TurnEvery):
			}
			continue
		}
		if l.uplink.Await(ctx, l.kind, l.again != nil) != nil {
			continue
		}
		if t, err := l.bucket.take(ctx, r); err == nil {
			l.publish(ctx, t, l.take())
		}
	}
}

// publish sends messages with a ticket and decides what becomes of them.
func (l *lane) publish(ctx context.Context, t ticket, messages []message) {
	if len(messages) == 0 {
		l.bucket.giveBack(t)
		return
	}
	records := make([]Record, len(messages))
	for i, m := range messages {
		records[i] = m.record
	}
	n, err := l.uplink.Publish(ctx, records)
	l.confirmed(messages[:n], t)
	if n < len(messages) && ctx.Err() == nil {
		l.failed(messages[n], t, err)
	}
}

// rank is that of the message that goes out next; false if none waits.
func (l *lane) rank() (rank, bool) {
	limit := 1
	if l.kind == EventRecord {
		limit = alarmsWithin
	}
	records, _ := l.peek(limit)
	if len(records) == 0 {
		return 0, l.dissection != nil
	}
	switch l.kind {
	case EventRecord:
		for _, r := range records {
			if r.Severity == Alarm {
				return rankAlarm, true
			}
		}
		return rankEvent, true
	case StreamRecord:
		return rankStream, true
	}
	if l.late(records[0].Time) {
		return rankBacklog, true
	}
	return rankLive, true
}

// late tells whether older records wait: two slots have passed since.
func (l *lane) late(t time.Time) bool { return time.Since(t).Abs() > 2*l.bucket.interval() }

// take gives the messages that go out next: live reports, all that waits in
// one; from a backlog, what falls into one slot of twice the interval; events
// and stream messages one by one; where nothing is paced, each record by itself.
func (l *lane) take() []message {
	if l.dissection != nil {
		return []message{{record: l.dissection.parts[0]}}
	}
	if l.again != nil {
		return []message{*l.again}
	}
	records, stored := l.peek(batch)
	if len(records) == 0 {
		return nil
	}
	slot := 2 * l.bucket.interval()
	if l.late(records[0].Time) {
		slot = 2 * l.bucket.late()
	}
	switch {
	case l.doubt.probes() && len(records) > 1:
		m := single(records[1:2], stored[1:2])
		m[0].probe = true
		return m
	case stored[0].Seq <= l.alone:
		return single(records[:1], stored)
	case slot == 0:
		return single(records, stored)
	case l.kind != ReportRecord:
		return single(records[:1], stored)
	}
	n := 1
	for n < len(records) && records[n].Time.Sub(records[0].Time).Abs() < slot {
		n++
	}
	return []message{{record: merge(records[:n]), first: stored[0].Seq, last: stored[n-1].Seq, merged: n}}
}

// single gives each record as a message.
func single(records []Record, stored []buffer.Record) []message {
	messages := make([]message, len(records))
	for i := range messages {
		messages[i] = message{record: records[i], first: stored[i].Seq, last: stored[i].Seq, merged: 1}
	}
	return messages
}

// peek reads the oldest records, up to the first one that is a gap or can't be
// read; at the very front, a gap becomes an event and the unreadable is put aside.
func (l *lane) peek(limit int) ([]Record, []buffer.Record) {
	stored, err := l.buffer.Peek(l.name, limit)
	if err != nil {
		l.log.Error("read buffer", "lane", l.name, "error", err)
		l.next = time.Now().Add(time.Second)
		return nil, nil
	}
	records := make([]Record, 0, len(stored))
	for i := range stored {
		if stored[i].Class == buffer.Gap {
			if i == 0 && l.tellGap() {
				return l.peek(limit)
			}
			break
		}
		r, err := ParseRecord(stored[i].Data)
		if err == nil {
			records = append(records, r)
			continue
		}
		if i == 0 {
			l.quarantine(stored[0].Seq, err.Error())
			l.next = time.Now().Add(retryAtLeast)
		}
		break
	}
	return records, stored[:len(records)]
}

func (l *lane) confirmed(messages []message, t ticket) {
	if len(messages) == 0 {
		return
	}
	l.bucket.taken(t)
	l.stats.LastConfirmed.Store(time.Now().UnixNano())
	if l.dissection != nil {
		if l.dissection.parts = l.dissection.parts[1:]; len(l.dissection.parts) == 0 {
			l.settle()
		}
		return
	}
	if messages[0].probe && !l.unconfirmable() {
		return // the record in front of it is still there
	}
	l.buffer.Ack(l.name, messages[len(messages)-1].last)
	l.again, l.doubt = nil, doubt{}
	for _, m := range messages {
		l.stats.Confirmed.Add(1)
		l.stats.Merged.Add(int64(m.merged - 1))
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
	case errors.Is(err, ErrTooFast):
		l.stats.TooFast.Add(1)
		l.bucket.tooFast(t)
	case errors.As(err, &refusal):
		l.refuse(m, refusal.Error())
		wait = refusedWait
	case errors.Is(err, ErrUnanswered):
		l.unanswered(m)
	case errors.Is(err, ErrLost):
		l.lost(m)
	}
	l.next = time.Now().Add(jitter(wait))
}

// jitter makes a wait up to an eighth longer.
func jitter(d time.Duration) time.Duration { return d + rand.N(d/8+1) }

// quarantine puts a record aside and tells whether that worked.
func (l *lane) quarantine(seq uint64, reason string) bool {
	if err := l.buffer.Quarantine(l.name, seq, reason); err != nil {
		l.log.Error("put record aside", "lane", l.name, "record", seq, "error", err)
		return false
	}
	l.stats.Quarantined.Add(1)
	l.log.Warn("record put aside in quarantine", "lane", l.name, "record", seq, "reason", reason)
	return true
}
