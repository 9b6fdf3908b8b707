package buffer

import (
	"fmt"
	"time"
)

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
		b.enqueue(&pending{lane: b.lane(to), class: Event, time: now, added: now, value: encode(Event, now, data)})
		signal(b.kick)
	}
	b.ack(l, front[0].Seq)
	b.boundMemory()
	return true, nil
}
