package buffer

import (
	"encoding/binary"
	"slices"
	"time"
)

// The age of a record is the time that the buffer has been open since the record was appended, by the monotonic clock. Neither the time
// that the record carries nor the clock on the wall says how old it is: both may stand in 1970, or step by years when the network
// comes. What passes while the program is not running doesn't count, since no clock that a gate has tells how long that was: a record may be
// kept for longer than Options.MaxAge, never for less.
//
// Records carry no age. Instead, at every hundredth of MaxAge, the buffer notes which number comes next: all below are at least that old.
// So a record goes up to a hundredth late. The notes and the clock are in the file, sealed by a checksum.

const (
	ageSteps   = 100
	minAgeStep = time.Second
)

type ages struct {
	max    time.Duration // 0: records don't age
	base   time.Duration // time that the buffer has been open, until opened
	opened time.Time
	next   time.Duration // when the next mark is due
	marks  []ageMark
	dirty  bool // not on disk
}

// ageMark says that all numbers below were given out when the buffer had been open for so long.
type ageMark struct {
	seq uint64
	at  time.Duration
}

func (a *ages) clock(now time.Time) time.Duration { return a.base + now.Sub(a.opened) }

func (a *ages) step() time.Duration { return max(minAgeStep, a.max/ageSteps) }

// due is how long the next mark may wait.
func (a *ages) due(now time.Time) time.Duration {
	if a.max == 0 {
		return never
	}
	return a.next - a.clock(now)
}

// mark notes the next number, and forgets what is no longer of use.
func (a *ages) mark(next uint64, now time.Time) {
	if a.max == 0 {
		return
	}
	clock := a.clock(now)
	a.next = clock + a.step()
	a.marks = append(a.marks, ageMark{next, clock})
	old := 0
	for old+1 < len(a.marks) && clock-a.marks[old+1].at >= a.max {
		old++
	}
	a.marks = slices.Delete(a.marks, 0, old)
	a.dirty = true
}

// expired is the number below which everything is too old.
func (a *ages) expired(now time.Time) (seq uint64) {
	for _, m := range a.marks {
		if a.max > 0 && a.clock(now)-m.at >= a.max {
			seq = m.seq
		}
	}
	return seq
}

// take returns what is to be written, nil for nothing.
func (a *ages) take(worth bool) []byte {
	if !a.dirty || !worth {
		return nil
	}
	a.dirty = false
	value := binary.BigEndian.AppendUint64(nil, uint64(a.next-a.step()))
	for _, m := range a.marks {
		value = binary.BigEndian.AppendUint64(value, m.seq)
		value = binary.BigEndian.AppendUint64(value, uint64(m.at))
	}
	return sealed(agesKey, value)
}

// load starts the clock where the file says that it stood. Damaged marks are forgotten: then records get older than they should.
func (a *ages) load(value []byte, maxAge time.Duration, now time.Time) {
	*a = ages{max: maxAge, opened: now}
	value, ok := unseal(agesKey, value)
	if !ok || len(value)%16 != 8 {
		a.next = a.step()
		return
	}
	a.base = time.Duration(binary.BigEndian.Uint64(value))
	a.next = a.base + a.step()
	for value = value[8:]; len(value) > 0; value = value[16:] {
		a.marks = append(a.marks, ageMark{seqOf(value), time.Duration(binary.BigEndian.Uint64(value[8:]))})
	}
}

// tick makes the mark that is due.
func (b *Buffer) tick(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ages.due(now) <= 0 {
		b.ages.mark(b.next, now)
	}
}

// expire drops what is too old, also what could not be written for so long. It is called with writer.
func (b *Buffer) expire(now time.Time) error {
	pending := b.oldestPending() >> segmentBits
	b.mu.Lock()
	limit := b.ages.expired(now)
	if limit > 0 {
		b.expireMemory(limit)
	}
	runs := b.expiredRuns(limit, pending)
	b.mu.Unlock()
	for _, run := range runs {
		old := func(e entry) bool { return e.seq < limit }
		if err := b.dropOf(run, old, CauseAge); err != nil {
			return err
		}
	}
	return nil
}

func (b *Buffer) expireMemory(limit uint64) {
	for _, class := range []Class{Attributes, Event} {
		for e := b.waiting[class].Front(); e != nil && e.Value.(*pending).seq < limit; e = b.waiting[class].Front() {
			b.losePending(e.Value.(*pending), CauseAge)
		}
	}
}

// expiredRuns lists the segments that may hold records with a number below the limit: whole ones several at a time, and the one
// that is only partly below by itself. It is asked with each commit, so it looks at no other segment.
func (b *Buffer) expiredRuns(limit, pending uint64) (runs [][]*segment) {
	const together = 32
	var run []*segment
	first := uint64(0) // number that the segment may begin with
	for _, s := range b.segs {
		if first >= limit {
			break
		}
		whole := s.id < limit>>segmentBits
		holds := b.mayExpire(s, limit)
		if holds && whole && len(run) < together && (run == nil || s.id <= pending) {
			run = append(run, s)
		} else {
			if run != nil {
				runs = append(runs, run)
			}
			if run = nil; holds {
				run = []*segment{s}
			}
			if !whole && run != nil {
				runs, run = append(runs, run), nil
			}
		}
		first = (s.id + 1) << segmentBits
	}
	if run != nil {
		runs = append(runs, run)
	}
	return runs
}

// mayExpire tells whether a lane still needs records of the segment that are no gaps and below the limit.
func (b *Buffer) mayExpire(seg *segment, limit uint64) bool {
	for _, l := range b.lanes {
		i, ok := l.shareIndex(seg.id)
		if s := l.shares; ok && s[i].live > 0 && s[i].oldest > 0 && max(s[i].oldest, l.acked+1) < limit {
			return true
		}
	}
	return false
}
