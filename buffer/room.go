package buffer

import (
	"errors"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

func dropNothing(Class) bool        { return false }
func dropAttributes(c Class) bool   { return c == Attributes }
func dropEverything(Class) bool     { return true }
func pages(bytes, size int64) int64 { return (bytes + size - 1) / size * size }

// commitPages is what a transaction may need besides its records: the path to each bucket it touches.
const commitPages = 16

// update runs one transaction and notes how much of the file is in use. It is called with writer.
func (b *Buffer) update(fn func(*bolt.Tx) error) error {
	err := b.db.Update(func(tx *bolt.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		if b.opt.fail != nil {
			return b.opt.fail()
		}
		return nil
	})
	if err == nil && b.opt.failLate != nil {
		err = b.opt.failLate()
	}
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.count.Commits++
	b.mu.Unlock()
	return b.db.View(func(tx *bolt.Tx) error {
		b.top = tx.Size()
		return nil
	})
}

// store commits the work. When the file is full, the oldest records make room for it.
func (b *Buffer) store(w *work) error {
	for len(w.batch) > 0 && b.room() < b.need(w) {
		if dropped, err := b.makeRoom(w); err != nil {
			return err
		} else if !dropped {
			break
		}
	}
	return b.updateOrDrop(w, w.apply)
}

// updateOrDrop runs a transaction; when bbolt finds the file full in spite of the account kept here, the oldest records go.
func (b *Buffer) updateOrDrop(w *work, fn func(*bolt.Tx) error) error {
	err := b.update(fn)
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		b.layout.Lock() // no reader is left that keeps freed pages from being used
		err = b.update(fn)
		b.layout.Unlock()
	}
	for errors.Is(err, berrors.ErrMaxSizeReached) {
		dropped, dropErr := b.makeRoom(w)
		if dropErr != nil {
			return dropErr
		}
		if !dropped {
			return err
		}
		err = b.update(fn)
	}
	return err
}

// room is how many bytes records may still take. What is kept back is for small state and for the pages that a drop needs.
func (b *Buffer) room() int64 {
	s := b.db.Stats()
	page := int64(b.db.Info().PageSize)
	free := int64(s.FreePageN+s.PendingPageN) * page
	// bbolt refuses to grow into the last AllocSize of MaxSize.
	grow := max(0, b.opt.MaxSize-b.allocSize-page-b.top)
	return free + grow - b.opt.MaxSize/20
}

// need is how many bytes the work takes at most while it is being written.
func (b *Buffer) need(w *work) int64 {
	page := int64(b.db.Info().PageSize)
	bytes := commitPages*page + pages(int64(b.db.Stats().FreelistInuse), page)
	for _, p := range w.batch {
		size := int64(len(p.value)) + 24
		if size <= page/4 {
			bytes += size * 5 / 4
		} else {
			bytes += pages(size+16, page)
		}
	}
	return bytes
}

// makeRoom frees some of the file: space that acknowledged records still take, then the oldest attributes on disk, those of the
// batch, the oldest events. It tells whether anything was left to free.
func (b *Buffer) makeRoom(w *work) (bool, error) {
	if run := b.wasteful(); run != nil {
		return true, b.rewrite(run, dropNothing)
	}
	if run := b.oldestWith(Attributes); run != nil {
		return true, b.dropAttributesOf(run)
	}
	if b.dropFromBatch(w, Attributes) {
		return true, nil
	}
	if run := b.oldestWith(Event); run != nil {
		return true, b.rewrite(run, dropEverything)
	}
	return b.dropFromBatch(w, Event), nil
}

// dropAttributesOf drops a segment's attributes. Where there is no room to write its events anew, it deletes as many attributes as
// what is kept back allows.
func (b *Buffer) dropAttributesOf(run []*segment) error {
	err := b.rewrite(run, dropAttributes)
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		few := b.opt.MaxSize / 20 / int64(b.db.Info().PageSize) / 4
		err = b.move(&move{run: run, drop: dropAttributes, prune: int(max(1, few))})
	}
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		err = b.rewrite(run, dropEverything)
	}
	return err
}

// dropFromBatch drops the oldest quarter of one class from the batch.
func (b *Buffer) dropFromBatch(w *work, class Class) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	quota := len(w.batch)/4 + 1
	dropped := false
	var rest []*pending
	for _, p := range w.batch {
		if p.class != class || quota == 0 {
			rest = append(rest, p)
			continue
		}
		quota--
		dropped = true
		b.bytes -= p.size()
		if p.lane.holds(p.seq) { // else it is acknowledged
			p.lane.remove(p.seq)
			b.lose(p.lane, CauseFull, p.time)
		}
	}
	if dropped {
		w.batch, b.frozen = rest, rest
	}
	return dropped
}
