package buffer

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const never = time.Duration(1<<63 - 1)

// run is the buffer's goroutine: it commits what is due until Close.
func (b *Buffer) run() {
	defer close(b.done)
	timer := time.NewTimer(never)
	defer timer.Stop()
	for {
		wait := b.due(time.Now())
		if wait <= 0 {
			b.note(b.commit(false))
			b.reportLosses()
			wait = b.due(time.Now())
		}
		timer.Reset(min(max(wait, 0), turnEvery))
		b.turned.Store(true)
		select {
		case <-b.quit:
			return
		case <-b.kick:
			b.reportLosses()
		case <-timer.C:
		}
	}
}

// due is how long the next commit may wait.
func (b *Buffer) due(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.failedSince.IsZero() {
		return b.retryAt.Sub(now)
	}
	if b.undecided != nil || b.unsure != nil || b.waiting[Event].Len() > 0 || b.unsaved >= maxUnsaved || b.bytes > b.opt.MaxMemory/2 || b.reserveDue() {
		return 0
	}
	wait := b.ages.due(now)
	for _, class := range []Class{Attributes, Gap} {
		if e := b.waiting[class].Front(); e != nil {
			wait = min(wait, e.Value.(*pending).added.Add(b.opt.Flush).Sub(now))
		}
	}
	if !b.dirtySince.IsZero() {
		wait = min(wait, b.dirtySince.Add(b.opt.Flush).Sub(now))
	}
	return wait
}

func (b *Buffer) reserveDue() bool { return b.reserved-b.next < b.opt.block/2 }

// diskless tells whether commits fail, and not just once: then events don't wait to be on disk.
func (b *Buffer) diskless() bool {
	return !b.failedSince.IsZero() && time.Since(b.failedSince) >= eventPatience
}

// note keeps the back-off, and logs when commits begin to fail and when they work again.
func (b *Buffer) note(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if err == nil {
		if !b.failedSince.IsZero() {
			b.opt.Log.Info("buffer is written again", "file", b.path, "after", now.Sub(b.failedSince).Round(time.Millisecond))
		}
		b.failedSince, b.retryWait = time.Time{}, 0
		return
	}
	if b.failedSince.IsZero() {
		b.failedSince = now
		b.opt.Log.Error("buffer can't be written, records stay in memory", "file", b.path, "err", err)
	}
	if b.diskless() {
		for _, l := range b.lanes {
			if len(l.mem) > 0 || l.undecided {
				signal(l.ready)
			}
		}
	}
	b.retryWait = min(maxRetry, max(b.opt.retry, 2*b.retryWait))
	b.retryAt = now.Add(b.retryWait/2 + rand.N(b.retryWait/2+1))
}

// work is what one transaction does.
type work struct {
	batch    []*pending
	left     map[uint64]bool // Buffer.left
	marks    []mark          // positions of lanes
	dead     []*segment      // needed by no lane
	reserved uint64          // 0: as it is
	ages     []byte          // nil: as they are
	acks     int
	since    time.Time
}

type mark struct {
	lane  *lane
	acked uint64
}

func (w *work) empty() bool {
	return len(w.batch)+len(w.left) == 0 && len(w.marks) == 0 && w.reserved == 0 && w.ages == nil
}

// commit writes what is due, or all that one transaction takes, and then tidies up.
func (b *Buffer) commit(all bool) error {
	b.writer.Lock()
	defer b.writer.Unlock()
	if err := b.heal(); err != nil {
		b.mu.Lock()
		b.count.Failures++
		b.mu.Unlock()
		return err
	}
	b.tick(time.Now())
	w := b.take(all)
	if !w.empty() {
		if err := b.store(w); err != nil {
			b.giveBack(w)
			return fmt.Errorf("commit to buffer %s: %w", b.path, err)
		}
		b.settle(w)
	}
	err := b.tidy()
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		return nil // another time
	}
	return err
}

func (b *Buffer) tidy() error {
	if err := b.expire(time.Now()); err != nil {
		return err
	}
	if err := b.joinTails(); err != nil {
		return err
	}
	if run := b.sparse(b.oldestPending()); run != nil {
		return b.rewrite(run, dropNothing, "")
	}
	return nil
}

// take collects the work. The batch of a failed commit is taken again as it was.
func (b *Buffer) take(all bool) *work {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.frozen) == 0 {
		b.frozen = b.pick(time.Now(), all)
	}
	b.letGo()
	w := &work{batch: b.frozen, left: b.left, acks: b.unsaved, since: b.dirtySince}
	fresh := map[*lane]bool{}
	for _, p := range w.batch {
		if !p.lane.saved {
			fresh[p.lane] = true
		}
	}
	for _, l := range b.lanes {
		if l.dirty || fresh[l] {
			w.marks = append(w.marks, mark{l, b.position(l, w.batch)})
			l.dirty = w.marks[len(w.marks)-1].acked < l.acked
		}
	}
	held := b.firstHeld(w.batch)
	for _, s := range b.segs {
		if s.live == 0 && s.id < held {
			w.dead = append(w.dead, s)
		}
	}
	if b.reserveDue() {
		w.reserved = b.reserved + b.opt.block
	}
	w.ages = b.ages.take(!w.empty() || b.stored())
	b.unsaved, b.dirtySince = 0, time.Time{}
	return w
}

// stored tells whether records that are still needed are on disk.
func (b *Buffer) stored() bool {
	for _, l := range b.lanes {
		if l.disk > 0 {
			return true
		}
	}
	return false
}

// pick freezes the next batch: all events and gaps, and the attributes of lanes whose oldest has waited for half of Flush. Such a lane isn't
// being confirmed in time, and taking it as a whole makes one commit of what would be many.
func (b *Buffer) pick(now time.Time, all bool) []*pending {
	all = all || b.bytes > b.opt.MaxMemory/2
	var batch []*pending
	room := b.batchLimit()
	flush := map[*lane]bool{}
	for _, class := range []Class{Event, Gap, Attributes} {
		for e := b.waiting[class].Front(); e != nil; {
			p, elem := e.Value.(*pending), e
			e = e.Next()
			if class == Attributes && !all {
				if _, seen := flush[p.lane]; !seen {
					flush[p.lane] = now.Sub(p.added) >= b.opt.Flush/2
				}
				if !flush[p.lane] {
					continue
				}
			}
			if room -= p.size(); room < 0 && len(batch) > 0 {
				break
			}
			b.waiting[class].Remove(elem)
			p.frozen = true
			batch = append(batch, p)
		}
	}
	slices.SortFunc(batch, func(p, q *pending) int { return cmp.Compare(p.seq, q.seq) })
	return batch
}

// giveBack makes the positions of a failed commit dirty again.
func (b *Buffer) giveBack(w *work) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range w.marks {
		m.lane.dirty = true
	}
	b.unsaved += w.acks
	if !w.since.IsZero() {
		b.dirtySince = w.since
	}
	b.ages.dirty = b.ages.dirty || w.ages != nil
	b.count.Failures++
}

// settle makes memory say what the file says now.
func (b *Buffer) settle(w *work) {
	b.layout.Lock()
	defer b.layout.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.segs = slices.DeleteFunc(b.segs, func(s *segment) bool { return s.live == 0 && slices.Contains(w.dead, s) })
	lanes := map[*lane]bool{}
	for _, p := range w.batch {
		seg := b.segmentFor(p.seq >> segmentBits)
		seg.total++
		p.lane.see(p.seq, p.class, p.cause())
		if p.lane.onDisk(seg, p.seq, p.class); p.class == Event {
			signal(p.lane.ready)
		}
		b.bytes -= p.size()
		p.frozen = false
		lanes[p.lane] = true
	}
	for l := range lanes {
		l.mem = slices.DeleteFunc(l.mem, func(p *pending) bool { return contains(w.batch, p.seq) })
	}
	for _, m := range w.marks {
		m.lane.saved = true
	}
	if w.reserved != 0 {
		b.reserved = w.reserved
	}
	b.frozen = nil
	clear(b.left)
	b.letGo()
}

// contains tells whether a list of records in order has a number.
func contains(list []*pending, seq uint64) bool {
	_, ok := position(list, seq)
	return ok
}

func position(list []*pending, seq uint64) (int, bool) {
	return slices.BinarySearchFunc(list, seq, func(p *pending, seq uint64) int { return cmp.Compare(p.seq, seq) })
}

// apply does the work in a transaction. It may run several times for the same work.
func (w *work) apply(tx *bolt.Tx) error {
	for _, m := range w.marks {
		if err := putMark(tx, m.lane.name, m.lane.id, m.acked); err != nil {
			return err
		}
	}
	if w.reserved != 0 {
		if err := putReserved(tx, w.reserved); err != nil {
			return err
		}
	}
	if w.ages != nil {
		if err := tx.Bucket(metaBucket).Put(agesKey, w.ages); err != nil {
			return err
		}
	}
	all := tx.Bucket(segmentsBucket)
	for _, s := range w.dead {
		if err := deleteSegment(all, s.id); err != nil {
			return err
		}
	}
	for seq := range w.left {
		if seg := all.Bucket(key(seq >> segmentBits)); seg != nil {
			if err := seg.Delete(key(seq)); err != nil {
				return err
			}
		}
	}
	var bucket *bolt.Bucket
	open := ^uint64(0)
	for _, p := range w.batch {
		if id := p.seq >> segmentBits; id != open {
			var err error
			if bucket, err = openSegment(all, id); err != nil {
				return err
			}
			open = id
		}
		if err := bucket.Put(key(p.seq), p.value); err != nil {
			return err
		}
	}
	return nil
}

func putMark(tx *bolt.Tx, name string, id uint32, acked uint64) error {
	k := []byte("/" + name)
	value := binary.BigEndian.AppendUint32(nil, id)
	return tx.Bucket(lanesBucket).Put(k, sealed(k, binary.BigEndian.AppendUint64(value, acked)))
}

func putReserved(tx *bolt.Tx, n uint64) error {
	return tx.Bucket(metaBucket).Put(reservedKey, sealed(reservedKey, key(n)))
}

// markDirty notes that a position has to be written.
func (b *Buffer) markDirty(l *lane) {
	l.dirty = true
	first := b.dirtySince.IsZero()
	if first {
		b.dirtySince = time.Now()
	}
	if first || b.unsaved >= maxUnsaved {
		signal(b.kick)
	}
}
