package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
)

func copyFile(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := newPath(t)
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestFileNeverExceedsItsSize(t *testing.T) {
	t.Parallel()
	for _, maxSize := range []int64{1 << 20, 2<<20 + 12345} {
		t.Run(fmt.Sprint(maxSize), func(t *testing.T) { soak(t, maxSize) })
	}
}

// soak appends far more than fits, with lanes that drain, stand still and lag.
func soak(t *testing.T, maxSize int64) {
	random := rand.New(rand.NewPCG(1, uint64(maxSize)))
	path := newPath(t)
	o := Options{MaxSize: maxSize}
	b := open(t, path, o)
	data := make([]byte, 4000)
	last := map[string]uint64{}
	largest := int64(0)
	for appended := int64(0); appended < 4*maxSize; {
		for range 200 {
			lane, size := fmt.Sprint(random.IntN(4)), 100+random.IntN(300)
			if random.IntN(50) == 0 {
				size = random.IntN(len(data))
			}
			class := Attributes
			if random.IntN(20) == 0 {
				class = Event
			}
			b.Append(lane, class, noon, data[:size])
			appended += int64(size)
		}
		syncNow(t, b)
		for _, lane := range []string{"0", "1"} { // 0 keeps up, 1 takes half, 2 and 3 are stuck
			records := peek(t, b, lane, 1000)
			if lane == "1" {
				records = records[:len(records)/2]
			}
			for _, r := range records {
				if r.Seq <= last[lane] {
					t.Fatalf("lane %s: %d after %d", lane, r.Seq, last[lane])
				}
				last[lane] = r.Seq
			}
			b.Ack(lane, last[lane])
		}
		s := balanced(t, b)
		if largest = max(largest, s.FileSize); s.FileSize > maxSize {
			t.Fatalf("%d bytes of %d", s.FileSize, maxSize)
		}
		if random.IntN(20) == 0 {
			closeNow(t, b)
			b = open(t, path, o)
			balanced(t, b)
		}
	}
	if largest < maxSize*8/10 {
		t.Errorf("only %d of %d bytes were used", largest, maxSize)
	}
	waiting := b.Stats().Waiting
	found := 0
	for lane := range 4 {
		found += len(drain(t, b, fmt.Sprint(lane)))
	}
	if s := balanced(t, b); found != waiting || s.Waiting != 0 || s.Dropped.Corrupt != 0 {
		t.Fatalf("%d said to be there, %d found, %+v", waiting, found, s)
	}
}

func TestEventsOutliveAttributes(t *testing.T) {
	t.Parallel()
	b := open(t, newPath(t), Options{MaxSize: 2 << 20})
	for i := range 20000 {
		if i%100 == 0 {
			b.Append("events", Event, noon, fmt.Appendf(nil, "%0200d", i))
		}
		b.Append("attributes", Attributes, noon, fmt.Appendf(nil, "%0200d", i))
		if i%200 == 0 {
			syncNow(t, b)
		}
	}
	syncNow(t, b)
	if n := len(drain(t, b, "events")); n != 200 {
		t.Fatalf("%d of 200 events", n)
	}
	seqs := drain(t, b, "attributes")
	s := balanced(t, b)
	if s.Dropped.Full == 0 || len(seqs)+int(s.Dropped.Full) != 20000 || len(seqs) < 4000 {
		t.Fatalf("%d attributes left, %+v", len(seqs), s)
	}
	for i, seq := range seqs {
		if i > 0 && seq > seqs[i-1]+2 {
			t.Fatalf("a hole between %d and %d: not the oldest were dropped", seqs[i-1], seq)
		}
	}
}

func TestOnlyEventsDropTheOldest(t *testing.T) {
	t.Parallel()
	b := open(t, newPath(t), Options{MaxSize: 1 << 20})
	for i := range 10000 {
		b.Append("events", Event, noon, fmt.Appendf(nil, "%0200d", i))
		if i%100 == 0 {
			syncNow(t, b)
		}
	}
	syncNow(t, b)
	for range 100 { // an attribute never pushes an event out
		b.Append("attributes", Attributes, noon, make([]byte, 2000))
	}
	n := b.Len("events")
	syncNow(t, b)
	if b.Len("events") != n {
		t.Fatalf("%d events before, %d after", n, b.Len("events"))
	}
	last, seen := "", uint64(0)
	for {
		records, err := b.PeekAfter("events", seen, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 0 {
			break
		}
		r := records[len(records)-1]
		last, seen = string(r.Data), r.Seq
	}
	if last != fmt.Sprintf("%0200d", 9999) {
		t.Fatalf("the newest is %s", last)
	}
	balanced(t, b)
}

func TestStateWorksWhenFull(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	b := open(t, path, Options{MaxSize: 2 << 20})
	value := bytes.Repeat([]byte("v"), 500)
	for i := range 100 {
		for range 100 {
			b.Append("l", Class(i%2), noon, value)
		}
		syncNow(t, b)
		if err := b.Put("state", fmt.Sprint(i), value); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	if s := balanced(t, b); s.Dropped.Full == 0 {
		t.Fatal("it never was full")
	}
	for i := range 100 {
		if v, err := b.Get("state", fmt.Sprint(i)); err != nil || !bytes.Equal(v, value) {
			t.Fatalf("get %d: %d bytes, %v", i, len(v), err)
		}
	}
	// 300 quarantined records and a file opened with half the size find room too
	for range 300 {
		err := b.Quarantine("l", peek(t, b, "l", 1)[0].Seq, "x")
		if err != nil && !errors.Is(err, ErrNotFound) { // the oldest may have had to make room for itself
			t.Fatal(err)
		}
	}
	size := balanced(t, b).FileSize
	closeNow(t, b)
	b = open(t, path, Options{MaxSize: 1 << 20})
	for range 20 {
		b.Append("l", Attributes, noon, value)
		syncNow(t, b)
	}
	if s := balanced(t, b); s.FileSize > size {
		t.Fatalf("a file above its size grew from %d to %d", size, s.FileSize)
	}
}

// The account of free pages is an estimate: bbolt's own refusal is the last word, and has to be enough alone.
func TestDropsWhenOnlyBboltSaysFull(t *testing.T) {
	t.Parallel()
	b := open(t, newPath(t), Options{MaxSize: 1 << 20})
	b.writer.Lock()
	b.allocSize -= 4 << 20 // the account is wrong, bbolt's limit is what it was
	b.writer.Unlock()
	for i := range 100 {
		for range 100 {
			b.Append("l", Class(i%2), noon, make([]byte, 300))
		}
		syncNow(t, b)
		if s := balanced(t, b); s.FileSize > 1<<20 {
			t.Fatalf("%d bytes", s.FileSize)
		}
	}
	if s := balanced(t, b); s.Dropped.Full == 0 || len(drain(t, b, "l")) != s.Waiting {
		t.Fatalf("%+v", s)
	}
}

func TestTooLargeRecordIsRefused(t *testing.T) {
	b := open(t, newPath(t), Options{MaxSize: 2 << 20})
	if seq := b.Append("l", Event, noon, make([]byte, 1<<20)); seq != 0 {
		t.Fatal(seq)
	}
	seq := b.Append("l", Event, noon, make([]byte, 64<<10))
	syncNow(t, b)
	if r := peek(t, b, "l", 1); len(r) != 1 || r[0].Seq != seq || len(r[0].Data) != 64<<10 {
		t.Fatal("64 KB don't pass")
	}
	if s := balanced(t, b); s.Dropped.Refused != 1 {
		t.Fatalf("%+v", s)
	}
}
