package buffer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
)

// This file reads bbolt's format by itself, through ordinary reads. bbolt trusts what it maps: of damaged files it opens some with other
// values, hangs on some, and dies of a bus error, in a goroutine of its own, where the file is shorter than it says. So a file is looked
// through before bbolt opens it, and what a damaged one still holds is read here. All numbers are in the order of the machine.

const (
	boltMagic    = 0xED0CDAED
	boltVersion  = 2
	branchPage   = 1
	leafPage     = 2
	pageHeader   = 16 // id, flags, count, overflow
	elementSize  = 16 // leaf: flags, pos, ksize, vsize; branch: pos, ksize, page
	bucketHeader = 16 // root page, sequence; of an inline bucket, whose root is 0, the page follows
	metaSize     = 64
	noFreelist   = 1<<64 - 1
	blockSize    = 256 << 10
	maxDepth     = 32
)

var native = binary.NativeEndian

// boltFile is a file of pages.
type boltFile struct {
	f        io.ReaderAt
	size     int64
	pageSize int64
	root     uint64
	pages    uint64 // those that may be in use
	blocks   [16]block
	turn     int
}

// block is a piece of the file in memory, so that not each page is a read.
type block struct {
	at   int64
	data []byte
}

// openPages reads the two meta pages. It gives what can be known together with an error if one of them is damaged.
func openPages(f *os.File) (*boltFile, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	p := &boltFile{f: f, size: info.Size(), pageSize: int64(os.Getpagesize())}
	var newest uint64
	valid := 0
	for _, at := range p.metaPlaces() {
		m := make([]byte, pageHeader+metaSize)
		if _, err := f.ReadAt(m, at); err != nil || !validMeta(m[pageHeader:]) {
			continue
		}
		m = m[pageHeader:]
		valid++
		if tx := native.Uint64(m[48:]); valid == 1 || tx > newest {
			newest = tx
			p.pageSize = int64(native.Uint32(m[8:]))
			p.root, p.pages = native.Uint64(m[16:]), native.Uint64(m[40:])
			err = nil
			if native.Uint64(m[32:]) != noFreelist {
				err = fmt.Errorf("%w: it has a list of free pages", ErrForeign)
			}
		}
	}
	switch {
	case valid == 0:
		p.pages = uint64(p.size / p.pageSize)
		return p, errors.New("both heads are damaged")
	case valid == 1:
		return p, errors.New("one of its two heads is damaged")
	case p.pages > uint64(p.size/p.pageSize):
		p.pages = uint64(p.size / p.pageSize)
		return p, errors.New("it is cut off")
	}
	return p, err
}

// metaPlaces is where the meta pages may begin: page 0 and page 1, which depends on the machine that made the file.
func (p *boltFile) metaPlaces() []int64 {
	places := []int64{0}
	for size := int64(1024); size <= 64<<10; size *= 2 {
		places = append(places, size)
	}
	return places
}

func validMeta(m []byte) bool {
	h := fnv.New64a()
	_, _ = h.Write(m[:56])
	size := native.Uint32(m[8:])
	return native.Uint32(m) == boltMagic && native.Uint32(m[4:]) == boltVersion && native.Uint64(m[56:]) == h.Sum64() &&
		size >= 1024 && size <= 64<<10 && size&(size-1) == 0
}

// page is a page, or what follows the header of an inline bucket.
type page struct {
	flags uint16
	count int
	data  []byte
	at    int64 // where that stands in the file
}

type element struct {
	bucket     bool
	key, value []byte
	at         int64 // where the value stands in the file
	child      uint64
	from, to   int // where key and value are in the page
}

// read returns bytes of the file; they are overwritten by later reads.
func (p *boltFile) read(at, n int64) ([]byte, error) {
	start := at / blockSize * blockSize
	if at+n > start+blockSize {
		data := make([]byte, n)
		_, err := p.f.ReadAt(data, at)
		return data, err
	}
	for i := range p.blocks {
		if b := &p.blocks[i]; b.at == start && at-start+n <= int64(len(b.data)) {
			return b.data[at-start:][:n], nil
		}
	}
	p.turn = (p.turn + 1) % len(p.blocks)
	b := &p.blocks[p.turn]
	if b.data == nil {
		b.data = make([]byte, blockSize)
	}
	b.at, b.data = start, b.data[:blockSize]
	got, err := p.f.ReadAt(b.data, start)
	if b.data = b.data[:got]; at-start+n <= int64(got) {
		return b.data[at-start:][:n], nil
	}
	if err == io.EOF {
		return nil, io.ErrUnexpectedEOF
	}
	data := make([]byte, n) // the block can't be read as a whole
	_, err = p.f.ReadAt(data, at)
	return data, err
}

// page reads a page with what belongs to it; n is the number of pages.
func (p *boltFile) page(id uint64) (pg page, n uint64, err error) {
	if id < 2 || id >= p.pages {
		return page{}, 0, fmt.Errorf("page %d is not in the file", id)
	}
	at := int64(id) * p.pageSize
	data, err := p.read(at, p.pageSize)
	if err != nil {
		return page{}, 0, err
	}
	n = 1 + uint64(native.Uint32(data[12:]))
	pg = parsePage(data, at)
	switch {
	case native.Uint64(data) != id:
		return page{}, 0, fmt.Errorf("page %d says that it is page %d", id, native.Uint64(data))
	case pg.flags != branchPage && pg.flags != leafPage:
		return page{}, 0, fmt.Errorf("page %d is of kind %d", id, pg.flags)
	case n > p.pages-id:
		return page{}, 0, fmt.Errorf("page %d goes beyond the file", id)
	case n > 1:
		if data, err = p.read(at, int64(n)*p.pageSize); err != nil {
			return page{}, 0, err
		}
		pg = parsePage(data, at)
	}
	return pg, n, nil
}

func parsePage(data []byte, at int64) page {
	return page{native.Uint16(data[8:]), int(native.Uint16(data[10:])), data, at}
}

// element is one entry of the page; false if it can't be one.
func (pg page) element(i int) (e element, ok bool) {
	at := pageHeader + i*elementSize
	if i < 0 || at+elementSize > len(pg.data) {
		return e, false
	}
	head := pg.data[at:]
	var pos, ksize, vsize uint64
	if pg.flags == branchPage {
		pos, ksize = uint64(native.Uint32(head)), uint64(native.Uint32(head[4:]))
		e.child = native.Uint64(head[8:])
	} else {
		flags := native.Uint32(head)
		pos, ksize, vsize = uint64(native.Uint32(head[4:])), uint64(native.Uint32(head[8:])), uint64(native.Uint32(head[12:]))
		e.bucket = flags == 1
		if flags > 1 || e.bucket && vsize < bucketHeader {
			return e, false
		}
	}
	if ksize == 0 || pos < elementSize || pos+ksize+vsize > uint64(len(head)) {
		return e, false
	}
	e.key, e.value = head[pos:][:ksize], head[pos+ksize:][:vsize]
	e.from, e.to, e.at = at+int(pos), at+int(pos+ksize+vsize), pg.at+int64(at)+int64(pos+ksize)
	return e, true
}

// end is where the last entry of the page ends, 0 if that can't be told.
func (pg page) end() int {
	e, ok := pg.element(pg.count - 1)
	if pg.count == 0 || !ok {
		return 0
	}
	return e.to
}

// inline is the page in the value of an inline bucket.
func (e element) inline() (page, bool) {
	if len(e.value) < bucketHeader+pageHeader {
		return page{}, false
	}
	pg := parsePage(e.value[bucketHeader:], e.at+bucketHeader)
	return pg, pg.flags == leafPage
}

// tree is a bucket on the way through the file.
type tree struct {
	path   []string // names from the root
	lo, hi []byte   // its keys are in [lo, hi); nil: no bound
}

// holdsBuckets tells whether there are buckets in the bucket, and nothing else, or none.
func (t tree) holdsBuckets() bool {
	return len(t.path) == 0 || len(t.path) == 1 && (t.path[0] == string(segmentsBucket) || t.path[0] == string(stateBucket))
}

// walker goes through everything that can be reached from the root.
type walker struct {
	*boltFile
	seen   []uint64                                // a bit for each page that belongs to something
	done   []uint64                                // a bit for each page whose entries were visited
	visit  func(path []string, e element)          // may be nil
	damage func(t tree, id uint64, err error) bool // false: go no further
	stop   bool
}

func (p *boltFile) walker() *walker {
	return &walker{boltFile: p, seen: make([]uint64, p.pages/64+1), done: make([]uint64, p.pages/64+1)}
}

func has(set []uint64, id uint64) bool { return set[id/64]>>(id%64)&1 == 1 }

func include(set []uint64, id uint64) { set[id/64] |= 1 << (id % 64) }

func (w *walker) broken(t tree, id uint64, err error) {
	if !w.damage(t, id, err) {
		w.stop = true
	}
}

// walk visits the tree below a page.
func (w *walker) walk(t tree, id uint64, depth int) {
	if w.stop {
		return
	}
	pg, n, err := w.page(id)
	if err == nil {
		err = w.claim(id, n, depth)
	}
	if err != nil {
		w.broken(t, id, err)
		return
	}
	include(w.done, id)
	if end := pg.end(); end > 0 && (int64(end)+w.pageSize-1)/w.pageSize != int64(n) {
		w.broken(t, id, fmt.Errorf("page %d has another size than its entries", id))
	}
	if pg.flags == branchPage || len(t.path) < 2 {
		pg.data = bytes.Clone(pg.data) // reads will follow
	}
	w.entries(t, id, pg, depth)
}

// claim says that pages are in use.
func (w *walker) claim(id, n uint64, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d is too deep", id)
	}
	for i := id; i < id+n; i++ {
		if has(w.seen, i) {
			return fmt.Errorf("page %d is used twice", i)
		}
	}
	for i := id; i < id+n; i++ {
		include(w.seen, i)
	}
	return nil
}

func (w *walker) entries(t tree, id uint64, pg page, depth int) {
	if pg.flags == branchPage && pg.count == 0 {
		w.broken(t, id, fmt.Errorf("page %d is empty", id))
		return
	}
	last, from := t.lo, pageHeader+pg.count*elementSize
	for i := 0; i < pg.count && !w.stop; i++ {
		e, ok := pg.element(i)
		order := bytes.Compare(e.key, last)
		whole := ok && e.from == from && (pg.flags == branchPage || e.bucket == t.holdsBuckets()) // entries stand side by side
		from = e.to
		if !whole || order < 0 || order == 0 && i > 0 || t.hi != nil && bytes.Compare(e.key, t.hi) >= 0 {
			w.broken(tree{t.path, last, t.hi}, id, fmt.Errorf("entry %d of page %d is damaged", i, id))
			if !ok {
				continue
			}
		}
		switch {
		case pg.flags == branchPage:
			hi := t.hi
			if next, ok := pg.element(i + 1); ok && i+1 < pg.count {
				hi = next.key
			}
			w.walk(tree{t.path, e.key, hi}, e.child, depth+1)
		case e.bucket:
			w.bucket(t, id, last, e, depth)
		case w.visit != nil:
			w.visit(t.path, e)
		}
		last = e.key
	}
}

// bucket walks through a bucket in a bucket. The one before it in order tells where its numbers begin, if it is a segment.
func (w *walker) bucket(t tree, id uint64, before []byte, e element, depth int) {
	inner := tree{path: append(slices.Clone(t.path), string(e.key))}
	if len(inner.path) > 2 || len(t.path) == 1 && t.path[0] == string(segmentsBucket) && len(e.key) != 8 {
		w.broken(t, id, fmt.Errorf("page %d has a bucket %q", id, e.key))
		return
	}
	if len(t.path) == 1 && t.path[0] == string(segmentsBucket) {
		inner.hi = key((seqOf(e.key) + 1) << segmentBits)
		if len(before) == 8 && seqOf(before) < seqOf(e.key) {
			inner.lo = key((seqOf(before) + 1) << segmentBits)
		}
	}
	if root := native.Uint64(e.value); root != 0 {
		w.walk(inner, root, depth+1)
		return
	}
	pg, ok := e.inline()
	if !ok {
		w.broken(inner, id, fmt.Errorf("page %d has a damaged bucket %q", id, e.key))
		return
	}
	w.entries(inner, id, pg, depth+1)
}

func checkFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(check(f), f.Close())
}

// check looks through a file and returns the first damage of its structure. What stands in the records is not looked at.
func check(f *os.File) error {
	p, err := openPages(f)
	if err != nil {
		return err
	}
	w := p.walker()
	w.damage = func(_ tree, _ uint64, e error) bool {
		err = e
		return false
	}
	w.walk(tree{}, p.root, 0)
	return err
}
