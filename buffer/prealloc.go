package buffer

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// preallocate reserves the disk space that the file may still take.
func (b *Buffer) preallocate() {
	if !b.opt.Preallocate {
		return
	}
	if err := b.reserveDisk(); err != nil {
		b.opt.Log.Warn("no disk space is reserved for the buffer: it stands still while the disk is full", "file", b.path, "err", err)
	}
}

func (b *Buffer) reserveDisk() error {
	taken, err := allocated(b.path)
	if err != nil {
		return err
	}
	missing := b.opt.MaxSize - taken
	if missing <= 0 {
		return nil
	}
	free, err := b.opt.freeDisk()
	if err != nil {
		return err
	}
	if free < missing+b.opt.MinFreeDisk {
		return fmt.Errorf("%d MB of the disk are free, but %d MB for the file and %d MB for others are needed",
			free>>20, missing>>20, b.opt.MinFreeDisk>>20)
	}
	f, err := os.OpenFile(b.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = reserve(f, b.opt.MaxSize)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		err = errors.New("the file system can't do it")
	}
	return errors.Join(err, f.Close())
}
