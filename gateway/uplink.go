package gateway

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"sluice/buffer"
)

// lane takes the records of one username out of the buffer, in order, and
// hands them to the cloud. It deletes a record only when the cloud confirmed
// it.
type lane struct {
	name   string
	uplink Uplink
	buffer *buffer.Buffer
	stats  *Stats
	log    *slog.Logger
	beat   Beat

	pace       pace
	backlog    time.Duration // between two messages while older records wait
	next       time.Time     // not before this
	alone      bool          // the first record goes out by itself: a message that held it was refused
	refused    int           // times that it was refused then
	dissection *dissection   // of the first record, once it is refused for good

	paceShown atomic.Int64 // the pace, for other goroutines
}

// message is a record on its way: merged of several, acknowledged together.
type message struct {
	record Record
	last   uint64 // sequence number of its last record
	merged int    // records in it
}

const (
	batch        = 1000 // records taken at once: the most that one message merges
	retryAtLeast = 100 * time.Millisecond
)

// run publishes until ctx ends.
func (l *lane) run(ctx context.Context) {
	ctx = WithBeat(ctx, &l.beat)
	for ctx.Err() == nil {
		l.paceShown.Store(int64(l.pace.now()))
		_ = Sleep(ctx, time.Until(l.next))
		messages := l.take()
		if len(messages) == 0 {
			select {
			case <-ctx.Done():
			case <-l.buffer.Ready(l.name):
			case <-time.After(TurnEvery):
			}
			continue
		}
		sent := time.Now()
		records := make([]Record, len(messages))
		for i, m := range messages {
			records[i] = m.record
		}
		n, err := l.uplink.Publish(ctx, records)
		l.confirmed(messages[:n], sent)
		if n < len(messages) && ctx.Err() == nil {
			l.failed(messages[n], sent, err)
		} else {
			l.next = sent.Add(l.pause(messages, sent))
		}
	}
}

// pause is the time until the next message may follow these.
func (l *lane) pause(messages []message, sent time.Time) time.Duration {
	if len(messages) > 1 || l.late(messages[0].record.Time) {
		return max(l.backlog, l.pace.slower)
	}
	return l.pace.next(sent)
}

// late tells whether older records wait: two slots have passed since.
func (l *lane) late(t time.Time) bool { return time.Since(t).Abs() > 2*l.pace.now() }

// take gives the messages that go out next: live, all that waits in one; from
// a backlog, what falls into one slot of twice the interval; where nothing is
// paced, each record by itself.
func (l *lane) take() []message {
	if l.dissection != nil {
		return []message{{record: l.dissection.parts[0]}}
	}
	stored, err := l.buffer.Peek(l.name, batch)
	if err != nil {
		l.log.Error("read buffer", "lane", l.name, "error", err)
		l.next = time.Now().Add(time.Second)
		return nil
	}
	records, stored := l.parse(stored)
	if len(records) == 0 {
		return nil
	}
	slot := 2 * l.pace.now()
	if l.late(records[0].Time) {
		slot = 2 * max(l.backlog, l.pace.slower)
	}
	if slot == 0 || l.alone {
		return single(records, stored, l.alone)
	}
	n := 1
	for n < len(records) && records[n].Time.Sub(records[0].Time).Abs() < slot {
		n++
	}
	return []message{{record: merge(records[:n]), last: stored[n-1].Seq, merged: n}}
}

func single(records []Record, stored []buffer.Record, one bool) []message {
	n := len(records)
	if one {
		n = 1
	}
	messages := make([]message, n)
	for i := range messages {
		messages[i] = message{record: records[i], last: stored[i].Seq, merged: 1}
	}
	return messages
}

// parse reads stored records up to the first one that can't be read; one at
// the very front is put aside.
func (l *lane) parse(stored []buffer.Record) ([]Record, []buffer.Record) {
	records := make([]Record, 0, len(stored))
	for i := range stored {
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

func (l *lane) confirmed(messages []message, sent time.Time) {
	if len(messages) == 0 {
		return
	}
	l.pace.taken(sent)
	l.stats.LastConfirmed.Store(time.Now().UnixNano())
	if l.dissection != nil {
		if l.dissection.parts = l.dissection.parts[1:]; len(l.dissection.parts) == 0 {
			l.settle()
		}
		return
	}
	l.buffer.Ack(l.name, messages[len(messages)-1].last)
	l.refused, l.alone = 0, false
	for _, m := range messages {
		l.stats.Confirmed.Add(1)
		l.stats.Merged.Add(int64(m.merged - 1))
	}
}

// failed decides what becomes of the first message that was not confirmed. It
// stays where it is, unless the cloud refused it for good.
func (l *lane) failed(m message, sent time.Time, err error) {
	var refusal *Refusal
	wait := retryAtLeast
	switch {
	case errors.Is(err, ErrTooFast):
		l.stats.TooFast.Add(1)
		l.pace.tooFast(sent)
		wait = l.pace.now()
	case errors.As(err, &refusal):
		l.refuse(m, refusal.Error())
		wait = time.Second
	}
	l.next = time.Now().Add(wait + rand.N(wait/8))
}

// refuse deals with the cloud's refusal of a message: what was merged is tried
// one by one, what is refused again and again is taken apart.
func (l *lane) refuse(m message, reason string) {
	switch {
	case l.dissection != nil:
		if l.dissection.refuse(reason); len(l.dissection.parts) == 0 {
			l.settle()
		}
	case m.merged > 1:
		l.alone = true
	default:
		l.alone = true
		if l.refused++; l.refused >= refusals {
			if l.dissection = newDissection(m.last, m.record, reason); len(l.dissection.parts) == 0 {
				l.settle()
			}
		}
	}
}

func (l *lane) quarantine(seq uint64, reason string) {
	if err := l.buffer.Quarantine(l.name, seq, reason); err != nil {
		l.log.Error("put record aside", "lane", l.name, "record", seq, "error", err)
		return
	}
	l.stats.Quarantined.Add(1)
	l.log.Warn("record put aside in quarantine", "lane", l.name, "record", seq, "reason", reason)
}
