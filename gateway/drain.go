package gateway

import (
	"sync"
	"time"
)

// LaneSnapshot is one queue towards the cloud.
type LaneSnapshot struct {
	Name    string
	User    string
	Kind    RecordKind
	Waiting int
	Oldest  time.Time     // of the records that wait; zero where none does
	Pace    time.Duration // shortest time between two messages now
	Mode    string        // what counts as delivered: puback, response, or auto while that is open

	// Drain is about how long it takes until nothing older waits, judged by the
	// last minutes; 0 where nothing does. A lane that doesn't get shorter has Grows.
	Drain time.Duration
	Grows bool
}

// show copies what others may see of a lane.
func (l *lane) show(now time.Time) LaneSnapshot {
	s := LaneSnapshot{Name: l.name, User: l.user, Kind: l.kind, Waiting: l.buffer.Len(l.name), Pace: l.bucket.interval(), Mode: l.mode()}
	if l.kind == ReportRecord && l.account.backlog != stream {
		s.Waiting += l.buffer.Len(historyLane(l.user)) // what a backlog of that kind has left goes out first
	}
	if stored, err := l.buffer.Peek(l.name, 1); err == nil && len(stored) > 0 {
		if r, err := ParseRecord(stored[0].Data); err == nil {
			l.clock.mend(&r)
			if !l.collects || l.behind(r.Time) { // a row that waits for others is no backlog
				s.Oldest = r.Time
			}
		}
	}
	if !s.Oldest.IsZero() && l.behind(s.Oldest) {
		s.Drain, s.Grows = l.drain.estimate(now, s.Waiting)
	}
	return s
}

// drain follows the length of a lane while it is confirmed.
type drain struct {
	mu    sync.Mutex
	marks []depth // the last of them, drainEvery apart
}

type depth struct {
	time    time.Time
	records int
}

const (
	drainEvery = 5 * time.Second
	drainMarks = 24
)

// note notes how many records wait.
func (d *drain) note(now time.Time, records int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.marks); n > 0 && now.Sub(d.marks[n-1].time) < drainEvery {
		return
	}
	if len(d.marks) == drainMarks {
		d.marks = append(d.marks[:0], d.marks[1:]...)
	}
	d.marks = append(d.marks, depth{now, records})
}

// estimate is how long a lane of that length still needs. What was noted before
// an outage says nothing of it: then the newest mark is too old.
func (d *drain) estimate(now time.Time, records int) (left time.Duration, grows bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	begin := len(d.marks)
	for begin > 0 && (begin == len(d.marks) && now.Sub(d.marks[begin-1].time) < time.Minute ||
		begin < len(d.marks) && d.marks[begin].time.Sub(d.marks[begin-1].time) < time.Minute) {
		begin--
	}
	if begin == len(d.marks) {
		return 0, true
	}
	first := d.marks[begin]
	gone, took := first.records-records, now.Sub(first.time)
	if gone <= 0 || took <= 0 {
		return 0, true
	}
	return time.Duration(float64(took) * float64(records) / float64(gone)), false
}
