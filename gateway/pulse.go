package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// releases are the second halves of pulses. Each is on disk before the first
// half is written, so that no crash and no lost bus leaves a pulse standing for
// good: what is still to be released is looked at until it is.
type releases struct {
	office *office

	mu   sync.Mutex
	open map[*Point]*release
}

// release is one pulse that has to be written back.
type release struct {
	operator *operator
	point    *Point
	on, off  Value
	due      time.Time
	left     bool // to the releases' goroutine: the command could not do it
}

const (
	pulsesBucket = "pulses"
	blindFor     = 10 * time.Second // for a point that can't be read
	releaseFor   = 5 * time.Second  // for one attempt
	releaseEvery = time.Second
)

func newReleases(d *office) *releases { return &releases{office: d, open: make(map[*Point]*release)} }

// storedRelease is a release on disk.
type storedRelease struct {
	On  []byte    `json:"on"`
	Off []byte    `json:"off"`
	Due time.Time `json:"due"`
}

func pointName(p *Point) string { return p.Device.Name + "/" + p.ID }

// arm puts a release on disk, in place of an older one of its point. An error
// means that only memory knows it.
func (r *releases) arm(rel *release) (older *release, err error) {
	rel.operator.disk.Lock()
	defer rel.operator.disk.Unlock()
	r.mu.Lock()
	older, r.open[rel.point] = r.open[rel.point], rel
	r.mu.Unlock()
	text, err := json.Marshal(storedRelease{On: appendValue(nil, rel.on), Off: appendValue(nil, rel.off), Due: rel.due})
	if err != nil {
		return older, err
	}
	return older, r.office.buffer.Put(pulsesBucket, pointName(rel.point), text)
}

// current tells whether no newer pulse has taken the place of a release.
func (r *releases) current(rel *release) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[rel.point] == rel
}

// disarm forgets a release that is done, or given up.
func (r *releases) disarm(rel *release) {
	rel.operator.disk.Lock()
	defer rel.operator.disk.Unlock()
	r.mu.Lock()
	current := r.open[rel.point] == rel
	if current {
		delete(r.open, rel.point)
	}
	r.mu.Unlock()
	if !current {
		return // what is on disk is of the newer one
	}
	if err := r.office.buffer.Put(pulsesBucket, pointName(rel.point), nil); err != nil {
		r.office.log.Warn("pulse not taken from the disk", "device", rel.point.Device.Name, "point", rel.point.ID, "error", err)
	}
}

// leave hands a release over to the goroutine.
func (r *releases) leave(rel *release) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rel.left = true
}

// load reads what an earlier run left.
func (r *releases) load() {
	err := r.office.buffer.Scan(pulsesBucket, "", func(name string, value []byte) bool {
		var s storedRelease
		device, id, _ := bytes.Cut([]byte(name), []byte("/"))
		o := r.office.byDevice[string(device)]
		if json.Unmarshal(value, &s) != nil || o == nil || o.device.point(string(id)) == nil {
			r.office.log.Error("a pulse of the last run belongs to nothing in the site file", "point", name)
			return true
		}
		if r.open[o.device.point(string(id))] != nil {
			return true
		}
		on, off := recordReader{rest: s.On}, recordReader{rest: s.Off}
		rel := &release{operator: o, point: o.device.point(string(id)), on: on.value(0), off: off.value(0), due: s.Due, left: true}
		r.open[rel.point] = rel
		return true
	})
	if err != nil {
		r.office.log.Error("pulses of the last run can't be read", "error", err)
	}
}

// inherit takes over the releases that another office left: not all may be on disk.
func (r *releases) inherit(old *releases) {
	for p, rel := range old.open {
		o := r.office.byDevice[p.Device.Name]
		if o == nil || o.device.point(p.ID) == nil {
			continue // load says so
		}
		rel.operator, rel.point, rel.left = o, o.device.point(p.ID), true
		r.open[rel.point] = rel
	}
}

// run looks after the releases that commands left, until ctx ends.
func (r *releases) run(ctx context.Context) {
	tick := time.NewTicker(releaseEvery)
	defer tick.Stop()
	for {
		for _, rel := range r.pending() {
			r.tend(ctx, rel)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *releases) pending() (all []*release) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rel := range r.open {
		if rel.left {
			all = append(all, rel)
		}
	}
	return all
}

// tend makes one attempt: the point is read, and written back only if it still
// shows the pulse. One that can't be read is written back only within a short
// time: later, somebody else may have set it.
func (r *releases) tend(ctx context.Context, rel *release) {
	o, shows := rel.operator, rel.point.readable()
	if shows == nil {
		if late := time.Since(rel.due); late > blindFor || late < -time.Hour {
			r.stuck(rel, "it can't be read, and too much time has passed")
			return
		}
	}
	if o.bus.down() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, releaseFor)
	defer cancel()
	if shows != nil {
		samples, err := o.bus.look(ctx, append([]*Point{shows}, rel.point.scaled()[1:]...)...)
		if err != nil || samples[0].Quality == Bad {
			return
		}
		pulse := &part{point: rel.point, value: rel.on, power: rel.point.powerIn(samples)}
		if s := samples[0]; !pulse.agrees(s.Value) {
			r.disarm(rel)
			o.office.audit.add(Audit{Who: "gateway", Device: o.device.Name, Point: rel.point.ID, Old: rel.point.show(s.Value), Result: "refused", Reason: "a pulse of before is not there any more: left alone"})
			return
		}
	}
	if v := rel.write(ctx); v.err == nil {
		r.disarm(rel)
	}
}

// write writes the second half.
func (rel *release) write(ctx context.Context) verdict {
	w := &writing{parts: []part{{point: rel.point, value: rel.off}}, force: true, blind: true, still: func() error {
		if !rel.operator.office.pulses.current(rel) {
			return errNewPulse
		}
		return nil
	}}
	v := rel.operator.bus.write(ctx, w)
	line := v.line("gateway", rel.point, rel.off, 0)
	line.Asked = "release: " + line.Asked
	rel.operator.office.audit.add(line)
	return v
}

var errNewPulse = errors.New("a newer pulse has begun")

// readable is the point that shows what the point holds, nil for none.
func (p *Point) readable() *Point {
	if p.Access == "rw" {
		return p
	}
	return p.shows()
}

// stuck gives a release up and says so.
func (r *releases) stuck(rel *release, why string) {
	r.disarm(rel)
	r.office.log.Error("a pulse may be stuck", "device", rel.point.Device.Name, "point", rel.point.ID, "reason", why)
	r.office.audit.add(Audit{Who: "gateway", Device: rel.point.Device.Name, Point: rel.point.ID, Asked: "release: " + rel.point.show(rel.off), Result: "failed", Reason: why})
	r.office.ownEvent(rel.point.Device, "pulse_stuck", Alarm, Attribute{"point", TextValue(rel.point.Name)}, Attribute{"reason", TextValue(why)})
}

// pulse makes a pulse: its release is on disk before its first half goes out,
// and is written whatever becomes of the command.
func (o *operator) pulse(ctx context.Context, x *execution, s *step) error {
	on, err := s.pulse.on.fit(x.with)
	if err != nil {
		return err
	}
	off, err := s.pulse.off.fit(x.with)
	if err != nil {
		return err
	}
	rel := &release{operator: o, point: s.pulse.on.point, on: on, off: off, due: time.Now().Add(s.Pulse.For + s.Pulse.Within)}
	older, err := o.office.pulses.arm(rel)
	if err != nil {
		x.warning = err
	}
	v := o.put(ctx, x, true, fitted{rel.point, on})
	if v.err != nil && !v.sent {
		if older != nil { // still to be released
			_, _ = o.office.pulses.arm(older)
		} else {
			o.office.pulses.disarm(rel)
		}
		return v.err
	}
	err = v.failure()
	switch {
	case err != nil:
	case s.pulse.until != nil:
		err = o.expect(ctx, x, s.pulse.until, "pulse until", s.Pulse.Within)
	default:
		if sleep(ctx, s.Pulse.For); ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	return errors.Join(err, o.release(ctx, rel))
}

// release writes the second half at once, also when the command is over.
func (o *operator) release(ctx context.Context, rel *release) error {
	rel.due = time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseFor)
	defer cancel()
	v := rel.write(ctx)
	if v.err == nil {
		o.office.pulses.disarm(rel)
		return nil
	}
	o.office.pulses.leave(rel)
	return fmt.Errorf("release of %s: %w", rel.point.ID, v.err)
}
