package buffer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
)

// lateOnce makes the next transaction fail after it was written, each time that it is armed.
func lateOnce(o Options) (Options, *atomic.Bool) {
	var armed atomic.Bool
	o.Gaps = true
	o.retry = 1 << 62 // only a Sync tries again
	o.failLate = func() error {
		if armed.CompareAndSwap(true, false) {
			return errDisk
		}
		return nil
	}
	return o, &armed
}

// TestAMoveThatFailsAndHappens: the disk fails at the last moment of a transaction that changes where records are. Nothing is lost, nothing is
// counted that was not lost, and nothing comes twice, whatever the consumer does before the file is opened anew, and after a restart.
func TestAMoveThatFailsAndHappens(t *testing.T) {
	for name, c := range map[string]struct {
		size int64
		fill func(t *testing.T, b *Buffer) (given uint64)
		move func(b *Buffer) error // called with writer
	}{
		"together": {16 << 20, func(t *testing.T, b *Buffer) (given uint64) {
			for i := range 12 << segmentBits {
				if i%100 == 0 {
					given++
					b.Append("l", Event, noon, numbered(given, 10))
				} else {
					b.Append("fast", Attributes, noon, numbered(uint64(i), 10))
				}
				if i%1000 == 0 {
					syncNow(t, b)
				}
			}
			syncNow(t, b)
			return given
		}, func(b *Buffer) error {
			b.Ack("fast", b.next)
			return b.rewrite(b.sparse(b.oldestPending()), dropNothing, "")
		}},
		"drop": {1 << 20, func(t *testing.T, b *Buffer) (given uint64) {
			for range 2000 {
				given++
				b.Append("l", Attributes, noon, numbered(given, 300))
			}
			syncNow(t, b)
			return given
		}, func(b *Buffer) error {
			_, err := b.makeRoom(&work{})
			return err
		}},
		"join": {1 << 20, func(t *testing.T, b *Buffer) (given uint64) {
			given++
			b.Append("l", Attributes, noon, numbered(given, 10))
			for range 2 {
				given++
				b.writer.Lock()
				b.Append("l", Attributes, noon, make([]byte, 300<<10)) // too large
				w := b.take(true)
				if err := b.store(w); err != nil {
					t.Fatal(err)
				}
				b.settle(w)
				b.writer.Unlock()
			}
			return given
		}, func(b *Buffer) error { return b.joinTails() }},
	} {
		for _, between := range []string{"nothing", "a look", "an answer"} {
			if name == "drop" && between == "an answer" {
				continue // what is dropped while it is on its way is told of all the same
			}
			t.Run(name+", then "+between, func(t *testing.T) {
				o, armed := lateOnce(Options{MaxSize: c.size})
				path := newPath(t)
				b := open(t, path, o)
				given := c.fill(t, b)
				var consumer counter
				b.writer.Lock()
				sent := peek(t, b, "l", 5)
				armed.Store(true)
				if err := c.move(b); !errors.Is(err, errDisk) {
					t.Fatalf("the control failed: the move gave %v", err)
				}
				switch between {
				case "a look":
					if got := peek(t, b, "l", 100); len(got) > 0 {
						t.Fatalf("%d records are shown though it is not known where they are", len(got))
					}
				case "an answer":
					consumer.take(t, sent)
					b.Ack("l", sent[len(sent)-1].Seq)
				}
				b.writer.Unlock()
				syncNow(t, b)
				s := balanced(t, b)
				closeNow(t, b)
				b = open(t, path, Options{Gaps: true, MaxSize: c.size})
				consumer.drain(t, b, "l", 1<<30)
				if consumer.last+consumer.lost != given || consumer.total[CauseCorrupt] > 0 || s.Dropped.Corrupt > 0 {
					t.Errorf("of %d came %d, gaps tell of %v, counted %+v", given, consumer.last, consumer.total, s.Dropped)
				}
				if told := consumer.total[CauseFull] + consumer.total[CauseRefused]; between != "an answer" && told != s.Dropped.Total() {
					t.Errorf("gaps tell of %d, %d are counted", told, s.Dropped.Total())
				}
			})
		}
	}
}

// TestWhatLeavesABatchDoesNotComeBack: the commit of a batch fails when it is in the file already; some of it is dropped and counted, and is
// not there after a restart.
func TestWhatLeavesABatchDoesNotComeBack(t *testing.T) {
	for _, gaps := range []bool{true, false} {
		t.Run(fmt.Sprintf("gaps=%v", gaps), func(t *testing.T) {
			var full atomic.Bool
			o, armed := lateOnce(Options{MaxSize: 1 << 20, WhenFull: StopNew})
			o.Gaps = gaps
			o.freeDisk = func() (int64, error) {
				if full.Load() {
					return 0, nil
				}
				return 1 << 30, nil
			}
			path := newPath(t)
			b := open(t, path, o)
			given := uint64(0)
			add := func(n int) {
				for range n {
					given++
					b.Append("l", Attributes, noon, numbered(given, 300))
				}
			}
			add(500)
			syncNow(t, b)
			add(100)
			armed.Store(true)
			if err := b.Sync(context.Background()); !errors.Is(err, errDisk) {
				t.Fatalf("the control failed: the commit gave %v", err)
			}
			full.Store(true) // of others' files
			syncNow(t, b)
			full.Store(false)
			add(50)
			syncNow(t, b)
			s := balanced(t, b)
			closeNow(t, b)
			b = open(t, path, Options{Gaps: gaps, MaxSize: 1 << 20})
			came := uint64(0)
			for _, r := range peek(t, b, "l", 1000) {
				if r.Class != Gap {
					came++
				}
			}
			if s.Dropped.Total() == 0 || came+s.Dropped.Total() != given {
				t.Errorf("of %d came %d, %d are counted as dropped", given, came, s.Dropped.Total())
			}
		})
	}
}

// TestAFileThatIsDamagedWhenItIsReopened costs a commit, and not the program.
func TestAFileThatIsDamagedWhenItIsReopened(t *testing.T) {
	o, armed := lateOnce(Options{MaxSize: 16 << 20})
	path := newPath(t)
	b, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(5000) {
		b.Append("l", Attributes, noon, numbered(n+1, 100))
	}
	syncNow(t, b)
	b.Append("l", Attributes, noon, numbered(5001, 100))
	armed.Store(true)
	if err := b.Sync(context.Background()); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	p, err := openPages(b.file)
	if err != nil {
		t.Fatal(err)
	}
	for id := uint64(2); ; id++ { // a bit of where an entry of the first full leaf is
		if pg, _, err := p.page(id); err == nil && pg.flags == leafPage && pg.count > 20 {
			at := pg.at + pageHeader + 5*elementSize + 7
			if _, err := b.file.WriteAt([]byte{pg.data[at-pg.at] ^ 0x40}, at); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if err := b.Sync(context.Background()); err == nil {
		t.Error("a damaged file is written")
	}
	if err := b.Close(); err == nil {
		t.Error("Close doesn't tell that a record is not on disk")
	}
	b = open(t, path, Options{Gaps: true, MaxSize: 16 << 20})
	if a := b.SetAside(); a.Salvaged < 4900 {
		t.Errorf("%+v", a)
	}
}

// TestADamagedKeyGivesNoNumberTwice: one bit of the last key makes it a number that is still to come.
func TestADamagedKeyGivesNoNumberTwice(t *testing.T) {
	path := newPath(t)
	b := open(t, path, Options{Gaps: true})
	for n := range uint64(5) {
		b.Append("l", Attributes, noon, numbered(n+1, 10))
	}
	closeNow(t, b)
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		s := tx.Bucket(segmentsBucket).Bucket(key(0))
		v := append([]byte(nil), s.Get(key(5))...)
		return errors.Join(s.Delete(key(5)), s.Put(key(5|8), v))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	b = open(t, path, Options{Gaps: true})
	for n := range uint64(20) {
		b.Append("l", Attributes, noon, numbered(n+6, 10))
	}
	syncNow(t, b)
	var c counter
	c.drain(t, b, "l", 100)
	if s := balanced(t, b); c.last != 25 || c.total[CauseCorrupt] != 1 || s.Dropped.Corrupt != 1 {
		t.Errorf("up to %d, gaps tell of %v, counted %+v", c.last, c.total, s.Dropped)
	}
}

// TestALaneThatStandsStillGoesOn by itself, whoever's transaction has moved its records and failed.
func TestALaneThatStandsStillGoesOn(t *testing.T) {
	full := func(t *testing.T, path string, size int64) {
		b := open(t, path, Options{Gaps: true, MaxSize: size})
		for n := range uint64(40_000) {
			b.Append("l", Attributes, noon, numbered(n+1, 300))
			if n%2000 == 0 {
				syncNow(t, b)
			}
		}
		closeNow(t, b)
	}
	for name, c := range map[string]struct{ before, size int64 }{"a Put": {1 << 20, 1 << 20}, "the opening": {16 << 20, 8 << 20}} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			full(t, path, c.before)
			o, armed := lateOnce(Options{MaxSize: c.size, Flush: 20 * time.Millisecond})
			o.retry = time.Millisecond
			opening := c.size < c.before
			armed.Store(opening)
			b := open(t, path, o)
			if !opening { // as writeNow, without a commit of the buffer's own
				b.writer.Lock()
				armed.Store(true)
				_, err := b.makeRoom(&work{})
				b.writer.Unlock()
				if !errors.Is(err, errDisk) {
					t.Fatalf("the control failed: %v", err)
				}
			}
			for end := time.Now().Add(20 * time.Second); len(peek(t, b, "l", 10)) == 0; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%d wait, none is shown", b.Len("l"))
				}
			}
		})
	}
}

// TestALaneIsReadWhereTheFileCantBeReopened: the file system has become read-only, say. What waits on disk and in memory goes out all the same,
// once, and so does what tells of gaps.
func TestALaneIsReadWhereTheFileCantBeReopened(t *testing.T) {
	path := newPath(t)
	o, armed := lateOnce(Options{MaxSize: 1 << 20})
	o.retry = time.Millisecond
	b, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	add := func(class Class, count int) {
		for range count {
			n++
			b.Append("l", class, noon, numbered(n, 300))
		}
	}
	add(Attributes, 2000)
	syncNow(t, b)
	b.writer.Lock()
	armed.Store(true)
	if _, err := b.makeRoom(&work{}); !errors.Is(err, errDisk) {
		t.Fatalf("the control failed: %v", err)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	b.writer.Unlock()
	add(Event, 100)
	if err := b.Sync(context.Background()); err == nil {
		t.Error("the control failed: it can be reopened")
	}
	last, came, told := uint64(0), 0, 0
	for end := time.Now().Add(20 * time.Second); last < n && time.Now().Before(end); time.Sleep(time.Millisecond) {
		_, err := b.ReplaceGap("l", "events", func(g Loss) []byte {
			told += g.Records
			return []byte("lost")
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range peek(t, b, "l", 100) {
			if r.Class == Gap {
				break
			}
			if r.Seq <= last {
				t.Fatalf("%d after %d", r.Seq, last)
			}
			last = r.Seq
			came++
		}
		b.Ack("l", last)
	}
	if last != n || came < 900 || came+told != int(n) {
		t.Errorf("%d of %d came, gaps tell of %d, the last is %d", came, n, told, last)
	}
	if b.Len("events") != 1 {
		t.Errorf("%d events of gaps", b.Len("events"))
	}
	b.Ack("events", 1<<40)
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	syncNow(t, b)
	if s := balanced(t, b); s.Waiting != 0 || s.Dropped.Corrupt > 0 {
		t.Errorf("%+v", s)
	}
	closeNow(t, b)
}

// TestWhatIsConfirmedIsNotDropped from memory, also while it is not known where the rest of its lane is.
func TestWhatIsConfirmedIsNotDropped(t *testing.T) {
	o, armed := lateOnce(Options{MaxSize: 1 << 20, MaxMemory: 300 << 10})
	b := open(t, newPath(t), o)
	for n := range uint64(2000) {
		b.Append("l", Attributes, noon, numbered(n+1, 300))
		if n%500 == 499 {
			syncNow(t, b)
		}
	}
	for n := range uint64(100) {
		b.Append("l", Attributes, noon, numbered(n+2001, 300))
	}
	b.writer.Lock()
	armed.Store(true)
	if _, err := b.makeRoom(&work{}); !errors.Is(err, errDisk) {
		t.Fatalf("the control failed: %v", err)
	}
	b.Ack("l", b.next)
	for n := range uint64(1000) {
		b.Append("other", Attributes, noon, numbered(n+1, 300))
	}
	b.writer.Unlock()
	syncNow(t, b)
	s := balanced(t, b)
	var c counter
	c.drain(t, b, "other", 1<<30)
	if b.Len("l") != 0 || s.Dropped.Memory == 0 || c.total[CauseMemory] != s.Dropped.Memory {
		t.Errorf("%d wait, gaps tell of %v, counted %+v", b.Len("l"), c.total, s.Dropped)
	}
}

// TestAConsumerIsWokenWhereTheFileCantBeReopened: a consumer that waits for Ready, as it should, gets what is on disk also where the file
// can't be reopened.
func TestAConsumerIsWokenWhereTheFileCantBeReopened(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		o, armed := lateOnce(Options{MaxSize: 1 << 20, Flush: time.Second})
		o.retry = 100 * time.Millisecond
		b, err := Open(path, o)
		if err != nil {
			t.Fatal(err)
		}
		for n := range uint64(2000) {
			b.Append("l", Attributes, noon, numbered(n+1, 300))
		}
		syncNow(t, b)
		select {
		case <-b.Ready("l"):
		default:
		}
		b.writer.Lock()
		armed.Store(true)
		if _, err := b.makeRoom(&work{}); !errors.Is(err, errDisk) {
			t.Fatalf("the control failed: %v", err)
		}
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		b.writer.Unlock()
		if got := peek(t, b, "l", 10); len(got) > 0 {
			t.Fatal("control")
		}
		select {
		case <-b.Ready("l"):
		case <-time.After(time.Hour):
			t.Errorf("not woken within an hour, while Peek gives %d records", len(peek(t, b, "l", 10)))
		}
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
		closeNow(t, b)
	})
}
