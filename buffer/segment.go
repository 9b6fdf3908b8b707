package buffer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	segmentBits = 10  // a segment holds the records of 1,024 sequence numbers, and what was moved forward into it
	sparseLive  = 256 // a segment with at most so many live records may be moved together with its neighbours
	sparseRun   = 8   // segments moved together at least
	pressedDead = 64  // dead records that make moving worth while when the file is full
)

// segment is a bucket of records in the order of arrival, named by the last sequence numbers it can hold.
type segment struct {
	id    uint64
	total int // records on disk
	live  int // those that a lane still needs
}

func (b *Buffer) segmentIndex(id uint64) (int, bool) {
	return slices.BinarySearchFunc(b.segs, id, func(s *segment, id uint64) int { return cmp.Compare(s.id, id) })
}

// segmentFor returns the segment of that id, new if need be.
func (b *Buffer) segmentFor(id uint64) *segment {
	i, ok := b.segmentIndex(id)
	if !ok {
		b.segs = slices.Insert(b.segs, i, &segment{id: id})
	}
	return b.segs[i]
}

// shareIn returns the lane's share of a segment, new if need be.
func (l *lane) shareIn(seg *segment) *share {
	i, ok := slices.BinarySearchFunc(l.shares, seg.id, func(s *share, id uint64) int { return cmp.Compare(s.seg.id, id) })
	if !ok {
		l.shares = slices.Insert(l.shares, i, &share{seg: seg})
	}
	return l.shares[i]
}

// onDisk puts a record that is on disk now into the account of its lane and segment.
func (l *lane) onDisk(seg *segment, seq uint64, class Class) {
	if seq <= l.acked {
		return
	}
	s := l.shareIn(seg)
	s.live++
	s.attrs = s.attrs || class == Attributes
	seg.live++
	l.disk++
	if n := len(l.head); n > 0 && seq < l.head[n-1].Seq {
		l.head = nil
	}
}

// sparse finds neighbouring segments that hold little more than what slow lanes left behind, or nil. They must be older than
// everything that is still to be written, so that order by segment stays order by number.
func (b *Buffer) sparse(oldestPending uint64) []*segment {
	b.mu.Lock()
	defer b.mu.Unlock()
	var run []*segment
	live := 0
	for i, s := range b.segs {
		closed := i < len(b.segs)-1 && s.id < oldestPending>>segmentBits
		if closed && s.live <= sparseLive && live+s.live <= 1<<segmentBits {
			run = append(run, s)
			live += s.live
			continue
		}
		if len(run) >= sparseRun {
			return run
		}
		run, live = nil, 0
	}
	if len(run) >= sparseRun {
		return run
	}
	return nil
}

// wasteful finds a single segment that is mostly acknowledged records, or nil.
func (b *Buffer) wasteful() []*segment {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.segs {
		if dead := s.total - s.live; dead >= pressedDead && s.live <= sparseLive {
			return []*segment{s}
		}
	}
	return nil
}

// oldestWith finds the oldest segment with records that may be dropped, or nil.
func (b *Buffer) oldestWith(class Class) []*segment {
	b.mu.Lock()
	defer b.mu.Unlock()
	var oldest *segment
	for _, l := range b.lanes {
		for _, s := range l.shares {
			if (s.attrs || class == Event) && s.live > 0 {
				if oldest == nil || s.seg.id < oldest.id {
					oldest = s.seg
				}
				break
			}
		}
	}
	if oldest == nil {
		return nil
	}
	return []*segment{oldest}
}

// move is one rewriting of a run of segments into the last of them.
type move struct {
	run    []*segment
	drop   func(Class) bool
	prune  int // 0: write anew; else only delete, and so many records at most
	acked  map[uint32]uint64
	frozen []*pending // one that a failed commit has stored is still on the account of memory, and will be stored again
	total  int        // records on disk afterwards
	kept   []entry    // those that are needed
	lost   []entry
}

type entry struct {
	lane  uint32
	seq   uint64
	class Class
	time  time.Time
}

func (m *move) target() uint64 { return m.run[len(m.run)-1].id }

// rewrite replaces a run of segments by one with the records that are still needed and not to be dropped; none at all if nothing is left.
func (b *Buffer) rewrite(run []*segment, drop func(Class) bool) error {
	return b.move(&move{run: run, drop: drop})
}

// move changes where records are on disk. Lanes can't read or acknowledge meanwhile. It is called with writer.
func (b *Buffer) move(m *move) error {
	b.layout.Lock()
	defer b.layout.Unlock()
	m.acked, m.frozen = map[uint32]uint64{}, b.frozen
	b.mu.Lock()
	for id, l := range b.byID {
		m.acked[id] = l.acked
	}
	b.mu.Unlock()
	if err := b.update(m.apply); err != nil {
		return fmt.Errorf("rewrite %d segments of buffer %s: %w", len(m.run), b.path, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settleMove(m)
	return nil
}

func (m *move) apply(tx *bolt.Tx) error {
	m.kept, m.lost, m.total = nil, nil, 0
	all := tx.Bucket(segmentsBucket)
	var keys, values [][]byte
	for _, s := range m.run {
		bucket := all.Bucket(key(s.id))
		if bucket == nil {
			continue
		}
		c := bucket.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			m.total++
			if m.keep(k, v) {
				keys, values = append(keys, k), append(values, v)
			}
		}
	}
	if m.prune > 0 {
		return m.deleteLost(all.Bucket(key(m.target())))
	}
	for _, s := range m.run {
		if err := deleteSegment(all, s.id); err != nil {
			return err
		}
	}
	if m.total = len(keys); m.total == 0 {
		return nil
	}
	bucket, err := openSegment(all, m.target())
	if err != nil {
		return err
	}
	for i := range keys {
		if err := bucket.Put(keys[i], values[i]); err != nil {
			return err
		}
	}
	return nil
}

func (m *move) deleteLost(bucket *bolt.Bucket) error {
	if bucket == nil {
		return nil
	}
	m.total -= len(m.lost)
	for _, e := range m.lost {
		if err := bucket.Delete(key(e.seq)); err != nil {
			return err
		}
	}
	return nil
}

func (m *move) keep(k, v []byte) bool {
	if !intact(k, v) {
		return false
	}
	e := entry{laneOf(v), seqOf(k), classOf(v), timeOf(v)}
	if acked, ok := m.acked[e.lane]; !ok || e.seq <= acked || contains(m.frozen, e.seq) {
		return false
	}
	if m.drop(e.class) && (m.prune == 0 || len(m.lost) < m.prune) {
		m.lost = append(m.lost, e)
		return false
	}
	m.kept = append(m.kept, e)
	return true
}

// settleMove makes memory say what the file says now. What is neither kept nor dropped was damaged.
func (b *Buffer) settleMove(m *move) {
	before := map[*lane]int{}
	for _, l := range b.lanes {
		before[l] = l.disk
		l.shares = slices.DeleteFunc(l.shares, func(s *share) bool {
			if slices.Contains(m.run, s.seg) {
				l.disk -= s.live
				return true
			}
			return false
		})
	}
	first, _ := b.segmentIndex(m.run[0].id)
	b.segs = slices.Delete(b.segs, first, first+len(m.run))
	if m.total > 0 {
		seg := b.segmentFor(m.target())
		seg.total = m.total
		for _, e := range m.kept {
			l := b.byID[e.lane]
			head := l.head
			l.onDisk(seg, e.seq, e.class)
			l.head = head
		}
	}
	for _, e := range m.lost {
		l := b.byID[e.lane]
		l.head = nil
		b.lose(l, CauseFull, e.time)
		before[l]--
	}
	for l, n := range before {
		if n > l.disk {
			b.corrupt(l, n-l.disk)
		}
	}
}

func openSegment(all *bolt.Bucket, id uint64) (*bolt.Bucket, error) {
	bucket, err := all.CreateBucketIfNotExists(key(id))
	if err != nil {
		return nil, err
	}
	bucket.FillPercent = 1 // records are only ever added at the end
	return bucket, nil
}

// deleteSegment deletes a segment that may be gone: a commit that returned an error may have happened.
func deleteSegment(all *bolt.Bucket, id uint64) error {
	if err := all.DeleteBucket(key(id)); err != nil && !errors.Is(err, berrors.ErrBucketNotFound) {
		return err
	}
	return nil
}
