package buffer

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sync"

	bolt "go.etcd.io/bbolt"
)

const (
	readAhead = 256       // records read from disk at least, so that a consumer of single records doesn't search each time
	readBytes = 256 << 10 // bytes of a lane's head on disk that are held in memory, but for the last record
)

// lane is a position and a filter: its records are those in the shared segments that carry its id and come after the position.
type lane struct {
	name    string
	id      uint32
	ready   chan struct{}
	reading sync.Mutex // one Peek or Ack at a time

	acked  uint64 // everything up to here is done
	dirty  bool   // acked covers records on disk and is itself not on disk
	saved  bool   // the lane is known on disk
	disk   int    // unacknowledged records on disk
	shares []*share
	head   []Record   // the oldest of the records on disk, without a gap
	mem    []*pending // records not on disk, oldest first
	newest uint64     // highest number of a record on disk that is no gap
	tails  []tail     // gaps on disk with nothing behind them
	unsure bool       // a change of what is on disk will be undone: until then, it is not read, and what can't be found isn't lost

	undecided bool   // where its records are on disk is not known
	confirmed uint64 // acknowledged meanwhile
}

// share is what a lane has in a segment.
type share struct {
	seg    *segment
	live   int    // unacknowledged records
	attrs  bool   // some of them may be attributes
	events bool   // some of them may be events
	oldest uint64 // no record that is no gap has a lower number; 0: there is none
}

// lane returns the lane of that name, new if need be. It becomes known on disk with its first record.
func (b *Buffer) lane(name string) *lane {
	l := b.lanes[name]
	if l == nil {
		l = b.addLane(name, b.nextLane)
	}
	return l
}

func (b *Buffer) addLane(name string, id uint32) *lane {
	l := &lane{name: name, id: id, ready: make(chan struct{}, 1)}
	b.lanes[name] = l
	b.byID[id] = l
	b.nextLane = max(b.nextLane, id+1)
	return l
}

func (b *Buffer) find(name string) *lane {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lanes[name]
}

// Ready signals when something may be waiting in the lane: after an Append that Peek can see, after the commit of an event, and
// after Open if the lane isn't empty. A consumer calls Peek until nothing comes, then waits.
func (b *Buffer) Ready(name string) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lane(name).ready
}

// Len is the number of records in the lane that are not acknowledged, events on their way to the disk included.
func (b *Buffer) Len(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.lanes[name]; l != nil {
		return l.disk + len(l.mem)
	}
	return 0
}

// shareOf returns the share that holds a record on disk: the first whose segment doesn't end before it.
func (l *lane) shareOf(seq uint64) *share {
	i, _ := l.shareIndex(seq >> segmentBits)
	return l.shares[i]
}

// holds tells whether a record of the lane is in memory.
func (l *lane) holds(seq uint64) bool { return contains(l.mem, seq) }

func (l *lane) remove(seq uint64) {
	if i, ok := position(l.mem, seq); ok {
		l.mem = slices.Delete(l.mem, i, i+1)
	}
}

// headUpTo is how many records of the head have a number up to seq.
func (l *lane) headUpTo(seq uint64) int {
	i, _ := slices.BinarySearchFunc(l.head, seq+1, func(r Record, seq uint64) int { return cmp.Compare(r.Seq, seq) })
	return i
}

// Ack says that all records of the lane up to a sequence number are done. One that is not on disk is never written. The position
// is on disk with the next commit, at the latest after Options.Flush or 1,000 acknowledged records.
func (b *Buffer) Ack(name string, upTo uint64) {
	b.acking(name, func(l *lane) { b.ack(l, upTo) })
}

// acking does something to a lane, if there is one, with all locks that an
// acknowledgement takes.
func (b *Buffer) acking(name string, do func(*lane)) {
	l := b.find(name)
	if l == nil {
		return
	}
	l.reading.Lock()
	defer l.reading.Unlock()
	b.layout.RLock()
	defer b.layout.RUnlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	do(l)
}

// ack is Ack with all locks.
func (b *Buffer) ack(l *lane, upTo uint64) {
	upTo = min(upTo, b.next-1)
	if upTo <= l.acked {
		return
	}
	if l.undecided { // what is on disk of it is counted later
		l.confirmed = max(l.confirmed, upTo)
		if b.ackMemory(l, upTo) {
			b.markDirty(l)
		}
		return
	}
	n := l.headUpTo(upTo)
	if n == len(l.head) && l.disk > n && (n == 0 || upTo > l.head[n-1].Seq) {
		n = b.countOnDisk(l, upTo)
	}
	changed := b.ackDisk(l, n, upTo)
	l.head = l.head[l.headUpTo(upTo):]
	changed = b.ackMemory(l, upTo) || changed
	l.acked = upTo
	if changed {
		b.markDirty(l)
	}
}

// countOnDisk counts the lane's records up to a number beyond the head. It is called with mu, and lets go of it while it reads.
func (b *Buffer) countOnDisk(l *lane, upTo uint64) int {
	n, from := 0, l.acked
	for _, s := range l.shares {
		if s.seg.id >= (upTo+1)>>segmentBits {
			b.mu.Unlock()
			seqs := b.seqs(l.id, s.seg.id, from, upTo)
			b.mu.Lock()
			for _, seq := range seqs {
				if !l.holds(seq) {
					n++
				}
			}
			break
		}
		n += s.live
	}
	return n
}

// seqs lists the lane's intact records of a segment in (from, upTo]. On an error the list is short: Ack puts that right when the
// lane leaves the segment.
func (b *Buffer) seqs(id uint32, seg, from, upTo uint64) (out []uint64) {
	_ = b.view(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(segmentsBucket).Bucket(key(seg))
		if bucket == nil {
			return nil
		}
		c := bucket.Cursor()
		for k, v := c.Seek(key(from + 1)); k != nil && seqOf(k) <= upTo; k, v = c.Next() {
			if b.wanted(k, v) && laneOf(v) == id {
				out = append(out, seqOf(k))
			}
		}
		return nil
	})
	return out
}

// ackDisk takes n records off the lane's account of the disk. Segments that the position leaves behind are settled whatever n says:
// a difference means damaged records.
func (b *Buffer) ackDisk(l *lane, n int, upTo uint64) bool {
	whole := 0
	for len(l.shares) > 0 && l.shares[0].seg.id < (upTo+1)>>segmentBits {
		s := l.shares[0]
		whole += s.live
		s.seg.live -= s.live
		l.shares = l.shares[1:]
	}
	rest := n - whole
	switch {
	case rest > 0 && len(l.shares) > 0:
		s := l.shares[0]
		rest = min(rest, s.live)
		s.live -= rest
		s.seg.live -= rest
		if s.live == 0 {
			l.shares = l.shares[1:]
		}
	case rest < 0:
		b.corrupt(l, -rest)
		rest = 0
	default:
		rest = 0
	}
	l.disk -= whole + rest
	n = min(n, whole+rest)
	b.count.Acked += uint64(n)
	b.unsaved += n
	return whole+rest > 0
}

// ackMemory drops the acknowledged records that are not on disk. It tells whether one of them may get there by the commit under way.
func (b *Buffer) ackMemory(l *lane, upTo uint64) bool {
	n, frozen := 0, false
	for n < len(l.mem) && l.mem[n].seq <= upTo {
		if p := l.mem[n]; p.frozen {
			frozen = true
		} else {
			b.forget(p)
		}
		n++
	}
	l.mem = slices.Delete(l.mem, 0, n)
	b.count.Acked += uint64(n)
	return frozen
}

func seqOf(key []byte) uint64 { return binary.BigEndian.Uint64(key) }
