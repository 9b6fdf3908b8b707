package buffer

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// flakeyEnv names a block device of its own, for TestPowerLossOnAFileSystem: what
// is on it is lost. The script flakey beside this file has one.
const flakeyEnv = "SLUICE_FLAKEY"

// flakey is a file system on a device that can lose its power: from then on it
// keeps nothing of what is written.
type flakey struct {
	t           *testing.T
	device, dir string
	sectors     string
}

func (f *flakey) run(name string, args ...string) string {
	f.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		f.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// table says what becomes of writes from now on.
func (f *flakey) table(rest string) {
	f.run("dmsetup", "suspend", "--noflush", "--nolockfs", "flakey")
	f.run("dmsetup", "load", "flakey", "--table", fmt.Sprintf("0 %s %s", f.sectors, rest))
	f.run("dmsetup", "resume", "flakey")
}

// lose stops a process, so that nothing of what it says from then on counts, and
// takes the power away.
func (f *flakey) lose(p *os.Process) {
	_ = p.Signal(syscall.SIGSTOP)
	time.Sleep(100 * time.Millisecond)
	f.table("flakey " + f.device + " 0 0 3600 1 drop_writes")
}

// back gives the power back, and the file system what its journal has.
func (f *flakey) back() {
	f.run("umount", f.dir)
	f.table("linear " + f.device + " 0")
	f.run("blockdev", "--flushbufs", "/dev/mapper/flakey")
	f.run("mount", "/dev/mapper/flakey", f.dir)
}

// TestPowerLossOnAFileSystem: the power goes at random moments under load. Every
// time the file opens as it is, and has all that was committed. The control, a
// child that reports before it commits, is found out.
func TestPowerLossOnAFileSystem(t *testing.T) {
	f := &flakey{t: t, device: os.Getenv(flakeyEnv), dir: t.TempDir()}
	if f.device == "" {
		t.Skip("takes a block device: see the script flakey")
	}
	f.sectors = f.run("blockdev", "--getsz", f.device)
	f.run("dmsetup", "create", "flakey", "--table", fmt.Sprintf("0 %s linear %s 0", f.sectors, f.device))
	defer f.run("dmsetup", "remove", "flakey")
	f.run("mkfs.ext4", "-q", "-F", "/dev/mapper/flakey")
	f.run("mount", "/dev/mapper/flakey", f.dir)
	defer f.run("umount", f.dir)
	path := filepath.Join(f.dir, "buffer.db")
	o := newOracle()
	o.end, o.back = f.lose, f.back
	for round := range 10 {
		before := len(o.given)
		if err := o.killed(t, path, time.Duration(200+rand.IntN(1000))*time.Millisecond); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) > 0 {
			t.Fatalf("round %d: set aside: %v", round, aside)
		}
		t.Logf("round %d: %d records were given numbers", round, len(o.given)-before)
	}
	for range 10 {
		if err := o.killed(t, path, 500*time.Millisecond, childLieEnv+"=1"); err != nil {
			if !strings.Contains(err.Error(), "is lost") {
				t.Fatal(err)
			}
			t.Logf("the control: %v", err)
			return
		}
	}
	t.Error("the control was not found out")
}
