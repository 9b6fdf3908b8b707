package buffer

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// hold keeps a gap on disk, although it is acknowledged, until what was made of it is there: a batch that was frozen before, or is full,
// doesn't have the event.
type hold struct {
	lane  *lane
	gap   uint64
	event *pending
}

// position is how far a lane is done when no more than a batch gets on disk.
func (b *Buffer) position(l *lane, batch []*pending) uint64 {
	done := l.acked
	for _, h := range b.holds {
		if h.lane == l && !contains(batch, h.event.seq) {
			done = min(done, h.gap-1)
		}
	}
	return done
}

// firstHeld is the first segment that holds have something in when no more than a batch gets on disk.
func (b *Buffer) firstHeld(batch []*pending) uint64 {
	first := uint64(math.MaxUint64)
	for _, h := range b.holds {
		if !contains(batch, h.event.seq) {
			first = min(first, h.gap>>segmentBits)
		}
	}
	return first
}

// letGo ends what a commit has made good, or the consumer of the event has.
func (b *Buffer) letGo() {
	b.holds = slices.DeleteFunc(b.holds, func(h hold) bool { return !h.event.lane.holds(h.event.seq) })
}

// handOver says that a record in memory tells now what another told.
func (b *Buffer) handOver(from, to *pending) {
	for i := range b.holds {
		if b.holds[i].event == from {
			b.holds[i].event = to
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
	if err := b.fillHead(l, 1); err != nil {
		return false, fmt.Errorf("read lane %s of buffer %s: %w", name, b.path, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	front := l.visible(1, b.diskless())
	if len(front) == 0 {
		return false, nil
	}
	loss, ok := front[0].Loss()
	if !ok || b.closed {
		return false, nil
	}
	if data := event(loss); data != nil {
		if b.next == b.reserved {
			return false, nil // the disk has to be written before there are numbers again
		}
		b.count.Appended++
		now := time.Now()
		p := &pending{lane: b.lane(to), class: Event, time: now, added: now, value: encode(Event, now, data)}
		b.enqueue(p)
		b.holds = append(b.holds, hold{l, front[0].Seq, p})
		signal(b.kick)
	}
	b.ack(l, front[0].Seq)
	b.boundMemory()
	return true, nil
}
