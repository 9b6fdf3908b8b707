package buffer

import (
	"cmp"
	"errors"
	"slices"

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
	gaps  int // at most so many of those are gaps

	// By the low bits of its number, the lane of each record that was needed when it came, plus one: so a lane finds its records without a look
	// at all others. None where records were moved into the segment.
	lanes []uint16
	moved bool
}

const mostIndexed = 1<<16 - 1 // lanes with a higher number look through their segments

// index notes the lane of a record.
func (s *segment) index(seq uint64, lane uint32) {
	if seq>>segmentBits != s.id {
		s.moved, s.lanes = true, nil
	}
	if s.moved || lane >= mostIndexed {
		return
	}
	if s.lanes == nil {
		s.lanes = make([]uint16, 1<<segmentBits)
	}
	s.lanes[seq&(1<<segmentBits-1)] = uint16(lane + 1)
}

// seek is the first record from a number on that may be the lane's.
func (s *segment) seek(c *bolt.Cursor, lane uint32, seq uint64) (k, v []byte) {
	if s.lanes == nil || lane >= mostIndexed {
		return c.Seek(key(seq))
	}
	first := s.id << segmentBits
	i := slices.Index(s.lanes[min(max(seq, first)-first, 1<<segmentBits):], uint16(lane+1))
	if i < 0 {
		return nil, nil
	}
	return c.Seek(key(max(seq, first) + uint64(i)))
}

// next is the one after.
func (s *segment) next(c *bolt.Cursor, lane uint32, seq uint64) (k, v []byte) {
	if s.lanes == nil || lane >= mostIndexed {
		return c.Next()
	}
	if i := seq + 1 - s.id<<segmentBits; i < 1<<segmentBits && s.lanes[i] == uint16(lane+1) {
		return c.Next()
	}
	return s.seek(c, lane, seq+1)
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

// shareIndex is where the lane's share of a segment is, or where it would be.
func (l *lane) shareIndex(id uint64) (int, bool) {
	return slices.BinarySearchFunc(l.shares, id, func(s *share, id uint64) int { return cmp.Compare(s.seg.id, id) })
}

// shareIn returns the lane's share of a segment, new if need be.
func (l *lane) shareIn(seg *segment) *share {
	i, ok := l.shareIndex(seg.id)
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
	if class != Gap && (s.oldest == 0 || seq < s.oldest) {
		s.oldest = seq
	}
	switch class {
	case Attributes:
		s.attrs = true
	case Event:
		s.events = true
	case Gap:
		seg.gaps++
	}
	seg.live++
	seg.index(seq, l.id)
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
	live, before := 0, min(oldestPending>>segmentBits, b.firstHeld(nil))
	for i, s := range b.segs {
		closed := i < len(b.segs)-1 && s.id < before
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
	held := b.firstHeld(nil)
	for _, s := range b.segs {
		if dead := s.total - s.live; dead >= pressedDead && s.live <= sparseLive && s.id < held {
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
			if (s.attrs || class == Event && s.events) && s.live > 0 {
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

// withGaps puts in front of a run the segment before it, if that is mostly gaps: so the gaps of both are merged. Like those of sparse, it must
// be older than everything that is still to be written.
func (b *Buffer) withGaps(run []*segment) []*segment {
	oldest := b.oldestPending() >> segmentBits
	b.mu.Lock()
	defer b.mu.Unlock()
	i, ok := b.segmentIndex(run[0].id)
	if !ok || i == 0 {
		return run
	}
	if run[0].id > oldest { // and a gap would get behind one
		return run
	}
	if s := b.segs[i-1]; s.gaps == 0 || s.live-s.gaps > sparseLive || s.id >= oldest {
		return run
	}
	return slices.Insert(slices.Clone(run), 0, b.segs[i-1])
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
