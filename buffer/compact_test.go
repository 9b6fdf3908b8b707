package buffer

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMostlyEmptyFileGetsSmall(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	o := Options{MaxSize: 64 << 20}
	b := open(t, path, o)
	fill(t, b, 4, 100_000)
	for lane := range 4 {
		b.Ack(fmt.Sprint(lane), 99_000)
	}
	if err := b.Put("s", "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	syncNow(t, b)
	want, before := fmt.Sprint(peek(t, b, "3", 1000)), b.Stats()
	closeNow(t, b)

	o.freeDisk = func() (int64, error) { return 1 << 20, nil } // no room for a copy
	b = open(t, path, o)
	if s := b.Stats(); s.FileSize != before.FileSize {
		t.Fatalf("%d bytes before, %d after", before.FileSize, s.FileSize)
	}
	closeNow(t, b)

	o.freeDisk = nil
	b = open(t, path, o)
	if s := balanced(t, b); s.FileSize > before.FileSize/5 || s.Waiting != before.Waiting {
		t.Fatalf("%d bytes before, %d after, %+v", before.FileSize, s.FileSize, s)
	}
	if got := fmt.Sprint(peek(t, b, "3", 1000)); got != want {
		t.Fatal("other records than before")
	}
	if v, err := b.Get("s", "k"); string(v) != "v" || err != nil {
		t.Fatalf("%q %v", v, err)
	}
	if _, err := Open(path, o); err == nil {
		t.Fatal("the new file is not locked")
	}
	seq := b.Append("3", Event, noon, []byte("x"))
	syncNow(t, b)
	closeNow(t, b)
	b = open(t, path, o)
	if all := drain(t, b, "3"); all[len(all)-1] != seq {
		t.Fatal("what was appended to the small file is not there")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v %v", entries, err)
	}
}

// TestTheLockIsOfTheFileThatIsThere: while one process opens a file that it makes small, another waits for the lock of the file that was
// there. It must not go on with a file that has no name any more.
func TestTheLockIsOfTheFileThatIsThere(t *testing.T) {
	path := newPath(t)
	b := open(t, path, Options{MaxSize: 32 << 20})
	for n := range uint64(20_000) {
		b.Append("l", Attributes, noon, numbered(n+1, 600))
		if n%2000 == 0 {
			syncNow(t, b)
		}
	}
	syncNow(t, b)
	drain(t, b, "l")
	syncNow(t, b)
	closeNow(t, b)
	first, err := lockFile(path) // process one
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		b   *Buffer
		err error
	}
	second := make(chan result)
	go func() {
		b, err := Open(path, Options{MaxSize: 32 << 20})
		second <- result{b, err}
	}()
	time.Sleep(100 * time.Millisecond) // it waits
	one := &Buffer{path: path, opt: Options{MaxSize: 32 << 20}, allocSize: 1 << 20}
	if one.opt, err = one.opt.withDefaults(); err != nil {
		t.Fatal(err)
	}
	one.opt.freeDisk = func() (int64, error) { return 1 << 40, nil }
	one.lanes, one.byID, one.losses = map[string]*lane{}, map[uint32]*lane{}, map[dropKey]*Drop{}
	if err := one.use(first); err != nil { // compacts
		t.Fatal(err)
	}
	defer one.db.Close()
	r := <-second
	if r.err == nil {
		r.b.Append("l", Event, noon, []byte("for nobody"))
		syncNow(t, r.b)
		t.Errorf("two have the buffer open at once; the second writes to a file without a name")
		r.b.Close()
	}
}

// TestALowerMaxSizeOfAFileThatIsMostlyEmpty: a file opened with a lower max_size, mostly empty: nothing is above the new size.
func TestALowerMaxSizeOfAFileThatIsMostlyEmpty(t *testing.T) {
	for name, pre := range map[string]bool{"grown": false, "reserved": true} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			b := open(t, path, Options{MaxSize: 64 << 20, Preallocate: pre})
			for n := range uint64(6000) {
				b.Append("l", Attributes, noon, numbered(n+1, 400))
			}
			syncNow(t, b)
			closeNow(t, b)
			size := b.top + 8192
			if pre {
				size = 8 << 20
			}
			b = open(t, path, Options{MaxSize: size, Preallocate: pre})
			taken, _ := allocated(path)
			if s := b.Stats(); s.FileSize > size || taken > size {
				t.Errorf("max size %d: file has %d bytes and takes %d of the disk", size, s.FileSize, taken)
			}
		})
	}
}

// TestALowerMaxSizeOfAReservedFileDropsNothing: a reserved file of 64 MB of which 28 MB are in use, opened with 32 MB: all fits.
func TestALowerMaxSizeOfAReservedFileDropsNothing(t *testing.T) {
	path := newPath(t)
	b := open(t, path, Options{MaxSize: 64 << 20, Preallocate: true})
	for n := range uint64(62000) {
		b.Append("l", Attributes, noon, numbered(n+1, 400))
		if n%1000 == 0 {
			syncNow(t, b)
		}
	}
	syncNow(t, b)
	closeNow(t, b)
	b = open(t, path, Options{MaxSize: 32 << 20, Preallocate: true})
	s := b.Stats()
	if s.Dropped.Total() > 0 {
		t.Errorf("%d of 62000 dropped", s.Dropped.Total())
	}
}

// TestASlightlyLowerMaxSizeDropsNothing: a max_size lowered by a little, in which all records still fit.
func TestASlightlyLowerMaxSizeDropsNothing(t *testing.T) {
	path := newPath(t)
	b := open(t, path, Options{MaxSize: 64 << 20})
	for n := range uint64(60000) {
		b.Append("l", Attributes, noon, numbered(n+1, 400))
		if n%1000 == 0 {
			syncNow(t, b)
		}
	}
	syncNow(t, b)
	closeNow(t, b)

	size := b.top + 64<<10
	b = open(t, path, Options{MaxSize: size})
	s := b.Stats()
	if s.Dropped.Total() > 0 {
		t.Errorf("%d dropped of 60000, though %d bytes were in use of %d", s.Dropped.Total(), size-64<<10, size)
	}
}

// TestAFullFileOpensAsItIs: twice the same, full: nothing is dropped by an open.
func TestAFullFileOpensAsItIs(t *testing.T) {
	for _, m := range []int64{1 << 20, 5<<20 + 123, 9 << 20, 33<<20 + 5} {
		for _, pre := range []bool{false, true} {
			path := newPath(t)
			o := Options{MaxSize: m, Gaps: true, Preallocate: pre}
			b := open(t, path, o)
			for n := range uint64(m / 250) {
				b.Append("l", Class(n%2), noon, numbered(n+1, 400))
				if n%1000 == 0 {
					syncNow(t, b)
				}
			}
			syncNow(t, b)
			for range 3 {
				w := b.Len("l")
				closeNow(t, b)
				b = open(t, path, o)
				if got := b.Len("l"); got != w {
					t.Errorf("max %d pre %v: %d records, %d after open; %+v", m, pre, w, got, b.Stats())
				}
			}
		}
	}
}
