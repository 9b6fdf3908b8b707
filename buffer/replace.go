package buffer

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// hold keeps records on disk, although they are acknowledged, until what took their place is there: a batch that was frozen before, or is
// full, doesn't have it.
type hold struct {
	lane  *lane
	first uint64   // of the records
	last  *pending // of what took their place, which gets on disk in order
}

// position is how far a lane is done when no more than a batch gets on disk.
func (b *Buffer) position(l *lane, batch []*pending) uint64 {
	done := l.acked
	for _, h := range b.holds {
		if h.lane == l && !contains(batch, h.last.seq) {
			done = min(done, h.first-1)
		}
	}
	return done
}

// firstHeld is the first segment that holds have something in when no more than a batch gets on disk.
func (b *Buffer) firstHeld(batch []*pending) uint64 {
	first := uint64(math.MaxUint64)
	for _, h := range b.holds {
		if !contains(batch, h.last.seq) {
			first = min(first, h.first>>segmentBits)
		}
	}
	return first
}

// letGo ends what a commit has made good, or the consumer of what took the place.
func (b *Buffer) letGo() {
	b.holds = slices.DeleteFunc(b.holds, func(h hold) bool { return !h.last.lane.holds(h.last.seq) })
}

// handOver says that a record in memory tells now what another told.
func (b *Buffer) handOver(from, to *pending) {
	for i := range b.holds {
		if b.holds[i].last == from {
			b.holds[i].last = to
		}
	}
}

// takeOver says that a record in memory takes the place of those of a lane up to a number, also where these took the place of others.
func (b *Buffer) takeOver(l *lane, upTo uint64, to *pending) {
	for i := range b.holds {
		switch h := b.holds[i]; {
		case h.last.lane != l || !l.holds(h.last.seq):
		case h.last.seq <= upTo:
			b.holds[i].last = to
		default: // of some of them
			b.holds = append(b.holds, hold{h.lane, h.first, to})
		}
	}
}

// ReplaceGap takes the gap at the front of a lane and puts the event that is made of it at the end of another, in one step: no commit has one
// without the other. It tells whether there was a gap that is gone now. Of an event of nil nothing is kept. The function is called under the
// buffer's locks: it must not call the buffer.
func (b *Buffer) ReplaceGap(name, to string, event func(Loss) []byte) (bool, error) {
	l := b.find(name)
	if l == nil {
		return false, nil
	}
	l.reading.Lock()
	defer l.reading.Unlock()
	b.layout.RLock()
	defer b.layout.RUnlock()
	done := false
	err := b.look(l, 0, 1, func(front []Record) { done = len(front) > 0 && b.replaceGap(l, front[0], to, event) })
	if err != nil {
		return false, fmt.Errorf("read lane %s of buffer %s: %w", name, b.path, err)
	}
	return done, nil
}

// replaceGap is ReplaceGap with all locks, for the record at the front.
func (b *Buffer) replaceGap(l *lane, front Record, to string, event func(Loss) []byte) bool {
	loss, ok := front.Loss()
	if !ok || b.closed {
		return false
	}
	if data := event(loss); data != nil {
		if b.next == b.reserved {
			return false // the disk has to be written before there are numbers again
		}
		b.count.Appended++
		now := time.Now()
		p := &pending{lane: b.lane(to), class: Event, time: now, added: now, value: encode(Event, now, data)}
		b.enqueue(p)
		b.takeOver(l, front.Seq, p)
		b.holds = append(b.holds, hold{l, front.Seq, p})
		signal(b.kick)
	}
	b.ack(l, front.Seq)
	b.boundMemory()
	return true
}

// Move puts records of a lane, as Peek gave them, at the end of another lane as attributes and acknowledges those up to a number, in one step: no
// commit has one without the other. It tells how many records it has moved: the oldest, as many as memory takes beside what waits for the
// disk. Unless that is all, it acknowledges no more than these.
func (b *Buffer) Move(name string, upTo uint64, to string, records []Record) (moved int) {
	b.acking(name, func(l *lane) { moved = b.shift(l, upTo, b.lane(to), records) })
	return moved
}

// shift is Move with all locks.
func (b *Buffer) shift(l *lane, upTo uint64, target *lane, records []Record) int {
	var last *pending
	n, now := 0, time.Now()
	for _, r := range records {
		p := &pending{lane: target, class: Attributes, time: r.Time, added: now, value: encode(Attributes, r.Time, r.Data)}
		if b.closed || b.bytes+p.size() > b.opt.MaxMemory/2 || b.next == b.reserved {
			break
		}
		b.enqueue(p)
		last = p
		n++
	}
	signal(b.kick)
	if n == 0 {
		return 0
	}
	if n < len(records) {
		upTo = records[n-1].Seq
	}
	b.count.Appended += uint64(n)
	b.takeOver(l, upTo, last)
	b.holds = append(b.holds, hold{l, records[0].Seq, last})
	b.ack(l, upTo)
	signal(target.ready)
	return n
}
