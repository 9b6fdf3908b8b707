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

	first      parsed      // in the buffer
	next       time.Time   // not before this
	alone      uint64      // up to this number records go out by themselves: something is wrong with one of them
	again      *message    // goes out once more as it was
	doubt      doubt       // about the first record
	dissection *dissection // of the first record, once it is refused for good
	held       *held       // with backlog: latest
	released   bool        // what was held is confirmed, and still in the buffer
	forward    doubt       // about what goes ahead
	mute       *Record     // went ahead and was never answered: the next message is its probe
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
		if t, err := l.bucket.take(ctx, r); err == nil {
			l.publish(ctx, t, l.take(ctx))
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
		l.divertHeld(ctx)
		l.divert(ctx)
		return
	}
	past := l.account.newLane(historyLane(l.user), ReportRecord, l)
	past.loadHeld()
	past.work(ctx, true)
	l.lossy = l.lossy || past.lossy
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
	switch {
	case n == len(messages):
	case ctx.Err() == nil:
		l.failed(messages[n], t, err)
	case messages[n].ahead:
		l.account.putBack(messages[n].record) // for who comes next
	}
}

// rank is that of the message that goes out next; false if none waits.
func (l *lane) rank() (rank, bool) {
	if l.kind == ReportRecord && l.account.waitsAhead() {
		return rankReply, true
	}
	limit := 1
	if l.kind == EventRecord {
		limit = alarmsWithin
	}
	records, stored := l.peek(limit)
	l.patience = 0
	if len(records) == 0 {
		l.renew()
		return rankLive, l.dissection != nil || l.held != nil
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
	case HistoryRecord:
		if l.collects {
			return rankStream, l.complete(records[0].Time, len(stored[0].Data)) && l.clock.right()
		}
		return rankBacklog, l.clock.right()
	}
	if l.late(records[0].Time) {
		return rankBacklog, true
	}
	l.renew()
	return rankLive, true
}

// late tells whether older records wait: two slots have passed since.
func (l *lane) late(t time.Time) bool { return l.clock.now().Sub(t).Abs() > 2*l.bucket.interval() }

// take gives the messages that go out next: live reports, all that waits in
// one; from a backlog, what its mode says; events and stream messages one by one;
// where nothing is paced, each record by itself.
func (l *lane) take(ctx context.Context) []message {
	switch {
	case l.dissection != nil:
		if d := l.dissection; d.seq > 0 {
			l.strip(d.parts[:1], []buffer.Record{{Seq: d.seq}})
		}
		return []message{{record: l.dissection.parts[0]}}
	case l.again != nil && !l.outdated(l.again):
		return []message{*l.again}
	case l.kind != ReportRecord:
		return l.takeInOrder(ctx)
	}
	if r, ok := l.account.takeAhead(); ok {
		l.clock.mend(&r)
		return []message{{record: r, merged: 1, ahead: true}}
	}
	return l.takeReports(ctx)
}

// outdated tells whether something was written since a message was made, and
// forgets that it was to go out again then.
func (l *lane) outdated(m *message) bool {
	if l.kind != ReportRecord || l.account.strip([]Record{m.record}, []buffer.Record{{Seq: m.last}}) == 0 {
		return false
	}
	l.again = nil
	return true
}

// reports are the oldest reports, without what was written since.
func (l *lane) reports(limit int) ([]Record, []buffer.Record) {
	records, stored := l.peek(limit)
	l.strip(records, stored)
	return records, stored
}

// strip leaves out of reports what was written since.
func (l *lane) strip(records []Record, stored []buffer.Record) {
	if l.kind == ReportRecord {
		l.stats.LeftOut.Add(int64(l.account.strip(records, stored)))
	}
}

// eachReport shows the oldest reports, without what was written since, as long as
// use wants more.
func (l *lane) eachReport(ctx context.Context, use func(*Record, buffer.Record) bool) {
	for after, limit := uint64(0), batchFew; ctx.Err() == nil; limit = batch {
		Turn(ctx)
		records, stored := l.peekAfter(after, limit)
		if len(records) == 0 {
			return
		}
		for i := range records {
			l.strip(records[i:i+1], stored[i:i+1])
			if !use(&records[i], stored[i]) {
				return
			}
		}
		after = stored[len(stored)-1].Seq
	}
}

// takeReports gives the messages of the next slot.
func (l *lane) takeReports(ctx context.Context) []message {
	records, stored := l.peek(2)
	if len(records) == 0 {
		return l.heldAlone()
	}
	slot := 2 * l.bucket.interval()
	if l.late(records[0].Time) {
		slot = 2 * l.bucket.late()
	}
	alone := stored[0].Seq <= l.alone
	switch {
	case l.doubt.probes() && l.held != nil:
		return l.probe(ctx, 0)
	case l.doubt.probes() && len(records) > 1:
		return l.probe(ctx, 1)
	case l.held != nil && (alone || l.account.backlog != latest):
		return l.heldAlone()
	case alone:
		return single(l.reports(1))
	case l.account.backlog == latest && (l.held != nil || l.behind(records[0].Time)):
		return l.takeLatest(ctx)
	case slot == 0:
		return single(l.reports(l.bunch()))
	}
	return l.takeSlot(ctx, slot)
}

// bunch is how many records are handed over at once. Where each one waits for its
// answer, what is to go out ahead would wait for all of them.
func (l *lane) bunch() int {
	if mode := l.mode(); mode != "" && mode != "puback" {
		return 1
	}
	return batch
}

// mode is what counts as delivered; "" where the uplink doesn't say.
func (l *lane) mode() string {
	if u, ok := l.uplink.(interface{ Mode(RecordKind) string }); ok {
		return u.Mode(l.kind)
	}
	return ""
}

// takeSlot makes one message of the reports of a slot.
func (l *lane) takeSlot(ctx context.Context, slot time.Duration) []message {
	var m message
	var g gathering
	var begin time.Time
	keeps, size := l.account.all && l.account.backlog == stream, 0
	l.eachReport(ctx, func(r *Record, s buffer.Record) bool {
		if m.merged == 0 {
			begin, m.first = r.Time, s.Seq
		} else if r.Time.Sub(begin).Abs() >= slot || size > olderMost {
			return false
		}
		if keeps {
			m.older, size = append(m.older, s), size+len(s.Data)
		}
		g.add(r)
		m.last, m.merged = s.Seq, m.merged+1
		return true
	})
	if m.merged == 0 {
		return nil
	}
	if m.record = g.record; keeps {
		m.older = m.older[:m.merged-1]
	}
	return []message{m}
}

func (l *lane) takeInOrder(ctx context.Context) []message {
	records, stored := l.peek(batch)
	switch {
	case len(records) == 0:
		return nil
	case l.kind == HistoryRecord:
		return l.takeHistory(records, stored)
	case l.doubt.probes() && len(records) > 1:
		return l.probe(ctx, 1)
	case stored[0].Seq <= l.alone || l.bucket.interval() > 0:
		return single(records[:1], stored)
	}
	return single(records, stored)
}

// probe is the first record behind some others that has anything to send; where
// there is none, the first one of all.
func (l *lane) probe(ctx context.Context, behind int) []message {
	var first, found []message
	l.eachReport(ctx, func(r *Record, s buffer.Record) bool {
		m := message{record: *r, first: s.Seq, last: s.Seq, merged: 1}
		switch {
		case first == nil && behind > 0:
			first = []message{m}
		case l.kind != ReportRecord || len(r.Values) > 0:
			m.probe = true
			found = []message{m}
		}
		return found == nil
	})
	switch {
	case found != nil:
		return found
	case behind == 0:
		return l.heldAlone()
	}
	return first
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
// It ends with about batchValues values: a value takes ten times as much memory
// as in the buffer.
func (l *lane) peek(limit int) ([]Record, []buffer.Record) { return l.peekAfter(0, limit) }

// peekAfter is peek of the records behind a number; 0 for all.
func (l *lane) peekAfter(after uint64, limit int) ([]Record, []buffer.Record) {
	read := l.buffer.Peek
	if after > 0 {
		read = func(name string, limit int) ([]buffer.Record, error) { return l.buffer.PeekAfter(name, after, limit) }
	}
	stored, err := read(l.name, limit)
	if err != nil {
		l.log.Error("read buffer", "lane", l.name, "error", err)
		l.next = time.Now().Add(time.Second)
		return nil, nil
	}
	records := make([]Record, 0, len(stored))
	values := 0
	for i := range stored {
		front := i == 0 && after == 0
		if stored[i].Class == buffer.Gap {
			if front && l.tellGap() {
				return l.peek(limit)
			}
			break
		}
		if values > batchValues && i > 1 { // the second one may be a probe
			break
		}
		r, err := l.parse(front, &stored[i])
		if err == nil {
			l.clock.mend(&r)
			values += len(r.Values)
			records = append(records, r)
			continue
		}
		if front {
			l.quarantine(stored[0].Seq, err.Error())
			l.next = time.Now().Add(retryAtLeast)
		}
		break
	}
	return records, stored[:len(records)]
}

// parse reads a record. The one in front is asked for several times: by rank, and
// when it is sent.
func (l *lane) parse(front bool, s *buffer.Record) (Record, error) {
	if front && l.first.seq == s.Seq {
		return l.first.record, nil
	}
	r, err := ParseRecord(s.Data)
	if front && err == nil {
		l.first = parsed{s.Seq, r}
	}
	return r, err
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
	if l.dissection != nil {
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
	case errors.Is(err, ErrLost) && before.lost+1 >= 2*losses:
		l.quarantine(l.restore(&m.record), endsConnections)
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
	if err := l.buffer.Quarantine(l.name, seq, reason); err != nil {
		l.log.Error("put record aside", "lane", l.name, "record", seq, "error", err)
		return false
	}
	l.stats.Quarantined.Add(1)
	l.log.Warn("record put aside in quarantine", "lane", l.name, "record", seq, "reason", reason)
	return true
}
