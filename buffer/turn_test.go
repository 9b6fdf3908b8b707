package buffer

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestTurnsWhileTheDiskFails: neither an idle buffer nor one whose disk has
// failed for good looks as if it hung; one whose goroutine has ended does.
func TestTurnsWhileTheDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		fail := func() error {
			if broken.Load() {
				return errDisk
			}
			return nil
		}
		b, err := Open(filepath.Join(t.TempDir(), "b"), Options{MaxSize: 1 << 20, fail: fail})
		if err != nil {
			t.Fatal(err)
		}
		turns := func(what string) {
			t.Helper()
			for range 20 {
				time.Sleep(2 * turnEvery)
				synctest.Wait()
				if !b.Turned() {
					t.Fatalf("%s: the buffer does not turn", what)
				}
			}
		}
		turns("idle")
		broken.Store(true)
		b.Append("l", Event, time.Now(), []byte("x"))
		turns("disk broken")
		broken.Store(false)
		turns("disk mended")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b.Turned()
		time.Sleep(2 * turnEvery)
		if b.Turned() {
			t.Error("a closed buffer turns")
		}
	})
}
