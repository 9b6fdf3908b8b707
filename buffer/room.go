package buffer

import (
	"errors"
	"slices"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

func dropNothing(entry) bool        { return false }
func dropAttributes(e entry) bool   { return e.class == Attributes }
func dropEverything(entry) bool     { return true }
func pages(bytes, size int64) int64 { return (bytes + size - 1) / size * size }

// commitPages is what a transaction may need besides its records: the path to each bucket it touches.
const commitPages = 16

// limit is how large the file may get: up to Options.MaxSize, and into no more of the disk than leaves so much to others. What the disk has
// reserved for the file counts as the file's own.
func (b *Buffer) limit(leave int64) int64 {
	taken, err := allocated(b.path)
	free, freeErr := b.opt.freeDisk()
	if err != nil || freeErr != nil {
		return b.opt.MaxSize // the disk itself is the limit then
	}
	return min(b.opt.MaxSize, taken+max(0, free-leave))
}

// update runs one transaction and notes how much of the file is in use. It is called with writer.
func (b *Buffer) update(fn func(*bolt.Tx) error) error {
	return b.updateWithin(b.limit(b.opt.MinFreeDisk), fn)
}

func (b *Buffer) updateWithin(limit int64, fn func(*bolt.Tx) error) error {
	b.db.MaxSize = int(limit)
	refused := false
	b.onDisk.Add(1)
	defer b.onDisk.Add(-1)
	err := guard(func() error {
		tx, err := b.db.Begin(true)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // after a panic, db.Update would look through all pages, in a goroutine where nobody catches another
		if err = fn(tx); err == nil && b.opt.fail != nil {
			err = b.opt.fail()
		}
		if refused = err != nil; refused {
			return err
		}
		return tx.Commit()
	})
	if err == nil && b.opt.failLate != nil {
		err = b.opt.failLate()
	}
	if err != nil {
		b.stumbled = b.stumbled || errors.Is(err, ErrDamaged)
		b.suspect = b.suspect || !refused && !errors.Is(err, berrors.ErrMaxSizeReached)
		return err
	}
	b.mu.Lock()
	b.count.Commits++
	b.mu.Unlock()
	return guard(func() error { return b.db.View(b.noteTop) })
}

func (b *Buffer) noteTop(tx *bolt.Tx) error {
	b.top = tx.Size()
	return nil
}

// store commits the work. When the file is full, the oldest records make room for it.
func (b *Buffer) store(w *work) error {
	limit := b.limit(b.opt.MinFreeDisk)
	for len(w.batch) > 0 && b.room(limit) < b.need(w) {
		if b.opt.WhenFull == StopNew && !slices.ContainsFunc(w.batch, func(p *pending) bool { return p.class != Gap }) {
			break // gaps may take what is kept back
		}
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
func (b *Buffer) room(limit int64) int64 {
	s := b.db.Stats()
	page := int64(b.db.Info().PageSize)
	free := int64(s.FreePageN+s.PendingPageN) * page
	// bbolt refuses to grow into the last AllocSize of its limit.
	grow := max(0, limit-b.allocSize-page-b.top)
	return free + grow - limit/20
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
// batch, the oldest events. With StopNew, the batch goes first, and what is on disk only for small state and gaps. It tells whether
// anything was left to free.
func (b *Buffer) makeRoom(w *work) (bool, error) {
	if run := b.wasteful(); run != nil {
		if err := b.rewrite(run, dropNothing, ""); !errors.Is(err, berrors.ErrMaxSizeReached) {
			return true, err
		}
	}
	cause := CauseFull
	if b.limit(b.opt.MinFreeDisk) < b.opt.MaxSize {
		cause = CauseDisk
	}
	if b.opt.WhenFull == StopNew && (b.dropFromBatch(w, Attributes, cause) || b.dropFromBatch(w, Event, cause)) {
		return true, nil
	}
	if run := b.oldestWith(Attributes); run != nil {
		err := b.dropOf(run, dropAttributes, cause)
		if errors.Is(err, berrors.ErrMaxSizeReached) {
			err = b.rewrite(run, dropEverything, cause)
		}
		return true, err
	}
	if b.dropFromBatch(w, Attributes, cause) {
		return true, nil
	}
	if run := b.oldestWith(Event); run != nil {
		return true, b.dropOf(run, dropEverything, cause)
	}
	return b.dropFromBatch(w, Event, cause), nil
}

// dropOf drops records of a run. Where there is no room to write anew what stays, it only deletes, and as many as what is kept back allows.
func (b *Buffer) dropOf(run []*segment, drop func(entry) bool, cause Cause) error {
	err := b.rewrite(b.withGaps(run), drop, cause)
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		few := b.opt.MaxSize / 20 / int64(b.db.Info().PageSize) / 4
		err = b.move(&move{run: run[len(run)-1:], drop: drop, cause: cause, prune: int(max(1, few))})
	}
	return err
}

// dropFromBatch drops a quarter of one class from the batch: the oldest, or with StopNew the newest.
func (b *Buffer) dropFromBatch(w *work, class Class, cause Cause) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	quota := len(w.batch)/4 + 1
	batch := slices.Clone(w.batch)
	if b.opt.WhenFull == StopNew {
		slices.Reverse(batch)
	}
	dropped := false
	for _, p := range batch {
		if p.class != class || quota == 0 {
			continue
		}
		quota--
		dropped = true
		if p.lane.holds(p.seq) {
			b.losePending(p, cause)
		} else { // it is acknowledged
			p.gone = true
			b.bytes -= p.size()
		}
	}
	if dropped {
		w.batch = slices.DeleteFunc(slices.Clone(w.batch), func(p *pending) bool {
			if p.gone {
				b.left[p.seq] = true
			}
			return p.gone
		})
		b.frozen = w.batch
	}
	return dropped
}
