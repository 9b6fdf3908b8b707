package buffer

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// sample is a file with a backlog, and what is in it.
type sample struct {
	data    []byte
	records map[uint64]string // number → lane and content
	pages   int
}

func content(lane string, n int) []byte { return fmt.Appendf(nil, "%s %d %0150d", lane, n, n) }

// makeSample fills a file as a gateway does that has been offline for a while, after a time of being online.
func makeSample(t *testing.T) *sample {
	path := newPath(t)
	b := open(t, path, Options{MaxSize: 16 << 20})
	s := &sample{records: map[uint64]string{}}
	for round := range 60 {
		for i := range 200 {
			lane := fmt.Sprint("lane ", i%3)
			data := content(lane, round*1000+i)
			s.records[b.Append(lane, Class(i%40/39), noon, data)] = lane + string(data)
		}
		syncNow(t, b)
		if round < 10 {
			for i := range 3 {
				for _, seq := range drain(t, b, fmt.Sprint("lane ", i)) {
					delete(s.records, seq)
				}
			}
		}
	}
	seq := peek(t, b, "lane 1", 1)[0].Seq
	if err := b.Quarantine("lane 1", seq, "refused"); err != nil {
		t.Fatal(err)
	}
	delete(s.records, seq)
	for i := range 10 {
		if err := b.Put("ids", fmt.Sprint(i), fmt.Append(nil, "value ", i)); err != nil {
			t.Fatal(err)
		}
	}
	syncNow(t, b)
	closeNow(t, b)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s.data, s.pages = data, len(data)/os.Getpagesize()
	return s
}

// verdict is what came out of a damaged file.
type verdict struct {
	wrong, right int
	aside        bool
	lost         uint64
}

// judge writes a damaged file, opens and reads it.
func (s *sample) judge(t *testing.T, path string, data []byte) (v verdict) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Open(path, Options{MaxSize: 16 << 20, Gaps: true})
	if err != nil {
		t.Fatalf("does not start: %v", err)
	}
	v.aside = b.SetAside().File != ""
	for lane := range b.lanes {
		last := uint64(0)
		for {
			records, err := b.Peek(lane, 1000)
			if err != nil {
				t.Fatal(err)
			}
			if len(records) == 0 {
				break
			}
			for _, r := range records {
				if r.Seq <= last {
					t.Fatalf("%d after %d", r.Seq, last)
				}
				last = r.Seq
				switch {
				case r.Class == Gap:
				case s.records[r.Seq] == lane+string(r.Data):
					v.right++
				default:
					v.wrong++
				}
			}
			b.Ack(lane, last)
		}
	}
	for i := range 10 {
		if x, err := b.Get("ids", fmt.Sprint(i)); err == nil && x != nil && string(x) != fmt.Sprint("value ", i) {
			v.wrong++
		}
	}
	v.lost = balanced(t, b).Dropped.Total()
	if b.Append("lane 0", Event, noon, []byte("new")) == 0 {
		t.Fatal("a salvaged buffer takes nothing")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	old, _ := filepath.Glob(path + "*")
	for _, name := range old {
		_ = os.Remove(name)
	}
	return v
}

// kinds of damage, each at some place. All but the last three touch one page.
var kinds = []struct {
	name string
	page bool
	do   func(random *rand.Rand, data []byte) []byte
}{
	{"bit", true, func(r *rand.Rand, d []byte) []byte { d[r.IntN(len(d))] ^= 1 << r.IntN(8); return d }},
	{"bit of a page header", true, func(r *rand.Rand, d []byte) []byte { d[somePage(r, d)+r.IntN(pageHeader)] ^= 1 << r.IntN(8); return d }},
	{"bit of an entry's head", true, func(r *rand.Rand, d []byte) []byte {
		d[somePage(r, d)+pageHeader+r.IntN(160)] ^= 1 << r.IntN(8)
		return d
	}},
	{"page of zeros", true, func(r *rand.Rand, d []byte) []byte { clear(onePage(r, d)); return d }},
	{"page of noise", true, func(r *rand.Rand, d []byte) []byte { noise(r, onePage(r, d)); return d }},
	{"page twice", true, func(r *rand.Rand, d []byte) []byte { copy(onePage(r, d), onePage(r, d)); return d }},
	{"sector of zeros", true, func(r *rand.Rand, d []byte) []byte { at := r.IntN(len(d)/512) * 512; clear(d[at : at+512]); return d }},
	{"heads", false, func(r *rand.Rand, d []byte) []byte { noise(r, d[:2*os.Getpagesize()]); return d }},
	{"cut off", false, func(r *rand.Rand, d []byte) []byte { return d[:r.IntN(len(d))] }},
	{"20 pages of noise", false, func(r *rand.Rand, d []byte) []byte {
		for range 20 {
			noise(r, onePage(r, d))
		}
		return d
	}},
}

func somePage(r *rand.Rand, data []byte) int {
	return r.IntN(len(data)/os.Getpagesize()) * os.Getpagesize()
}

func onePage(r *rand.Rand, data []byte) []byte { return data[somePage(r, data):][:os.Getpagesize()] }

func noise(r *rand.Rand, data []byte) {
	for i := 0; i+8 <= len(data); i += 8 {
		binary.LittleEndian.PutUint64(data[i:], r.Uint64())
	}
}

func TestDamagedFileIsSalvaged(t *testing.T) {
	t.Parallel()
	s := makeSample(t)
	positions := 5
	if os.Getenv("SLUICE_BUFFER_LONG") != "" {
		positions = 120
	}
	path := filepath.Join(t.TempDir(), "buffer.db")
	for _, kind := range kinds {
		random := rand.New(rand.NewPCG(3, 4))
		whole, aside, worst := 0, 0, len(s.records)
		for range positions {
			v := s.judge(t, path, kind.do(random, append([]byte(nil), s.data...)))
			if v.wrong > 0 {
				t.Errorf("%s: %d wrong", kind.name, v.wrong)
			}
			missing := len(s.records) - v.right
			if kind.page && missing > 1+len(s.records)/100+40 { // the records of the page itself, and 1 %
				t.Errorf("%s: %d of %d records missing", kind.name, missing, len(s.records))
			}
			if missing > 0 && v.lost == 0 && !(v.aside && v.right == 0) { // of nothing, nobody can tell how much it was
				t.Errorf("%s: %d records missing, and nobody says so", kind.name, missing)
			}
			if v.aside {
				aside++
			}
			if missing == 0 {
				whole++
			}
			worst = min(worst, v.right)
		}
		t.Logf("%s: %d files, %d set aside, %d without loss, at worst %d of %d records", kind.name, positions, aside, whole, worst, len(s.records))
	}
}

// The negative control: without the checksums of records, the same damage goes through as wrong values.
func TestWithoutChecksumsDamageGoesThrough(t *testing.T) {
	s := makeSample(t)
	ignoreChecksums = true
	defer func() { ignoreChecksums = false }()
	random := rand.New(rand.NewPCG(5, 6))
	path := filepath.Join(t.TempDir(), "buffer.db")
	for range 40 {
		if v := s.judge(t, path, kinds[0].do(random, append([]byte(nil), s.data...))); v.wrong > 0 {
			return
		}
	}
	t.Fatal("no damage was seen")
}

func TestUnfinishedFileIsRemoved(t *testing.T) {
	path := newPath(t)
	if err := os.MkdirAll(path+newSuffix+"123", 0o700); err != nil {
		t.Fatal(err)
	}
	closeNow(t, open(t, path, Options{}))
	closeNow(t, open(t, path, Options{}))
	if left, _ := filepath.Glob(path + newSuffix + "*"); len(left) > 0 {
		t.Fatal(left)
	}
}

func TestFewDamagedFilesAreKept(t *testing.T) {
	path := newPath(t)
	for range 6 {
		if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
		closeNow(t, open(t, path, Options{}))
	}
	if left, _ := filepath.Glob(path + ".damaged-*"); len(left) != keptAside {
		t.Fatal(left)
	}
}
