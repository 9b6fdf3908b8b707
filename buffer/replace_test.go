package buffer

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// TestAGapBecomesAnEventInOneStep: what the event says is what was dropped,
// whatever is lost meanwhile, and also when it grows in memory.
func TestAGapBecomesAnEventInOneStep(t *testing.T) {
	path := newPath(t)
	var failing atomic.Bool // then all stays in memory, and that is too much
	fail := func() error {
		if failing.Load() {
			return errDisk
		}
		return nil
	}
	b := open(t, path, Options{MaxMemory: 64 << 10, Gaps: true, Flush: time.Hour, fail: fail})
	lose := func() {
		for range 2000 {
			b.Append("l", Attributes, noon, make([]byte, 100))
		}
	}
	failing.Store(true)
	lose()
	told := 0 // of what was lost
	replace := func() bool {
		done, err := b.ReplaceGap("l", "l/events", func(g Loss) []byte {
			told += g.Records
			return []byte("event")
		})
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	// What a commit holds is not dropped: a gap may stand behind records.
	next := func() bool {
		got := peek(t, b, "l", 1)
		switch {
		case len(got) == 0:
			return false
		case got[0].Class != Gap:
			b.Ack("l", got[0].Seq)
		case !replace():
			t.Fatal("a gap that is no gap")
		}
		return true
	}
	for told == 0 && next() {
	}
	for lose(); next(); {
	}
	if replace() {
		t.Error("a gap in an empty lane")
	}
	if dropped := int(b.Stats().Dropped.Memory); told != dropped || dropped == 0 {
		t.Errorf("told %d, dropped %d", told, dropped)
	}
	failing.Store(false)
	syncNow(t, b)
	closeNow(t, b)
	b = open(t, path, Options{Gaps: true})
	if done, err := b.ReplaceGap("l", "l/events", nil); done || err != nil {
		t.Errorf("a gap is there again: %v, %v", done, err)
	}
	if got := peek(t, b, "l/events", 10); len(got) < 1 || string(got[0].Data) != "event" {
		t.Errorf("events are %v", got)
	}
}

func TestAGapThatNobodyWantsToKnowOfGoes(t *testing.T) {
	b := open(t, newPath(t), Options{MaxMemory: 64 << 10, Gaps: true, Flush: time.Hour})
	b.Append("l", Attributes, noon, make([]byte, 1<<20)) // refused: too large
	if done, err := b.ReplaceGap("l", "l/events", func(Loss) []byte { return nil }); !done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	if b.Len("l") != 0 || b.Len("l/events") != 0 {
		t.Errorf("%d and %d wait", b.Len("l"), b.Len("l/events"))
	}
}

// TestACrashNeverHasAGapGoneWithoutItsEvent: a batch that is tried again has not the event that came meanwhile.
func TestACrashNeverHasAGapGoneWithoutItsEvent(t *testing.T) {
	var f faults
	o := f.options(Options{Gaps: true, Flush: time.Hour})
	o.retry = time.Hour // the commits are the test's
	b := open(t, newPath(t), o)
	b.Append("l", Attributes, noon, make([]byte, 64<<20)) // refused: too large
	for range 2 << segmentBits {
		b.Append("other", Attributes, noon, make([]byte, 10))
	}
	syncNow(t, b)
	drain(t, b, "other")
	f.early.Store(true)
	b.Append("other", Attributes, noon, []byte("frozen"))
	err := b.commit(true)
	if b.note(err); err == nil {
		t.Fatal("the disk did not fail")
	}
	if done, err := b.ReplaceGap("l", "l/events", func(Loss) []byte { return []byte("lost") }); !done || err != nil {
		t.Fatal(done, err)
	}
	f.early.Store(false)
	told := func() (gap, event bool) {
		b := open(t, copyFile(t, b.path), Options{Gaps: true, Flush: time.Hour})
		defer closeNow(t, b)
		return len(peek(t, b, "l", 10)) == 1, len(peek(t, b, "l/events", 10)) == 1
	}
	for i := range 3 {
		if gap, event := told(); gap == event {
			t.Errorf("after %d commits: gap %v, event %v", i, gap, event)
		}
		if err := b.commit(false); err != nil {
			t.Fatal(err)
		}
		if run := b.wasteful(); run != nil {
			if err := b.rewrite(run, dropEverything, CauseFull); err != nil {
				t.Fatal(err)
			}
		}
	}
	if gap, event := told(); gap || !event {
		t.Errorf("at the end: gap %v, event %v", gap, event)
	}
	balanced(t, b)
}

// TestACrashNeverHasRecordsGoneThatWereMoved: whatever a commit takes, after a crash each record is in one lane at least, and after a clean
// end in one only. The control, which acknowledges what it appends elsewhere, must lose some.
func TestACrashNeverHasRecordsGoneThatWereMoved(t *testing.T) {
	const records = 1500
	for _, control := range []bool{false, true} {
		b := open(t, newPath(t), Options{Gaps: true, MaxMemory: 256 << 10, retry: time.Hour})
		for i := range records {
			b.Append("from", Attributes, noon, fmt.Appendf(nil, "%d", i))
			b.Append("other", Attributes, noon, []byte("x"))
			if i%100 == 99 {
				syncNow(t, b)
			}
		}
		lost := 0
		crash := func() {
			b := open(t, copyFile(t, b.path), Options{Gaps: true})
			defer closeNow(t, b)
			there := map[string]bool{}
			for _, lane := range []string{"from", "to"} {
				for _, r := range peek(t, b, lane, records) {
					there[string(r.Data)] = true
				}
			}
			lost += records - len(there)
		}
		for b.Len("from") > 0 {
			list := peek(t, b, "from", 700)
			n := len(list)
			if control {
				for _, r := range list {
					b.Append("to", r.Class, r.Time, r.Data)
				}
				b.Ack("from", list[n-1].Seq)
			} else if n = b.Move("from", list[n-1].Seq, "to", list); n == 0 {
				syncNow(t, b)
				continue
			}
			b.Append("other/events", Event, noon, []byte("a commit that takes nothing else"))
			if err := b.commit(false); err != nil {
				t.Fatal(err)
			}
			crash()
		}
		syncNow(t, b)
		crash()
		if (lost > 0) != control {
			t.Errorf("control %v: %d lost", control, lost)
		}
		if got := peek(t, b, "to", records); !control && (len(got) != records || string(got[0].Data) != "0" || string(got[records-1].Data) != fmt.Sprint(records-1)) {
			t.Errorf("%d were moved", len(got))
		}
		balanced(t, b)
		closeNow(t, b)
		b = open(t, b.path, Options{Gaps: true})
		if b.Len("from") > 0 {
			t.Errorf("control %v: %d are where they were", control, b.Len("from"))
		}
	}
}

// TestWhatWasMovedAndConfirmedIsDone: also where it never got on disk.
func TestWhatWasMovedAndConfirmedIsDone(t *testing.T) {
	b := open(t, newPath(t), Options{Gaps: true})
	b.Append("from", Attributes, noon, []byte("a"))
	syncNow(t, b)
	list := peek(t, b, "from", 1)
	if b.Move("from", list[0].Seq, "to", list) != 1 || len(drain(t, b, "to")) != 1 {
		t.Fatal("it was not moved")
	}
	closeNow(t, b)
	b = open(t, b.path, Options{Gaps: true})
	if b.Len("from")+b.Len("to") > 0 {
		t.Errorf("%d and %d are there again", b.Len("from"), b.Len("to"))
	}
}

// TestWhatIsMovedTwiceOutlivesACrash: records that are moved twice before they are on disk: after a crash each is in one lane at least.
func TestWhatIsMovedTwiceOutlivesACrash(t *testing.T) {
	for _, twice := range []string{"moved", "gap"} {
		t.Run(twice, func(t *testing.T) {
			var f faults
			o := f.options(Options{Gaps: true, Flush: time.Hour})
			o.retry = time.Hour
			b := open(t, newPath(t), o)
			b.Append("a", Attributes, noon, []byte("record"))
			syncNow(t, b)
			f.early.Store(true)
			b.Append("other", Attributes, noon, []byte("frozen"))
			err := b.commit(true)
			if b.note(err); err == nil {
				t.Fatal("control")
			}
			if b.Move("a", peek(t, b, "a", 1)[0].Seq, "b", peek(t, b, "a", 1)) != 1 {
				t.Fatal("not moved")
			}
			switch twice {
			case "moved":
				if b.Move("b", peek(t, b, "b", 1)[0].Seq, "c", peek(t, b, "b", 1)) != 1 {
					t.Fatal("not moved")
				}
			case "gap": // memory reaches its bound
				b.mu.Lock()
				b.losePending(b.lanes["b"].mem[0], CauseMemory)
				b.mu.Unlock()
				if done, err := b.ReplaceGap("b", "c", func(Loss) []byte { return []byte("lost") }); !done || err != nil {
					t.Fatal(done, err)
				}
			}
			f.early.Store(false)
			b.writer.Lock()
			w := b.take(false)
			if err := b.store(w); err != nil {
				t.Fatal(err)
			}
			b.settle(w)
			b.writer.Unlock()
			after := open(t, copyFile(t, b.path), Options{Gaps: true})
			if after.Len("a")+after.Len("b")+after.Len("c") == 0 {
				t.Error("after a crash the record is in no lane, and nothing tells of it")
			}
		})
	}
}
