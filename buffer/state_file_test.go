package buffer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStateOfAClosedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "buffer.db")
	b, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put("facts", "pump", []byte("runs")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenState(path); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("a file in use: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenState(path)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := f.Get("facts", "pump"); string(v) != "runs" || err != nil {
		t.Errorf("got %q, %v", v, err)
	}
	if v, err := f.Get("other", "pump"); v != nil || err != nil {
		t.Errorf("got %q of a bucket that is not there, %v", v, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("reading changed the file")
	}

	// Whatever is damaged, reading is an error at worst.
	for at := 0; at < min(len(before), 1<<16); at += 97 {
		bad := []byte(string(before))
		bad[at] ^= 0xFF
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := OpenState(path)
		if err != nil {
			continue
		}
		if v, err := f.Get("facts", "pump"); err == nil && v != nil && string(v) != "runs" {
			t.Errorf("with byte %d changed: %q", at, v)
		}
		f.Close()
	}
}
