package buffer

import (
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// move is one rewriting of a run of segments into the last of them.
type move struct {
	run    []*segment
	drop   func(entry) bool
	cause  Cause // of what is dropped
	leaves bool  // what is dropped leaves gaps
	prune  int   // 0: write anew; else only delete, and so many records at most
	acked  map[uint32]uint64
	done   map[uint32]uint64 // by lane, up to where records may be gone: acked, but for what is held
	memory map[uint32]uint64 // by lane, the oldest record that is not on disk: no gap is moved across it
	frozen []*pending        // one that a failed commit has stored is still on the account of memory, and will be stored again
	left   map[uint64]bool   // or deleted
	result
}

// result is what a move has come to; it is made anew each time the transaction runs.
type result struct {
	slots []slot
	open  map[uint32][]int // by lane, the gaps that the next one may be merged with: indices of slots
	total int              // records on disk afterwards
	lost  []entry
	gaps  map[uint32]int // by lane, gaps made less those merged
}

// slot is a record that stays, or a gap that comes.
type slot struct {
	entry
	key, value []byte
	changed    bool // not as it stands in the file
	gone       bool // merged into a later one
}

type entry struct {
	lane  uint32
	seq   uint64
	class Class
	time  time.Time
}

func (m *move) target() uint64 { return m.run[len(m.run)-1].id }

// rewrite replaces a run of segments by one with the records that are still needed and not to be dropped; none at all if nothing is left.
func (b *Buffer) rewrite(run []*segment, drop func(entry) bool, cause Cause) error {
	return b.move(&move{run: run, drop: drop, cause: cause})
}

// move changes where records are on disk. Lanes can't read or acknowledge meanwhile. It is called with writer.
func (b *Buffer) move(m *move) error {
	b.layout.Lock()
	defer b.layout.Unlock()
	m.leaves = b.opt.Gaps
	m.acked, m.done, m.memory, m.frozen, m.left = map[uint32]uint64{}, map[uint32]uint64{}, map[uint32]uint64{}, b.frozen, b.left
	b.mu.Lock()
	for id, l := range b.byID {
		m.acked[id], m.done[id] = l.acked, b.position(l, nil)
		if len(l.mem) > 0 {
			m.memory[id] = l.mem[0].seq
		}
	}
	b.mu.Unlock()
	err := b.rearrange(b.limit(0), m.apply, func() []*lane { return b.lanesIn(m.run) }, func() { b.settleMove(m) })
	if err != nil {
		return fmt.Errorf("rewrite %d segments of buffer %s: %w", len(m.run), b.path, err)
	}
	return nil
}

// lanesIn are those with records in a run.
func (b *Buffer) lanesIn(run []*segment) (lanes []*lane) {
	for _, l := range b.lanes {
		if slices.ContainsFunc(l.shares, func(s *share) bool { return slices.Contains(run, s.seg) }) {
			lanes = append(lanes, l)
		}
	}
	return lanes
}

func (m *move) apply(tx *bolt.Tx) error {
	m.result = result{open: map[uint32][]int{}, gaps: map[uint32]int{}}
	all := tx.Bucket(segmentsBucket)
	for _, s := range m.run {
		bucket := all.Bucket(key(s.id))
		if bucket == nil {
			continue
		}
		c := bucket.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			m.total++
			m.sort(k, v)
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
	m.slots = slices.DeleteFunc(m.slots, func(s slot) bool { return s.gone })
	if m.total = len(m.slots); m.total == 0 {
		return nil
	}
	bucket, err := openSegment(all, m.target())
	if err != nil {
		return err
	}
	for _, s := range m.slots {
		if err := bucket.Put(s.key, s.value); err != nil {
			return err
		}
	}
	return nil
}

// deleteLost changes a segment where it is.
func (m *move) deleteLost(bucket *bolt.Bucket) error {
	if bucket == nil {
		return nil
	}
	stays := map[uint64]bool{}
	for _, s := range m.slots {
		var err error
		if stays[s.seq] = !s.gone; s.gone {
			err = bucket.Delete(s.key)
		} else if s.changed {
			err = bucket.Put(s.key, s.value)
		}
		if err != nil {
			return err
		}
		if s.gone {
			m.total--
		}
	}
	for _, e := range m.lost {
		if _, known := stays[e.seq]; known {
			continue
		}
		m.total--
		if err := bucket.Delete(key(e.seq)); err != nil {
			return err
		}
	}
	m.slots = slices.DeleteFunc(m.slots, func(s slot) bool { return s.gone })
	return nil
}

// sort decides what becomes of a record.
func (m *move) sort(k, v []byte) {
	if !intact(k, v) {
		return
	}
	e := entry{laneOf(v), seqOf(k), classOf(v), timeOf(v)}
	if done, ok := m.done[e.lane]; !ok || e.seq <= done || contains(m.frozen, e.seq) || m.left[e.seq] {
		return
	}
	switch {
	case e.seq <= m.acked[e.lane]:
		m.slots = append(m.slots, slot{entry: e, key: k, value: v})
	case e.class == Gap:
		if g, ok := decodeLoss(v[headerSize:]); ok && m.leaves {
			m.addGap(slot{entry: e, key: k, value: v}, g)
		}
	case m.drop(e) && (m.prune == 0 || len(m.lost) < m.prune):
		m.lost = append(m.lost, e)
		if m.leaves {
			m.gaps[e.lane]++
			e.class = Gap
			m.addGap(slot{entry: e, key: k, changed: true}, Loss{m.cause, 1, e.time, e.time})
		}
	default:
		delete(m.open, e.lane)
		m.slots = append(m.slots, slot{entry: e, key: k, value: v})
	}
}

// addGap merges a gap with an earlier one of its cause, if nothing but gaps stands between.
func (m *move) addGap(s slot, g Loss) {
	open := m.open[s.lane]
	if first, ok := m.memory[s.lane]; ok && first < s.seq {
		open = nil
	}
	for i, at := range open {
		other, ok := decodeLoss(m.slots[at].value[headerSize:])
		if !ok || other.Cause != g.Cause {
			continue
		}
		m.slots[at].gone = true
		m.gaps[s.lane]--
		g.add(other)
		s.changed = true
		open = slices.Delete(open, i, i+1)
		break
	}
	if s.changed {
		s.time = g.To
		s.value = g.value(s.seq, s.lane)
	}
	m.open[s.lane] = append(open, len(m.slots))
	m.slots = append(m.slots, s)
}

// settleMove makes memory say what the file says now. What is neither there nor dropped was damaged.
func (b *Buffer) settleMove(m *move) {
	before := map[*lane]int{}
	for _, l := range b.lanes {
		before[l] = l.disk + m.gaps[l.id]
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
		for _, s := range m.slots {
			b.settleSlot(seg, s)
		}
	}
	for _, e := range m.lost {
		l := b.byID[e.lane]
		l.head = nil
		b.lose(l, m.cause, e.time)
		before[l]--
	}
	b.settleTails(m)
	for id, n := range m.gaps {
		b.count.Gaps += n
		if l := b.byID[id]; n != 0 {
			l.head = nil
			signal(l.ready)
		}
	}
	for l, n := range before {
		if n > l.disk {
			b.corrupt(l, n-l.disk)
		}
	}
}

func (b *Buffer) settleSlot(seg *segment, s slot) {
	l := b.byID[s.lane]
	head := l.head
	l.onDisk(seg, s.seq, s.class)
	if l.head = head; !s.changed {
		return
	}
	l.head = nil // it shows what is no longer so
	if s.seq == l.newest {
		l.newest = s.seq - 1 // at most
	}
	l.tails = slices.DeleteFunc(l.tails, func(t tail) bool { return t.seq == s.seq })
	l.see(s.seq, Gap, causeOf(s.value))
}

// settleTails forgets the tails that were merged into others.
func (b *Buffer) settleTails(m *move) {
	there := map[uint64]bool{}
	for _, s := range m.slots {
		there[s.seq] = true
	}
	for _, l := range b.lanes {
		l.tails = slices.DeleteFunc(l.tails, func(t tail) bool { return t.seq>>segmentBits <= m.target() && !there[t.seq] })
	}
}
