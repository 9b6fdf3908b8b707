package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// found is a damaged record, with its key as it stands in its segment, and the gap that takes its place.
type found struct {
	segment uint64
	key     []byte
	seq     uint64
	lane    uint32
	lost    int
	value   []byte
}

// load reads what memory keeps about the file, makes gaps of damaged records, reserves the first block of sequence numbers, and makes the file
// as large as it may be.
func (b *Buffer) load() error {
	if err := b.loadRecords(); err != nil {
		return err
	}
	b.shrink()
	b.preallocate()
	return nil
}

func (b *Buffer) loadRecords() error {
	err := b.db.View(func(tx *bolt.Tx) error {
		_, _, err := format(tx)
		return errors.Join(err, b.noteTop(tx))
	})
	if err != nil {
		return err
	}
	b.compact()
	if err := b.db.View(b.scan); err != nil {
		return err
	}
	b.reserved = b.next + b.opt.block
	err = b.update(b.firstWrite)
	for range firstTries { // or the disk has to fail for longer to keep the program from starting
		if err == nil || errors.Is(err, berrors.ErrMaxSizeReached) {
			break
		}
		if err = b.heal(); err == nil {
			err = b.update(b.firstWrite)
		}
	}
	if err != nil {
		if !errors.Is(err, berrors.ErrMaxSizeReached) {
			return fmt.Errorf("reserve sequence numbers: %w", err)
		}
		return b.loadFull()
	}
	return nil
}

// loadFull reserves sequence numbers in a file that has no page left for it, as one that is opened with a smaller size.
func (b *Buffer) loadFull() error {
	err := b.updateOrDrop(&work{}, b.firstWrite)
	if err != nil {
		return fmt.Errorf("reserve sequence numbers: %w", err)
	}
	return nil
}

// format tells whether the file is one of ours.
func format(tx *bolt.Tx) (meta *bolt.Bucket, next uint64, err error) {
	if meta = tx.Bucket(metaBucket); meta == nil {
		return nil, 0, ErrForeign
	}
	if plain := meta.Get(formatKey); len(plain) == 8 {
		return nil, 0, fmt.Errorf("%w: format %d, this program knows %d", ErrFormat, seqOf(plain), formatVersion)
	}
	v, ok := unseal(formatKey, meta.Get(formatKey))
	switch {
	case !ok || len(v) != 8:
		return nil, 0, fmt.Errorf("%w: it does not say its format", ErrDamaged)
	case seqOf(v) != formatVersion:
		return nil, 0, fmt.Errorf("%w: format %d, this program knows %d", ErrFormat, seqOf(v), formatVersion)
	}
	for _, name := range [][]byte{lanesBucket, segmentsBucket, quarantineBucket, stateBucket} {
		if tx.Bucket(name) == nil {
			return nil, 0, fmt.Errorf("%w: it has no bucket %q", ErrDamaged, name)
		}
	}
	n, ok := unseal(reservedKey, meta.Get(reservedKey))
	if !ok || len(n) != 8 {
		return nil, 0, fmt.Errorf("%w: it does not say which number comes next", ErrDamaged)
	}
	return meta, max(1, seqOf(n)), nil
}

func (b *Buffer) scan(tx *bolt.Tx) error {
	meta, next, err := format(tx)
	if err != nil {
		return err
	}
	b.next = next
	b.top = tx.Size()
	b.ages.load(meta.Get(agesKey), b.opt.MaxAge, time.Now())
	if err := tx.Bucket(lanesBucket).ForEach(b.scanLane); err != nil {
		return err
	}
	if err := tx.Bucket(quarantineBucket).ForEach(func(k, v []byte) error {
		b.quarantine += int64(len(v))
		return nil
	}); err != nil {
		return err
	}
	segs := tx.Bucket(segmentsBucket)
	return segs.ForEachBucket(func(k []byte) error {
		return b.scanSegment(seqOf(k), segs.Bucket(k))
	})
}

// firstWrite is the first transaction.
func (b *Buffer) firstWrite(tx *bolt.Tx) error {
	for _, d := range b.damaged {
		bucket := tx.Bucket(segmentsBucket).Bucket(key(d.segment))
		if bucket == nil {
			continue
		}
		err := bucket.Delete(d.key)
		if d.value != nil {
			err = bucket.Put(d.key, d.value)
		}
		if err != nil {
			return err
		}
	}
	return putReserved(tx, b.reserved)
}

// noteDamaged makes a gap of a damaged record, in the lane that it names; where there is no such lane, or where the gap would follow
// another, the record is deleted.
func (b *Buffer) noteDamaged(seg *segment, k, v []byte) {
	b.damaged = append(b.damaged, found{segment: seg.id, key: slices.Clone(k)})
	if !b.opt.Gaps || len(k) != 8 || len(v) < headerSize || b.byID[laneOf(v)] == nil {
		seg.total--
		return
	}
	l, seq := b.byID[laneOf(v)], seqOf(k)
	if seq <= l.acked || seq>>segmentBits > seg.id {
		seg.total--
		return
	}
	b.next = max(b.next, seq+1)
	for i := len(b.damaged) - 1; i >= 0; i-- {
		if d := &b.damaged[i]; d.lane == l.id {
			if d.value == nil {
				continue
			}
			if d.seq < l.newest {
				break
			}
			d.lost++
			d.value = Loss{Cause: CauseCorrupt, Records: d.lost}.value(d.seq, d.lane)
			seg.total--
			return
		}
	}
	d := &b.damaged[len(b.damaged)-1]
	d.seq, d.lane, d.lost, d.value = seq, l.id, 1, Loss{Cause: CauseCorrupt, Records: 1}.value(seq, l.id)
	b.count.Gaps++
	l.see(seq, Gap, CauseCorrupt)
	l.onDisk(seg, seq, Gap)
}

func (b *Buffer) scanLane(k, v []byte) error {
	v, ok := unseal(k, v)
	if !ok || len(v) != 12 {
		return fmt.Errorf("%w: lane %q has no position", ErrDamaged, k)
	}
	l := b.addLane(string(k[1:]), binary.BigEndian.Uint32(v))
	l.acked = binary.BigEndian.Uint64(v[4:])
	l.saved = true
	return nil
}

// scanSegment counts what each lane has in the segment, and the damaged records.
func (b *Buffer) scanSegment(id uint64, bucket *bolt.Bucket) error {
	seg := b.segmentFor(id)
	return bucket.ForEach(func(k, v []byte) error {
		seg.total++
		if !intact(k, v) || b.byID[laneOf(v)] == nil {
			b.count.Found++
			b.count.Dropped.Corrupt++
			b.noteDamaged(seg, k, v)
			return nil
		}
		l, seq := b.byID[laneOf(v)], seqOf(k)
		if classOf(v) == Gap && !b.opt.Gaps {
			return nil
		}
		if seq > l.acked {
			b.count.Found++
		}
		cause := Cause("")
		if classOf(v) == Gap {
			cause = causeOf(v)
		}
		l.see(seq, classOf(v), cause)
		l.onDisk(seg, seq, classOf(v))
		b.next = max(b.next, seq+1)
		return nil
	})
}

// returnReserved gives back what is left of the reserved block, so that numbers go on without a gap after a clean end.
func (b *Buffer) returnReserved() error {
	b.writer.Lock()
	defer b.writer.Unlock()
	if err := b.heal(); err != nil {
		return err
	}
	b.mu.Lock()
	b.ages.mark(b.next, time.Now())
	ages := b.ages.take(true)
	b.mu.Unlock()
	err := b.update(func(tx *bolt.Tx) error {
		if ages != nil {
			if err := tx.Bucket(metaBucket).Put(agesKey, ages); err != nil {
				return err
			}
		}
		return putReserved(tx, b.next)
	})
	if err != nil {
		return fmt.Errorf("close buffer %s: %w", b.path, err)
	}
	return nil
}
