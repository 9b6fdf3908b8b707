package buffer

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
)

// TestAFullFileOfLargeRecordsIsWritten: what is tidied up in a full file needs pages, of large records more than are kept back. Then it is left
// for later: every commit succeeds, the oldest go, and memory drops nothing.
func TestAFullFileOfLargeRecordsIsWritten(t *testing.T) {
	for _, size := range []int{300, 3000, 10_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			b := open(t, newPath(t), Options{Gaps: true, MaxSize: 8 << 20})
			n := uint64(0)
			for range max(10, 40_000/size) {
				for range 1000 {
					if n++; n%5 == 0 {
						b.Append("stuck", Attributes, noon, numbered(n/5, size))
					} else {
						b.Append("fast", Event, noon, numbered(n, 100))
					}
					if n%100 == 0 {
						syncNow(t, b)
					}
				}
				drain(t, b, "fast")
			}
			s := balanced(t, b)
			if s.Dropped.Full == 0 || s.Dropped.Memory > 0 || s.Failures > 0 || s.FileSize > 8<<20 {
				t.Fatalf("%+v", s)
			}
			var c counter
			c.drain(t, b, "stuck", 1<<30)
			if c.last != n/5 || c.total[CauseFull] != s.Dropped.Full {
				t.Errorf("up to %d of %d, gaps tell of %v, counted %+v", c.last, n/5, c.total, s.Dropped)
			}
		})
	}
}

// TestAFullFileOfOldRecordsIsWritten: the same where records get too old.
func TestAFullFileOfOldRecordsIsWritten(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		b := open(t, path, Options{Gaps: true, MaxSize: 2 << 20, MaxAge: time.Hour, Flush: time.Second})
		add := func(n uint64, every time.Duration) {
			b.Append("l", Class(n%2), noon, numbered(n, 10_000))
			time.Sleep(every)
		}
		n := uint64(0)
		for range 2 {
			for range 300 {
				n++
				add(n, 10*time.Second)
			}
			for range 90 {
				n++
				add(n, time.Minute)
			}
		}
		synctest.Wait()
		s := balanced(t, b)
		if s.Failures > 0 || s.Dropped.Age == 0 || s.Dropped.Full == 0 || s.Dropped.Memory > 0 || s.Waiting > 70 {
			t.Errorf("%+v", s)
		}
	})
}

// TestALowerMaxSizeIsKept: the oldest go, and the file is small enough at once.
func TestALowerMaxSizeIsKept(t *testing.T) {
	path := newPath(t)
	b := open(t, path, Options{Gaps: true, MaxSize: 16 << 20})
	const given = 40_000
	for n := range uint64(given) {
		b.Append("l", Attributes, noon, numbered(n+1, 300))
		if n%2000 == 0 {
			syncNow(t, b)
		}
	}
	syncNow(t, b)
	before := balanced(t, b).Dropped.Full
	closeNow(t, b)
	b = open(t, path, Options{Gaps: true, MaxSize: 4 << 20})
	s := balanced(t, b)
	if s.FileSize > 4<<20 || s.Waiting < 5000 {
		t.Errorf("%+v", s)
	}
	var c counter
	c.drain(t, b, "l", 1<<30)
	if c.last != given || c.total[CauseFull] != before+s.Dropped.Full {
		t.Errorf("up to %d of %d, gaps tell of %v, counted %d and %+v", c.last, given, c.total, before, s.Dropped)
	}
}

// TestLargeRecordsBehindTheHead: what is in memory does not come before what is on disk and was not read yet.
func TestLargeRecordsBehindTheHead(t *testing.T) {
	b := open(t, newPath(t), Options{Gaps: true})
	for n := range uint64(700) {
		b.Append("l", Attributes, noon, numbered(n+1, 4000))
		if n == 600 {
			syncNow(t, b)
		}
	}
	var c counter
	for {
		got := peek(t, b, "l", 1000)
		if len(got) == 0 {
			break
		}
		c.take(t, got)
		b.Ack("l", got[len(got)-1].Seq)
	}
	if c.last != 700 {
		t.Error(c.last)
	}
}

// TestSalvageTakesLittleMemory: a large file that is damaged is not held in memory.
func TestSalvageTakesLittleMemory(t *testing.T) {
	path := newPath(t)
	o := Options{Gaps: true, MaxSize: 64 << 20}
	b := open(t, path, o)
	for n := range uint64(40_000) {
		b.Append("l", Attributes, noon, numbered(n+1, 1000))
		if n%5000 == 0 {
			syncNow(t, b)
		}
	}
	closeNow(t, b)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 4096), 4096*200); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	runtime.GC()
	before, peak := heap(), uint64(0)
	quit := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(2 * time.Millisecond):
				peak = max(peak, heap())
			}
		}
	})
	b = open(t, path, o)
	close(quit)
	wait.Wait()
	t.Logf("%d MB more for %d MB", (peak-before)>>20, b.Stats().FileSize>>20)
	if a := b.SetAside(); a.Salvaged < 39_900 || peak-before > 25<<20 {
		t.Errorf("%d MB more, %+v", (peak-before)>>20, a)
	}
}

// TestALowerMaxSizeDropsNothingInVain: where the file can't get small enough all the same, or a copy of it doesn't fit on the disk, nothing goes.
func TestALowerMaxSizeDropsNothingInVain(t *testing.T) {
	fill := func(t *testing.T, b *Buffer) {
		for n := range uint64(10_000) {
			b.Append("l", Attributes, noon, numbered(n+1, 300))
			if n%2000 == 0 {
				syncNow(t, b)
			}
		}
		syncNow(t, b)
	}
	for name, c := range map[string]struct {
		more func(t *testing.T, b *Buffer)
		o    Options
	}{
		"much state": {func(t *testing.T, b *Buffer) {
			for i := range 100 {
				if err := b.Put("state", fmt.Sprint(i), make([]byte, 40<<10)); err != nil {
					t.Fatal(err)
				}
			}
		}, Options{Gaps: true, MaxSize: 3 << 20}},
		"little disk": {func(*testing.T, *Buffer) {}, Options{Gaps: true, MaxSize: 3 << 20, MinFreeDisk: 1 << 20, freeDisk: func() (int64, error) { return 1<<20 + 4096, nil }}},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			b := open(t, path, Options{Gaps: true, MaxSize: 32 << 20})
			fill(t, b)
			c.more(t, b)
			closeNow(t, b)
			b = open(t, path, c.o)
			if s := balanced(t, b); s.Dropped.Total() > 0 || s.FileSize < 3<<20 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestALowerMaxSizeLetsTheQuarantineGo as far as it is larger than it may be now, and keeps the records that fit.
func TestALowerMaxSizeLetsTheQuarantineGo(t *testing.T) {
	path := newPath(t)
	b := open(t, path, Options{Gaps: true, MaxSize: 32 << 20})
	for n := range uint64(1000) {
		b.Append("l", Event, noon, numbered(n+1, 300))
	}
	syncNow(t, b)
	for range 100 {
		if err := b.Quarantine("q", b.Append("q", Attributes, noon, make([]byte, 40<<10)), "why"); err != nil {
			t.Fatal(err)
		}
	}
	closeNow(t, b)
	b = open(t, path, Options{Gaps: true, MaxSize: 4 << 20})
	s := balanced(t, b)
	list, err := b.Quarantined()
	if err != nil || s.Dropped.Total() > 0 || s.Evicted == 0 || int(s.Evicted) != 100-len(list) || s.FileSize > 4<<20 {
		t.Errorf("%d in quarantine, %v, %+v", len(list), err, s)
	}
}

// TestADamagedRecordInAFileThatIsTooLarge is counted once, wherever it stands.
func TestADamagedRecordInAFileThatIsTooLarge(t *testing.T) {
	for _, seq := range []uint64{1500, 10_500, 11_000, 19_000} {
		path := newPath(t)
		b := open(t, path, Options{Gaps: true, MaxSize: 16 << 20})
		for n := range uint64(20_000) {
			b.Append("l", Attributes, noon, numbered(n+1, 300))
			if n%2000 == 0 {
				syncNow(t, b)
			}
		}
		closeNow(t, b)
		db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error {
			s := tx.Bucket(segmentsBucket).Bucket(key(seq >> segmentBits))
			v := slices.Clone(s.Get(key(seq)))
			v[100] ^= 1
			return s.Put(key(seq), v)
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		b = open(t, path, Options{Gaps: true, MaxSize: 4 << 20})
		syncNow(t, b)
		s := balanced(t, b)
		waiting := s.Waiting
		closeNow(t, b)
		b = open(t, path, Options{Gaps: true, MaxSize: 4 << 20})
		if after := balanced(t, b).Waiting; s.Dropped.Corrupt != 1 || after != waiting || s.FileSize > 4<<20 {
			t.Errorf("record %d: %d are counted, %d wait, and %d after a restart; %d bytes", seq, s.Dropped.Corrupt, waiting, after, s.FileSize)
		}
	}
}

// TestAGapHasTheLastNumber of what it stands for, also where the newest go first: who confirms a record before has not seen it.
func TestAGapHasTheLastNumber(t *testing.T) {
	b := open(t, newPath(t), Options{Gaps: true, WhenFull: StopNew})
	b.writer.Lock()
	for n := range uint64(100) {
		b.Append("l", Attributes, noon, numbered(n+1, 10))
	}
	seen := peek(t, b, "l", 60)
	w := b.take(true)
	for range 3 {
		b.dropFromBatch(w, Attributes, CauseFull)
	}
	dropped := int(b.Stats().Dropped.Full)
	b.Ack("l", seen[len(seen)-1].Seq)
	got := peek(t, b, "l", 10)
	if err := b.store(w); err != nil {
		t.Fatal(err)
	}
	b.settle(w)
	b.writer.Unlock()
	if len(got) != 1 || dropped <= 40 {
		t.Fatalf("%d records, %d dropped", len(got), dropped)
	}
	if g, ok := got[0].Loss(); !ok || g.Records != dropped {
		t.Errorf("a gap of %d, %d were dropped", g.Records, dropped)
	}
	balanced(t, b)
}
