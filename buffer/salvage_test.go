package buffer

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
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

// TestSalvageBringsNothingBackThatWasDeleted: what was deleted from the state, and dropped from quarantine, does not come back because a
// page of records is broken: both trees are whole.
func TestSalvageBringsNothingBackThatWasDeleted(t *testing.T) {
	path := newPath(t)
	o := Options{MaxSize: 16 << 20, Gaps: true}
	b := open(t, path, o)
	for n := range uint64(5000) {
		b.Append("first", Attributes, noon, numbered(n+1, 100))
	}
	syncNow(t, b)
	for range 3 {
		if err := b.Put("pulses", "pump/start", []byte("release me")); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put("pulses", "pump/start", nil); err != nil {
		t.Fatal(err)
	}
	closeNow(t, b)
	breakOneLeaf(t, path, 20)
	b = open(t, path, o)
	if b.SetAside().File == "" {
		t.Fatal("control: not damaged")
	}
	if v, err := b.Get("pulses", "pump/start"); v != nil || err != nil {
		t.Errorf("state that was deleted is there again: %q %v", v, err)
	}
}

// TestSalvageCountsWhatAMovedSegmentLoses: a broken leaf of a segment that slow lanes' records were moved into: the loss is counted and
// told of.
func TestSalvageCountsWhatAMovedSegmentLoses(t *testing.T) {
	path := newPath(t)
	o := Options{MaxSize: 16 << 20, Gaps: true}
	b := open(t, path, o)
	given := uint64(0)
	for i := range 20 << segmentBits {
		if i%64 == 0 {
			given++
			b.Append("slow", Event, noon, numbered(given, 100))
		} else {
			b.Append("fast", Attributes, noon, numbered(uint64(i), 100))
		}
		if i%1000 == 999 {
			syncNow(t, b)
			drain(t, b, "fast")
		}
	}
	syncNow(t, b)
	drain(t, b, "fast")
	syncNow(t, b)
	// time goes by, free pages are used again
	for i := range 6 << segmentBits {
		b.Append("fast", Attributes, noon.Add(time.Hour), numbered(uint64(i), 700))
		if i%1000 == 999 {
			syncNow(t, b)
		}
	}
	syncNow(t, b)
	before := b.Len("slow")
	seq := peek(t, b, "slow", 1)[0].Seq
	closeNow(t, b)
	breakLeafOf(t, path, seq)
	b = open(t, path, o)
	a := b.SetAside()
	var c counter
	came := 0
	for {
		rs := peek(t, b, "slow", 1000)
		if len(rs) == 0 {
			break
		}
		for _, r := range rs {
			if g, ok := r.Loss(); ok {
				c.lost += uint64(g.Records)
			} else {
				came++
			}
		}
		b.Ack("slow", rs[len(rs)-1].Seq)
	}
	if came < before && (a.Lost == 0 || c.lost == 0) {
		t.Errorf("%d records of %d are gone; counted %d, told %d", before-came, before, a.Lost, c.lost)
	}
}

// breakLeafOf zeroes the page on which a record stands, in the tree in use.
func breakLeafOf(t *testing.T, path string, seq uint64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := openPages(f)
	if err != nil {
		t.Fatal(err)
	}
	at := int64(0)
	w := p.walker()
	w.damage = func(tree, uint64, error) bool { t.Fatal("already damaged"); return false }
	w.visit = func(path []string, e element) {
		if len(path) == 2 && path[0] == string(segmentsBucket) && len(e.key) == 8 && seqOf(e.key) == seq {
			at = e.at / p.pageSize * p.pageSize
		}
	}
	w.walk(tree{}, p.root, 0)
	if _, err := f.WriteAt(make([]byte, 4096), at); err != nil || at == 0 {
		t.Fatal(err)
	}
}

// TestSalvageTakesEachEntryForWhatItIs: a file with one broken page of records: quarantine and state are whole, and must go on as what they
// are.
func TestSalvageTakesEachEntryForWhatItIs(t *testing.T) {
	path := newPath(t)
	o := Options{MaxSize: 16 << 20, Gaps: true}
	b := open(t, path, o)
	for n := range uint64(5000) {
		b.Append("first", Attributes, noon, numbered(n+1, 100))
	}
	syncNow(t, b)
	q := b.Append("poison", Event, noon, []byte("poison record"))
	syncNow(t, b)
	if err := b.Quarantine("poison", q, "refused three times"); err != nil {
		t.Fatal(err)
	}
	if err := b.Put("memory", "pressure", []byte("12.5 bar, remembered")); err != nil { // eight letters
		t.Fatal(err)
	}
	if err := b.Put("memory", "flow", []byte("1")); err != nil {
		t.Fatal(err)
	}
	closeNow(t, b)
	breakOneLeaf(t, path, 20)
	b = open(t, path, o)
	a := b.SetAside()
	if a.File == "" {
		t.Fatal("control: not damaged")
	}
	list, err := b.Quarantined()
	if err != nil || len(list) != 1 {
		t.Errorf("quarantine holds %d, %v", len(list), err)
	}
	if v, err := b.Get("memory", "pressure"); string(v) != "12.5 bar, remembered" || err != nil {
		t.Errorf("state: %q %v", v, err)
	}
	if v, err := b.Get("memory", "flow"); string(v) != "1" || err != nil {
		t.Errorf("state: %q %v", v, err)
	}
	for {
		rs := peek(t, b, "first", 1000)
		if len(rs) == 0 {
			break
		}
		for _, r := range rs {
			if r.Class > Gap || r.Seq > 1<<40 {
				t.Errorf("delivered: seq %d class %d time %v data %q", r.Seq, r.Class, r.Time, r.Data)
			}
		}
		b.Ack("first", rs[len(rs)-1].Seq)
	}
}

// breakOneLeaf zeroes the head of the first leaf page in use that has more than so many entries.
func breakOneLeaf(t *testing.T, path string, more int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := openPages(f)
	if err != nil {
		t.Fatal(err)
	}
	w := p.walker()
	w.damage = func(tree, uint64, error) bool { t.Fatal("already damaged"); return false }
	w.walk(tree{}, p.root, 0)
	for id := uint64(2); id < p.pages; id++ {
		if !has(w.done, id) {
			continue
		}
		if pg, _, err := p.page(id); err == nil && pg.flags == leafPage && pg.count > more {
			if _, err := f.WriteAt(make([]byte, 4096), pg.at); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no leaf")
}

// TestSalvageThatDoesNotFitKeepsTheNewest: a damaged file of which not all fits into the new one: what doesn't is told of by a gap.
func TestSalvageThatDoesNotFitKeepsTheNewest(t *testing.T) {
	path := newPath(t)
	b := open(t, path, Options{MaxSize: 16 << 20, Gaps: true})
	const given = 20_000
	for n := range uint64(given) {
		b.Append("l", Attributes, noon, numbered(n+1, 300))
		if n%2000 == 0 {
			syncNow(t, b)
		}
	}
	closeNow(t, b)
	breakOneLeaf(t, path, 5)
	b = open(t, path, Options{MaxSize: 2 << 20, Gaps: true})
	a := b.SetAside()
	var came, told, last uint64
	for {
		rs := peek(t, b, "l", 1000)
		if len(rs) == 0 {
			break
		}
		for _, r := range rs {
			if g, ok := r.Loss(); ok {
				told += uint64(g.Records)
				continue
			}
			came++
			last = seqOf(r.Data)
		}
		b.Ack("l", rs[len(rs)-1].Seq)
	}
	balanced(t, b)
	if !a.Partial || last != given || came < 2500 || came+told != given {
		t.Errorf("of %d came %d, gaps tell of %d; the newest that came is %d", given, came, told, last)
	}
}
