package buffer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// ErrNotFound tells that a record is not in the lane: acknowledged, dropped, or never there.
var ErrNotFound = errors.New("no such record")

// Quarantined is a record that was taken out of its lane.
type Quarantined struct {
	Lane   string
	Reason string
	Record
}

// Quarantine takes one record out of its lane and keeps it aside with the reason; both are on disk at return. ErrNotFound if the
// lane doesn't hold it. Quarantined records take at most an eighth of Options.MaxSize: the oldest make room for a new one.
func (b *Buffer) Quarantine(name string, seq uint64, reason string) error {
	if err := b.setAside(name, seq, reason); err != nil {
		return fmt.Errorf("quarantine record %d of lane %s in buffer %s: %w", seq, name, b.path, err)
	}
	return nil
}

// QuarantineNew keeps a record aside that is in no lane, as if it had been in this one, and returns its number; it is on disk at return.
func (b *Buffer) QuarantineNew(name string, class Class, t time.Time, data []byte, reason string) (uint64, error) {
	seq, err := b.setNewAside(name, encode(class, t, data), reason)
	if err != nil {
		return 0, fmt.Errorf("quarantine a new record of lane %s in buffer %s: %w", name, b.path, err)
	}
	return seq, nil
}

// Quarantined lists what is in quarantine, oldest first. Damaged records are left out.
func (b *Buffer) Quarantined() ([]Quarantined, error) {
	var out []Quarantined
	b.layout.RLock()
	defer b.layout.RUnlock()
	err := b.view(func(tx *bolt.Tx) error {
		return tx.Bucket(quarantineBucket).ForEach(func(k, v []byte) error {
			if q, ok := decodeQuarantined(k, v); ok {
				out = append(out, q)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list quarantine of buffer %s: %w", b.path, err)
	}
	return out, nil
}

func (b *Buffer) setAside(name string, seq uint64, reason string) error {
	l := b.find(name)
	if l == nil {
		return ErrNotFound
	}
	if b.isPending(l, seq) {
		if err := b.Sync(context.Background()); err != nil {
			return err
		}
	}
	b.writer.Lock()
	defer b.writer.Unlock()
	return b.makingRoom(func() error { return b.moveAside(l, seq, reason) })
}

func (b *Buffer) setNewAside(name string, value []byte, reason string) (uint64, error) {
	b.writer.Lock()
	defer b.writer.Unlock()
	b.mu.Lock()
	if b.closed || b.next == b.reserved {
		defer b.mu.Unlock()
		if b.closed {
			return 0, errClosed
		}
		return 0, errNoNumbers
	}
	l, seq := b.lane(name), b.next
	b.next++
	b.mu.Unlock()
	seal(value, seq, l.id)
	return seq, b.makingRoom(func() error {
		b.layout.Lock()
		defer b.layout.Unlock()
		return b.putAside(&aside{lane: l, seq: seq, fresh: value, reason: reason}, func() { b.count.Appended++ })
	})
}

// makingRoom does something to the file that needs room. It is called with writer.
func (b *Buffer) makingRoom(do func() error) error {
	if err := b.heal(); err != nil {
		return err
	}
	for {
		err := do()
		if !errors.Is(err, berrors.ErrMaxSizeReached) {
			return err
		}
		if freed, dropErr := b.makeRoom(&work{}); dropErr != nil {
			return dropErr
		} else if !freed {
			return err
		}
	}
}

func (b *Buffer) isPending(l *lane, seq uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return l.holds(seq)
}

// moveAside moves a record that is on disk, while no lane reads.
func (b *Buffer) moveAside(l *lane, seq uint64, reason string) error {
	b.layout.Lock()
	defer b.layout.Unlock()
	b.mu.Lock()
	closed, s := b.closed, l.holder(seq)
	b.mu.Unlock()
	switch {
	case closed:
		return errClosed
	case s == nil:
		return ErrNotFound
	}
	return b.putAside(&aside{lane: l, seg: s.seg.id, seq: seq, reason: reason}, func() { l.tookAside(s, seq) })
}

// putAside commits the change, and then makes memory say the same.
func (b *Buffer) putAside(a *aside, settle func()) error {
	a.limit, a.before = b.opt.MaxSize/8, b.quarantine
	changed := a.lane
	if a.fresh != nil {
		changed = nil
	}
	if err := b.update(a.apply); err != nil {
		b.undoLater(changed, a.undo)
		return err
	}
	b.quarantine = a.after
	b.mu.Lock()
	defer b.mu.Unlock()
	settle()
	b.count.Quarantined++
	b.evicted(a.evicted)
	return nil
}

// trimQuarantine lets the oldest go where the quarantine is larger than it may be now.
func (b *Buffer) trimQuarantine() error {
	a := &aside{limit: b.opt.MaxSize / 8, before: b.quarantine}
	if a.before <= a.limit {
		return nil
	}
	if err := b.update(func(tx *bolt.Tx) error { return a.evict(tx.Bucket(quarantineBucket), 0) }); err != nil {
		return err
	}
	b.quarantine = a.after
	b.mu.Lock()
	defer b.mu.Unlock()
	b.evicted(a.evicted)
	return nil
}

// evicted counts records that had to leave the quarantine, and puts gaps for them at the ends of their lanes.
func (b *Buffer) evicted(records []stored) {
	if len(records) == 0 {
		return
	}
	b.count.Evicted += uint64(len(records))
	b.opt.Log.Warn("quarantine is full, its oldest records are lost", "file", b.path, "count", len(records))
	losses := map[*lane]Loss{}
	for _, r := range records {
		if q, ok := decodeQuarantined(r.key, r.value); ok && b.lanes[q.Lane] != nil {
			l := b.lanes[q.Lane]
			g := Loss{CauseQuarantine, 1, q.Time, q.Time}
			g.add(losses[l])
			losses[l] = g
		}
	}
	for l, g := range losses {
		b.appendGap(l, g)
	}
}

// holder is the share that may hold an unacknowledged record on disk, or nil.
func (l *lane) holder(seq uint64) *share {
	if seq <= l.acked || len(l.shares) == 0 || seq>>segmentBits > l.shares[len(l.shares)-1].seg.id {
		return nil
	}
	return l.shareOf(seq)
}

// tookAside takes a record off the account of its lane and segment.
func (l *lane) tookAside(s *share, seq uint64) {
	s.seg.total--
	s.seg.live--
	if s.live--; s.live == 0 { // the segment may go, and come back as another
		l.shares = slices.DeleteFunc(l.shares, func(x *share) bool { return x == s })
	}
	l.disk--
	if n := l.headUpTo(seq); n > 0 && l.head[n-1].Seq == seq {
		l.head = append(l.head[:n-1:n-1], l.head[n:]...)
	}
}

// aside is the move of one record into quarantine.
type aside struct {
	lane    *lane
	seg     uint64
	seq     uint64
	fresh   []byte // the record, where it is in no segment
	reason  string
	limit   int64
	before  int64 // bytes in quarantine
	after   int64
	evicted []stored
	value   []byte // of the record
}

type stored struct{ key, value []byte }

func (a *aside) apply(tx *bolt.Tx) error {
	k := key(a.seq)
	v := a.fresh
	seg := tx.Bucket(segmentsBucket).Bucket(key(a.seg))
	if v == nil {
		if seg == nil {
			return ErrNotFound
		}
		v = seg.Get(k)
		if v == nil || !intact(k, v) || laneOf(v) != a.lane.id {
			return ErrNotFound
		}
	}
	a.value = bytes.Clone(v)
	value := sealed(k, append(appendText(appendText(nil, a.lane.name), a.reason), v...))
	quarantine := tx.Bucket(quarantineBucket)
	if err := a.evict(quarantine, int64(len(value))); err != nil {
		return err
	}
	if a.fresh == nil {
		if err := seg.Delete(k); err != nil {
			return err
		}
	}
	return quarantine.Put(k, value)
}

// evict deletes the oldest until a new one of that size fits.
func (a *aside) evict(quarantine *bolt.Bucket, size int64) error {
	a.after, a.evicted = a.before+size, nil
	c := quarantine.Cursor()
	for k, v := c.First(); k != nil && a.after > a.limit; k, v = c.Next() {
		a.after -= int64(len(v))
		a.evicted = append(a.evicted, stored{bytes.Clone(k), bytes.Clone(v)})
	}
	for _, old := range a.evicted {
		if err := quarantine.Delete(old.key); err != nil {
			return err
		}
	}
	return nil
}

// undo puts the record back where it was, and what made room for it.
func (a *aside) undo(tx *bolt.Tx) error {
	k, quarantine := key(a.seq), tx.Bucket(quarantineBucket)
	if quarantine.Get(k) == nil {
		return nil
	}
	if err := quarantine.Delete(k); err != nil {
		return err
	}
	for _, old := range a.evicted {
		if err := quarantine.Put(old.key, old.value); err != nil {
			return err
		}
	}
	if a.fresh != nil {
		return nil
	}
	seg, err := openSegment(tx.Bucket(segmentsBucket), a.seg)
	if err != nil {
		return err
	}
	return seg.Put(k, a.value)
}

func appendText(value []byte, text string) []byte {
	return append(binary.AppendUvarint(value, uint64(len(text))), text...)
}

func takeText(value []byte) (text string, rest []byte, ok bool) {
	n, used := binary.Uvarint(value)
	if used <= 0 || n > uint64(len(value)-used) {
		return "", nil, false
	}
	return string(value[used : used+int(n)]), value[used+int(n):], true
}

func decodeQuarantined(k, v []byte) (q Quarantined, ok bool) {
	if v, ok = unseal(k, v); !ok {
		return q, false
	}
	if q.Lane, v, ok = takeText(v); !ok {
		return q, false
	}
	if q.Reason, v, ok = takeText(v); !ok || !intact(k, v) {
		return q, false
	}
	q.Record = decode(k, v)
	return q, true
}
