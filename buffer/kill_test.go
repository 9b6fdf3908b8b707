package buffer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	childEnv     = "SLUICE_BUFFER_TEST_CHILD" // path of the file that a child process works on
	childDiskEnv = "SLUICE_BUFFER_TEST_DISK"  // the child works until its records are on a failing disk
	childLieEnv  = "SLUICE_BUFFER_TEST_LIE"   // the child reports before it commits
	killRounds   = 30
)

// child appends and acknowledges until it is killed. What it has committed it says on stdout:
// "given SEQ" for each number before it can be on disk, "committed LANE SEQ" and "acked LANE SEQ" afterwards.
func child(path string) {
	lie := os.Getenv(childLieEnv) != ""
	o := Options{MaxSize: 64 << 20, Flush: 2 * time.Millisecond}
	if lie {
		o.Flush = time.Hour
	}
	b, err := Open(path, o)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	random := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	for {
		var report strings.Builder
		for range random.IntN(300) {
			lane := fmt.Sprint(random.IntN(3))
			class := Attributes
			if !lie && random.IntN(10) == 0 {
				class = Event
			}
			seq := b.Append(lane, class, time.Now(), make([]byte, random.IntN(400)))
			fmt.Fprintf(&report, "committed %s %d\n", lane, seq)
			_, _ = fmt.Fprintln(os.Stdout, "given", seq)
		}
		if !lie {
			if err := b.Sync(context.Background()); err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
		}
		_, _ = io.WriteString(os.Stdout, report.String())
		for lane := range 3 {
			ackSome(b, fmt.Sprint(lane), random)
		}
	}
}

// ackSome says what it is about to acknowledge: from then on it may be gone.
func ackSome(b *Buffer, lane string, random *rand.Rand) {
	records, err := b.Peek(lane, 1+random.IntN(150))
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	if len(records) == 0 || random.IntN(4) == 0 {
		return
	}
	last := records[len(records)-1].Seq
	fmt.Println("acked", lane, last)
	b.Ack(lane, last)
}

// oracle is what the parent has been told.
type oracle struct {
	committed map[string][]uint64
	acked     map[string]uint64
	given     map[uint64]bool

	end  func(*os.Process) // of a child; nil for a plain kill
	back func()            // nil, or what comes between the child's end and the check
}

func (o *oracle) hear(line string) error {
	var word, lane string
	var seq uint64
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "given":
		if n, _ := fmt.Sscan(rest, &seq); n != 1 {
			return nil // cut off by the kill
		}
		if o.given[seq] {
			return fmt.Errorf("number %d was given out twice", seq)
		}
		o.given[seq] = true
	case "committed", "acked":
		if n, _ := fmt.Sscan(rest, &lane, &seq); n != 2 {
			return nil
		}
		if word == "acked" {
			o.acked[lane] = max(o.acked[lane], seq)
		} else {
			o.committed[lane] = append(o.committed[lane], seq)
		}
	case "error":
		return errors.New(line)
	}
	return nil
}

// check opens the file that the child left and returns what of the promise is broken.
func (o *oracle) check(path string) error {
	b, err := Open(path, Options{MaxSize: 64 << 20, Flush: time.Hour})
	if err != nil {
		return err
	}
	defer b.Close()
	for lane := range 3 {
		if err := o.checkLane(b, fmt.Sprint(lane)); err != nil {
			return err
		}
	}
	return nil
}

func (o *oracle) checkLane(b *Buffer, lane string) error {
	records, err := everything(b, lane)
	if err != nil {
		return err
	}
	if len(records) != b.Len(lane) {
		return fmt.Errorf("lane %s: %d records, len %d", lane, len(records), b.Len(lane))
	}
	there := map[uint64]bool{}
	for i, r := range records {
		if i > 0 && r.Seq <= records[i-1].Seq {
			return fmt.Errorf("lane %s: %d after %d", lane, r.Seq, records[i-1].Seq)
		}
		there[r.Seq] = true
	}
	for _, seq := range o.committed[lane] {
		if seq > o.acked[lane] && !there[seq] {
			return fmt.Errorf("lane %s: record %d was committed and is lost", lane, seq)
		}
	}
	o.committed[lane] = slices.DeleteFunc(o.committed[lane], func(seq uint64) bool { return seq <= o.acked[lane] })
	return nil
}

// everything reads a whole lane without acknowledging it.
func everything(b *Buffer, name string) ([]Record, error) {
	l := b.find(name)
	if l == nil {
		return nil, nil
	}
	var segs []*segment
	for _, s := range l.shares {
		segs = append(segs, s.seg)
	}
	records, _, err := b.read(l.id, segs, l.acked, 1<<30, 1<<30)
	return records, err
}

// killed runs a child on the file, kills it after a while and checks.
func (o *oracle) killed(t *testing.T, path string, after time.Duration, env ...string) error {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childEnv+"="+path), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() {
		if o.end != nil {
			o.end(cmd.Process)
		}
		_ = cmd.Process.Kill()
	})
	defer timer.Stop()
	lines := bufio.NewScanner(out)
	var broken error
	for first := true; lines.Scan(); first = false {
		if first {
			timer.Reset(after)
		}
		broken = errors.Join(broken, o.hear(lines.Text()))
	}
	_ = cmd.Wait()
	if o.back != nil {
		o.back()
	}
	if broken != nil {
		return broken
	}
	return o.check(path)
}

func newOracle() *oracle {
	return &oracle{committed: map[string][]uint64{}, acked: map[string]uint64{}, given: map[uint64]bool{}}
}

func TestKillLosesNothingCommitted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "buffer.db")
	o := newOracle()
	for round := range killRounds {
		after := time.Duration(rand.IntN(60)) * time.Millisecond
		if err := o.killed(t, path, after); err != nil {
			t.Fatalf("round %d, killed after %v: %v", round, after, err)
		}
	}
	if len(o.given) < 1000 || o.acked["0"] == 0 {
		t.Fatalf("the children did nothing: %d records, acknowledged %v", len(o.given), o.acked)
	}
}

// The negative control: a child that reports before it commits must be caught.
func TestKillCheckCatchesALie(t *testing.T) {
	path := filepath.Join(t.TempDir(), "buffer.db")
	o := newOracle()
	for range killRounds {
		err := o.killed(t, path, 20*time.Millisecond, childLieEnv+"=1")
		if err != nil && strings.Contains(err.Error(), "is lost") {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("no lie was found out")
}
