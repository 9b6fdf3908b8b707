package gateway

import (
	"fmt"
	"log/slog"
	"time"
)

// rulebook is what the rules of all devices share. Its times are those of the samples, or given
// to it, so that recorded values can be judged as live ones are.
type rulebook struct {
	place    *time.Location // of the site: its days begin at its midnight
	log      *slog.Logger
	formulas map[formulaKey]*formula
	keep     func(device string, state []byte) // keeps a device's state; nil where nothing is kept
	recent   *recentEvents
}

type formulaKey struct {
	profile *Profile
	text    string
	want    OperandKind
}

// newRulebook is for devices of a site. It is used by one goroutine until all
// rules are made.
func newRulebook(site *Site, log *slog.Logger) (*rulebook, error) {
	k := &rulebook{log: log, formulas: map[formulaKey]*formula{}, recent: &recentEvents{}}
	return k, k.move(site)
}

// move makes the book one for rules of devices of another site.
func (k *rulebook) move(site *Site) error {
	place, err := time.LoadLocation(site.Timezone)
	if err != nil {
		return fmt.Errorf("time zone of the site: %w", err)
	}
	k.place = place
	return nil
}

// formula compiles an expression of a device; devices of a profile share it,
// where its points are the same on them.
func (k *rulebook) formula(d *Device, text string, want OperandKind) (*formula, error) {
	key, scope := formulaKey{d.Profile, text, want}, d.Scope()
	if f := k.formulas[key]; f != nil && f.fits(scope) {
		return f, nil
	}
	f, faults := scope.compile(text, want)
	if len(faults) > 0 {
		return nil, fmt.Errorf("%s: %s", text, faults[0].Text)
	}
	k.formulas[key] = f
	return f, nil
}

// rules are the computed points, events and streams of one device. They belong
// to the goroutine of its bus.
type rules struct {
	book     *rulebook
	device   *deviceState
	computed []*derived
	events   []*eventRule
	streams  []*streamRule
	next     time.Time // when something is due without a new sample; zero for never

	dirty  bool      // the state is to be kept soon
	keptAt time.Time // when it was last kept
	kept   bool      // there is a state, which must not stay when nothing is to be kept any more
	told   told      // whether the cloud was told that the device is offline
}

// newRules makes the rules of a device, and adds its computed points to the
// device's points.
func newRules(book *rulebook, d *deviceState, take func(*Device, Record)) (*rules, error) {
	r := &rules{book: book, device: d}
	if err := r.derive(); err != nil {
		return nil, fmt.Errorf("device %s: %w", d.device.Name, err)
	}
	for _, e := range d.device.Events {
		rule, err := newEventRule(r, e, take)
		if err != nil {
			return nil, fmt.Errorf("device %s: event %s: %w", d.device.Name, e.ID, err)
		}
		r.events = append(r.events, rule)
	}
	for _, s := range d.device.Streams {
		rule, err := newStreamRule(r, s, take)
		if err != nil {
			return nil, fmt.Errorf("device %s: stream %s: %w", d.device.Name, s.ID, err)
		}
		r.streams = append(r.streams, rule)
		for _, e := range r.events {
			if e.event.ID == s.Each {
				e.streams = append(e.streams, rule)
			}
		}
	}
	return r, nil
}

// bind makes an expression of the device ready for evaluation.
func (r *rules) bind(e *Expression, want OperandKind) (*bound, error) {
	f, err := r.book.formula(r.device.device, e.Text, want)
	if err != nil {
		return nil, err
	}
	for _, name := range f.names {
		if r.device.point(name) == nil {
			return nil, fmt.Errorf("%s: there is no point %s on this device", e.Text, name)
		}
	}
	return f.bind(r.device.operand, r.book.place), nil
}

// point finds a point or computed point of the device by its key, nil if there
// is none.
func (d *deviceState) point(id string) *pointState {
	for _, st := range d.points {
		if st.latest.Point.ID == id {
			return st
		}
	}
	return nil
}

// operand is the latest sample of a point, for formulas.
func (d *deviceState) operand(name string) operand {
	st := d.point(name)
	return operand{&st.latest, st.meter}
}

// pass works out what follows from the device's latest samples.
func (r *rules) pass(now time.Time) {
	for _, c := range r.computed {
		c.work(now)
	}
	for _, s := range r.streams {
		s.pass(now)
	}
	for _, e := range r.events {
		e.judge(now)
	}
	r.plan(now)
}

// occur reports an event that the device told by itself.
func (r *rules) occur(told *FieldEvent, now time.Time) {
	extra := []Attribute{{"message", TextValue(told.Message)}, {"source", TextValue(told.Source)}, {"severity", IntValue(int64(told.Severity))}}
	if told.Active.kind != None {
		extra = append(extra, Attribute{"active", told.Active})
	}
	for _, e := range r.events {
		if e.event == told.Event {
			e.report(e.event.ID, told.Subject, told.Time, now, extra...)
			r.dirty = r.dirty || len(e.brake.queue) > 0
		}
	}
	r.plan(now)
}

// any tells whether there are any.
func (r *rules) any() bool { return r != nil && len(r.computed)+len(r.events)+len(r.streams) > 0 }

// due tells whether something is due without a new sample.
func (r *rules) due(now time.Time) bool {
	return r != nil && !r.next.IsZero() && !now.Before(r.next)
}

// tick does what is due without a new sample.
func (r *rules) tick(now time.Time) {
	if !r.due(now) {
		return
	}
	for _, e := range r.events {
		e.tick(now)
	}
	for _, s := range r.streams {
		s.tick(now)
	}
	r.plan(now)
}

// plan finds what is due next, and keeps the state where that is due.
func (r *rules) plan(now time.Time) {
	r.next = time.Time{}
	for _, e := range r.events {
		r.dueAt(e.due())
	}
	for _, s := range r.streams {
		r.dueAt(s.due)
	}
	if r.book.keep == nil {
		return
	}
	if r.dirty || now.Sub(r.keptAt) >= keepEvery {
		r.save(now)
	}
}

func (r *rules) dueAt(t time.Time) {
	if !t.IsZero() && (r.next.IsZero() || t.Before(r.next)) {
		r.next = t
	}
}
