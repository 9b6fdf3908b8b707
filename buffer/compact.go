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
	size := b.top
	used := size - int64(b.db.Stats().FreePageN+b.db.Stats().PendingPageN)*int64(b.db.Info().PageSize)
	free, err := b.opt.freeDisk()
	if err != nil || size < compactAbove || used*compactPart >= size || used*2+b.allocSize+b.opt.MinFreeDisk > free {
		return
	}
	dir, err := os.MkdirTemp(filepath.Dir(b.path), filepath.Base(b.path)+newSuffix)
	if err == nil {
		err = guard(func() error { return b.compactInto(filepath.Join(dir, "buffer")) })
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		b.opt.Log.Warn("buffer is mostly empty and could not be made smaller", "file", b.path, "err", err)
		return
	}
	b.opt.Log.Info("buffer was mostly empty and is small again", "file", b.path, "before", size, "after", b.top)
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
