package buffer

import (
	"cmp"
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
// all that it says. A record that is dropped while its consumer has it counts as lost, since it may not arrive; who confirms it nevertheless
// is not told of it.

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
		other, ok := q.loss(cause)
		if !ok || q.frozen != p.frozen || min(p.seq, q.seq) <= l.newest {
			continue
		}
		g.add(other)
		b.count.Gaps--
		if q.seq > p.seq { // the gap has the last number: who confirms one before it has not seen it
			p, q = q, p
		}
		b.handOver(q, p)
		b.discard(q)
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
	p := &pending{lane: l, class: Gap, added: time.Now()}
	for _, q := range gapsBefore(l.mem, len(l.mem)) {
		if other, ok := q.loss(g.Cause); ok && !q.frozen && q.seq > l.newest {
			other.add(g)
			g = other
			b.count.Gaps--
			b.handOver(q, p)
			b.discard(q)
		}
	}
	p.time, p.value = g.To, encode(Gap, g.To, g.encode())
	b.enqueue(p)
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
		l.tails = append(l.tails, tail{seq, cause})
		slices.SortFunc(l.tails, func(t, u tail) int { return cmp.Compare(t.seq, u.seq) })
	}
}

// twins are two gaps of one cause at the end of a lane.
type twins struct {
	lane     *lane
	old, new place
	joined   bool // or gone already, by a commit that returned an error
}

type place struct{ seg, seq uint64 }

// twinTails finds gaps that can become one: nothing stands between them on disk or will.
func (b *Buffer) twinTails() (out []twins) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lanes {
		for i, old := range l.tails {
			j := slices.IndexFunc(l.tails[i+1:], func(t tail) bool { return t.cause == old.cause })
			if j < 0 {
				continue
			}
			t := twins{lane: l, old: l.place(old.seq), new: l.place(l.tails[i+1+j].seq)}
			between := slices.ContainsFunc(l.mem, func(p *pending) bool { return p.seq > t.old.seq && p.seq < t.new.seq })
			if t.old.seq < t.new.seq && t.old.seq > l.acked && !between {
				out = append(out, t)
			}
			break // the next pair of the lane comes with the next commit
		}
	}
	return out
}

// place is where the lane's record of that number is on disk, if it is.
func (l *lane) place(seq uint64) place {
	if s := l.holder(seq); s != nil {
		return place{s.seg.id, seq}
	}
	return place{0, seq}
}

// joinTails makes one of gaps at the ends of lanes, so that a lane that loses all that comes doesn't get a gap with each commit. Lanes can't
// read or acknowledge meanwhile. It is called with writer.
func (b *Buffer) joinTails() error {
	if len(b.twinTails()) == 0 {
		return nil
	}
	b.layout.Lock()
	defer b.layout.Unlock()
	pairs := b.twinTails() // none of them can be acknowledged now
	return b.rearrange(b.limit(b.opt.MinFreeDisk), func(tx *bolt.Tx) error {
		for i := range pairs {
			if err := pairs[i].join(tx.Bucket(segmentsBucket)); err != nil {
				return err
			}
		}
		return nil
	}, func() (lanes []*lane) {
		for _, t := range pairs {
			lanes = append(lanes, t.lane)
		}
		return lanes
	}, func() {
		for _, t := range pairs {
			t.settle(b)
		}
	})
}

func (t *twins) join(all *bolt.Bucket) error {
	older, there := gapAt(all, t.old)
	newer, ok := gapAt(all, t.new)
	if t.joined = !there || ok; !there || !ok {
		return nil
	}
	newer.add(older)
	err := all.Bucket(key(t.new.seg)).Put(key(t.new.seq), newer.value(t.new.seq, t.lane.id))
	if err != nil {
		return err
	}
	return all.Bucket(key(t.old.seg)).Delete(key(t.old.seq))
}

func (t *twins) settle(b *Buffer) {
	l := t.lane
	if !t.joined {
		return
	}
	l.tails = slices.DeleteFunc(l.tails, func(x tail) bool { return x.seq == t.old.seq })
	l.head = nil
	if s := l.holder(t.old.seq); s != nil {
		l.tookAside(s, t.old.seq)
		b.count.Gaps--
	}
	signal(l.ready)
}

func gapAt(all *bolt.Bucket, at place) (Loss, bool) {
	bucket := all.Bucket(key(at.seg))
	if bucket == nil {
		return Loss{}, false
	}
	v := bucket.Get(key(at.seq))
	if v == nil || !intact(key(at.seq), v) || classOf(v) != Gap {
		return Loss{}, false
	}
	return decodeLoss(v[headerSize:])
}
