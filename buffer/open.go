package buffer

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	formatVersion = 2
	headStart     = time.Second
	firstTries    = 3
	newSuffix     = ".new-"
)

var (
	metaBucket       = []byte("sluice buffer") // format, reserved
	lanesBucket      = []byte("lanes")         // "/"+name → id, position
	segmentsBucket   = []byte("segments")      // id → bucket of number → record
	quarantineBucket = []byte("quarantine")    // number → lane, reason, record
	stateBucket      = []byte("state")         // bucket → key → value

	formatKey   = []byte("format")
	reservedKey = []byte("reserved")
	agesKey     = []byte("ages")
	changeKey   = []byte("change") // of where records are: the last one's mark
)

func (o Options) withDefaults() (Options, error) {
	o.MaxSize = cmp.Or(o.MaxSize, 512<<20)
	o.Flush = cmp.Or(o.Flush, time.Second)
	o.MaxMemory = cmp.Or(o.MaxMemory, 8<<20)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.block = cmp.Or(o.block, defaultBlock)
	o.retry = cmp.Or(o.retry, 100*time.Millisecond)
	switch {
	case o.MaxSize < minMaxSize:
		return o, fmt.Errorf("max size of %d bytes is below %d", o.MaxSize, minMaxSize)
	case o.MaxSize > math.MaxInt:
		return o, fmt.Errorf("max size of %d bytes is more than this machine can map", o.MaxSize)
	case o.Flush < 0 || o.MaxMemory < 0 || o.MaxAge < 0 || o.MinFreeDisk < 0:
		return o, errors.New("flush, max memory, max age and min free disk must not be negative")
	}
	return o, nil
}

// Open opens the buffer in a file, which it creates if there is none, and starts its goroutine. A file that is damaged, cut off, empty, of
// another program or of another format is set aside under a name with the time, and a new one takes its place: see SetAside. What is
// left as an error is a file in use by another process, and a disk or folder that can't be used; it names the file.
func Open(path string, o Options) (*Buffer, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open buffer %s: %w", path, err)
	}
	b := &Buffer{
		path: path, opt: o,
		kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
		lanes: map[string]*lane{}, byID: map[uint32]*lane{}, losses: map[dropKey]*Drop{}, left: map[uint64]bool{},
		allocSize: min(1<<20, o.MaxSize/16),
	}
	if b.opt.freeDisk == nil {
		b.opt.freeDisk = func() (int64, error) { return freeDisk(path) }
	}
	if err := b.open(); err != nil {
		return nil, fmt.Errorf("open buffer %s: %w", path, err)
	}
	for _, l := range b.lanes {
		if l.disk > 0 {
			signal(l.ready)
		}
	}
	go b.run()
	return b, nil
}

func (b *Buffer) open() error {
	info, err := os.Stat(b.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := create(b.path); err != nil {
			return err
		}
		b.created = true
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("this is not a file: give another path")
	}
	f, err := lockFile(b.path)
	if err != nil {
		return err
	}
	b.removeUnfinished()
	err = b.use(f)
	if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrFormat) {
		return err
	}
	return b.startAnew(err)
}

// removeUnfinished deletes what a crash has left of a file in the making.
func (b *Buffer) removeUnfinished() {
	left, _ := filepath.Glob(b.path + newSuffix + "*")
	for _, dir := range left {
		_ = os.RemoveAll(dir)
	}
}

// startAnew sets the file aside and opens the one that takes its place.
func (b *Buffer) startAnew(reason error) error {
	f, err := lockFile(b.path)
	if err != nil {
		return err
	}
	err = b.replace(f, reason)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%w, and can't be replaced: %w", reason, err)
	}
	b.forgetFile()
	if f, err = lockFile(b.path); err != nil {
		return err
	}
	if err := b.use(f); err != nil {
		return err
	}
	b.count.Found += uint64(b.aside.Lost)
	b.count.Dropped.Corrupt += uint64(b.aside.Lost)
	return nil
}

// forgetFile undoes what loading a damaged file has left.
func (b *Buffer) forgetFile() {
	b.lanes, b.byID, b.nextLane, b.segs = map[string]*lane{}, map[uint32]*lane{}, 0, nil
	b.next, b.quarantine, b.count, b.damaged = 0, 0, Stats{}, nil
	b.losses = map[dropKey]*Drop{}
}

// use opens a locked file, which is closed if that fails.
func (b *Buffer) use(f *os.File) error {
	stop := readAlong(b.path)
	defer stop()
	if err := check(f); err != nil {
		if !errors.Is(err, ErrForeign) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err) // also where a page can't be read
		}
		return errors.Join(err, f.Close())
	}
	db, err := openLimited(f, b.opt.MaxSize)
	if err != nil {
		return damaged(err) // bbolt has closed the file
	}
	b.db, b.file = db, f
	b.db.AllocSize = int(b.allocSize)
	if err := guard(b.load); err != nil {
		return errors.Join(err, b.db.Close())
	}
	return nil
}

// openFile opens a database in a file that is locked.
func openFile(path string, f *os.File, maxSize int64) (*bolt.DB, error) {
	o := &bolt.Options{
		Timeout:      lockTimeout,
		FreelistType: bolt.FreelistMapType,
		MaxSize:      int(maxSize),
		// The list of free pages would be written with each commit: half a megabyte after a backlog of a million records.
		// Finding the free pages at Open costs little, since Open reads everything anyway.
		NoFreelistSync: true,
		OpenFile:       func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	}
	if strconv.IntSize == 64 {
		o.InitialMmapSize = int(maxSize) // address space is free, and a map that never moves never waits for readers
	}
	return bolt.Open(path, 0o600, o)
}

// readAlong reads the file in order, with a head start, until it is stopped. Opening goes through the pages of a cold file at random,
// which takes several times as long as reading them in order just before. On a slow disk the head start ends first, since a file
// that is mostly free needs few of its pages.
func readAlong(path string) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		f, err := os.Open(path)
		if err != nil {
			return // the open itself tells
		}
		defer f.Close()
		chunk := make([]byte, 1<<20)
		for err == nil {
			select {
			case <-quit:
				return
			default:
				_, err = f.Read(chunk)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(headStart):
	}
	return func() {
		close(quit)
		<-done
	}
}

// create makes an empty buffer beside the path and moves it there, so that a crash never leaves half a file under that name.
func create(path string) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), filepath.Base(path)+newSuffix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	temp := filepath.Join(dir, "buffer")
	if err := build(temp, minMaxSize, func(*bolt.DB) error { return nil }); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// build makes a buffer with some content in a new file.
func build(path string, maxSize int64, fill func(*bolt.DB) error) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	db, err := openFile(path, f, maxSize)
	if err != nil {
		return err
	}
	db.AllocSize = int(min(1<<20, maxSize/16))
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{metaBucket, lanesBucket, segmentsBucket, quarantineBucket, stateBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return errors.Join(tx.Bucket(metaBucket).Put(formatKey, sealed(formatKey, key(formatVersion))), putReserved(tx, 1))
	})
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error { return nil }) // so that both heads are of this kind
	}
	if err == nil {
		err = fill(db)
	}
	return errors.Join(err, db.Close())
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
