package buffer

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
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
