package buffer

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailedSyncOfTheDiskDoublesNothing(t *testing.T) {
	t.Parallel()
	for _, fails := range []int{1, 20} {
		var f faults
		path := newPath(t)
		b := open(t, path, f.options(Options{Gaps: true}))
		n := uint64(0)
		var c counter
		for round := range 30 {
			for range 100 {
				n++
				b.Append("l", Class(n%2), noon, numbered(n, 100))
			}
			if round >= 5 && round < 5+fails {
				f.late.Store(true)
				if err := b.Sync(context.Background()); !errors.Is(err, errDisk) {
					t.Fatal(err)
				}
				f.late.Store(false)
			} else {
				syncNow(t, b)
			}
			if round%4 == 3 {
				c.drain(t, b, "l", 200)
			}
		}
		syncNow(t, b)
		s := balanced(t, b)
		if s.Reopened == 0 || s.Dropped.Total() != 0 {
			t.Fatalf("%+v", s)
		}
		closeNow(t, b)
		b = open(t, path, Options{Gaps: true})
		c.drain(t, b, "l", 1<<30)
		if c.last != n || c.gaps != 0 {
			t.Fatalf("%d of %d, %d gaps", c.last, n, c.gaps)
		}
	}
}

// TestAFailedSyncOfARetryLosesNothing: what goes back from quarantine is in its
// lane or still in quarantine, never in both or none, whatever the disk has kept
// of it, and the caller is told which.
func TestAFailedSyncOfARetryLosesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		early, late int // commits that fail in a row
		back        bool
	}{
		"it works":                   {0, 0, true},
		"not written":                {1, 0, false},
		"written, sync fails once":   {0, 1, true},
		"written, sync fails twice":  {0, 2, false},
		"written, sync fails longer": {0, 5, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			b, arm := failing(t, path, c.early, c.late)
			seq := b.Append("l", Attributes, noon, []byte("old"))
			if err := b.Quarantine("l", seq, "x"); err != nil {
				t.Fatal(err)
			}
			first := b.Append("l", Attributes, noon, []byte("a"))
			syncNow(t, b)
			once := func(b *Buffer, waiting string) {
				t.Helper()
				list, err := b.Quarantined()
				if got := texts(peek(t, b, "l", 10)); err != nil || (len(list) == 0) != c.back || got != waiting {
					t.Errorf("%d in quarantine, in the lane is %q, want %q, %v", len(list), got, waiting, err)
				}
			}
			arm()
			if _, err := b.QuarantineRetry(seq); (err == nil) != c.back {
				t.Fatalf("the retry says %v", err)
			}
			after, err := Open(copyFile(t, path), Options{}) // what a power cut now would leave
			if err != nil {
				t.Fatal(err)
			}
			defer after.Close()
			if list, err := after.Quarantined(); err != nil || len(list)+after.Len("l") != 2 {
				t.Errorf("after a power cut: %d in quarantine, %d in the lane, %v", len(list), after.Len("l"), err)
			}
			peek(t, b, "l", 10)
			for b.Put("state", "x", nil) != nil { // until the disk works
			}
			b.Append("l", Attributes, noon, []byte("new"))
			syncNow(t, b)
			want := map[bool]string{true: "a old new", false: "a new"}[c.back]
			once(b, want)
			b.Ack("l", first)
			syncNow(t, b)
			balanced(t, b)
			once(b, want[2:])
			closeNow(t, b)
			b = open(t, path, Options{})
			once(b, want[2:])
			if c.back {
				return
			}
			drain(t, b, "l") // others are confirmed
			syncNow(t, b)
			closeNow(t, b)
			b = open(t, path, Options{})
			if _, err := b.QuarantineRetry(seq); err != nil || texts(peek(t, b, "l", 10)) != "old" {
				t.Errorf("again: %v", err)
			}
		})
	}
}

// failing opens a buffer of which the next commits fail, once it is armed: some
// before they are written, some after.
func failing(t *testing.T, path string, early, late int) (b *Buffer, arm func()) {
	armed := false
	fails := func(left *int) func() error {
		return func() error {
			if !armed || *left == 0 {
				return nil
			}
			*left--
			return errDisk
		}
	}
	b = open(t, path, Options{Gaps: true, MaxSize: 1 << 20, retry: time.Millisecond, fail: fails(&early), failLate: fails(&late)})
	return b, func() {
		b.writer.Lock()
		defer b.writer.Unlock()
		armed = true
	}
}

// TestAFailedSyncOfAQuarantineLosesNothing: the record stays where it was, what
// would have made room for it too, and another try puts it aside.
func TestAFailedSyncOfAQuarantineLosesNothing(t *testing.T) {
	for _, c := range []struct{ early, late int }{{1, 0}, {0, 1}, {0, 2}, {0, 5}} {
		path := newPath(t)
		b, arm := failing(t, path, c.early, c.late)
		aside := 0
		for ; b.Stats().Evicted == 0; aside++ { // till it is full
			if err := b.Quarantine("l", b.Append("l", Attributes, noon, make([]byte, 10_000)), "x"); err != nil {
				t.Fatal(err)
			}
		}
		first := b.Append("l", Attributes, noon, []byte("a"))
		seq := b.Append("l", Attributes, noon, make([]byte, 9_999))
		b.Append("l", Attributes, noon, []byte("c"))
		syncNow(t, b)
		check := func(waiting, evicted int) {
			t.Helper()
			list, err := b.Quarantined()
			if s := balanced(t, b); err != nil || len(list) != aside-1 || int(s.Evicted) != evicted || b.Len("l")-s.Gaps != waiting || len(peek(t, b, "l", 10))-s.Gaps != waiting || s.Dropped.Total() > 0 {
				t.Errorf("%+v: %d in quarantine, want %d; in the lane %d, want %d; %+v", c, len(list), aside-1, b.Len("l"), waiting, s)
			}
		}
		arm()
		if err := b.Quarantine("l", seq, "x"); !errors.Is(err, errDisk) {
			t.Fatal(err)
		}
		peek(t, b, "l", 10)                   // what it doesn't find is not lost
		for b.Put("state", "x", nil) != nil { // until the disk works
		}
		check(3, 1)
		if err := b.Quarantine("l", seq, "x"); err != nil {
			t.Error(err)
		}
		check(2, 2)
		if b.find("l").unsure {
			t.Error("what is lost from now on would not be noticed")
		}
		b.Ack("l", first)
		closeNow(t, b)
		b = open(t, path, Options{})
		if got := texts(peek(t, b, "l", 10)); got != "c" {
			t.Errorf("after a restart %q", got)
		}
	}
}

func TestGoesOnInMemoryWithoutADisk(t *testing.T) {
	var f faults
	b := open(t, newPath(t), f.options(Options{MaxMemory: 100 << 10, Gaps: true, Flush: time.Millisecond}))
	f.late.Store(true)
	f.early.Store(true)
	var c counter
	n := uint64(0)
	for range 100 {
		for range 20 {
			n++
			b.Append("l", Attributes, noon, numbered(n, 100))
		}
		c.drain(t, b, "l", 1<<30)
		if c.last+c.lost != n {
			t.Fatalf("%d given, %d came", n, c.last)
		}
	}
	for b.Stats().FailingSince.IsZero() {
		n++
		b.Append("l", Event, noon, numbered(n, 100))
		time.Sleep(time.Millisecond)
	}
	f.late.Store(false)
	f.early.Store(false)
	syncNow(t, b)
	for !b.Stats().FailingSince.IsZero() {
		time.Sleep(time.Millisecond)
	}
	c.drain(t, b, "l", 1<<30)
	if c.last+c.lost != n {
		t.Fatalf("%d given, %d came", n, c.last)
	}
	balanced(t, b)
}

// Without a disk, events go out from memory; with one, none is seen that is not on it.
func TestEventsDontWaitForABrokenDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f faults
		path := newPath(t)
		b := open(t, path, f.options(Options{}))
		ready := b.Ready("l")
		f.early.Store(true)
		first := b.Append("l", Event, noon, []byte("a"))
		synctest.Wait() // its commit has failed
		if got := texts(peek(t, b, "l", 10)); got != "" {
			t.Fatalf("%q: not even a second", got)
		}
		time.Sleep(5 * time.Second)
		select {
		case <-ready:
		default:
			t.Error("nobody says that it can be seen")
		}
		b.Append("l", Event, noon, []byte("b"))
		if got := texts(peek(t, b, "l", 10)); got != "a b" {
			t.Fatalf("%q", got)
		}
		b.Ack("l", first)
		f.early.Store(false)
		time.Sleep(10 * time.Second)
		b.Append("l", Event, noon, []byte("c"))
		if got := texts(peek(t, b, "l", 10)); got != "b" {
			t.Fatalf("%q: the control failed, c is not on disk", got)
		}
		closeNow(t, b)
		if got := texts(peek(t, open(t, path, Options{}), "l", 10)); got != "b c" {
			t.Fatalf("%q", got)
		}
	})
}

// What is on disk stays readable while the file can't be reopened.
func TestReadsWhileItCantBeReopened(t *testing.T) {
	var f faults
	path := newPath(t)
	b := open(t, path, f.options(Options{}))
	b.Append("l", Attributes, noon, []byte("a"))
	syncNow(t, b)
	f.late.Store(true)
	b.Append("l", Attributes, noon, []byte("b"))
	if err := b.Sync(context.Background()); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	f.late.Store(false)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := b.Sync(context.Background()); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if got := texts(peek(t, b, "l", 10)); got != "a b" {
		t.Fatalf("%q", got)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	syncNow(t, b)
	if _, err := Open(path, Options{}); err == nil {
		t.Fatal("the file is no longer locked")
	}
	if got := texts(peek(t, b, "l", 10)); got != "a b" {
		t.Fatalf("%q", got)
	}
}

const diskRecords = 500

// The real thing: strace makes fdatasync of a child fail, and the child's own account must still hold.
func TestDiskErrorsOfARealFile(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil || testing.Short() {
		t.Skip("no strace")
	}
	for _, inject := range []string{"fdatasync:error=EIO:when=5+7", "pwrite64:error=EIO:when=9+11", "pwrite64:error=ENOSPC:when=9+13"} {
		path := newPath(t)
		closeNow(t, open(t, path, Options{}))
		cmd := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,pwrite64", "-e", "inject="+inject, os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+path, childDiskEnv+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil && len(out) == 0 {
			t.Skip("strace can't inject here:", err)
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", inject, err, out)
		}
		b := open(t, path, Options{Gaps: true})
		var c counter
		c.drain(t, b, "l", 1<<30)
		if c.last != diskRecords || c.gaps != 0 {
			t.Fatalf("%s: %d records, %d gaps", inject, c.last, c.gaps)
		}
		if string(out) != "failed\n" {
			t.Errorf("%s: the control failed: no commit did", inject)
		}
	}
}

// childDisk appends and commits until each record is on disk, and says whether a commit has failed.
func childDisk(path string) error {
	b, err := Open(path, Options{Gaps: true, Flush: time.Hour, retry: time.Millisecond})
	if err != nil {
		return err
	}
	for n := range uint64(diskRecords) {
		b.Append("l", Attributes, noon, numbered(n+1, 100))
		for n%50 == 49 && b.Sync(context.Background()) != nil {
			time.Sleep(time.Millisecond)
		}
	}
	s := b.Stats()
	if s.Failures > 0 && s.Reopened > 0 {
		_, _ = os.Stdout.WriteString("failed\n")
	}
	_ = b.Close() // everything is on disk; only the numbers left over can't be given back
	return nil
}

// TestWhatIsInNoLaneIsPutAside at once, or not at all: also where the transaction fails and is in the file all the same. Its lane is read meanwhile.
func TestWhatIsInNoLaneIsPutAside(t *testing.T) {
	o, armed := lateOnce(Options{})
	b := open(t, newPath(t), o)
	b.Append("l", Attributes, noon, []byte("waits"))
	syncNow(t, b)
	armed.Store(true)
	if _, err := b.QuarantineNew("l", Attributes, noon, []byte("merged"), "refused"); !errors.Is(err, errDisk) {
		t.Fatalf("the control failed: %v", err)
	}
	if r := peek(t, b, "l", 2); len(r) != 1 {
		t.Errorf("%d records are shown", len(r))
	}
	syncNow(t, b)
	if list, err := b.Quarantined(); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
	seq, err := b.QuarantineNew("l", Attributes, noon, []byte("merged"), "refused")
	if err != nil {
		t.Fatal(err)
	}
	if list, err := b.Quarantined(); err != nil || len(list) != 1 || list[0].Seq != seq || list[0].Lane != "l" || list[0].Reason != "refused" || string(list[0].Data) != "merged" {
		t.Errorf("%v, %v", list, err)
	}
	balanced(t, b)
	if _, err := b.QuarantineRetry(seq); err != nil {
		t.Fatal(err)
	}
	if r := peek(t, b, "l", 2); len(r) != 2 || string(r[1].Data) != "merged" {
		t.Errorf("%v", r)
	}
	balanced(t, b)
}

// TestARecordWhoseQuarantineHappenedIsNotPassed: the way of record 1 to quarantine fails, and has happened; the disk goes on failing, but the
// file can be reopened. The lane is read on, without the record, which is then acknowledged unseen: it must not be gone.
func TestARecordWhoseQuarantineHappenedIsNotPassed(t *testing.T) {
	for _, appended := range []bool{false, true} { // what the consumer goes on with: on disk, or in memory
		t.Run("", func(t *testing.T) {
			path := newPath(t)
			synctest.Test(t, func(t *testing.T) {
				var f faults
				b := open(t, path, f.options(Options{Flush: time.Second, Gaps: true}))
				b.Append("l", Attributes, noon, []byte("bad"))
				if !appended {
					b.Append("l", Attributes, noon, []byte("good"))
				}
				syncNow(t, b)
				bad := peek(t, b, "l", 1)[0].Seq
				f.late.Store(true)
				if err := b.Quarantine("l", bad, "refused"); err == nil {
					t.Fatal("no error")
				}
				f.early.Store(true)
				f.late.Store(false)
				if appended {
					b.Append("l", Attributes, noon, []byte("good"))
				}
				for range 20 {
					time.Sleep(time.Second)
					if r := peek(t, b, "l", 10); len(r) > 0 {
						if texts(r[:1]) == "good" {
							b.Ack("l", r[0].Seq)
						}
						break
					}
				}
				f.early.Store(false)
				time.Sleep(time.Minute)
				synctest.Wait()
				left := texts(peek(t, b, "l", 10))
				q, _ := b.Quarantined()
				s := balanced(t, b)
				if left != "bad" && left != "bad good" || s.Dropped.Corrupt > 0 {
					t.Errorf("left %q, %d in quarantine, corrupt %d, acked %d, Len %d", left, len(q), s.Dropped.Corrupt, s.Acked, b.Len("l"))
				}
			})
		})
	}
}
