package modbus

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"sluice/gateway"
)

// stateBucket is where the adapter keeps what units taught, by device.
const stateBucket = "modbus.learnt"

// What was learnt is tried again: soon at first, for a unit that had only just
// started, and at last once a day.
const (
	firstTrial = time.Minute
	lastTrial  = 24 * time.Hour
	nextTrial  = 10 * time.Minute // at last, of what may go by itself
)

// kind says what a fact is about.
type kind string

const (
	refusedPoint kind = "point" // what the read holds is refused, alone too
	refusedHole  kind = "hole"  // registers between two points, or only the border there
	lowLimit     kind = "limit" // so many registers or bits are too many for one request
)

// fact is something that a unit taught about itself: a read that it refuses,
// though it answers others, and what that means for the plan.
type fact struct {
	Kind    kind      `json:"kind"`
	Table   Table     `json:"table"`
	First   int       `json:"first"` // of the read that is refused
	Last    int       `json:"last"`
	From    int       `json:"from,omitempty"`  // hole: what no request may touch
	To      int       `json:"to,omitempty"`    // From-1 for a border
	Most    int       `json:"most,omitempty"`  // limit: the most that was answered
	Fails   bool      `json:"fails,omitempty"` // it may go by itself
	Reason  string    `json:"reason"`
	Since   time.Time `json:"since"`
	Checked time.Time `json:"checked"` // when it was last refused
}

// restrict makes the rules of a table keep to the fact.
func (f *fact) restrict(r *rules, table Table) {
	switch {
	case f.Table != table:
	case f.Kind == refusedPoint:
		r.forbid = append(r.forbid, [2]int{f.First, f.Last})
	case f.Kind == refusedHole:
		r.forbid = append(r.forbid, [2]int{f.From, f.To})
	case f.Kind == lowLimit:
		r.most = min(r.most, f.Most)
	}
}

// refusedBy is the fact by which an item can't be read.
func refusedBy(it *item, facts []fact) *fact {
	for i := range facts {
		if f := &facts[i]; f.Kind == refusedPoint && f.Table == it.table && it.start <= f.First && it.end > f.Last {
			return f
		}
	}
	return nil
}

// due is when to try the refused read again.
func (f *fact) due() time.Time {
	last := lastTrial
	if f.Fails {
		last = nextTrial
	}
	return f.Checked.Add(min(max(f.Checked.Sub(f.Since), firstTrial), last))
}

// isDue tells whether it is to be tried again. A clock that was set back does
// not put it off for longer than a day.
func (f *fact) isDue(now time.Time) bool {
	wait := f.due().Sub(now)
	return wait <= 0 || wait > lastTrial
}

func (f *fact) learnt(device string) gateway.Learnt {
	l := gateway.Learnt{Device: device, Range: span{f.First, f.Last}.in(f.Table), What: "not read", Reason: f.Reason, Since: f.Since}
	switch f.Kind {
	case refusedHole:
		l.Range, l.What = span{f.From, f.To}.in(f.Table), "not read along"
		if f.To < f.From {
			l.Range, l.What = span{f.From - 1, f.From}.in(f.Table), "not read together"
		}
	case lowLimit:
		l.Range, l.What = f.Table.String(), "at most "+f.Table.counted(f.Most)+" in one request"
	}
	return l
}

// span is a closed range of wire addresses.
type span struct{ first, last int }

func (s span) size() int { return s.last - s.first + 1 }

func (s span) in(table Table) string {
	if s.first == s.last {
		return fmt.Sprintf("%s %d", table, s.first)
	}
	return fmt.Sprintf("%s %d to %d", table, s.first, s.last)
}

// Learnt is what the devices of the bus taught, also in earlier runs. It may be
// called by any goroutine.
func (a *Adapter) Learnt() []gateway.Learnt {
	var list []gateway.Learnt
	for _, id := range a.atlas.unitIDs() {
		u := a.atlas.units[id]
		a.recall(u)
		a.atlas.mu.Lock()
		for i := range u.facts {
			list = append(list, u.facts[i].learnt(u.name()))
		}
		a.atlas.mu.Unlock()
	}
	return list
}

// LearntBefore is what earlier runs of a gateway learnt about the devices of a
// bus, by the state that they left.
func LearntBefore(state gateway.State, bus *gateway.Bus, devices []*gateway.Device) ([]gateway.Learnt, error) {
	a, err := New(gateway.Env{State: state}, bus, devices)
	if err != nil {
		return nil, err
	}
	return a.(*Adapter).Learnt(), nil
}

// record is what the state keeps of a unit.
type record struct {
	Depends string `json:"depends"` // on this part of the site file
	Facts   []fact `json:"facts"`
}

// depends identifies what facts are about: what is asked of a unit.
func (a *atlas) depends(u *unit) string {
	h := fnv.New64a()
	for _, d := range u.devices {
		p := d.Profile
		fmt.Fprintf(h, "%d %s %d %d %q\n", d.Unit, p.Addressing, d.Shift, p.MaxRegisters, p.Forbid)
		for _, point := range d.Points {
			if at := a.places[point]; at != nil {
				fmt.Fprintln(h, at.address.Table, at.start, at.end, point.Block, point.ScaleFrom)
			}
		}
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// recall fetches what earlier runs learnt, as soon as the state can be read.
func (a *Adapter) recall(u *unit) {
	a.atlas.mu.Lock()
	defer a.atlas.mu.Unlock()
	if u.recalled || len(u.devices) == 0 {
		return
	}
	if a.env.State == nil {
		u.recalled = true
		return
	}
	data, err := a.env.State.Get(stateBucket, u.name())
	if err != nil {
		return // it is not there yet; what is learnt meanwhile stays
	}
	u.recalled = true
	var r record
	if len(data) == 0 || json.Unmarshal(data, &r) != nil || r.Depends != a.atlas.depends(u) {
		return
	}
	for _, f := range r.Facts {
		if !slices.ContainsFunc(u.facts, f.same) {
			u.facts = append(u.facts, f)
		}
	}
	u.changed()
}

func (f *fact) same(g fact) bool {
	return f.Kind == g.Kind && f.Table == g.Table && f.First == g.First && f.Last == g.Last
}

// keep changes the facts of a unit and writes them down. A plan made before
// is outdated where replan says so.
func (a *Adapter) keep(u *unit, replan bool, change func([]fact) []fact) {
	a.atlas.mu.Lock()
	u.facts = change(slices.Clone(u.facts))
	if replan {
		u.changed()
	}
	u.schedule()
	r := record{a.atlas.depends(u), u.facts}
	a.atlas.mu.Unlock()
	if a.env.State == nil || len(u.devices) == 0 {
		return
	}
	data, err := json.Marshal(r)
	if err == nil {
		err = a.env.State.Put(stateBucket, u.name(), data)
	}
	if err != nil && a.env.Log != nil {
		a.env.Log.Warn("what was learnt is not kept", "device", u.name(), "error", err)
	}
}

// changed outdates the plans for the unit.
func (u *unit) changed() {
	u.generation++
	u.schedule()
}

// schedule finds the next trial.
func (u *unit) schedule() {
	u.trial = time.Time{}
	for i := range u.facts {
		if due := u.facts[i].due(); u.trial.IsZero() || due.Before(u.trial) {
			u.trial = due
		}
	}
}

// facts is what is known of a unit; it is not changed any more.
func (a *atlas) facts(id byte) []fact {
	a.mu.Lock()
	defer a.mu.Unlock()
	if u := a.units[id]; u != nil {
		return u.facts
	}
	return nil
}

// Planned is a number that changes when plans should be made anew.
func (s *session) Planned() int {
	s.atlas.mu.Lock()
	defer s.atlas.mu.Unlock()
	n := 0
	for _, u := range s.atlas.units {
		n += u.generation
	}
	return n
}

func (a *atlas) unitIDs() []byte {
	ids := make([]byte, 0, len(a.units))
	for id := range a.units {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
