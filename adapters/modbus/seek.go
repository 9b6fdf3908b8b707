package modbus

import (
	"context"
	"errors"
	"slices"
	"sort"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

const (
	seekTime = 100 * time.Millisecond // of the bus that a search may take in one Read
	holdOff  = 10 * time.Minute       // after a search in which the unit gave nothing at all
	stale    = 3                      // other requests fail so often, then a search that is not read for makes room
)

// search finds out which registers of a refused request can't be read, at all
// or together. The request is cut into halves, those that are refused again,
// and so on; every step is a read that may be of use. What is known so far is
// in tried, and the whole reasoning (find) is done anew after each read, until
// it needs no further one.
type search struct {
	table      Table
	span       span
	generation int // of the unit, when it began
	bricks     []brick
	tried      map[span]trial
	answers    int  // of the unit, when it began
	heard      int  // of the unit, when it was last read for
	waits      bool // it is over, but for an answer that shows that the unit is well
	timeout    time.Duration
	passed     int // failures of other requests since it was last read for

	want  *span // the read that find needs next
	facts []fact
	most  int // longest read that is allowed, as far as found; 0 is not known

	data  []byte // of the whole request
	fresh []bool // bricks whose data is of this Read
	err   error  // the last refusal
}

// trial is what came of reads of one span.
type trial struct {
	answered bool
	refusals int // in a row
	err      error
}

func newSearch(r *request, u *unit, generation int, err error) *search {
	q := &search{table: r.table, span: r.span(), generation: generation, bricks: r.bricks(), tried: make(map[span]trial), timeout: r.timeout, answers: u.answers, heard: u.answers, err: err}
	q.data = make([]byte, dataBytes(r.table, r.count))
	q.fresh = make([]bool, len(q.bricks))
	q.note(q.span, err)
	return q
}

// of tells whether the search is about the request.
func (q *search) of(r *request) bool {
	return q.table == r.table && q.span == r.span() && slices.EqualFunc(q.bricks, r.bricks(), func(a, b brick) bool { return a.start == b.start && a.end == b.end })
}

// note remembers what came of a read.
func (q *search) note(s span, err error) {
	t := q.tried[s]
	if err == nil {
		t = trial{answered: true}
	} else {
		t.answered, t.err, q.err = false, err, err
		t.refusals++
	}
	q.tried[s] = t
}

// next is the read that the search needs; none when it is over.
func (q *search) next() (span, bool) {
	q.want, q.facts, q.most = nil, nil, 0
	q.find(0, len(q.bricks))
	if q.want == nil {
		return span{}, false
	}
	return *q.want, true
}

// reads is the span of some bricks.
func (q *search) reads(low, high int) span {
	return span{q.bricks[low].start, q.bricks[high-1].end - 1}
}

// answered tells whether a read works; where that is not known yet, it is the
// one that is wanted next.
func (q *search) answered(s span) bool {
	t, known := q.tried[s]
	if !known && q.want == nil {
		q.want = &s
	}
	return t.answered
}

// refused tells whether a read fails for sure, twice.
func (q *search) refused(s span) bool {
	t := q.tried[s]
	if !t.answered && t.refusals < 2 && q.want == nil {
		q.want = &s
	}
	return t.refusals >= 2
}

// find finds what is wrong with some bricks that were refused together.
func (q *search) find(low, high int) {
	whole := q.reads(low, high)
	if q.want != nil || q.most > 0 && whole.size() > q.most {
		return
	}
	if high-low == 1 {
		if q.refused(whole) {
			q.learn(fact{Kind: refusedPoint, First: whole.first, Last: whole.last}, whole)
		}
		return
	}
	mid := (low + high) / 2
	left, right := q.answered(q.reads(low, mid)), q.answered(q.reads(mid, high))
	switch {
	case q.want != nil:
	case left && right:
		if q.refused(whole) { // else it was a passing trouble
			q.seam(low, mid, high)
		}
	default:
		if !left {
			q.find(low, mid)
		}
		if !right {
			q.find(mid, high)
		}
	}
}

// seam finds why two runs of bricks can be read, but not together: for what is
// between them, or for their length.
func (q *search) seam(low, mid, high int) {
	whole := q.reads(low, high)
	seam := span{q.bricks[mid-1].start, q.bricks[mid].end - 1}
	if seam == whole { // then as short as can be
		seam = span{min(q.bricks[mid-1].end, q.bricks[mid].start) - 1, q.bricks[mid].start}
	}
	switch {
	case q.longest() >= whole.size():
		seam = whole
	case q.answered(seam):
		n := sort.Search(high-mid-1, func(i int) bool { return !q.answered(q.reads(low, mid+i+1)) })
		if q.want == nil {
			q.most = max(q.longest(), q.reads(low, mid+n).size())
			q.learn(fact{Kind: lowLimit, Most: q.most, First: whole.first, Last: whole.last}, whole)
		}
		return
	}
	if q.refused(seam) {
		next := q.bricks[mid].start
		q.learn(fact{Kind: refusedHole, From: min(q.bricks[mid-1].end, next), To: next - 1, First: seam.first, Last: seam.last}, seam)
	}
}

// longest is the longest read that was answered.
func (q *search) longest() (n int) {
	for s, t := range q.tried {
		if t.answered {
			n = max(n, s.size())
		}
	}
	return n
}

func (q *search) learn(f fact, refused span) {
	f.Table, f.Reason, f.Fails = q.table, reason(q.tried[refused].err, q.timeout), fails(q.tried[refused].err)
	f.Since = time.Now()
	f.Checked = f.Since
	q.facts = append(q.facts, f)
}

// cover is the longest read known to work that has a brick in it.
func (q *search) cover(i int) (best span, ok bool) {
	for s, t := range q.tried {
		if t.answered && s.first <= q.bricks[i].start && s.last >= q.bricks[i].end-1 && (!ok || s.size() > best.size() || s.size() == best.size() && s.first < best.first) {
			best, ok = s, true
		}
	}
	return best, ok
}

// take puts the data of a read where it belongs.
func (q *search) take(s span, data []byte) {
	at := s.first - q.span.first
	if q.table.Bits() {
		for i := range s.size() {
			n := at + i
			q.data[n/8] = q.data[n/8]&^(1<<(n%8)) | data[i/8]>>(i%8)&1<<(n%8)
		}
	} else {
		copy(q.data[2*at:], data)
	}
	for i, b := range q.bricks {
		q.fresh[i] = q.fresh[i] || b.start >= s.first && b.end-1 <= s.last
	}
}

// freshAt tells whether the data of some registers is of this Read.
func (q *search) freshAt(start, end int) bool {
	for i, b := range q.bricks {
		if b.start <= start && end <= b.end {
			return q.fresh[i]
		}
	}
	return false
}

// doubt looks at a request that failed: whether to search for the reason. Other
// trouble than a refusal has to come twice in a row; silence and garbage with an
// answer to another request between.
func (s *session) doubt(r *request, err error) {
	u := r.at
	if passing(err) {
		return
	}
	if !refuses(err) {
		if r.failures++; r.failures < 2 || u.answers == r.answers && !fails(err) {
			r.answers = u.answers
			return
		}
	}
	if time.Now().Before(s.holdOff[u]) {
		return
	}
	if q := s.searches[u]; q != nil && q.generation == r.generation {
		if q.passed++; q.passed < stale {
			return // one at a time
		}
	}
	s.searches[u] = newSearch(r, u, r.generation, err)
}

// refuses tells whether an error is the unit's refusal of these registers.
func refuses(err error) bool {
	return errors.Is(err, wire.IllegalFunction) || errors.Is(err, wire.IllegalDataAddress) || errors.Is(err, wire.IllegalDataValue)
}

// fails tells whether an error is another exception, which may be about some of
// the registers and may go by itself: a sensor that is out of order.
func fails(err error) bool {
	var refusal wire.Exception
	return errors.As(err, &refusal) && !refuses(err) && !silence(err) && !busy(err)
}

// passing tells whether an error says nothing about the registers.
func passing(err error) bool {
	return !refuses(err) && !fails(err) && !errors.Is(err, wire.ErrTimeout) && !silence(err)
}

// seek goes on with the search about a request, for a while, and reads what
// is known to work.
func (s *session) seek(ctx context.Context, r *request, q *search) error {
	clear(q.fresh)
	q.passed = 0
	over := false
	for begin := time.Now(); time.Since(begin) < seekTime; {
		next, ok := q.next()
		if over = !ok; over {
			break
		}
		if stop, err := s.try(ctx, r, q, next); err != nil || stop {
			return s.settle(r, q, false, err)
		}
	}
	for i := range q.bricks {
		for !q.fresh[i] {
			known, ok := q.cover(i)
			if !ok {
				break
			}
			if stop, err := s.try(ctx, r, q, known); err != nil || stop {
				return s.settle(r, q, false, err)
			}
		}
	}
	if r.at.answers == q.heard && silence(q.err) {
		delete(s.searches, r.at) // the unit is gone, not a register
	}
	q.heard = r.at.answers
	return s.settle(r, q, over, nil)
}

// try reads a span for a search. It stops where the answer says nothing about
// the registers.
func (s *session) try(ctx context.Context, r *request, q *search, what span) (stop bool, err error) {
	data, err := s.once(ctx, r.piece(what), r.at.patience(r.timeout))
	switch {
	case err == nil:
		q.note(what, nil)
		q.take(what, data)
	case s.lost(ctx, err) != nil:
		return true, s.lost(ctx, err)
	case passing(err):
		q.err = err
		return true, nil
	default:
		q.note(what, err)
	}
	return false, nil
}

// settle makes the samples of a request that is being searched, and ends the
// search when it is over.
func (s *session) settle(r *request, q *search, over bool, err error) error {
	if err != nil {
		return err
	}
	now := time.Now()
	nothing := silence(q.err) && !slices.Contains(q.fresh, true)
	for i := range r.readings {
		at := &r.readings[i]
		if q.freshAt(int(at.start), int(at.end)) {
			r.samples[at.slot] = r.sample(at, q.data, now)
		} else {
			r.samples[at.slot] = gateway.Sample{Point: at.point, Time: now, Reason: reason(q.err, r.timeout), Silent: nothing, Busy: busy(q.err)}
		}
	}
	if over {
		s.conclude(r.at, q)
	}
	return nil
}

// conclude ends a search that is over. What it found counts when the unit gave
// data meanwhile, which may come a little later, in answer to other requests.
func (s *session) conclude(u *unit, q *search) {
	if len(q.facts) > 0 && u.answers == q.answers && !q.waits {
		q.waits = true
		return
	}
	delete(s.searches, u)
	switch {
	case len(q.facts) == 0:
	case u.answers == q.answers:
		s.holdOff[u] = time.Now().Add(holdOff)
	default:
		s.keep(u, true, func(facts []fact) []fact {
			for _, f := range q.facts {
				facts = append(slices.DeleteFunc(facts, f.same), f)
			}
			return facts
		})
	}
}

// learn is what a Read does about a unit beside reading it.
func (s *session) learn(ctx context.Context, u *unit, now time.Time) error {
	s.recall(u)
	if q := s.searches[u]; q != nil && q.waits && u.answers > q.answers {
		s.conclude(u, q)
	}
	if facts := s.dueFacts(u, now); facts != nil {
		return s.retry(ctx, u, facts)
	}
	return nil
}

// retry tries one refused read of a unit again, when one is due.
func (s *session) retry(ctx context.Context, u *unit, facts []fact) error {
	now := time.Now()
	for i, f := range facts {
		if !f.isDue(now) {
			continue
		}
		d := u.devices[0]
		r := request{unit: byte(d.Unit), table: f.Table, timeout: deviceTimeout(s.bus, d), quiet: deviceQuiet(s.bus, d), at: u}
		_, err := s.once(ctx, r.piece(span{f.First, f.Last}), u.patience(r.timeout))
		switch {
		case err == nil:
			s.keep(u, true, func(facts []fact) []fact { return slices.DeleteFunc(facts, f.same) })
		case s.lost(ctx, err) != nil:
			return s.lost(ctx, err)
		default:
			s.keep(u, false, func(facts []fact) []fact {
				facts[i].Checked = now
				return facts
			})
		}
		return nil
	}
	return nil
}
