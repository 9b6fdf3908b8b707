package buffer

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
)

func TestNewRecordsStopWhenFull(t *testing.T) {
	b := open(t, newPath(t), Options{MaxSize: 1 << 20, WhenFull: StopNew, Gaps: true})
	n := uint64(0)
	fill := func() {
		for range 5000 {
			n++
			b.Append("l", Attributes, noon, numbered(n, 300))
			if n%100 == 0 {
				syncNow(t, b)
			}
		}
	}
	fill()
	if err := b.Put("state", "x", make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	var c counter
	c.drain(t, b, "l", 1000)
	if c.last != 1000 {
		t.Fatalf("1,000 records read, the last is %d", c.last)
	}
	c.drain(t, b, "l", 1<<30)
	if c.total[CauseFull] == 0 || c.gaps > 100 {
		t.Fatalf("%+v", c)
	}
	before := balanced(t, b).Dropped.Full
	n++
	b.Append("l", Attributes, noon, numbered(n, 300))
	syncNow(t, b)
	c.drain(t, b, "l", 1)
	if s := balanced(t, b); c.last != n || s.Dropped.Full != before {
		t.Fatalf("after it was drained: %+v", s)
	}
}

// TestAFullBufferKeepsSomeBack: small state finds room in a twentieth of the
// size, and no record goes for it.
func TestAFullBufferKeepsSomeBack(t *testing.T) {
	const size = 4 << 20
	b := open(t, newPath(t), Options{MaxSize: size, WhenFull: StopNew})
	for i := range 20_000 {
		b.Append("l", Attributes, noon, make([]byte, 300))
		if i%100 == 0 {
			syncNow(t, b)
		}
	}
	syncNow(t, b)
	before := balanced(t, b)
	if before.Dropped.Full == 0 {
		t.Fatal("it never was full")
	}
	for i := range size / 20 / 2 / 1000 {
		if err := b.Put("state", fmt.Sprint(i), make([]byte, 900)); err != nil {
			t.Fatal(err)
		}
	}
	if after := balanced(t, b); after.Dropped != before.Dropped || after.Waiting != before.Waiting {
		t.Errorf("%d records before, %d after, dropped %+v", before.Waiting, after.Waiting, after.Dropped)
	}
}

func TestDiskIsLeftToOthers(t *testing.T) {
	t.Parallel()
	var free atomic.Int64
	free.Store(1 << 30)
	o := Options{MaxSize: 64 << 20, MinFreeDisk: 100 << 20, freeDisk: func() (int64, error) { return free.Load(), nil }}
	b := open(t, newPath(t), o)
	fill := func() int64 {
		for i := range 10_000 {
			b.Append("l", Attributes, noon, make([]byte, 400))
			if i%500 == 0 {
				syncNow(t, b)
			}
		}
		return balanced(t, b).FileSize
	}
	first := fill()
	free.Store(50 << 20)
	if low := fill(); low > first+4<<20 {
		t.Fatalf("grew from %d to %d on a disk that is nearly full", first, low)
	}
	s := balanced(t, b)
	if s.Dropped.Disk < 5000 || s.Dropped.Full != 0 || s.Failures != 0 {
		t.Fatalf("%+v", s)
	}
	free.Store(1 << 30)
	if high := fill(); high <= first || b.Stats().Dropped.Disk > s.Dropped.Disk+1000 {
		t.Fatalf("%d bytes once the disk is free again, %d before", high, first)
	}
}

func TestDiskIsReservedOnlyWhereItIsFree(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	var free int64 = 40 << 20
	o := Options{MaxSize: 32 << 20, MinFreeDisk: 20 << 20, Preallocate: true, freeDisk: func() (int64, error) { return free, nil }}
	closeNow(t, open(t, path, o))
	if n, err := allocated(path); err != nil || n > 4<<20 {
		t.Fatalf("%d bytes reserved, %v", n, err)
	}
	free = 60 << 20
	b := open(t, path, o)
	n, err := allocated(path)
	if err != nil {
		t.Fatal(err)
	}
	if n < 32<<20 {
		t.Skipf("the file system of %s reserves nothing", path)
	}
	if size := b.Stats().FileSize; size > 2<<20 {
		t.Fatalf("the file itself has %d bytes", size)
	}
	free = 0
	for i := range 30_000 {
		b.Append("l", Attributes, noon, make([]byte, 400))
		if i%500 == 0 {
			syncNow(t, b)
		}
	}
	if s := balanced(t, b); s.Dropped.Disk != 0 || s.FileSize < 12<<20 {
		t.Fatalf("what is reserved is not used: %+v", s)
	}
}

func TestFullDiskIsOnlyAFailure(t *testing.T) {
	errSpace := errors.New("no space left on device")
	full := false
	b := open(t, newPath(t), Options{fail: func() error {
		if full {
			return errSpace
		}
		return nil
	}})
	for i := range 100 {
		b.Append("l", Attributes, noon, fmt.Append(nil, i))
	}
	b.writer.Lock()
	full = true
	b.writer.Unlock()
	if err := b.Put("a", "b", nil); !errors.Is(err, errSpace) {
		t.Fatal(err)
	}
	b.writer.Lock()
	full = false
	b.writer.Unlock()
	syncNow(t, b)
	if n := len(drain(t, b, "l")); n != 100 {
		t.Fatal(n)
	}
}
