package buffer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
)

func TestHealthyLineWritesNothing(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		b := open(t, path, Options{Flush: time.Second})
		before := b.Stats().Commits
		for i := range 3000 {
			lane := fmt.Sprint(i % 3)
			seq := b.Append(lane, Attributes, noon, []byte("value"))
			time.Sleep(100 * time.Millisecond)
			b.Ack(lane, seq)
		}
		time.Sleep(time.Minute)
		if n := b.Stats().Commits - before; n != 0 {
			t.Fatalf("%d commits", n)
		}
	})
}

func TestAttributesAreCommittedAfterFlush(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		b := open(t, path, Options{Flush: time.Second})
		before := b.Stats().Commits
		for range 300 { // one a lane and 100 ms, for 30 s, and nobody takes them
			for lane := range 20 {
				b.Append(fmt.Sprint(lane), Attributes, noon, []byte("value"))
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if n := b.Stats().Pending; n > 20*11 {
				t.Fatalf("%d records are older than flush", n)
			}
		}
		if n := b.Stats().Commits - before; n < 25 || n > 35 {
			t.Fatalf("%d commits in 30 s", n)
		}
	})
}

func TestOneStuckLaneLeavesTheOthersUnwritten(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		b := open(t, path, Options{Flush: time.Second})
		for range 100 {
			b.Append("stuck", Attributes, noon, []byte("stuck"))
			seq := b.Append("live", Attributes, noon, []byte("live"))
			time.Sleep(100 * time.Millisecond)
			b.Ack("live", seq)
		}
		syncNow(t, b)
		stored := 0
		err := b.db.View(func(tx *bolt.Tx) error {
			segs := tx.Bucket(segmentsBucket)
			return segs.ForEachBucket(func(k []byte) error {
				stored += segs.Bucket(k).Stats().KeyN
				return nil
			})
		})
		if err != nil || stored != 100 {
			t.Fatalf("%d records written, %v", stored, err)
		}
	})
}

func TestEventCostsACommitAndItsAckAnother(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		b := open(t, path, Options{Flush: time.Second})
		before := b.Stats().Commits
		b.Append("l", Event, noon, []byte("e"))
		synctest.Wait()
		r := peek(t, b, "l", 1)
		if len(r) != 1 || b.Stats().Commits-before != 1 {
			t.Fatalf("%d records, %d commits at once", len(r), b.Stats().Commits-before)
		}
		b.Ack("l", r[0].Seq)
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		if n := b.Stats().Commits - before; n != 1 {
			t.Fatalf("%d commits before flush", n)
		}
		time.Sleep(time.Hour)
		if n := b.Stats().Commits - before; n != 2 {
			t.Fatalf("%d commits in all", n)
		}
	})
}

func TestPositionIsCommittedAfterThousandAcks(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		b := open(t, path, Options{Flush: time.Hour})
		for range 1500 {
			b.Append("l", Attributes, noon, []byte("x"))
		}
		syncNow(t, b)
		before := b.Stats().Commits
		for i, r := range peek(t, b, "l", 1500) {
			b.Ack("l", r.Seq)
			synctest.Wait()
			want := uint64(0)
			if i >= maxUnsaved-1 {
				want = 1
			}
			if n := b.Stats().Commits - before; n != want {
				t.Fatalf("%d commits after %d acks", n, i+1)
			}
		}
	})
}

// faults makes transactions fail; late ones after they have been written.
type faults struct{ early, late atomic.Bool }

var errDisk = errors.New("input/output error")

func (f *faults) options(o Options) Options {
	check := func(on *atomic.Bool) func() error {
		return func() error {
			if on.Load() {
				return errDisk
			}
			return nil
		}
	}
	o.retry = time.Millisecond
	o.fail, o.failLate = check(&f.early), check(&f.late)
	return o
}

func TestFailedCommitKeepsItsRecords(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("late=%v", late), func(t *testing.T) {
			var f faults
			var log bytes.Buffer
			path := newPath(t)
			b := open(t, path, f.options(Options{Log: slog.New(slog.NewTextHandler(&log, nil))}))
			fault := &f.early
			if late {
				fault = &f.late
			}
			first := b.Append("l", Attributes, noon, []byte("a"))
			fault.Store(true)
			if err := b.Sync(context.Background()); !errors.Is(err, errDisk) {
				t.Fatal(err)
			}
			b.Append("l", Event, noon, []byte("E"))
			b.Append("l", Attributes, noon, []byte("b"))
			for b.Stats().Failures < 5 { // the event makes the goroutine try
				time.Sleep(time.Millisecond)
			}
			if got := texts(peek(t, b, "l", 10)); got != "a" || b.Len("l") != 3 {
				t.Fatalf("while it fails: %q, len %d", got, b.Len("l"))
			}
			b.Ack("l", first)
			fault.Store(false)
			for texts(peek(t, b, "l", 10)) != "E b" {
				time.Sleep(time.Millisecond)
			}
			syncNow(t, b)
			balanced(t, b)
			closeNow(t, b)
			b = open(t, path, Options{})
			if got := texts(peek(t, b, "l", 10)); got != "E b" || b.Len("l") != 2 {
				t.Fatalf("after open: %q, len %d", got, b.Len("l"))
			}
			if n := strings.Count(log.String(), "\n"); n != 2 {
				t.Fatalf("%d lines for one failure and one recovery:\n%s", n, &log)
			}
		})
	}
}

func TestMemoryBoundDropsOldestAttributesFirst(t *testing.T) {
	var f faults
	var told atomic.Int64
	b := open(t, newPath(t), f.options(Options{MaxMemory: 64 << 10, Dropped: func(d Drop) {
		if d.Lane != "l" || d.Cause != CauseMemory || !d.From.Equal(noon) {
			t.Errorf("%+v", d)
		}
		told.Add(int64(d.Records))
	}}))
	f.early.Store(true)
	for i := range 1000 {
		b.Append("l", Attributes, noon, fmt.Appendf(nil, "%0200d", i))
		if i%100 == 0 {
			b.Append("e", Event, noon, fmt.Appendf(nil, "%0200d", i))
		}
		if s := b.Stats(); s.PendingBytes > 64<<10 {
			t.Fatalf("%d bytes in memory", s.PendingBytes)
		}
	}
	if b.Len("e") != 10 {
		t.Fatalf("%d of 10 events left", b.Len("e"))
	}
	s := balanced(t, b)
	if s.Dropped.Memory == 0 || s.Dropped.Memory != s.Dropped.Total() {
		t.Fatalf("%+v", s)
	}
	f.early.Store(false)
	syncNow(t, b)
	if last := peek(t, b, "l", 1000); string(last[len(last)-1].Data) != fmt.Sprintf("%0200d", 999) {
		t.Fatal("the newest is gone")
	}
	closeNow(t, b)
	if told.Load() != int64(s.Dropped.Memory) {
		t.Fatalf("told of %d, dropped %d", told.Load(), s.Dropped.Memory)
	}
}

func TestCloseTellsWhatIsLost(t *testing.T) {
	var f faults
	path := newPath(t)
	b, err := Open(path, f.options(Options{Flush: time.Hour}))
	if err != nil {
		t.Fatal(err)
	}
	b.Append("l", Attributes, noon, []byte("a"))
	f.early.Store(true)
	if err := b.Close(); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "1 records are not on disk") {
		t.Fatal(err)
	}
	if b.Append("l", Attributes, noon, []byte("b")) != 0 {
		t.Fatal("append after close")
	}
	if _, err := b.Peek("l", 1); err == nil {
		t.Fatal("peek after close")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	closeNow(t, open(t, path, Options{}))
}

func TestNumbersAreReservedInBlocks(t *testing.T) {
	path := newPath(t)
	var f faults
	b := open(t, path, f.options(Options{block: 100}))
	var last uint64
	for range 1000 {
		seq := b.Append("l", Attributes, noon, nil)
		if seq != last+1 {
			t.Fatalf("%d after %d", seq, last)
		}
		last = seq
		if last%20 == 0 {
			syncNow(t, b)
		}
	}
	f.early.Store(true)
	given := 0
	for range 1000 {
		if seq := b.Append("l", Attributes, noon, nil); seq != 0 {
			given++
			last = seq
		}
	}
	if given < 50 || given > 200 {
		t.Fatalf("%d numbers given out while the disk is broken", given)
	}
	if s := balanced(t, b); s.Dropped.Memory != uint64(1000-given) {
		t.Fatalf("%+v", s)
	}
	copied := copyFile(t, path) // what a crash now would leave
	c := open(t, copied, Options{block: 100})
	if seq := c.Append("l", Attributes, noon, nil); seq <= last {
		t.Fatalf("%d given out again, %d was the last", seq, last)
	}
	f.early.Store(false)
}

func TestSyncEndsWithItsContext(t *testing.T) {
	b := open(t, newPath(t), Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestABatchThatFailedInASyncIsTriedAgain: a batch that fails once inside a Sync (or a Quarantine) is tried again by the buffer, though
// nothing else is due.
func TestABatchThatFailedInASyncIsTriedAgain(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		fail := false
		o := Options{Flush: time.Second, Gaps: true}
		o.fail = func() error {
			if fail {
				fail = false
				return errDisk
			}
			return nil
		}
		b := open(t, path, o)
		b.Append("l", Attributes, noon, []byte("x"))
		synctest.Wait()
		fail = true
		if err := b.Sync(context.Background()); !errors.Is(err, errDisk) {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := b.Stats(); s.Pending != 0 {
			t.Errorf("an hour after one failed Sync the record is not on disk: %+v", s)
		}
	})
}
