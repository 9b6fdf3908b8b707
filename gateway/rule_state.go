package gateway

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"sync"
	"time"

	"sluice/buffer"
)

// A device's rules survive a restart by what is kept of them in the buffer's
// small state: soon after an event, else every keepEvery, and at the end.

const (
	keepEvery = 5 * time.Minute
	keepSoon  = time.Second // so that a burst of events is one write
	// ruleBucket is the bucket of the small state, by device.
	ruleBucket = "rules"
)

// ruleState is what is kept of a device. Values are in the stored form of
// records.
type ruleState struct {
	Offline told                   `json:"offline,omitzero"`
	Meters  map[string]meterState  `json:"meters,omitempty"`
	Events  map[string]eventState  `json:"events,omitempty"`
	Calls   map[string][]callState `json:"calls,omitempty"` // by what the expression belongs to
}

type meterState struct {
	Last, Total, Before float64
	Resets              int       `json:",omitempty"`
	ResetAt             time.Time `json:",omitzero"`
}

type eventState struct {
	Standing bool                `json:",omitempty"`
	RepeatAt time.Time           `json:",omitzero"`
	Words    map[string][]uint64 `json:",omitempty"`
	Held     []heldState         `json:",omitempty"` // behind the brake
	Passed   int                 `json:",omitempty"`
}

type heldState struct {
	Subject string
	Record  []byte
}

type callState struct {
	Text  string // of the call
	Last  []byte `json:",omitempty"`
	Count float64
	Begun bool      `json:",omitempty"`
	Since time.Time `json:",omitzero"`
	Day   *dayState `json:",omitempty"`
	// Marks are a long window: seconds since the first one, which was At,
	// value, and area and covered seconds since it. The last is the newest sample.
	At    time.Time    `json:",omitzero"`
	Marks [][4]float64 `json:",omitempty"`
}

const (
	// longWindow is the shortest one that is kept; others are soon full again.
	longWindow = 10 * time.Minute
	keptMarks  = 12
)

// dayState is a window of a day: its begin and its newest sample.
type dayState struct {
	Day            int
	BeginAt, NowAt time.Time
	Begin, Now     float64
	Area, Covered  float64 // since the begin
}

// save hands the state over to be kept.
func (r *rules) save(now time.Time) {
	r.dirty, r.keptAt = false, now
	state := ruleState{Offline: r.told, Meters: map[string]meterState{}, Events: map[string]eventState{}, Calls: map[string][]callState{}}
	for _, st := range r.device.points {
		if m := st.meter; m != nil && m.known {
			state.Meters[st.latest.Point.ID] = meterState{m.last, m.total, m.before, m.resets, m.resetAt}
		}
	}
	for _, e := range r.events {
		if kept := e.state(); kept.Standing || len(kept.Words) > 0 || len(kept.Held) > 0 {
			state.Events[e.event.ID] = kept
		}
	}
	r.eachBound(func(owner string, b *bound) {
		for i := range b.calls {
			state.Calls[owner] = append(state.Calls[owner], b.calls[i].state(&b.formula.calls[i]))
		}
	})
	if !r.kept && !r.told.Away && len(state.Meters)+len(state.Events)+len(state.Calls) == 0 {
		return
	}
	r.kept = true
	data, err := json.Marshal(&state)
	if err != nil { // an infinite number; there is none
		r.book.log.Error("keep rules", "device", r.device.device.Name, "error", err)
		return
	}
	r.book.keep(r.device.device.Name, data)
}

// eachBound visits the formulas that remember something.
func (r *rules) eachBound(visit func(owner string, b *bound)) {
	for _, c := range r.computed {
		visit("computed."+c.state.latest.Point.ID, c.bound)
	}
	for _, s := range r.streams {
		for _, f := range s.fields {
			if f.bound != nil {
				visit("streams."+s.stream.ID+"."+f.key, f.bound)
			}
		}
	}
	for _, e := range r.events {
		for key, b := range map[string]*bound{"when": e.when, "clear": e.clear, "each": e.each} {
			if b != nil {
				visit("events."+e.event.ID+"."+key, b)
			}
		}
	}
}

func (e *eventRule) state() eventState {
	kept := eventState{Standing: e.standing, RepeatAt: e.repeatAt, Passed: e.brake.passed}
	for _, w := range e.words {
		if !w.seen.IsZero() {
			if kept.Words == nil {
				kept.Words = map[string][]uint64{}
			}
			kept.Words[w.state.latest.Point.ID] = w.set
		}
	}
	for _, h := range e.brake.queue {
		kept.Held = append(kept.Held, heldState{h.subject, AppendRecord(nil, &h.record)})
	}
	return kept
}

func (c *call) state(spec *callSpec) callState {
	kept := callState{Text: spec.text, Count: c.count, Begun: c.begun, Since: c.since}
	if c.begun && c.last.kind != None {
		kept.Last = appendValue(nil, c.last)
	}
	if p := c.past; p != nil && p.day != 0 {
		kept.Day = &dayState{Day: p.day, BeginAt: p.epoch.Add(p.begin.at), NowAt: p.epoch.Add(p.now.at),
			Begin: p.begin.value, Now: p.now.value, Area: p.now.area - p.begin.area, Covered: p.now.covered - p.begin.covered}
	}
	if p := c.past; p != nil && p.begun && spec.window.length >= longWindow {
		first := p.marks[0]
		kept.At = p.epoch.Add(first.at)
		step := (len(p.marks) + keptMarks - 1) / keptMarks
		for i := 0; i < len(p.marks); i += step {
			kept.Marks = append(kept.Marks, p.marks[i].since(first))
		}
		kept.Marks = append(kept.Marks, p.now.since(first))
	}
	return kept
}

// since is a mark counted from another one: seconds, value, area, covered.
func (m mark) since(first mark) [4]float64 {
	return [4]float64{(m.at - first.at).Seconds(), m.value, m.area - first.area, m.covered - first.covered}
}

// restore takes the state over that was kept before. What does not fit the
// rules any more is left out.
func (r *rules) restore(data []byte) error {
	var state ruleState
	if err := json.Unmarshal(data, &state); err != nil {
		return err
	}
	r.told, r.kept = state.Offline, true
	for id, kept := range state.Meters {
		if st := r.device.point(id); st != nil && st.meter != nil {
			st.meter.known, st.meter.last, st.meter.total, st.meter.before = true, kept.Last, kept.Total, kept.Before
			st.meter.resets, st.meter.resetAt = kept.Resets, kept.ResetAt
		}
	}
	for _, e := range r.events {
		e.restore(state.Events[e.event.ID])
	}
	r.eachBound(func(owner string, b *bound) {
		for i := range b.calls {
			for _, kept := range state.Calls[owner] {
				if kept.Text == b.formula.calls[i].text {
					b.calls[i].restore(kept)
				}
			}
		}
	})
	return nil
}

func (e *eventRule) restore(kept eventState) {
	if e.when != nil {
		e.standing = kept.Standing
		if kept.Standing && e.event.Repeat > 0 {
			e.repeatAt = kept.RepeatAt
		}
	}
	for _, w := range e.words {
		w.set = kept.Words[w.state.latest.Point.ID]
	}
	if e.brake.rate == nil {
		return
	}
	e.brake.passed = kept.Passed
	for _, held := range kept.Held {
		if record, err := ParseRecord(held.Record); err == nil {
			e.brake.queue = append(e.brake.queue, heldRecord{held.Subject, record})
		}
	}
}

func (c *call) restore(kept callState) {
	if len(kept.Last) > 0 {
		p := recordReader{rest: kept.Last}
		if c.last = p.value(0); p.err != nil {
			return
		}
	}
	c.count, c.begun, c.since = kept.Count, kept.Begun, kept.Since
	if d := kept.Day; d != nil {
		p := &past{epoch: d.BeginAt, day: d.Day, begun: true}
		p.begin = mark{value: d.Begin}
		p.now = mark{d.NowAt.Sub(d.BeginAt), d.Now, d.Area, d.Covered}
		c.past = p
	}
	if n := len(kept.Marks); n > 1 {
		p := &past{epoch: kept.At, begun: true}
		for _, m := range kept.Marks {
			p.marks = append(p.marks, mark{time.Duration(m[0] * float64(time.Second)), m[1], m[2], m[3]})
		}
		p.now = p.marks[n-1]
		p.marks = p.marks[:n-1]
		c.past = p
	}
}

// keeper writes the states of devices, so that no bus waits for the disk.
type keeper struct {
	buffer *buffer.Buffer
	log    *slog.Logger

	mu    sync.Mutex
	fresh map[string][]byte // by device; not written yet
	wake  chan struct{}
}

func newKeeper(b *buffer.Buffer, log *slog.Logger) *keeper {
	return &keeper{buffer: b, log: log, fresh: map[string][]byte{}, wake: make(chan struct{}, 1)}
}

func (k *keeper) keep(device string, state []byte) {
	k.mu.Lock()
	k.fresh[device] = state
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends. What comes later is written by flush.
func (k *keeper) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		}
		sleep(ctx, keepSoon)
		k.flush()
	}
}

// flush writes what is not written yet, in one commit. What can't be written is
// tried with the next state: the buffer says what is wrong with the disk.
func (k *keeper) flush() {
	k.mu.Lock()
	fresh := k.fresh
	k.fresh = map[string][]byte{}
	k.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	if err := k.buffer.PutAll(ruleBucket, fresh); err != nil {
		k.log.Debug("keep rules", "error", err)
		k.mu.Lock()
		maps.Copy(fresh, k.fresh)
		k.fresh = fresh
		k.mu.Unlock()
	}
}
