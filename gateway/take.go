package gateway

import (
	"context"
	"slices"
	"time"

	"sluice/buffer"
)

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
		return l.takePart(ctx)
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

// takePart gives the next part of a refused report, or the probe behind it.
func (l *lane) takePart(ctx context.Context) []message {
	d, behind := l.dissection, 1
	if d.seq == 0 { // it went ahead
		behind = 0
		l.account.leaveNewer(&d.parts[0])
	} else {
		l.strip(d.parts[:1], []buffer.Record{{Seq: d.seq}})
	}
	if l.doubt.probes() {
		if m := l.probe(ctx, behind); len(m) > 0 && m[0].probe {
			return m
		}
	}
	return []message{{record: d.parts[0]}}
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
	return l.takeSlot(ctx, l.atLeast(slot))
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

// atLeast makes a slot longer where messages take so long that a backlog would
// never end: all of the last ones, since one that is late says nothing.
func (l *lane) atLeast(slot time.Duration) time.Duration {
	if took := slices.Min(l.took[:]); took > slot*5/8 {
		return 2 * took
	}
	return slot
}

// takeSlot makes one message of the reports of a slot.
func (l *lane) takeSlot(ctx context.Context, slot time.Duration) []message {
	var m message
	var g gathering
	var begin time.Time
	keeps, size := l.account.all && l.account.backlog == stream, 0
	l.eachReport(ctx, func(r *Record, s buffer.Record) bool {
		if m.merged == 0 {
			begin = r.Time
		} else if r.Time.Sub(begin).Abs() >= slot || size > olderMost {
			return false
		}
		if keeps {
			m.older, size = append(m.older, s), size+len(s.Data)
		}
		g.add(r)
		m.include(s.Seq)
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

// peek reads the oldest records, up to the first one that is a gap or can't be
// read; at the very front, a gap becomes an event and the unreadable is put aside.
// It ends with about batchValues values: a value takes ten times as much memory
// as in the buffer.
func (l *lane) peek(limit int) ([]Record, []buffer.Record) { return l.peekAfter(0, limit) }

// peekAfter is peek of the records behind a number; 0 for all.
func (l *lane) peekAfter(after uint64, limit int) ([]Record, []buffer.Record) {
	stored, err := l.buffer.PeekAfter(l.name, after, limit)
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
