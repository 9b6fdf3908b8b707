package gateway

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// Trace judges recorded values as a Gateway would: computed points, events and
// streams follow from them, with the times of the recording. It looks at no
// clock and keeps nothing.
//
// A value counts until the next one of its point, read again at each poll as a
// live one would be, but no longer than Hold; then the point is bad.
type Trace struct {
	Hold time.Duration
	// Report gets the records that a gateway would have made. The event of a
	// record is its Name.
	Report func(d *Device, at time.Time, r Record)

	devices []*tracedDevice
	names   map[string]*tracedPoint // by device.point, name in the cloud, and point where there is one device
	now     time.Time
}

// tracedDevice is a device and the polls that are left of its points.
type tracedDevice struct {
	state    *deviceState
	reporter *reporter
	points   []*tracedPoint
	fresh    bool // it has samples that are not judged yet
}

type tracedPoint struct {
	device *tracedDevice
	state  *pointState
	read   time.Time // when its value was recorded; zero before the first
	due    time.Time // its next poll
}

// NewTrace is for all devices of a site that are in use.
func NewTrace(site *Site, log *slog.Logger) (*Trace, error) {
	book, err := newRulebook(site, log)
	if err != nil {
		return nil, err
	}
	t := &Trace{Hold: 10 * time.Minute, names: make(map[string]*tracedPoint)}
	take := func(d *Device, r Record) { t.Report(d, t.now, r) }
	var used []*Device
	for _, d := range site.Devices {
		if !d.Disabled {
			used = append(used, d)
		}
	}
	for _, d := range used {
		td := &tracedDevice{reporter: newReporter([]*Device{d}, take)}
		td.state = td.reporter.devices[0]
		for _, st := range td.state.points {
			p := &tracedPoint{device: td, state: st}
			td.points = append(td.points, p)
			t.names[st.latest.Point.Name] = p
			if len(used) == 1 {
				t.names[st.latest.Point.ID] = p
			}
		}
		t.devices = append(t.devices, td)
		if td.state.rules, err = newRules(book, td.state, take); err != nil {
			return nil, err
		}
	}
	for _, td := range t.devices { // what is written in full goes before a name in the cloud
		for _, p := range td.points {
			t.names[td.state.device.Name+"."+p.state.latest.Point.ID] = p
		}
	}
	return t, nil
}

// Knows tells whether a column or row is of a point: device.point, its name in
// the cloud, or the point alone where the site has one device.
func (t *Trace) Knows(name string) bool { return t.names[name] != nil }

// Names are the points of the site in full, in its order.
func (t *Trace) Names() (names []string) {
	for _, d := range t.devices {
		for _, p := range d.points {
			names = append(names, d.state.device.Name+"."+p.state.latest.Point.ID)
		}
	}
	return names
}

// Add takes a recorded value, in engineering units; an empty one is a read that
// failed. Times must not go backwards.
func (t *Trace) Add(at time.Time, name, text string) error {
	p := t.names[name]
	if p == nil {
		return fmt.Errorf("the site has no point %q: write device.point, or its name in the cloud", name)
	}
	if at.Before(t.now) {
		return fmt.Errorf("time goes backwards: %s comes after %s", at.Format(time.RFC3339Nano), t.now.Format(time.RFC3339Nano))
	}
	def := p.state.latest.Point.Definition
	s := Sample{Point: p.state.latest.Point, Time: at, Quality: Good}
	var err error
	switch s.Value, err = def.parse(text); {
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case s.Value.kind == None:
		s.Quality, s.Reason = Bad, "no value"
	case len(def.Enum) > 0 && s.Value.kind != Text:
		s.Quality, s.Reason = Uncertain, reasonUnlabelled
	case def.Plausible != nil && s.Value.Numeric() && !def.Plausible.Contains(s.Value.Float()):
		s.Quality, s.Reason = Uncertain, reasonImplausible
	}
	if at.After(t.now) {
		t.Until(at)
	}
	p.state.note(&s)
	p.read, p.due = at, at.Add(p.poll()*3/2) // a recording of each poll is not exactly in time
	p.device.fresh = true
	return nil
}

func (p *tracedPoint) poll() time.Duration { return max(p.state.latest.Point.Poll, time.Millisecond) }

// Until judges all that happens before a time.
func (t *Trace) Until(end time.Time) {
	for {
		t.judge()
		next := end
		for _, d := range t.devices {
			if at := d.next(); !at.IsZero() && at.Before(next) {
				next = at
				if at.Before(t.now) {
					next = t.now // overdue
				}
			}
		}
		if t.now = next; !next.Before(end) {
			return
		}
		for _, d := range t.devices {
			d.poll(next, t.Hold)
			d.state.rules.tick(next)
		}
	}
}

// judge draws the conclusions from the samples of this moment.
func (t *Trace) judge() {
	for _, d := range t.devices {
		if d.fresh {
			d.fresh = false
			d.state.judge(t.now)
			d.reporter.flush(d.state)
		}
	}
}

// next is when the device has something to do; zero for never.
func (d *tracedDevice) next() time.Time {
	next := d.state.rules.next
	for _, p := range d.points {
		if !p.due.IsZero() && (next.IsZero() || p.due.Before(next)) {
			next = p.due
		}
	}
	return next
}

// poll reads again what is due.
func (d *tracedDevice) poll(now time.Time, hold time.Duration) {
	for _, p := range d.points {
		if p.due.IsZero() || now.Before(p.due) {
			continue
		}
		s := p.state.latest
		s.Time = now
		p.due = now.Add(p.poll())
		if now.Sub(p.read) > hold {
			s.Value, s.Quality, s.Reason, p.due = Value{}, Bad, "nothing recorded for "+hold.String(), time.Time{}
		}
		p.state.note(&s)
		d.fresh = true
	}
}

// parse reads a value in engineering units, as reports and people write it; an
// empty text is no value.
func (d *Definition) parse(text string) (Value, error) {
	text = strings.TrimSpace(text)
	if text == "" || text == "null" {
		return Value{}, nil
	}
	if d.Count > 1 {
		return d.parseList(text)
	}
	if len(d.Enum) > 0 {
		if _, ok := d.Enum.Raw(text); ok {
			return TextValue(text), nil
		}
		raw, err := strconv.ParseInt(text, 0, 64)
		if err != nil {
			return Value{}, fmt.Errorf("%q is no label of %s", text, d.ID)
		}
		if label, ok := d.Enum.Label(raw); ok {
			return TextValue(label), nil
		}
		return IntValue(raw), nil
	}
	switch d.Type {
	case Bool:
		switch strings.ToLower(text) {
		case "true", "1", "on":
			return BoolValue(true), nil
		case "false", "0", "off":
			return BoolValue(false), nil
		}
		return Value{}, fmt.Errorf("%q is not true or false", text)
	case String, Flags:
		return TextValue(text), nil
	case Bytes:
		data, err := hex.DecodeString(text)
		return BlobValue(data), err
	case Time:
		if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
			return TimeValue(time.UnixMilli(ms)), nil
		}
		at, err := time.Parse(time.RFC3339Nano, text)
		return TimeValue(at), err
	}
	return parseNumber(text)
}

func parseNumber(text string) (Value, error) {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return IntValue(i), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f-f != 0 {
		return Value{}, fmt.Errorf("%q is no number", text)
	}
	return FloatValue(f), nil
}

func (d *Definition) parseList(text string) (Value, error) {
	var parts []json.RawMessage
	if json.Unmarshal([]byte(text), &parts) != nil {
		return Value{}, errors.New("an array is written [1, 2, 3]")
	}
	one := *d
	one.Count = 0
	values := make([]Value, len(parts))
	for i, part := range parts {
		v, err := one.parse(strings.Trim(string(part), `"`))
		if err != nil {
			return Value{}, err
		}
		values[i] = v
	}
	return ListValue(values), nil
}
