package buffer

import (
	"cmp"
	"encoding/binary"
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
	berrors "go.etcd.io/bbolt/errors"
)

const (
	formatVersion = 1
	headStart     = time.Second
)

var (
	metaBucket       = []byte("sluice buffer") // format, reserved
	lanesBucket      = []byte("lanes")         // "/"+name → id, position
	segmentsBucket   = []byte("segments")      // id → bucket of number → record
	quarantineBucket = []byte("quarantine")    // number → lane, reason, record
	stateBucket      = []byte("state")         // bucket → key → value

	formatKey   = []byte("format")
	reservedKey = []byte("reserved")
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
	case o.Flush < 0 || o.MaxMemory < 0:
		return o, errors.New("flush and max memory must not be negative")
	}
	return o, nil
}

// Open opens the buffer in a file, which it creates if there is none, and starts its goroutine. Its errors name the file and say
// what to do. An empty file, one of another program and one of a newer format are refused and left as they are.
func Open(path string, o Options) (*Buffer, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open buffer %s: %w", path, err)
	}
	b := &Buffer{
		path: path, opt: o,
		kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
		lanes: map[string]*lane{}, byID: map[uint32]*lane{}, losses: map[dropKey]*Drop{},
		allocSize: min(1<<20, o.MaxSize/16),
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
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("this is not a file: give another path")
	case info.Size() == 0:
		return errors.New("the file is empty, so it is not a buffer: delete it, and a new one is made")
	}
	stop := readAlong(b.path)
	defer stop()
	if b.db, err = openFile(b.path, b.opt.MaxSize); err != nil {
		return err
	}
	b.db.AllocSize = int(b.allocSize)
	if err := b.load(); err != nil {
		return errors.Join(err, b.db.Close())
	}
	return nil
}

func openFile(path string, maxSize int64) (*bolt.DB, error) {
	o := &bolt.Options{
		Timeout:      lockTimeout,
		FreelistType: bolt.FreelistMapType,
		MaxSize:      int(maxSize),
		// The list of free pages would be written with each commit: half a megabyte after a backlog of a million records.
		// Finding the free pages at Open costs little, since Open reads everything anyway.
		NoFreelistSync: true,
	}
	if strconv.IntSize == 64 {
		o.InitialMmapSize = int(maxSize) // address space is free, and a map that never moves never waits for readers
	}
	db, err := bolt.Open(path, 0o600, o)
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, errors.New("the file is in use by another process")
	case errors.Is(err, fs.ErrPermission):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("the file is not a buffer or is damaged (%w): move it away, and a new one is made", err)
	}
	return db, nil
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
	dir, err := os.MkdirTemp(filepath.Dir(path), filepath.Base(path)+".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	temp := filepath.Join(dir, "buffer")
	db, err := openFile(temp, minMaxSize)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{metaBucket, lanesBucket, segmentsBucket, quarantineBucket, stateBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return errors.Join(tx.Bucket(metaBucket).Put(formatKey, key(formatVersion)), putReserved(tx, 1))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// load reads what memory keeps about the file, and reserves the first block of sequence numbers.
func (b *Buffer) load() error {
	if err := b.db.View(b.scan); err != nil {
		return err
	}
	b.reserved = b.next + b.opt.block
	if err := b.update(func(tx *bolt.Tx) error { return putReserved(tx, b.reserved) }); err != nil {
		if !errors.Is(err, berrors.ErrMaxSizeReached) {
			return fmt.Errorf("reserve sequence numbers: %w", err)
		}
		return b.loadFull()
	}
	return nil
}

// loadFull reserves sequence numbers in a file that has no page left for it, as one that is opened with a smaller size.
func (b *Buffer) loadFull() error {
	err := b.updateOrDrop(&work{}, func(tx *bolt.Tx) error { return putReserved(tx, b.reserved) })
	if err != nil {
		return fmt.Errorf("reserve sequence numbers: %w", err)
	}
	return nil
}

func (b *Buffer) scan(tx *bolt.Tx) error {
	meta := tx.Bucket(metaBucket)
	if meta == nil || len(meta.Get(formatKey)) != 8 || len(meta.Get(reservedKey)) != 8 {
		return errors.New("the file is a database of another program: move it away, and a new one is made")
	}
	if v := seqOf(meta.Get(formatKey)); v > formatVersion {
		return fmt.Errorf("the file has format %d, this program knows %d: update the program, or move the file away", v, formatVersion)
	}
	for _, name := range [][]byte{lanesBucket, segmentsBucket, quarantineBucket, stateBucket} {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("the file is damaged, it has no bucket %q: move it away, and a new one is made", name)
		}
	}
	b.next = max(1, seqOf(meta.Get(reservedKey)))
	b.top = tx.Size()
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

func (b *Buffer) scanLane(k, v []byte) error {
	if len(k) == 0 || len(v) != 12 {
		return fmt.Errorf("the file is damaged, lane %q has no position: move it away, and a new one is made", k)
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
			return nil
		}
		l, seq := b.byID[laneOf(v)], seqOf(k)
		if seq > l.acked {
			b.count.Found++
		}
		l.onDisk(seg, seq, classOf(v))
		b.next = max(b.next, seq+1)
		return nil
	})
}

// returnReserved gives back what is left of the reserved block, so that numbers go on without a gap after a clean end.
func (b *Buffer) returnReserved() error {
	b.writer.Lock()
	defer b.writer.Unlock()
	if err := b.update(func(tx *bolt.Tx) error { return putReserved(tx, b.next) }); err != nil {
		return fmt.Errorf("close buffer %s: %w", b.path, err)
	}
	return nil
}
