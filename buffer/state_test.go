package buffer

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"
)

func openState(t *testing.T, path string) *Buffer {
	t.Helper()
	b, err := Open(path, Options{MaxSize: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func scanned(t *testing.T, b *Buffer, bucket, from string) (all []string) {
	t.Helper()
	err := b.Scan(bucket, from, func(name string, value []byte) bool {
		all = append(all, fmt.Sprintf("%s=%s", name, value))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestScanGivesABucketInOrderAlsoAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	b := openState(t, path)
	if err := b.PutAll("x", map[string][]byte{"3": []byte("c"), "1": []byte("a"), "2": []byte("b")}); err != nil {
		t.Fatal(err)
	}
	if err := b.PutAll("x", map[string][]byte{"3": nil, "4": []byte("d")}); err != nil {
		t.Fatal(err)
	}
	if err := b.Put("y", "2", []byte("other")); err != nil {
		t.Fatal(err)
	}
	b.Close()
	b = openState(t, path)
	if got := fmt.Sprint(scanned(t, b, "x", "")); got != "[1=a 2=b 4=d]" {
		t.Errorf("all: %s", got)
	}
	if got := fmt.Sprint(scanned(t, b, "x", "2")); got != "[2=b 4=d]" {
		t.Errorf("from 2: %s", got)
	}
	if got := scanned(t, b, "absent", ""); got != nil {
		t.Errorf("an absent bucket has %v", got)
	}
	first := 0
	if err := b.Scan("x", "", func(string, []byte) bool { first++; return false }); err != nil || first != 1 {
		t.Errorf("%d values after enough, %v", first, err)
	}
}

func TestTrimKeepsTheNewestWithinItsBound(t *testing.T) {
	b := openState(t, filepath.Join(t.TempDir(), "b"))
	entries := make(map[string][]byte)
	for i := range 2500 {
		entries[fmt.Sprintf("%05d", i)] = bytes.Repeat([]byte("x"), 100)
	}
	if err := b.PutAll("audit", entries); err != nil {
		t.Fatal(err)
	}
	if gone, err := b.Trim("audit", "00400", 1<<40); gone != 400 || err != nil {
		t.Errorf("by name %d went, %v", gone, err)
	}
	if _, err := b.Trim("audit", "", 50_000); err != nil {
		t.Fatal(err)
	}
	left := scanned(t, b, "audit", "")
	if len(left) < 300 || len(left) > 500 || left[len(left)-1][:5] != "02499" {
		t.Errorf("by size %d are left, the last %.5s", len(left), left[len(left)-1])
	}
	if gone, err := b.Trim("audit", "", 50_000); gone != 0 || err != nil {
		t.Errorf("again %d went, %v", gone, err)
	}
}
