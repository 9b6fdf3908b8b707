package buffer

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// smallDisk mounts a file system of 32 MB; the test is skipped where that isn't allowed.
func smallDisk(t *testing.T, kind string) string {
	dir := t.TempDir()
	if kind == "tmpfs" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=32m"); err != nil {
			t.Skip("mount:", err)
		}
	} else {
		image := filepath.Join(t.TempDir(), "image")
		f, err := os.Create(image)
		if err := errors.Join(err, f.Truncate(32<<20), f.Close()); err != nil {
			t.Fatal(err)
		}
		for _, cmd := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
			if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
				t.Skipf("%s: %v %s", cmd[0], err, out)
			}
		}
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error("unmount:", err)
		}
	})
	return dir
}

// exhaust writes a file until the disk is full.
func exhaust(t *testing.T, dir string) {
	f, err := os.Create(filepath.Join(dir, "others"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

func TestDrainsOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"tmpfs", "ext4"} {
		for _, reserved := range []bool{true, false} {
			name := kind + " reserved"
			if !reserved {
				name = kind + " control"
			}
			t.Run(name, func(t *testing.T) { drainFullDisk(t, smallDisk(t, kind), reserved) })
		}
	}
}

func drainFullDisk(t *testing.T, dir string, reserved bool) {
	b, err := Open(filepath.Join(dir, "buffer.db"), Options{MaxSize: 16 << 20, Preallocate: reserved})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	const n = 30_000
	for i := range n {
		b.Append("l", Attributes, noon, make([]byte, 200))
		if i == n/2 {
			syncNow(t, b)
			exhaust(t, dir)
		}
		if i%1000 == 0 {
			_ = b.Sync(context.Background())
		}
	}
	_ = b.Sync(context.Background())
	s := balanced(t, b)
	troubled := s.Failures > 0 || s.Dropped.Total() > 0
	if !reserved {
		if !troubled {
			t.Fatal("the disk was not full")
		}
		return
	}
	if troubled {
		t.Fatalf("%+v", s)
	}
	if got := len(drain(t, b, "l")); got != n {
		t.Fatalf("%d of %d drained", got, n)
	}
	syncNow(t, b)
	if s := balanced(t, b); s.Failures > 0 || s.Waiting > 0 {
		t.Fatalf("%+v", s)
	}
}
