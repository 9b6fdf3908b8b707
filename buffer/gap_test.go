package buffer

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// counter is a consumer that knows how many records a lane was given: each must come, or be counted by a gap that stands in its place.
type counter struct {
	last  uint64 // number inside the last record
	lost  uint64 // that gaps since then tell of
	gaps  int
	total map[Cause]uint64
}

func (c *counter) take(t testing.TB, records []Record) {
	t.Helper()
	for _, r := range records {
		if g, ok := r.Loss(); ok {
			if c.total == nil {
				c.total = map[Cause]uint64{}
			}
			c.gaps++
			c.lost += uint64(g.Records)
			c.total[g.Cause] += uint64(g.Records)
			if g.Cause != CauseCorrupt && (g.From.IsZero() || g.To.Before(g.From)) {
				t.Fatalf("gap from %v to %v", g.From, g.To)
			}
			continue
		}
		n := binary.BigEndian.Uint64(r.Data)
		if n != c.last+c.lost+1 {
			t.Fatalf("record %d comes after %d and gaps of %d", n, c.last, c.lost)
		}
		c.last, c.lost = n, 0
	}
}

func (c *counter) drain(t testing.TB, b *Buffer, lane string, limit int) {
	t.Helper()
	for n := 0; limit > 0; limit -= n {
		if n = c.some(t, b, lane, min(limit, 100)); n == 0 {
			return
		}
	}
}

// some takes a few records, without a commit meanwhile: that may make a gap grow, which is then seen again with all that it says.
func (c *counter) some(t testing.TB, b *Buffer, lane string, limit int) int {
	t.Helper()
	b.writer.Lock()
	defer b.writer.Unlock()
	records := peek(t, b, lane, limit)
	if len(records) > 0 {
		c.take(t, records)
		b.Ack(lane, records[len(records)-1].Seq)
	}
	return len(records)
}

func numbered(n uint64, size int) []byte {
	return append(binary.BigEndian.AppendUint64(nil, n), make([]byte, size)...)
}

// gapRun appends to some lanes, drains a little, reopens now and then, and in the end compares what came with what was given.
type gapRun struct {
	options Options
	classes []Class
	faults  bool
	late    bool // transactions fail now and then, and are in the file
	rounds  int
	causes  []Cause // that must have happened
}

func (g gapRun) run(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	var f faults
	o := f.options(g.options)
	o.Gaps = true
	dice := rand.New(rand.NewPCG(9, 10))
	o.failLate = func() error {
		if f.late.Load() && dice.IntN(5) == 0 {
			return errDisk
		}
		return nil
	}
	path := newPath(t)
	if o.MinFreeDisk > 0 { // a disk of 2 MB
		o.freeDisk = func() (int64, error) {
			n, err := allocated(path)
			return max(0, 2<<20-n), err
		}
	}
	b := open(t, path, o)
	given, got := map[string]uint64{}, map[string]*counter{"a": {}, "b": {}, "c": {}}
	lanes := []string{"a", "a", "a", "b", "b", "c"}
	for round := range g.rounds {
		f.early.Store(g.faults && round%10 < 5)
		f.late.Store(g.late && round%10 < 8)
		for range 300 {
			lane := lanes[random.IntN(len(lanes))]
			given[lane]++
			size := random.IntN(300)
			if o.MaxSize == 1<<20 && random.IntN(500) == 0 {
				size = 100 << 10 // refused
			}
			b.Append(lane, g.classes[random.IntN(len(g.classes))], noon.Add(time.Duration(given[lane])*time.Second), numbered(given[lane], size))
		}
		_ = b.Sync(context.Background())
		if round%7 == 6 {
			got["b"].drain(t, b, "b", 150)
		}
		if round%10 == 9 {
			balanced(t, b)
			if round%20 == 9 {
				closeNow(t, b)
				b = open(t, path, o)
			}
		}
	}
	f.early.Store(false)
	f.late.Store(false)
	syncNow(t, b)
	balanced(t, b)
	all := map[Cause]uint64{}
	for lane, c := range got {
		c.drain(t, b, lane, 1<<30)
		if c.last+c.lost != given[lane] {
			t.Errorf("lane %s: %d given, %d came and then gaps of %d", lane, given[lane], c.last, c.lost)
		}
		for cause, n := range c.total {
			all[cause] += n
		}
	}
	for _, cause := range g.causes {
		if all[cause] == 0 {
			t.Errorf("nothing was lost by %s: %v", cause, all)
		}
	}
	balanced(t, b)
}

func TestGapsStandWhereRecordsWereLost(t *testing.T) {
	t.Parallel()
	both := []Class{Attributes, Attributes, Attributes, Event}
	tests := map[string]gapRun{
		"full":       {Options{MaxSize: 1 << 20}, []Class{Attributes}, false, false, 40, []Cause{CauseFull, CauseRefused}},
		"events too": {Options{MaxSize: 1 << 20}, both, false, false, 40, []Cause{CauseFull, CauseRefused}},
		"stop new":   {Options{MaxSize: 1 << 20, WhenFull: StopNew}, both, false, false, 40, []Cause{CauseFull}},
		"memory":     {Options{MaxMemory: 200 << 10}, both, true, false, 40, []Cause{CauseMemory}},
		"all":        {Options{MaxSize: 1 << 20, MaxMemory: 200 << 10}, both, true, false, 40, []Cause{CauseFull, CauseMemory}},
		"late":       {Options{MaxSize: 1 << 20}, both, false, true, 200, []Cause{CauseFull}},
		"late, new":  {Options{MaxSize: 1 << 20, WhenFull: StopNew}, both, false, true, 200, []Cause{CauseFull}},
		"disk":       {Options{MaxSize: 4 << 20, MinFreeDisk: 100 << 10}, both, false, false, 40, []Cause{CauseDisk}},
	}
	for name, test := range tests {
		t.Run(name, test.run)
	}
}

func TestGapsDontFillTheBuffer(t *testing.T) {
	t.Parallel()
	for _, when := range []WhenFull{DropOldest, StopNew} {
		b := open(t, newPath(t), Options{MaxSize: 1 << 20, Gaps: true, WhenFull: when})
		half := 0
		for i := range 300 {
			if i == 150 {
				half = balanced(t, b).Gaps
			}
			for j := range 100 {
				b.Append(fmt.Sprint(j%50), Attributes, noon.Add(time.Duration(i)*time.Second), make([]byte, 200))
			}
			syncNow(t, b)
		}
		s := balanced(t, b)
		if s.Gaps > half+half/5+10 || s.Gaps*2 > s.Waiting || s.Dropped.Full < 20_000 || s.Waiting < 2000 {
			t.Fatalf("when full %d: %+v", when, s)
		}
	}
}

func TestGapsAreShownOnlyToWhoAsks(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	o := Options{MaxSize: 1 << 20, Gaps: true}
	b := open(t, path, o)
	for i := range 5000 {
		b.Append("l", Attributes, noon, numbered(uint64(i+1), 300))
		if i%100 == 99 {
			syncNow(t, b)
		}
	}
	if r := peek(t, b, "l", 1); r[0].Class != Gap {
		t.Fatalf("the lane begins with %v", r[0].Class)
	}
	closeNow(t, b)
	o.Gaps = false
	b = open(t, path, o)
	n := b.Len("l")
	if r := peek(t, b, "l", 1); r[0].Class == Gap {
		t.Fatal("a gap is shown")
	}
	if got := len(drain(t, b, "l")); got != n {
		t.Fatalf("%d of %d", got, n)
	}
	balanced(t, b)
	syncNow(t, b)
	if left, _ := segments(t, b); left != 0 {
		t.Fatalf("%d segments left", left)
	}
}

func TestDamagedRecordLeavesAGap(t *testing.T) {
	path := newPath(t)
	o := Options{Gaps: true}
	b := open(t, path, o)
	var seqs []uint64
	for i := range 3000 {
		seqs = append(seqs, b.Append("l", Attributes, noon, numbered(uint64(i+1), 10)))
	}
	syncNow(t, b)
	damage(t, b, seqs[10], seqs[11], seqs[12], seqs[2000], seqs[2999])
	closeNow(t, b)
	for range 2 {
		b = open(t, path, o)
		var c counter
		c.take(t, peek(t, b, "l", 5000))
		balanced(t, b)
		if c.last+c.lost != 3000 || c.total[CauseCorrupt] != 5 || c.gaps != 3 {
			t.Fatalf("%+v", c)
		}
		closeNow(t, b)
	}
}

// TestGapsAtTheEndAreJoinedWhateverCameBetween: a lane whose newest record on disk becomes a gap behind which another gap stands: what it
// loses later is joined all the same.
func TestGapsAtTheEndAreJoinedWhateverCameBetween(t *testing.T) {
	b := open(t, newPath(t), Options{Gaps: true})
	b.Append("l", Attributes, noon, numbered(1, 10))
	syncNow(t, b)
	for range 1 << segmentBits {
		b.Append("other", Attributes, noon, numbered(1, 10))
	}
	syncNow(t, b)
	drain(t, b, "other")
	lose := func(cause Cause) {
		b.writer.Lock()
		b.Append("l", Attributes, noon, numbered(1, 10))
		w := b.take(true)
		b.dropFromBatch(w, Attributes, cause)
		if err := b.store(w); err != nil {
			t.Fatal(err)
		}
		b.settle(w)
		err := b.tidy()
		b.writer.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	lose(CauseFull) // tail
	b.writer.Lock()
	if err := b.dropOf(b.oldestWith(Attributes), dropAttributes, CauseFull); err != nil { // the first record
		t.Fatal(err)
	}
	b.writer.Unlock()
	for range 100 {
		lose(CauseFull)
	}
	syncNow(t, b)
	if n := b.Len("l"); n > 2 {
		t.Errorf("%d gaps of one cause with nothing between, tails %d", n, len(b.lanes["l"].tails))
	}
}

// TestAGapIsNotMovedBehindWhatWaits: a lane's gap stays in front of a record of the lane that isn't on disk yet.
func TestAGapIsNotMovedBehindWhatWaits(t *testing.T) {
	b := open(t, newPath(t), Options{Gaps: true})
	b.writer.Lock()
	b.Append("a", Attributes, noon, make([]byte, 40<<20)) // refused: a gap in segment 0
	w := b.take(false)
	if err := b.store(w); err != nil {
		t.Fatal(err)
	}
	b.settle(w)
	fill := func(n int) {
		for range n {
			b.Append("other", Attributes, noon, numbered(1, 10))
		}
	}
	fill(1 << segmentBits)
	b.Append("a", Attributes, noon, numbered(2, 10)) // in segment 1, waits for Flush
	fill(1 << segmentBits)
	b.Ack("other", b.next-1) // never written
	for n := range uint64(300) {
		b.Append("e", Event, noon, numbered(n+1, 10)) // in segment 2
	}
	w = b.take(false)
	if err := b.store(w); err != nil {
		t.Fatal(err)
	}
	b.settle(w)
	if err := b.dropOf(b.oldestWith(Event), func(e entry) bool { return e.class == Event && e.seq%2 == 0 }, CauseFull); err != nil {
		t.Fatal(err)
	}
	b.writer.Unlock()
	syncNow(t, b)
	got := peek(t, b, "a", 10)
	for i, r := range got {
		if i > 0 && r.Seq < got[i-1].Seq {
			t.Errorf("%d after %d", r.Seq, got[i-1].Seq)
		}
	}
}
