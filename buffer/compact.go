package buffer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	compactAbove = 8 << 20 // a smaller file isn't worth it
	compactPart  = 10      // what is in use is less than one part in so many
)

// compact makes a mostly empty file small, where a copy of what is in use fits beside it. The copy takes the file's place when it is
// complete and on disk; a file that can't be copied stays.
func (b *Buffer) compact() {
	size, used := b.top, b.used()
	free, err := b.opt.freeDisk()
	if err != nil || size < compactAbove || used*compactPart >= size || used*2+b.allocSize+b.opt.MinFreeDisk > free {
		return
	}
	if err := b.copyAnew(); err != nil {
		b.opt.Log.Warn("buffer is mostly empty and could not be made smaller", "file", b.path, "err", err)
		return
	}
	b.opt.Log.Info("buffer was mostly empty and is small again", "file", b.path, "before", size, "after", b.top)
}

// used is how much of the file is not free.
func (b *Buffer) used() int64 {
	s := b.db.Stats()
	return b.top - int64(s.FreePageN+s.PendingPageN)*int64(b.db.Info().PageSize)
}

// shrink makes a file fit that is larger than it may be now: behind what was ever used it is cut off. Where that is not enough, the oldest
// records go, and the others to a new file.
func (b *Buffer) shrink() {
	size := b.top
	if info, err := os.Stat(b.path); err == nil {
		size = max(size, info.Size())
	}
	if reserved, err := allocated(b.path); err == nil && reserved > b.opt.MaxSize*9/8 { // the file system has something of its own there
		size = max(size, reserved)
	}
	if size <= b.opt.MaxSize {
		return
	}
	var err error
	if b.top <= b.opt.MaxSize {
		err = b.cutOff()
	} else {
		err = b.fit(b.opt.MaxSize * 8 / 10)
	}
	if err != nil {
		b.opt.Log.Warn("buffer is larger than its max_size and could not be made smaller", "file", b.path, "size", size, "max_size", b.opt.MaxSize, "err", err)
		return
	}
	b.opt.Log.Info("buffer was larger than its max_size and fits now", "file", b.path, "before", size, "after", b.top)
}

// cutOff leaves of the file what was ever used. What is reserved behind its end goes only where the end comes nearer.
func (b *Buffer) cutOff() error {
	for _, size := range []int64{b.top + int64(b.db.Info().PageSize), b.top} {
		if err := b.file.Truncate(size); err != nil {
			return err
		}
	}
	return b.reopen() // bbolt notes how large the file is
}

// fit drops records until so many bytes are in use, and copies what stays. It drops nothing where that would not help.
func (b *Buffer) fit(size int64) error {
	free, err := b.opt.freeDisk()
	if err != nil {
		return err
	}
	if need := min(b.used(), size) + b.allocSize + b.opt.MinFreeDisk; need > free {
		return fmt.Errorf("a copy takes %d MB of the disk, with what is to be left to others, and %d MB are free", need>>20, free>>20)
	}
	if err := b.trimQuarantine(); err != nil {
		return err
	}
	var records int64
	err = b.view(func(tx *bolt.Tx) error {
		s := tx.Bucket(segmentsBucket).Stats()
		records = int64(s.LeafAlloc + s.BranchAlloc)
		return nil
	})
	if err != nil {
		return err
	}
	if others := b.used() - records; others > size {
		return fmt.Errorf("%d MB are no records", others>>20)
	}
	for b.used() > size {
		n := 0 // records to be dropped, by their mean size
		for _, s := range b.segs {
			n += s.live
		}
		n = int(int64(n) * (b.used() - size) / max(1, records))
		if more, err := b.dropOldest(n + 1); err != nil || !more {
			return errors.Join(err, errors.New("there is nothing more to drop"))
		}
	}
	return b.copyAnew()
}

// dropOldest drops the oldest records of a segment, and no more than so many of one that has more; attributes first. It tells whether there was one.
func (b *Buffer) dropOldest(n int) (bool, error) {
	run, drop := b.oldestWith(Attributes), dropAttributes
	if run == nil {
		run, drop = b.oldestWith(Event), dropEverything
	}
	if run == nil {
		return false, nil
	}
	if n < run[0].live {
		if err := b.move(&move{run: run, drop: drop, cause: CauseFull, prune: n}); !errors.Is(err, berrors.ErrMaxSizeReached) {
			return true, err
		}
	}
	return true, b.dropOf(run, drop, CauseFull)
}

// copyAnew puts a copy of what is in use in the place of the file.
func (b *Buffer) copyAnew() error {
	dir, err := os.MkdirTemp(filepath.Dir(b.path), filepath.Base(b.path)+newSuffix)
	if err == nil {
		err = guard(func() error { return b.compactInto(filepath.Join(dir, "buffer")) })
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func (b *Buffer) compactInto(temp string) error {
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	db, err := openFile(temp, f, b.opt.MaxSize)
	if err != nil {
		return err
	}
	db.AllocSize = int(b.allocSize)
	if err := bolt.Compact(db, b.db, 1<<20); err != nil {
		return errors.Join(err, db.Close())
	}
	if err := os.Rename(temp, b.path); err != nil {
		return errors.Join(err, db.Close())
	}
	old := b.db
	b.db, b.file = db, f
	err = errors.Join(syncDir(filepath.Dir(b.path)), old.Close())
	return errors.Join(err, db.View(b.noteTop))
}
