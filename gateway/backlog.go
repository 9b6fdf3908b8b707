package gateway

import (
	"context"
	"slices"
	"time"

	"sluice/buffer"
)

// What becomes of the reports that wait when the cloud is there again. All keep
// every committed record until it is confirmed, superseded or in the history:
//
//   - replay sends them one slot after the other, oldest first.
//   - latest sends the newest value of each point, in one message. What it has
//     merged of a long backlog is in the buffer's small state, so that it can be
//     acknowledged before the message goes out.
//   - stream keeps what comes in while the cloud is away in a lane of its own,
//     the history, which goes out in batches with its times; the current values
//     go out first, as one report.
const (
	replay = "replay"
	latest = "latest"
	stream = "stream"
)

const (
	lateAfter  = 5 * time.Second // from then on a wait is an outage
	historyMax = 40_000          // stored bytes of the rows of one history message
	heldBucket = "latest"        // of the small state: by lane, what latest has merged
)

// behind tells whether a report has waited for so long that it is backlog.
func (l *lane) behind(t time.Time) bool {
	return l.clock.now().Sub(t).Abs() > l.batch.Within+max(lateAfter, 2*l.bucket.interval())
}

// held is what latest has merged of records that are acknowledged.
type held struct {
	record Record
	upTo   uint64
}

// takeLatest makes one message of all that waits.
func (l *lane) takeLatest(ctx context.Context) []message {
	for ctx.Err() == nil {
		m := message{whole: true}
		var g gathering
		var newest time.Time
		if l.held != nil {
			g.add(l.heldNow())
		}
		l.eachReport(ctx, func(r *Record, s buffer.Record) bool {
			g.add(r)
			m.include(s.Seq)
			newest = r.Time
			return m.merged < batch
		})
		if m.merged == 0 {
			return l.heldAlone()
		}
		if m.record, m.superseded = g.record, g.superseded; l.buffer.Len(l.name) <= m.merged || !l.behind(newest) || !l.hold(m.record, m.last) {
			return []message{m}
		}
		l.stats.Superseded.Add(int64(m.superseded))
		l.stats.Merged.Add(int64(m.merged))
	}
	return nil
}

// heldAlone is the message of what is held when nothing waits behind it, or what
// does has to go out by itself.
func (l *lane) heldAlone() []message {
	if l.held == nil {
		return nil
	}
	return []message{{record: *l.heldNow(), first: l.held.upTo, last: l.held.upTo, merged: 1, whole: true}}
}

// heldNow is what is held, without what was written since.
func (l *lane) heldNow() *Record {
	r := []Record{l.held.record}
	l.clock.mend(&r[0])
	l.stats.LeftOut.Add(int64(l.account.strip(r, []buffer.Record{{Seq: l.held.upTo}})))
	return &r[0]
}

// hold keeps what is merged of the records up to a number, and acknowledges them.
func (l *lane) hold(r Record, upTo uint64) bool {
	value := AppendRecord(appendSeq(nil, upTo), &r)
	if err := l.buffer.Put(heldBucket, l.name, value); err != nil {
		return false
	}
	l.held, l.released = &held{r, upTo}, false
	l.buffer.Ack(l.name, upTo)
	return true
}

// loadHeld finds what was held when the program ended.
func (l *lane) loadHeld() {
	value, err := l.buffer.Get(heldBucket, l.name)
	if err != nil || value == nil {
		return
	}
	p := recordReader{rest: value}
	upTo := p.uvarint()
	r, err := ParseRecord(p.rest)
	if p.err != nil || err != nil {
		l.log.Error("what the backlog was merged to is damaged", "lane", l.name)
		return
	}
	l.held = &held{r, upTo}
	l.buffer.Ack(l.name, upTo)
}

// release forgets what was held, once it is confirmed. On a disk that fails it
// stands for longer, but it is not sent again.
func (l *lane) release() {
	if l.held == nil && !l.released {
		return
	}
	l.held = nil
	l.released = l.buffer.Put(heldBucket, l.name, nil) != nil
}

// await waits until the cloud takes a record. Where there is a history, what
// comes in meanwhile goes there as soon as that is an outage.
func (l *lane) await(ctx context.Context) error {
	if l.account == nil || l.account.backlog != stream || l.kind != ReportRecord {
		return l.uplink.Await(ctx, l.kind, l.again != nil)
	}
	if l.doubt == (doubt{}) && l.dissection == nil && l.again == nil { // a platform that was silent for long answers again
		if records, _ := l.peek(1); len(records) > 0 && l.behind(records[0].Time) {
			l.divert(ctx)
		}
	}
	short, cancel := context.WithTimeout(ctx, lateAfter)
	defer cancel()
	err := l.uplink.Await(short, l.kind, l.again != nil)
	if err == nil || ctx.Err() != nil {
		return err
	}
	l.divert(ctx)
	return l.uplink.Await(ctx, l.kind, false)
}

// divertHeld moves to the history what a backlog of latest has held.
func (l *lane) divertHeld(ctx context.Context) {
	if l.held == nil {
		return
	}
	r := l.held.record
	l.account.putBack(r)
	appendTo(l.buffer, historyLane(l.user), buffer.Attributes, &r)
	if l.buffer.Sync(ctx) == nil {
		l.release()
	}
	l.held = nil
}

// divert moves the reports that wait to the history, and has what comes in from
// now on go there, until the current values are on their way. What the disk
// can't take stays where it is.
func (l *lane) divert(ctx context.Context) {
	l.again, l.doubt = nil, doubt{}
	for stuck := false; ctx.Err() == nil; {
		Turn(ctx)
		l.peek(1) // so that no gap stands in front
		moved, done := l.account.moveToHistory(l)
		if done || moved == 0 && (stuck || l.buffer.Sync(ctx) != nil) {
			return
		}
		stuck = moved == 0
	}
}

// moveToHistory moves the oldest reports. Where none is left, all that comes in
// goes to the history.
func (a *account) moveToHistory(l *lane) (moved int, done bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	records, stored := l.peek(batch)
	if n := len(stored); n > 0 {
		moved = a.buffer.Move(l.name, stored[n-1].Seq, historyLane(a.user), stored)
	}
	a.stripLocked(records, stored)
	for i := range moved {
		a.ahead.add(&records[i])
	}
	done = a.buffer.Len(l.name) == 0
	a.off = a.off || done
	return moved, done
}

// lock locks the account, or the one that a reload has made of it.
func (a *account) lock() *account {
	for {
		a.mu.Lock()
		if a.heir == nil {
			return a
		}
		heir := a.heir
		a.mu.Unlock()
		a = heir
	}
}

// keep puts a report into the buffer, and gives its number there.
func (a *account) keep(r Record) uint64 {
	a = a.lock()
	defer a.mu.Unlock()
	name := a.user
	if a.off {
		name = historyLane(a.user)
		r.Values = slices.Clone(r.Values) // the reporter makes its next report of them
		a.ahead.add(&r)
		wake(a.wake)
	}
	return appendTo(a.buffer, name, buffer.Attributes, &r)
}

// bequeath hands what is to go out ahead, and all that still comes in here, to
// the account that a reload has made of the same username.
func (a *account) bequeath(heir *account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heir = heir
	if len(a.ahead.record.Values) > 0 {
		heir.putBack(a.ahead.record)
	}
	heir.mu.Lock()
	defer heir.mu.Unlock()
	heir.losses.Store(a.losses.Load())
	heir.lanes[0].lossy = a.lanes[0].lossy // those of a have ended, those of heir not begun
	for name, seq := range a.written {
		heir.written[name] = max(seq, heir.written[name])
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// takeAhead takes what goes out before all that waits.
func (a *account) takeAhead() (r Record, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.ahead.record.Values) == 0 {
		return r, false
	}
	r, a.ahead, a.off, a.flying = a.ahead.record, gathering{}, false, true
	return r, true
}

// waitsAhead tells whether something goes out before all that waits.
func (a *account) waitsAhead() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.ahead.record.Values) > 0
}

// landed says that what takeAhead gave is done, or put aside.
func (a *account) landed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flying = false
}

// putBack takes back what takeAhead gave.
func (a *account) putBack(r Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := gathering{}
	g.add(&r)
	if len(a.ahead.record.Values) > 0 {
		g.add(&a.ahead.record)
	}
	a.ahead = g
	wake(a.wake)
}

// leaveNewer leaves out of a report what goes out ahead with a newer value.
func (a *account) leaveNewer(r *Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	newer := make(map[string]bool)
	for _, v := range a.ahead.record.Values {
		newer[v.Name] = true
	}
	r.Values = slices.DeleteFunc(slices.Clone(r.Values), func(v Attribute) bool { return newer[v.Name] })
}

// takeHistory makes a batch of the oldest records of a history.
func (l *lane) takeHistory(records []Record, stored []buffer.Record) []message {
	n, size := 0, 0
	switch {
	case stored[0].Seq <= l.alone:
		records = records[:1]
	case l.batch.Rows > 0:
		records = records[:min(len(records), l.batch.Rows)]
	}
	for n < len(records) && (n == 0 || size+len(stored[n].Data) <= historyMax) {
		size += len(stored[n].Data)
		n++
	}
	r := Record{Kind: HistoryRecord, Name: l.stream, Time: records[0].Time, Number: stored[0].Seq, Rows: records[:n]}
	return []message{{record: r, first: stored[0].Seq, last: stored[n-1].Seq, merged: n}}
}

// settleMerged acknowledges the records of a message. Reports whose values the
// pace has merged go to the history in the same step, where it keeps them.
func (l *lane) settleMerged(m message) {
	for len(m.older) > 0 {
		moved := l.buffer.Move(l.name, m.last, historyLane(l.user), m.older)
		if m.older = m.older[moved:]; moved == 0 { // memory is full: the buffer counts what it loses
			for _, r := range m.older {
				l.buffer.Append(historyLane(l.user), buffer.Attributes, r.Time, r.Data)
			}
			break
		}
	}
	l.buffer.Ack(l.name, m.last)
}
