package gateway

import (
	"math/bits"
	"slices"
	"strings"
	"time"
)

// alarmWord is a point whose bits are reported one by one.
type alarmWord struct {
	state *pointState
	named map[string]int // bits of flags, by name
	set   []uint64       // the bits that are known to be set, lowest first
	seen  time.Time
}

func newAlarmWord(st *pointState) *alarmWord {
	w := &alarmWord{state: st}
	d := st.latest.Point.Definition
	if d.Type == Flags {
		w.named = map[string]int{}
		for bit, name := range d.flagNames() {
			w.named[name] = bit
		}
	}
	return w
}

// bits are those that a value sets.
func (w *alarmWord) bits(v Value) []uint64 {
	if w.named == nil {
		word := v.bits
		if size := wordBits[w.state.latest.Point.Type]; size > 0 {
			word &= 1<<size - 1
		}
		return []uint64{word}
	}
	var set []uint64
	for name := range strings.SplitSeq(v.text, ",") {
		bit, ok := w.named[name]
		if !ok {
			continue
		}
		for len(set) <= bit/64 {
			set = append(set, 0)
		}
		set[bit/64] |= 1 << (bit % 64)
	}
	return set
}

// wordBits is the size of types that are kept sign-extended.
var wordBits = map[Type]int{Int8: 8, Int16: 16, Int32: 32}

// judgeWord reports each bit that changed. Bits that were never seen before
// count as cleared, so that an alarm that stands at the first start is told.
func (e *eventRule) judgeWord(w *alarmWord, now time.Time) {
	s := &w.state.latest
	if s.Quality == Bad || !s.Time.After(w.seen) && !w.seen.IsZero() || s.stale(now) || !s.sendable() {
		return
	}
	w.seen = s.Time
	set := w.bits(s.Value)
	for i := range max(len(set), len(w.set)) {
		now64, before := word(set, i), word(w.set, i)
		for changed := now64 ^ before; changed != 0; changed &= changed - 1 {
			bit := bits.TrailingZeros64(changed)
			e.reportFlag(w, 64*i+bit, now64>>bit&1 != 0, s.Time, now)
		}
	}
	if !slices.Equal(set, w.set) {
		w.set, e.rules.dirty = set, true
	}
}

func word(set []uint64, i int) uint64 {
	if i < len(set) {
		return set[i]
	}
	return 0
}

func (e *eventRule) reportFlag(w *alarmWord, bit int, active bool, t, now time.Time) {
	p := w.state.latest.Point
	name := p.flagName(bit)
	e.report(e.event.ID, p.ID+"."+name, t, now,
		Attribute{"flag", TextValue(name)}, Attribute{"bit", IntValue(int64(bit))}, Attribute{"word", TextValue(p.ID)}, Attribute{"active", BoolValue(active)})
}
