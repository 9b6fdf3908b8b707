package buffer

import (
	"bytes"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// QuarantineRetry puts a record back, at the end of its lane and under a new number, which it returns. It is on disk at return, and
// never in both places. ErrNotFound if the quarantine doesn't hold it.
func (b *Buffer) QuarantineRetry(seq uint64) (uint64, error) {
	b.writer.Lock()
	defer b.writer.Unlock()
	r, err := b.prepareRetry(seq)
	if err == nil {
		if err = b.outOfQuarantine(r); err != nil {
			b.withdraw(r)
			b.undoLater(r.lane, r.undo)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("retry record %d from quarantine of buffer %s: %w", seq, b.path, err)
	}
	return r.seq, nil
}

// QuarantineDrop deletes a record from quarantine. ErrNotFound if the quarantine doesn't hold it.
func (b *Buffer) QuarantineDrop(seq uint64) error {
	b.writer.Lock()
	defer b.writer.Unlock()
	if err := b.outOfQuarantine(&retry{from: seq}); err != nil {
		return fmt.Errorf("drop record %d from quarantine of buffer %s: %w", seq, b.path, err)
	}
	return nil
}

// retry is a record on its way out of quarantine; to no lane if it is dropped.
type retry struct {
	from  uint64
	lane  *lane
	seq   uint64
	class Class
	value []byte
	old   []byte // as it was in quarantine
}

// prepareRetry gives the record its new number and the value that goes with it.
func (b *Buffer) prepareRetry(seq uint64) (*retry, error) {
	if b.isClosed() {
		return nil, errClosed
	}
	if err := b.heal(); err != nil {
		return nil, err
	}
	var q Quarantined
	err := guard(func() error {
		return b.db.View(func(tx *bolt.Tx) (err error) {
			q, _, err = quarantined(tx, seq)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == b.reserved {
		return nil, errNoNumbers
	}
	r := &retry{from: seq, lane: b.lane(q.Lane), seq: b.next, class: q.Class, value: encode(q.Class, q.Time, q.Data)}
	b.next++
	seal(r.value, r.seq, r.lane.id)
	// Its consumer may not confirm what comes behind it before it is there.
	r.lane.mem = append(r.lane.mem, &pending{seq: r.seq, lane: r.lane, class: r.class, time: q.Time, value: r.value, frozen: true, hidden: true})
	b.count.Retried++
	return r, nil
}

func quarantined(tx *bolt.Tx, seq uint64) (q Quarantined, size int64, err error) {
	v := tx.Bucket(quarantineBucket).Get(key(seq))
	if v == nil {
		return q, 0, ErrNotFound
	}
	q, ok := decodeQuarantined(key(seq), v)
	if !ok {
		return q, int64(len(v)), errors.New("the record is damaged")
	}
	return q, int64(len(v)), nil
}

// outOfQuarantine commits the change, and then makes memory say the same.
func (b *Buffer) outOfQuarantine(r *retry) error {
	if b.isClosed() {
		return errClosed
	}
	if err := b.heal(); err != nil {
		return err
	}
	b.mu.Lock()
	mark := uint64(0)
	if r.lane != nil {
		mark = b.position(r.lane, nil)
	}
	b.mu.Unlock()
	err := b.updateOrDrop(&work{}, func(tx *bolt.Tx) error { return r.apply(tx, mark) })
	if err != nil && !b.happened(r) {
		return err
	}
	b.quarantine -= int64(len(r.old))
	if r.lane == nil {
		return nil
	}
	b.layout.Lock()
	defer b.layout.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	seg := b.segmentFor(r.seq >> segmentBits)
	seg.total++
	r.lane.saved = true
	r.lane.see(r.seq, r.class, "")
	r.lane.remove(r.seq)
	r.lane.onDisk(seg, r.seq, r.class)
	signal(r.lane.ready)
	return nil
}

// withdraw takes a record that stays in quarantine out of its lane.
func (b *Buffer) withdraw(r *retry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.lane.holds(r.seq) {
		r.lane.remove(r.seq)
		b.count.Retried--
	}
	signal(r.lane.ready)
}

func (r *retry) apply(tx *bolt.Tx, acked uint64) error {
	bucket := tx.Bucket(quarantineBucket)
	v := bucket.Get(key(r.from))
	if v == nil {
		return ErrNotFound
	}
	r.old = bytes.Clone(v)
	if err := bucket.Delete(key(r.from)); err != nil || r.lane == nil {
		return err
	}
	if err := putMark(tx, r.lane.name, r.lane.id, acked); err != nil {
		return err
	}
	seg, err := openSegment(tx.Bucket(segmentsBucket), r.seq>>segmentBits)
	if err != nil {
		return err
	}
	return seg.Put(key(r.seq), r.value)
}

// undo puts the record into quarantine again: nobody has waited for it in its lane, and what came behind it may be confirmed by now.
func (r *retry) undo(tx *bolt.Tx) error {
	seg := tx.Bucket(segmentsBucket).Bucket(key(r.seq >> segmentBits))
	if seg == nil || seg.Get(key(r.seq)) == nil {
		return nil
	}
	if err := seg.Delete(key(r.seq)); err != nil {
		return err
	}
	return tx.Bucket(quarantineBucket).Put(key(r.from), r.old)
}

// happened tells whether a transaction that returned an error is in the file all the same. A write that succeeds afterwards makes sure that
// it stays.
func (b *Buffer) happened(r *retry) bool {
	if !b.suspect || b.heal() != nil {
		return false
	}
	gone := false
	err := b.update(func(tx *bolt.Tx) error {
		_, _, err := quarantined(tx, r.from)
		gone = errors.Is(err, ErrNotFound)
		return nil
	})
	return err == nil && gone
}
