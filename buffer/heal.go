package buffer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// heal reopens the file after a commit has failed: what bbolt holds in memory about a file that it could not write is not to be relied
// on. The failed transaction may be in the file or not; its records are written again under the same numbers. While the file can't be
// opened, reading goes on with what is open. It is called with writer and without layout.
func (b *Buffer) heal() error {
	if b.suspect {
		if err := b.reopen(); err != nil {
			return fmt.Errorf("reopen buffer %s: %w", b.path, err)
		}
		b.suspect = false
		b.mu.Lock()
		b.count.Reopened++
		b.mu.Unlock()
	}
	if b.undecided != nil {
		if err := b.decide(); err != nil {
			return fmt.Errorf("look up what failed in buffer %s: %w", b.path, err)
		}
	}
	if b.unsure != nil {
		err := b.updateWithin(b.limit(0), b.unsure.undo) // before anything moves to make room
		if errors.Is(err, berrors.ErrMaxSizeReached) {
			err = b.updateOrDrop(&work{}, b.unsure.undo)
		}
		if err != nil {
			return fmt.Errorf("undo what failed in buffer %s: %w", b.path, err)
		}
		b.layout.Lock()
		b.mu.Lock()
		if l := b.unsure.lane; l != nil {
			l.unsure, l.head = false, nil // it may have been read in between
			signal(l.ready)
		}
		b.unsure = nil
		b.mu.Unlock()
		b.layout.Unlock()
	}
	return nil
}

// unsure is a change that failed, and that may be in the file all the same, while memory and the caller know nothing of it.
type unsure struct {
	lane *lane                // whose records on disk it changes, if any
	undo func(*bolt.Tx) error // does nothing where it is not in the file
}

// undoLater has a change that failed undone before anything else is written, if it can be in the file.
func (b *Buffer) undoLater(l *lane, undo func(*bolt.Tx) error) {
	if !b.suspect {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if l != nil {
		l.unsure = true
	}
	b.unsure = &unsure{l, undo}
	signal(b.kick)
}

// undecided is a change of where records are on disk that failed, and that may be in the file all the same. It is not made again: another
// one may be due by then. Until it is known its lanes stand still, or, when the disk has failed for a second, are read as the open file has
// them, past what is confirmed.
type undecided struct {
	mark   uint64 // stands in the file if the change does
	lanes  []*lane
	settle func() // makes memory say what the file says then; called with all locks
}

// rearrange runs a transaction that changes where records are, and then makes memory say the same. Where it fails and may be in the file all the
// same, that is looked up before anything else is written. It is called with layout.
func (b *Buffer) rearrange(limit int64, apply func(*bolt.Tx) error, lanes func() []*lane, settle func()) error {
	mark := rand.Uint64()
	err := b.updateWithin(limit, func(tx *bolt.Tx) error {
		if err := tx.Bucket(metaBucket).Put(changeKey, sealed(changeKey, key(mark))); err != nil {
			return err
		}
		return apply(tx)
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		settle()
	case b.suspect:
		b.undecided = &undecided{mark, lanes(), settle}
		for _, l := range b.undecided.lanes {
			l.undecided = true
		}
		signal(b.kick)
	}
	return err
}

// decide makes memory say what the file says, now that it is opened anew.
func (b *Buffer) decide() error {
	b.layout.Lock()
	defer b.layout.Unlock()
	u, there := b.undecided, false
	err := b.view(func(tx *bolt.Tx) error {
		mark, ok := unseal(changeKey, tx.Bucket(metaBucket).Get(changeKey))
		there = ok && len(mark) == 8 && seqOf(mark) == u.mark
		return nil
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if there {
		u.settle()
	}
	for _, l := range u.lanes {
		l.undecided = false
		b.ack(l, l.confirmed)
		l.confirmed = 0
		signal(l.ready)
	}
	b.undecided = nil
	return nil
}

func (b *Buffer) reopen() error {
	b.onDisk.Add(1)
	defer b.onDisk.Add(-1)
	old, err := b.file.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Stat(b.path); err != nil {
		return err
	} else if !os.SameFile(old, now) {
		return errors.New("another file is there now")
	}
	f, err := os.OpenFile(b.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := check(f); err != nil { // bbolt would die of it, in a goroutine of its own
		return errors.Join(err, f.Close())
	}
	_ = flock(b.file, false)
	db, err := openLimited(f, b.opt.MaxSize)
	if err != nil {
		_ = flock(b.file, true)
		return err
	}
	db.AllocSize = int(b.allocSize)
	b.layout.Lock()
	before := b.db
	b.db, b.file = db, f
	err = b.view(b.noteTop)
	b.layout.Unlock()
	if !b.stumbled {
		_ = before.Close() // it was of no use any more
	}
	b.stumbled = false
	return err
}
