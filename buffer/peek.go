package buffer

import (
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// Peek returns up to limit of the oldest records of the lane, and about 256 KB of those on disk. It removes nothing. It ends in front of an
// event that is not yet on disk, since an Ack beyond that event would confirm it unseen; when the disk has failed for a second, events don't wait for it. Damaged records are left out and counted.
func (b *Buffer) Peek(name string, limit int) ([]Record, error) { return b.PeekAfter(name, 0, limit) }

// PeekAfter is Peek of the records behind a sequence number, for who merges more of them than Peek returns.
func (b *Buffer) PeekAfter(name string, after uint64, limit int) ([]Record, error) {
	l := b.find(name)
	if l == nil || limit <= 0 {
		return nil, nil
	}
	l.reading.Lock()
	defer l.reading.Unlock()
	b.layout.RLock()
	defer b.layout.RUnlock()
	var records []Record
	if err := b.look(l, after, limit, func(r []Record) { records = r }); err != nil {
		return nil, fmt.Errorf("read lane %s of buffer %s: %w", name, b.path, err)
	}
	return records, nil
}

// look shows what Peek returns, under all locks.
func (b *Buffer) look(l *lane, after uint64, limit int, show func([]Record)) error {
	b.mu.Lock()
	unsure, undecided, diskless := l.unsure, l.undecided, b.diskless()
	after = max(after, l.confirmed)
	b.mu.Unlock()
	switch {
	case unsure, undecided && !diskless: // who confirms what is behind a record that is put back would confirm it unseen
		return nil
	case undecided || after > 0:
		return b.lookAfter(l, after, limit, show)
	}
	if err := b.fillHead(l, limit); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	show(l.visible(l.head, l.disk > len(l.head), 0, limit, b.diskless()))
	return nil
}

// lookAfter is look beyond the head.
func (b *Buffer) lookAfter(l *lane, after uint64, limit int, show func([]Record)) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return errClosed
	}
	after = max(after, l.acked)
	segs := l.segmentsAfter(after)
	if l.undecided { // they may be in any, and what is known of these may not be so
		segs = nil
		for _, s := range b.segs {
			segs = append(segs, &segment{id: s.id})
		}
	}
	b.mu.Unlock()
	chunk, ended, err := b.read(l.id, segs, after, limit, readBytes)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	chunk = slices.DeleteFunc(chunk, func(r Record) bool { return l.holds(r.Seq) }) // its commit is not finished
	show(l.visible(chunk, !ended, after, limit, b.diskless()))
	return nil
}

// segmentsAfter are those that may hold records of the lane behind a number.
func (l *lane) segmentsAfter(seq uint64) (segs []*segment) {
	first, _ := l.shareIndex(seq >> segmentBits)
	for _, s := range l.shares[first:] {
		segs = append(segs, s.seg)
	}
	return segs
}

// visible merges records on disk, behind which there may be more, with what is in memory behind a number, and with events there only if they
// don't wait for the disk.
func (l *lane) visible(head []Record, more bool, after uint64, limit int, diskless bool) []Record {
	first, _ := position(l.mem, after+1)
	mem := l.mem[first:]
	out := make([]Record, 0, min(limit, len(head)+len(mem)))
	for _, p := range mem {
		for len(head) > 0 && head[0].Seq < p.seq && len(out) < limit {
			out, head = append(out, head[0]), head[1:]
		}
		older := len(head) == 0 && more // on disk, and not read
		if older || p.hidden || p.class == Event && !diskless || len(out) == limit {
			return out
		}
		out = append(out, p.record())
	}
	return append(out, head[:min(len(head), limit-len(out))]...)
}

// fillHead reads on from the disk if the head is shorter than wanted.
func (b *Buffer) fillHead(l *lane, limit int) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return errClosed
	}
	budget := readBytes
	for _, r := range l.head {
		budget -= len(r.Data)
	}
	if len(l.head) >= limit || l.disk <= len(l.head) || len(l.head) > 0 && budget <= 0 {
		b.mu.Unlock()
		return nil
	}
	from := l.acked
	if n := len(l.head); n > 0 {
		from = l.head[n-1].Seq
	}
	segs := l.segmentsAfter(from)
	want := max(limit-len(l.head), readAhead)
	b.mu.Unlock()

	chunk, ended, err := b.read(l.id, segs, from, want, budget)
	if err != nil {
		return err
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	chunk = slices.DeleteFunc(chunk, func(r Record) bool { return l.holds(r.Seq) }) // its commit is not finished
	if len(l.head) > 0 {
		chunk = slices.Concat(l.head, chunk)
	}
	l.head = chunk
	if lost := l.disk - len(l.head); ended && lost > 0 && !l.unsure {
		l.recount()
		b.corrupt(l, lost)
	}
	return nil
}

// read copies the lane's records after a sequence number out of the given segments; ended means that there are no more.
func (b *Buffer) read(id uint32, segs []*segment, from uint64, want, budget int) (chunk []Record, ended bool, err error) {
	err = b.view(func(tx *bolt.Tx) error {
		chunk = make([]Record, 0, min(want, 4*readAhead))
		all := tx.Bucket(segmentsBucket)
		for _, seg := range segs {
			bucket := all.Bucket(key(seg.id))
			if bucket == nil {
				continue
			}
			c := bucket.Cursor()
			for k, v := seg.seek(c, id, from+1); k != nil; k, v = seg.next(c, id, seqOf(k)) {
				if len(v) < headerSize || laneOf(v) != id || !b.wanted(k, v) {
					continue
				}
				if len(chunk) >= want || budget <= 0 {
					return nil
				}
				chunk = append(chunk, decode(k, v))
				budget -= len(v)
			}
		}
		ended = true
		return nil
	})
	return chunk, ended, err
}

// wanted tells whether a stored record is one to show.
func (b *Buffer) wanted(k, v []byte) bool { return intact(k, v) && (b.opt.Gaps || classOf(v) != Gap) }

// recount makes the account of the lane say what was found, once all of it is in the head.
func (l *lane) recount() {
	for _, s := range l.shares {
		s.seg.live -= s.live
		s.live = 0
	}
	for _, r := range l.head {
		s := l.shareOf(r.Seq)
		s.live++
		s.seg.live++
	}
	l.disk = len(l.head)
	l.shares = slices.DeleteFunc(l.shares, func(s *share) bool { return s.live == 0 })
}
