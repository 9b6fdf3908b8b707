package buffer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// What a file was set aside for; see SetAside.
var (
	ErrDamaged = errors.New("the file is damaged")
	ErrForeign = errors.New("the file is a database of another program")
	ErrFormat  = errors.New("the file has another format")
)

// SetAside tells of a file that Open could not use. It has another name now, and the buffer goes on with a new file that holds what could
// be read of it.
type SetAside struct {
	File     string // new name of the old file; empty if there is nothing to tell
	Err      error  // ErrDamaged, ErrForeign or ErrFormat, with the reason
	Salvaged int    // records that are in the new file
	Lost     int    // records that are not, as far as can be told
	Partial  bool   // the new file could not take all that was read
}

// SetAside tells whether Open had to begin a new file.
func (b *Buffer) SetAside() SetAside { return b.aside }

// New tells whether there was no file before Open.
func (b *Buffer) New() bool { return b.created }

// openLimit is how long bbolt may take to open a file that has been looked through: at two megabytes a second, and a minute.
func openLimit(size int64) time.Duration { return time.Minute + time.Duration(size>>21)*time.Second }

// guard runs what reads mapped pages: a page that can't be read, or that bbolt stumbles over, is an error and not the end of the program.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return fn()
}

// view reads. It is called with layout, so that the file isn't reopened meanwhile.
func (b *Buffer) view(fn func(*bolt.Tx) error) error {
	return guard(func() error { return b.db.View(fn) })
}

// lockFile opens a file and keeps others from using it.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockTimeout)
	defer cancel()
	for {
		err := flock(f, true)
		if err == nil {
			there, err := stillThere(f, path)
			if there {
				return f, nil
			}
			_ = f.Close()
			if err != nil {
				return nil, err
			}
			// another process has put a new file in its place
			if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(errors.New("the file is in use by another process"), f.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func stillThere(f *os.File, path string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return os.SameFile(mine, now), nil
}

// openLimited opens a locked file that has been looked through.
func openLimited(f *os.File, maxSize int64) (*bolt.DB, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	type result struct {
		db  *bolt.DB
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		r.err = guard(func() (err error) {
			r.db, err = openFile(f.Name(), f, maxSize)
			return err
		})
		done <- r
	}()
	timer := time.NewTimer(openLimit(info.Size()))
	defer timer.Stop()
	select {
	case r := <-done:
		return r.db, r.err
	case <-timer.C:
		_ = flock(f, false) // for the one that takes its place
		return nil, fmt.Errorf("%w: it can't be opened within %v", ErrDamaged, openLimit(info.Size()))
	}
}

// damaged tells what is wrong with a file: an error of the system is left as it is, also that of a lock.
func damaged(err error) error {
	var e syscall.Errno
	if errors.Is(err, ErrForeign) || errors.Is(err, ErrDamaged) || errors.As(err, &e) || errors.Is(err, berrors.ErrTimeout) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}
