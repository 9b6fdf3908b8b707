package buffer

import (
	"bytes"
	"fmt"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// segments tells how many buckets the records take, and how many records these hold.
func segments(t *testing.T, b *Buffer) (n, records int) {
	t.Helper()
	err := b.db.View(func(tx *bolt.Tx) error {
		all := tx.Bucket(segmentsBucket)
		return all.ForEachBucket(func(k []byte) error {
			n++
			records += all.Bucket(k).Stats().KeyN
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, records
}

func TestStuckLaneDoesNotPinTheFile(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	b := open(t, path, Options{MaxSize: 64 << 20})
	var want []uint64
	for i := range 100_000 {
		lane := "live"
		if i%50 == 0 {
			lane = "stuck"
		}
		seq := b.Append(lane, Attributes, noon, make([]byte, 200))
		if lane == "stuck" {
			want = append(want, seq)
		}
		if i%1000 == 999 {
			syncNow(t, b)
			drain(t, b, "live")
		}
	}
	syncNow(t, b)
	syncNow(t, b)
	if n, records := segments(t, b); n > 20 || records > 2000+20*1024 {
		t.Fatalf("2,000 records left pin %d segments with %d records", n, records)
	}
	if s := balanced(t, b); s.FileSize > 12<<20 {
		t.Fatalf("2,000 records left pin a file of %d bytes", s.FileSize)
	}
	closeNow(t, b)
	b = open(t, path, Options{MaxSize: 64 << 20})
	if got := drain(t, b, "stuck"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%d records in another order or number than the %d appended", len(got), len(want))
	}
	syncNow(t, b)
	if n, _ := segments(t, b); n != 0 || b.Len("stuck") != 0 {
		t.Fatalf("%d segments left of an empty buffer", n)
	}
}

func TestAckBeyondWhatWasPeeked(t *testing.T) {
	b := open(t, newPath(t), Options{})
	var seqs []uint64
	for i := range 5000 {
		seq := b.Append(fmt.Sprint(i%2), Attributes, noon, []byte("x"))
		if i%2 == 0 {
			seqs = append(seqs, seq)
		}
	}
	syncNow(t, b)
	for _, n := range []int{10, 300, 700, 2000, 2400} {
		b.Ack("0", seqs[n-1])
		if b.Len("0") != 2500-n {
			t.Fatalf("%d acknowledged, %d left", n, b.Len("0"))
		}
		if r := peek(t, b, "0", 1); r[0].Seq != seqs[n] {
			t.Fatalf("%d acknowledged, next is %d", n, r[0].Seq)
		}
	}
	balanced(t, b)
}

// damage flips a bit of stored records: the lane's number in every sixth, content in the others.
func damage(t *testing.T, b *Buffer, seqs ...uint64) {
	t.Helper()
	err := b.db.Update(func(tx *bolt.Tx) error {
		for i, seq := range seqs {
			bucket := tx.Bucket(segmentsBucket).Bucket(key(seq >> segmentBits))
			v := bytes.Clone(bucket.Get(key(seq)))
			at := headerSize
			if i%6 == 5 {
				at = laneAt + 1
			}
			v[at] ^= 4
			if err := bucket.Put(key(seq), v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDamagedRecordIsSkippedAndCounted(t *testing.T) {
	for _, reopen := range []bool{false, true} {
		path := newPath(t)
		b := open(t, path, Options{})
		var seqs []uint64
		for i := range 3000 {
			seqs = append(seqs, b.Append(fmt.Sprint(i/10%2), Attributes, noon, []byte("value")))
		}
		syncNow(t, b)
		damage(t, b, seqs[0], seqs[500], seqs[1501], seqs[2980], seqs[2981], seqs[2999])
		if reopen {
			closeNow(t, b)
			b = open(t, path, Options{})
		}
		n := len(drain(t, b, "0")) + len(drain(t, b, "1"))
		s := balanced(t, b)
		if n != 2994 || s.Dropped.Corrupt != 6 || s.Waiting != 0 {
			t.Fatalf("reopen %v: %d read, %+v", reopen, n, s)
		}
		syncNow(t, b)
		if left, _ := segments(t, b); left != 0 {
			t.Fatalf("reopen %v: %d segments left", reopen, left)
		}
	}
}
