package buffer

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"
	"unsafe"
)

// wire is a disk that remembers every write to a file, in order, and what was said to be on it at which time.
type wire struct {
	writes   []diskWrite
	promises []promise
}

type diskWrite struct {
	at   int64
	data []byte
	size int64 // of the file
	head bool  // bbolt syncs before and after it
}

// promise is what is on disk once so many writes are.
type promise struct {
	writes  int
	records map[uint64]bool
	acked   [powerLanes]uint64
	state   int
}

const (
	powerLanes = 3
	sector     = 512
)

// tap puts the recorder between bbolt and the file. bbolt has such a place, but shows it to nobody.
func (w *wire) tap(b *Buffer) {
	ops := reflect.ValueOf(b.db).Elem().FieldByName("ops").FieldByName("writeAt")
	write := reflect.NewAt(ops.Type(), unsafe.Pointer(ops.UnsafeAddr())).Interface().(*func([]byte, int64) (int, error))
	page := int64(b.db.Info().PageSize)
	through := *write
	*write = func(data []byte, at int64) (int, error) {
		info, err := b.file.Stat()
		if err != nil {
			return 0, err
		}
		w.writes = append(w.writes, diskWrite{at, slices.Clone(data), info.Size(), at < 2*page})
		return through(data, at)
	}
}

// recordWrites runs a buffer that gets full, drains in part and moves records, and gives the file as it was in the beginning.
func (w *wire) recordWrites(t *testing.T, rounds int) []byte {
	path := newPath(t)
	b := open(t, path, Options{MaxSize: minMaxSize, Flush: time.Hour})
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b.writer.Lock()
	w.tap(b)
	b.writer.Unlock()
	var acked [powerLanes]uint64
	for round := range rounds {
		for i := range 90 {
			b.Append(strconv.Itoa(i%powerLanes), Class(i%10/9), noon, content(strconv.Itoa(i%powerLanes), round))
		}
		if round%3 == 2 {
			if err := b.Put("state", "round", []byte(strconv.Itoa(round))); err != nil {
				t.Fatal(err)
			}
		}
		syncNow(t, b)
		for lane := range 2 { // the third is stuck
			name := strconv.Itoa(lane)
			if got := peek(t, b, name, 40); round > rounds/3 && len(got) > 0 {
				acked[lane] = got[len(got)-1].Seq
				b.Ack(name, acked[lane])
			}
		}
		syncNow(t, b)
		p := promise{writes: len(w.writes), records: map[uint64]bool{}, acked: acked, state: max(0, (round+1)/3*3-1)}
		for lane := range powerLanes {
			records, err := everything(b, strconv.Itoa(lane))
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				p.records[r.Seq] = true
			}
		}
		w.promises = append(w.promises, p)
	}
	if s := balanced(t, b); s.Dropped.Full == 0 {
		t.Fatalf("it never was full: %+v", s)
	}
	return before
}

// apply writes to an image of the disk.
func (d diskWrite) apply(image []byte) []byte {
	if grow := d.size - int64(len(image)); grow > 0 {
		image = append(image, make([]byte, grow)...)
	}
	copy(image[d.at:], d.data)
	return image
}

// tear writes only some of the sectors.
func (d diskWrite) tear(image []byte, random *rand.Rand) []byte {
	for at := 0; at < len(d.data); at += sector {
		if random.IntN(2) == 0 {
			end := min(at+sector, len(d.data))
			image = diskWrite{d.at + int64(at), d.data[at:end], d.size, d.head}.apply(image)
		}
	}
	return image
}

// crash is the disk after the power went with so many writes given to it and the last one not yet synced: what was synced is there, and of the
// rest anything may be. With a disk that lies, the last writes before may be missing too.
func (w *wire) crash(before []byte, at int, lies bool, random *rand.Rand) []byte {
	synced := at - 1
	for !w.writes[at-1].head && synced > 0 && !w.writes[synced-1].head {
		synced--
	}
	if lies {
		synced = max(0, at-40)
	}
	image := slices.Clone(before)
	for _, d := range w.writes[:synced] {
		image = d.apply(image)
	}
	for _, d := range w.writes[synced:at] {
		switch random.IntN(3) {
		case 0:
			image = d.apply(image)
		case 1:
			image = d.tear(image, random)
		}
	}
	return image
}

// check opens the disk and gives what of the last promise is broken.
func (w *wire) check(t *testing.T, path string, image []byte, at int) error {
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Open(path, Options{MaxSize: minMaxSize, Flush: time.Hour})
	if err != nil {
		return err
	}
	defer b.Close()
	if aside := b.SetAside(); aside.File != "" {
		_ = os.Remove(aside.File)
		return fmt.Errorf("a bad file: %w", aside.Err)
	}
	next := slices.IndexFunc(w.promises, func(p promise) bool { return p.writes >= at })
	if next < 1 {
		return nil
	}
	last := w.promises[next-1]
	found := map[uint64]bool{}
	for lane := range powerLanes {
		name := strconv.Itoa(lane)
		records, err := everything(b, name)
		if err != nil {
			return err
		}
		for _, r := range records {
			found[r.Seq] = true
			if r.Seq <= last.acked[lane] {
				return fmt.Errorf("record %d was acknowledged and is there again", r.Seq)
			}
		}
	}
	for seq := range last.records {
		if w.promises[next].records[seq] && !found[seq] {
			return fmt.Errorf("record %d of %d is lost", seq, len(last.records))
		}
	}
	value, err := b.Get("state", "round")
	if n, _ := strconv.Atoi(string(value)); err != nil || n < last.state {
		return fmt.Errorf("state is %q, %v: %d was on disk", value, err, last.state)
	}
	return nil
}

// TestPowerLossAtEveryWrite: whenever the power goes, and whatever of what was not yet synced is on the disk, in whole or in sectors, the file
// opens, holds all that was said to be on disk, and gives nothing again whose position was. The negative control is a disk that lies about syncs.
func TestPowerLossAtEveryWrite(t *testing.T) {
	t.Parallel()
	var w wire
	before := w.recordWrites(t, 60)
	random := rand.New(rand.NewPCG(7, 8))
	path := filepath.Join(t.TempDir(), "buffer.db")
	step := 15
	if os.Getenv("SLUICE_BUFFER_LONG") != "" {
		step = 1
	}
	tried := 0
	for at := 1 + random.IntN(step); at <= len(w.writes); at += 1 + random.IntN(2*step-1) {
		tried++
		if err := w.check(t, path, w.crash(before, at, false, random), at); err != nil {
			t.Fatalf("power lost at write %d of %d: %v", at, len(w.writes), err)
		}
	}
	broken := 0
	for range 20 {
		at := len(w.writes)/2 + random.IntN(len(w.writes)/2)
		if w.check(t, path, w.crash(before, at, true, random), at) != nil {
			broken++
		}
	}
	t.Logf("%d of %d places tried; of 20 with a disk that lies, %d were found out", tried, len(w.writes), broken)
	if broken < 5 {
		t.Errorf("the control failed: of 20 crashes of a disk that lies, %d were found out", broken)
	}
}
