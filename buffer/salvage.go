package buffer

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// salvage is what can be read of a damaged file. Everything in it carries a checksum of its own, so that nothing wrong gets through: what
// can't be read is missing. The pages that the root leads to are taken as they are; where pages are damaged, their records are looked
// for in all other pages, among what earlier transactions have left: a record may come twice then, but none that was acknowledged,
// as far as positions are found.
type salvage struct {
	file       *boltFile
	lanes      map[uint32]laneMark
	records    []salvaged
	quarantine map[uint64][]byte
	state      map[[2]string]stateValue
	reserved   uint64
	ages       []byte
	holes      []hole
	lost       int
	gaps       int
	written    int
	orphan     bool // reading a page that the root doesn't lead to
	above      bool // a page that leads to segments is missing: of some records nobody can tell
	small      bool // something that is no record is missing
}

type laneMark struct {
	name  string
	acked uint64
}

// salvaged is where a record stands in the file, or a gap for lost ones. There may be millions.
type salvaged struct {
	seq  uint64
	at   int64  // of its value; of lost ones, how many they are
	kind uint32 // its class above its size; of lost ones 0
	lane uint32
}

const sizeBits = 28

func newSalvaged(seq uint64, at int64, v []byte) salvaged {
	return salvaged{seq, at, uint32(classOf(v))<<sizeBits | uint32(len(v)), laneOf(v)}
}

func newLost(seq uint64, lane uint32, records int64) salvaged { return salvaged{seq, records, 0, lane} }

func (r *salvaged) class() Class { return Class(r.kind >> sizeBits) }
func (r *salvaged) size() int64  { return int64(r.kind & (1<<sizeBits - 1)) }

// lost is how many records it stands for that are lost, or 0.
func (r *salvaged) lost() int64 {
	if r.kind == 0 {
		return r.at
	}
	return 0
}

// hole is a range of numbers of which a page was damaged.
type hole struct {
	lo, hi  uint64
	segment bool // the page was one of a segment
}

// read goes through a file.
func readDamaged(f *os.File) (*salvage, error) {
	p, err := openPages(f)
	if p == nil {
		return nil, err
	}
	s := &salvage{file: p, lanes: map[uint32]laneMark{}, quarantine: map[uint64][]byte{}, state: map[[2]string]stateValue{}}
	w := p.walker()
	w.visit = s.visit
	w.damage = func(t tree, _ uint64, _ error) bool {
		s.holes = append(s.holes, holeOf(t))
		s.above = s.above || len(t.path) == 0 || len(t.path) == 1 && t.path[0] == string(segmentsBucket)
		s.small = s.small || len(t.path) == 0 || t.path[0] != string(segmentsBucket)
		return true
	}
	if err != nil {
		s.holes = append(s.holes, hole{hi: 1<<64 - 1})
		s.small = true
	}
	if p.root != 0 {
		n := p.countRecords()
		s.records = make([]salvaged, 0, n+n/100+1000) // growing would take it twice
		w.walk(tree{}, p.root, 0)
	}
	if len(s.holes) > 0 {
		s.readOrphans(w)
	}
	s.settle()
	return s, nil
}

func (p *boltFile) countRecords() (n int) {
	w := p.walker()
	w.damage = func(tree, uint64, error) bool { return true }
	w.visit = func(path []string, _ element) {
		if len(path) == 2 && path[0] == string(segmentsBucket) {
			n++
		}
	}
	w.walk(tree{}, p.root, 0)
	return n
}

func holeOf(t tree) hole {
	h := hole{hi: 1<<64 - 1}
	if len(t.path) == 2 && t.path[0] == string(segmentsBucket) {
		h.segment = true
		if id := []byte(t.path[1]); len(id) == 8 && seqOf(id) < 1<<(64-segmentBits)-1 {
			h.lo, h.hi = seqOf(id)<<segmentBits, (seqOf(id)+1)<<segmentBits
		}
		if len(t.lo) == 8 { // also lower, where records were moved together
			h.lo = seqOf(t.lo)
		}
		if len(t.hi) == 8 {
			h.hi = min(h.hi, seqOf(t.hi))
		}
		h.lo = min(h.lo, h.hi)
	}
	return h
}

// readOrphans looks at the pages that the root doesn't lead to.
func (s *salvage) readOrphans(w *walker) {
	s.orphan = true
	for id := uint64(2); id < s.file.pages; id++ {
		if has(w.done, id) {
			continue
		}
		if pg, _, err := s.file.page(id); err == nil && pg.flags == leafPage {
			s.readLeaf(pg, 0)
		}
	}
}

func (s *salvage) readLeaf(pg page, depth int) {
	for i := range pg.count {
		e, ok := pg.element(i)
		if !ok {
			continue
		}
		if !e.bucket {
			s.visit(nil, e)
		} else if inner, ok := e.inline(); ok && native.Uint64(e.value) == 0 && depth < 2 {
			s.readLeaf(inner, depth+1)
		}
	}
}

// visit takes an entry for what its checksum says that it is. path is not known for orphans.
func (s *salvage) visit(path []string, e element) {
	k, v := e.key, e.value
	switch {
	case s.mayBeRecord(path, k, v) && intact(k, v):
		if !s.orphan || s.inHole(seqOf(k)) {
			s.records = append(s.records, newSalvaged(seqOf(k), e.at, v))
		}
	case s.visitSmall(path, k, v):
	case len(path) == 2 && path[0] == string(segmentsBucket) && len(k) == 8:
		lane := uint32(0)
		if len(v) >= headerSize {
			lane = laneOf(v)
		}
		s.records = append(s.records, newLost(seqOf(k), lane, 1))
	case len(path) == 1 && path[0] != string(metaBucket), len(path) == 2:
		s.holes = append(s.holes, hole{hi: 1<<64 - 1}) // a lane or a value of the state: an older one may be left
		s.small = true
	}
}

// mayBeRecord tells records from what has the same kind of checksum: in an orphan by the number, which is no text, and by what is in quarantine.
func (s *salvage) mayBeRecord(path []string, k, v []byte) bool {
	if path != nil {
		return len(path) == 2 && path[0] == string(segmentsBucket)
	}
	_, aside := decodeQuarantined(k, v)
	return len(k) == 8 && seqOf(k) < 1<<56 && !aside
}

func (s *salvage) visitSmall(path []string, k, v []byte) bool {
	value, ok := unseal(k, v)
	if !ok {
		return false
	}
	if s.orphan && !s.small {
		return true
	}
	in := func(bucket []byte) bool { return path == nil || path[0] == string(bucket) }
	switch {
	case in(lanesBucket) && k[0] == '/' && len(value) == 12:
		id, acked := binary.BigEndian.Uint32(value), binary.BigEndian.Uint64(value[4:])
		s.lanes[id] = laneMark{string(k[1:]), max(acked, s.lanes[id].acked)}
	case in(metaBucket) && string(k) == string(reservedKey) && len(value) == 8:
		s.reserved = max(s.reserved, seqOf(value))
	case in(metaBucket) && string(k) == string(agesKey):
		if len(value) >= 8 && (len(s.ages) < 8 || seqOf(value) > seqOf(s.ages[4:])) {
			s.ages = slices.Clone(v)
		}
	case in(quarantineBucket) && len(k) == 8 && len(value) > headerSize:
		if _, ok := decodeQuarantined(k, v); ok {
			s.quarantine[seqOf(k)] = slices.Clone(v)
		}
	case in(stateBucket):
		if bucket, x, ok := decodeState(value); ok && x.stamp >= s.state[[2]string{bucket, string(k)}].stamp {
			x.value = slices.Clone(x.value)
			s.state[[2]string{bucket, string(k)}] = x
		}
	}
	return true
}

func (s *salvage) inHole(seq uint64) bool {
	return slices.ContainsFunc(s.holes, func(h hole) bool { return h.lo <= seq && seq < h.hi })
}

// settle leaves each record once and in order, without those that are done, and counts what is missing.
func (s *salvage) settle() {
	order := func(a, b salvaged) int { return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.lost(), b.lost())) }
	slices.SortStableFunc(s.records, order)
	s.records = slices.CompactFunc(s.records, func(a, b salvaged) bool { return a.seq == b.seq })
	s.fillHoles()
	known := s.records[:0]
	for _, r := range s.records {
		l, ok := s.lanes[r.lane]
		_, aside := s.quarantine[r.seq]
		switch {
		case aside || ok && r.seq <= l.acked:
		case r.lost() > 0 || !ok:
			r = newLost(r.seq, r.lane, max(1, r.lost()))
			s.lost += int(r.lost())
			known = append(known, r)
		default:
			known = append(known, r)
		}
	}
	s.records = known
	if s.above && s.lost == 0 {
		s.lost = 1 // at least
	}
}

// fillHoles counts the numbers that are missing in a damaged page. Numbers that never were on disk, because they had been acknowledged
// before, can't be told from lost ones and are counted too.
func (s *salvage) fillHoles() {
	var missing []salvaged
	for _, h := range s.holes {
		if !h.segment {
			continue // of a page above the segments: its records have been found elsewhere
		}
		at, _ := slices.BinarySearchFunc(s.records, h.lo, func(r salvaged, seq uint64) int { return cmp.Compare(r.seq, seq) })
		n, last := int(h.hi-h.lo), h.lo
		for ; at < len(s.records) && s.records[at].seq < h.hi; at++ {
			n--
			last = s.records[at].seq + 1
		}
		n = min(n, 1<<segmentBits) // where records were moved together: most numbers are of none
		if last = min(last, h.hi-1); n > 0 && (at == 0 || s.records[at-1].seq != last) {
			missing = append(missing, newLost(last, 0, int64(n)))
		} else if n > 0 {
			s.lost += n
		}
	}
	s.records = append(s.records, missing...)
	slices.SortStableFunc(s.records, func(a, b salvaged) int { return cmp.Compare(a.seq, b.seq) })
}

// keepNewest lets the oldest go, attributes first, since the new file has not taken all. It tells whether some are left to be written.
func (s *salvage) keepNewest() bool {
	if s.written == 0 {
		return false
	}
	fitted, size := int64(0), int64(0)
	for i, r := range s.records {
		if size += r.inFile(); i < s.written {
			fitted = size
		}
	}
	fitted -= fitted / 10
	for _, class := range []Class{Attributes, Event} {
		for i := range s.records {
			if r := &s.records[i]; size > fitted && r.lost() == 0 && r.class() == class {
				size -= r.inFile()
				*r = newLost(r.seq, r.lane, 1)
				s.lost++
			}
		}
	}
	return true
}

// inFile is about what a record takes of a file.
func (r *salvaged) inFile() int64 { return r.size() + 40 }

// writeGaps makes gap records of what is lost. A damaged record's lane is believed if there is one of that number; else the gap goes to
// the lane of the record before, or of the first.
func (s *salvage) writeGaps(on bool) {
	lane := uint32(0)
	for _, r := range s.records {
		if lane = r.lane; r.lost() == 0 {
			break
		}
	}
	s.gaps = 0
	open := map[uint32]int{} // by lane, the place of the gap that the next one is merged with
	out := s.records[:0]
	for _, r := range s.records {
		if r.lost() == 0 {
			if lane = r.lane; r.class() != Gap {
				delete(open, lane)
			}
			out = append(out, r)
			continue
		}
		if _, ok := s.lanes[r.lane]; !ok {
			r.lane = lane
		}
		if _, ok := s.lanes[r.lane]; !ok || !on {
			continue
		}
		if at, ok := open[r.lane]; ok {
			out[at].at += r.at
			continue
		}
		open[r.lane] = len(out)
		out = append(out, r)
	}
	for _, r := range out {
		if r.lost() > 0 {
			s.gaps++
		}
	}
	s.records = out
}

// write puts everything into a new file. The numbers go on far behind what any lost page may have said.
func (s *salvage) write(db *bolt.DB) error {
	next := s.reserved
	if n := len(s.records); n > 0 {
		next = max(next, s.records[n-1].seq+1)
	}
	for seq := range s.quarantine {
		next = max(next, seq+1)
	}
	s.written = 0
	err := db.Update(func(tx *bolt.Tx) error { return s.writeSmall(tx, next+defaultBlock) })
	if err != nil {
		return err
	}
	db.NoSync = true // it is no buffer yet
	err = s.writeAll(db)
	db.NoSync = false
	return errors.Join(err, db.Sync())
}

func (s *salvage) writeAll(db *bolt.DB) error {
	for rest := s.records; len(rest) > 0; {
		n, size := 0, int64(0)
		for n < len(rest) && size < 1<<20 && (n == 0 || rest[n].seq>>segmentBits-rest[0].seq>>segmentBits < 8) {
			size += rest[n].size() + headerSize
			n++
		}
		if err := db.Update(func(tx *bolt.Tx) error { return s.writeRecords(tx, rest[:n]) }); err != nil {
			return err
		}
		rest = rest[n:]
		s.written += n
	}
	return nil
}

// value is what is to be written: the record, read once more, or a gap.
func (s *salvage) value(r *salvaged) []byte {
	if r.lost() == 0 {
		v, err := s.file.read(r.at, r.size())
		if err == nil && intact(key(r.seq), v) {
			return slices.Clone(v)
		}
		s.lost++ // by a disk that fails now
		s.gaps++
	}
	return Loss{Cause: CauseCorrupt, Records: int(max(1, r.lost()))}.value(r.seq, r.lane)
}

func (s *salvage) writeRecords(tx *bolt.Tx, records []salvaged) error {
	var bucket *bolt.Bucket
	open := ^uint64(0)
	for _, r := range records {
		if id := r.seq >> segmentBits; id != open {
			var err error
			if bucket, err = openSegment(tx.Bucket(segmentsBucket), id); err != nil {
				return err
			}
			open = id
		}
		if err := bucket.Put(key(r.seq), s.value(&r)); err != nil {
			return err
		}
	}
	return nil
}

func (s *salvage) writeSmall(tx *bolt.Tx, next uint64) error {
	errs := []error{putReserved(tx, next)}
	if s.ages != nil {
		errs = append(errs, tx.Bucket(metaBucket).Put(agesKey, s.ages))
	}
	for id, l := range s.lanes {
		errs = append(errs, putMark(tx, l.name, id, l.acked))
	}
	for seq, v := range s.quarantine {
		errs = append(errs, tx.Bucket(quarantineBucket).Put(key(seq), v))
	}
	for k, x := range s.state {
		bucket, err := tx.Bucket(stateBucket).CreateBucketIfNotExists([]byte(k[0]))
		if err == nil {
			err = bucket.Put([]byte(k[1]), x.encode(k[0], []byte(k[1])))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// keptAside is how many damaged files stay.
const keptAside = 3

// replace puts a new file in the place of one that can't be used, with what can be read of it, and sets the old one aside.
func (b *Buffer) replace(f *os.File, reason error) error {
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // what is read of a large file is large, and no garbage
	b.aside = SetAside{Err: reason, File: asideName(b.path, time.Now())}
	s := &salvage{}
	if errors.Is(reason, ErrDamaged) {
		var err error
		if s, err = readDamaged(f); err != nil {
			return err
		}
		s.writeGaps(b.opt.Gaps)
	}
	dir, err := os.MkdirTemp(filepath.Dir(b.path), filepath.Base(b.path)+newSuffix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	temp := filepath.Join(dir, "buffer")
	err = build(temp, b.limitAnew(), s.write)
	if err != nil {
		b.aside.Partial = true
		b.opt.Log.Error("not all that was read of the damaged buffer fits into the new one", "file", b.path, "err", err)
	}
	for tries := 5; err != nil && tries > 0 && s.keepNewest(); tries-- {
		s.writeGaps(b.opt.Gaps)
		if err = os.Remove(temp); err == nil {
			err = build(temp, b.limitAnew(), s.write)
		}
	}
	if err != nil {
		if checkErr := checkFile(temp); checkErr != nil {
			return err // there is not even room for an empty one
		}
		s.lost += len(s.records) - s.written
	}
	if err := os.Link(b.path, b.aside.File); err != nil { // else there is a moment without a file
		if err := os.Rename(b.path, b.aside.File); err != nil {
			return err
		}
	}
	if err := os.Rename(temp, b.path); err != nil {
		return err
	}
	b.aside.Salvaged, b.aside.Lost = max(0, s.written-s.gaps), s.lost
	b.opt.Log.Error("buffer could not be used: it is set aside and a new one goes on", "file", b.path, "aside", b.aside.File,
		"err", reason, "salvaged", b.aside.Salvaged, "lost", b.aside.Lost)
	b.removeOldAside()
	return syncDir(filepath.Dir(b.path))
}

// limitAnew is how large a file beside this one may get.
func (b *Buffer) limitAnew() int64 {
	limit := b.opt.MaxSize
	if free, err := b.opt.freeDisk(); err == nil {
		limit = min(limit, free-b.opt.MinFreeDisk)
	}
	return max(limit, minMaxSize)
}

func asideName(path string, now time.Time) string {
	name := path + ".damaged-" + now.UTC().Format("20060102-150405")
	for i, base := 1, name; ; i++ {
		if _, err := os.Lstat(name); err != nil {
			return name
		}
		name = fmt.Sprintf("%s-%d", base, i)
	}
}

func (b *Buffer) removeOldAside() {
	old, _ := filepath.Glob(b.path + ".damaged-*")
	for slices.Sort(old); len(old) > keptAside; old = old[1:] {
		_ = os.Remove(old[0])
	}
}
