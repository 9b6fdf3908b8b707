package buffer

import (
	"errors"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
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

// shrink makes a file fit that is larger than it may be now: the oldest records go, and the others to a new file.
func (b *Buffer) shrink() {
	if b.top <= b.opt.MaxSize {
		return
	}
	size, more, err := b.top, true, error(nil)
	for err == nil && more && b.used() > b.opt.MaxSize*8/10 {
		more, err = b.makeRoom(&work{})
	}
	if err == nil {
		err = b.copyAnew()
	}
	if err != nil {
		b.opt.Log.Warn("buffer is larger than its max_size and could not be made smaller", "file", b.path, "size", size, "max_size", b.opt.MaxSize, "err", err)
		return
	}
	b.opt.Log.Info("buffer was larger than its max_size and fits now", "file", b.path, "before", size, "after", b.top)
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
