package buffer

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestOldRecordsGo(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		o := Options{Flush: time.Second, MaxAge: 24 * time.Hour, Gaps: true}
		b := open(t, path, o)
		n := uint64(0)
		for hour := range 72 {
			for i := range 200 {
				n++
				b.Append("l", Class(i%2), noon.Add(time.Duration(hour)*time.Hour), numbered(n, 50))
			}
			time.Sleep(time.Hour)
			if hour%10 == 9 {
				closeNow(t, b)
				b = open(t, path, o)
			}
		}
		synctest.Wait()
		s := balanced(t, b)
		if left := uint64(b.Len("l")); left < 200*23 || left > 200*26 {
			t.Fatalf("%d of %d records left after 24 h, %+v", left, n, s)
		}
		var c counter
		c.drain(t, b, "l", 1<<30)
		if c.last != n || c.gaps != 1 || c.total[CauseAge] < 200*46 {
			t.Fatalf("%+v", c)
		}
		time.Sleep(48 * time.Hour) // an empty buffer leaves the disk alone
		before := b.Stats().Commits
		time.Sleep(48 * time.Hour)
		if after := b.Stats().Commits; after != before {
			t.Fatalf("%d commits of an empty buffer", after-before)
		}
	})
}

// Whatever the clock on the wall does, it does to the times in the records: they must not say how old these are.
func TestClockStepDropsNothing(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		o := Options{Flush: time.Second, MaxAge: time.Hour, Gaps: true}
		times := []time.Time{noon, noon.AddDate(0, 0, -1), noon.AddDate(10, 0, 0), time.Unix(0, 0), {}, noon.AddDate(1, 0, 0)}
		b := open(t, path, o)
		n := uint64(0)
		for range 5 {
			for _, at := range times {
				n++
				b.Append("l", Attributes, at, numbered(n, 10))
				time.Sleep(time.Minute)
			}
			closeNow(t, b)
			b = open(t, path, o)
		}
		if s := balanced(t, b); s.Waiting != len(times)*5 || s.Dropped.Total() != 0 {
			t.Fatalf("after half an hour: %+v", s)
		}
		// the control: an hour later they are gone
		time.Sleep(62 * time.Minute)
		synctest.Wait()
		if s := balanced(t, b); s.Dropped.Age != uint64(len(times)*5) {
			t.Fatalf("after an hour: %+v", s)
		}
	})
}

func TestAgeHoldsInMemory(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		var f faults
		b := open(t, path, f.options(Options{Flush: time.Hour, MaxAge: 10 * time.Minute, Gaps: true}))
		b.Append("l", Attributes, noon, numbered(1, 0))
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if s := balanced(t, b); s.Dropped.Age != 1 || s.Waiting != 1 {
			t.Fatalf("%+v", s)
		}
		if r := peek(t, b, "l", 10); len(r) != 1 || r[0].Class != Gap {
			t.Fatalf("%+v", r)
		}
	})
}

// TestGapsTellOfAllThatIsTooOld: a lane has one record on disk and one that isn't yet; both get too old, and another lane's records fill
// the segments behind. Two records are lost, and gaps must tell of two.
func TestGapsTellOfAllThatIsTooOld(t *testing.T) {
	b := open(t, newPath(t), Options{Gaps: true, MaxAge: time.Hour, Flush: 24 * time.Hour})
	b.Append("a", Attributes, noon, numbered(1, 10))
	syncNow(t, b)
	b.writer.Lock()
	b.Append("a", Attributes, noon, numbered(2, 10)) // waits for the disk
	for n := range uint64(5 << segmentBits) {
		b.Append("e", Event, noon, numbered(n+1, 10))
	}
	b.mu.Lock()
	b.ages.mark(b.next, time.Now())
	b.mu.Unlock()
	w := b.take(false) // the events go first
	if err := b.store(w); err != nil {
		t.Fatal(err)
	}
	b.settle(w)
	if b.Stats().Pending != 1 {
		t.Fatal("control", b.Stats().Pending)
	}
	if err := b.expire(time.Now().Add(2 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	b.writer.Unlock()
	for range 3 {
		syncNow(t, b)
	}
	s := balanced(t, b)
	told := 0
	last := uint64(0)
	for {
		rs := peek(t, b, "a", 10)
		if len(rs) == 0 {
			break
		}
		for _, r := range rs {
			g, _ := r.Loss()
			if r.Seq <= last {
				t.Errorf("%d after %d", r.Seq, last)
			}
			last = r.Seq
			told += g.Records
		}
		b.Ack("a", last)
		syncNow(t, b)
	}
	if told != 2 {
		t.Errorf("2 records of lane a are lost, gaps tell of %d; %+v", told, s)
	}
	balanced(t, b)
}

// TestBeyondMaxAgeACommitIsSmall: beyond MaxAge, a commit of one record doesn't write a whole segment anew each time.
func TestBeyondMaxAgeACommitIsSmall(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		b := open(t, path, Options{Gaps: true, MaxAge: 10 * time.Hour, Flush: time.Second})
		var before Stats
		for n := range uint64(11 * 360) { // one in ten seconds, nobody fetches
			b.Append("l", Attributes, noon, numbered(n+1, 100))
			if n == 10*360+100 {
				before = b.Stats()
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		after := b.Stats()
		appended, commits := after.Appended-before.Appended, after.Commits-before.Commits
		if commits > appended+appended/10 {
			t.Errorf("%d records took %d transactions", appended, commits)
		}
	})
}
