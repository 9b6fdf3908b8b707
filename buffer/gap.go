package buffer

import (
	"encoding/binary"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Loss is what a gap record says: so many records were lost where it stands. The times are those of the records; zero for damaged ones.
type Loss struct {
	Cause   Cause
	Records int
	From    time.Time
	To      time.Time
}

// A gap takes the number of the last record that it stands for, and is on disk with the transaction that loses it; what is lost before it has
// a number leaves a gap at the end of the lane. Gaps of one cause with nothing but gaps between them become one, so that a lane has no more
// gaps than causes between two of its records, and gaps can't fill the buffer. A gap that grows while its consumer has it is seen again with
// all that it says.

// Loss returns what a gap record says; false for any other record.
func (r Record) Loss() (Loss, bool) {
	if r.Class != Gap {
		return Loss{}, false
	}
	return decodeLoss(r.Data)
}

func (g Loss) encode() []byte {
	data := appendText(nil, string(g.Cause))
	data = binary.AppendUvarint(data, uint64(g.Records))
	data = binary.BigEndian.AppendUint64(data, uint64(nanos(g.From)))
	return binary.BigEndian.AppendUint64(data, uint64(nanos(g.To)))
}

func decodeLoss(data []byte) (g Loss, ok bool) {
	cause, data, ok := takeText(data)
	n, used := binary.Uvarint(data)
	if !ok || used <= 0 || len(data) != used+16 {
		return g, false
	}
	from, to := binary.BigEndian.Uint64(data[used:]), binary.BigEndian.Uint64(data[used+8:])
	return Loss{Cause(cause), int(n), fromNanos(int64(from)), fromNanos(int64(to))}, true
}

// add makes g say what both say.
func (g *Loss) add(o Loss) {
	g.Records += o.Records
	if g.From.IsZero() || !o.From.IsZero() && o.From.Before(g.From) {
		g.From = o.From
	}
	if o.To.After(g.To) {
		g.To = o.To
	}
}

// value is the gap as it stands in the file.
func (g Loss) value(seq uint64, lane uint32) []byte {
	v := encode(Gap, g.To, g.encode())
	seal(v, seq, lane)
	return v
}

// loss is what a record in memory says if it is a gap of that cause.
func (p *pending) loss(cause Cause) (Loss, bool) {
	if p.class != Gap {
		return Loss{}, false
	}
	g, ok := decodeLoss(p.value[headerSize:])
	return g, ok && g.Cause == cause
}

// cause is the cause that a gap in memory names.
func (p *pending) cause() Cause {
	if p.class != Gap {
		return ""
	}
	return causeOf(p.value)
}

// losePending counts a record in memory as lost and makes a gap of it.
func (b *Buffer) losePending(p *pending, cause Cause) {
	l := p.lane
	b.lose(l, cause, p.time)
	if !b.opt.Gaps {
		b.discard(p)
		return
	}
	g := Loss{cause, 1, p.time, p.time}
	i, _ := position(l.mem, p.seq)
	b.count.Gaps++
	for _, q := range slices.Concat(gapsAfter(l.mem, i), gapsBefore(l.mem, i)) {
		if other, ok := q.loss(cause); ok && q.frozen == p.frozen && min(p.seq, q.seq) > l.newest {
			g.add(other)
			if q.absorbs != 0 {
				p.absorbs, p.before = q.absorbs, q.before
			}
			b.count.Gaps--
			b.discard(q)
		}
	}
	b.become(p, g)
}

func gapsAfter(mem []*pending, i int) (gaps []*pending) {
	for i++; i < len(mem) && mem[i].class == Gap; i++ {
		gaps = append(gaps, mem[i])
	}
	return gaps
}

func gapsBefore(mem []*pending, i int) (gaps []*pending) {
	for i--; i >= 0 && mem[i].class == Gap; i-- {
		gaps = append(gaps, mem[i])
	}
	return gaps
}

// discard takes a record out of memory and its lane.
func (b *Buffer) discard(p *pending) {
	if p.frozen {
		p.gone = true
		b.bytes -= p.size()
	} else {
		b.forget(p)
	}
	p.lane.remove(p.seq)
}

// become makes a gap of a record in memory, under its number.
func (b *Buffer) become(p *pending, g Loss) {
	if !p.frozen {
		b.waiting[p.class].Remove(p.elem)
	}
	b.bytes -= p.size()
	p.class, p.time, p.value = Gap, g.To, g.value(p.seq, p.lane.id)
	b.bytes += p.size()
	signal(p.lane.ready)
	if p.frozen {
		return
	}
	queue := &b.waiting[Gap] // in order: the oldest that is not on disk stands in front
	for e := queue.Back(); e != nil; e = e.Prev() {
		if e.Value.(*pending).seq < p.seq {
			p.elem = queue.InsertAfter(p, e)
			return
		}
	}
	p.elem = queue.PushFront(p)
}

// appendGap puts a gap at the end of a lane: of records that never had a number, or whose place is not known. Only where numbers have
// run out, after billions of records without a disk, it leaves none.
func (b *Buffer) appendGap(l *lane, g Loss) {
	if !b.opt.Gaps || b.closed || b.next == b.reserved {
		return
	}
	b.count.Gaps++
	for _, q := range gapsBefore(l.mem, len(l.mem)) {
		if other, ok := q.loss(g.Cause); ok && !q.frozen && q.seq > l.newest {
			other.add(g)
			g = other
			b.count.Gaps--
			b.discard(q)
		}
	}
	b.enqueue(&pending{lane: l, class: Gap, time: g.To, added: time.Now(), value: encode(Gap, g.To, g.encode())})
	signal(l.ready)
	signal(b.kick)
}

// tail is a gap on disk that no record of its lane follows there.
type tail struct {
	seq   uint64
	cause Cause
}

// see keeps the tails of a lane when a record is found on disk or written there. Records are not always written in the order of their numbers.
func (l *lane) see(seq uint64, class Class, cause Cause) {
	l.tails = slices.DeleteFunc(l.tails, func(t tail) bool { return t.seq <= l.acked || t.seq < seq && class != Gap })
	if class != Gap {
		l.newest = max(l.newest, seq)
	} else if seq > l.newest {
		l.tails = slices.DeleteFunc(l.tails, func(t tail) bool { return t.cause == cause && t.seq <= seq })
		l.tails = append(l.tails, tail{seq, cause})
	}
}

// tailFor is the number of a gap on disk that a gap in memory can take the place of, since nothing but gaps stands between, or 0.
func (l *lane) tailFor(p *pending) uint64 {
	i, ok := position(l.mem, p.seq)
	if p.class != Gap || !ok || len(gapsBefore(l.mem, i)) < i {
		return 0
	}
	for _, t := range l.tails {
		if _, ok := p.loss(t.cause); ok && t.seq > l.acked && t.seq < p.seq {
			return t.seq
		}
	}
	return 0
}

// place is where a record is on disk.
type place struct {
	pending  *pending
	seg, seq uint64
}

// absorbed says where the gaps are that those of a batch take the place of.
func (b *Buffer) absorbed(batch []*pending) (out []place) {
	for _, p := range batch {
		if p.absorbs == 0 {
			continue
		}
		if s := p.lane.holder(p.absorbs); s != nil {
			out = append(out, place{p, s.seg.id, p.absorbs})
		}
	}
	return out
}

// absorb deletes those gaps, and notes what they say. Where one is no longer in its place, it was moved and stays as it is, or a commit that
// returned an error has absorbed it: then the one in its place is there.
func (w *work) absorb(all *bolt.Bucket) error {
	for _, a := range w.absorbed {
		g, ok := gapAt(all.Bucket(key(a.seg)), a.seq)
		if !ok {
			if _, ok := gapAt(all.Bucket(key(a.pending.seq>>segmentBits)), a.pending.seq); !ok {
				a.pending.before = nil
			}
			continue
		}
		a.pending.before = &g
		if err := all.Bucket(key(a.seg)).Delete(key(a.seq)); err != nil {
			return err
		}
	}
	return nil
}

func gapAt(bucket *bolt.Bucket, seq uint64) (Loss, bool) {
	if bucket == nil {
		return Loss{}, false
	}
	v := bucket.Get(key(seq))
	if v == nil || !intact(key(seq), v) || classOf(v) != Gap {
		return Loss{}, false
	}
	return decodeLoss(v[headerSize:])
}

func (b *Buffer) settleAbsorbed(w *work) {
	for _, a := range w.absorbed {
		if l := a.pending.lane; a.pending.before != nil {
			if s := l.holder(a.seq); s != nil {
				l.tookAside(s, a.seq)
				b.count.Gaps--
			}
		}
	}
}

// stored is the value to write: with what a gap that is absorbed says.
func (p *pending) stored() []byte {
	if p.before == nil || p.class != Gap {
		return p.value
	}
	g, ok := decodeLoss(p.value[headerSize:])
	if !ok {
		return p.value
	}
	g.add(*p.before)
	return g.value(p.seq, p.lane.id)
}
