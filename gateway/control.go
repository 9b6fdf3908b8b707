package gateway

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// This file is what the page and the command line use.

// Written is what became of a write.
type Written struct {
	Old    Value  // directly before, None where it was not read; *** of a secret point
	New    Value  // read back, None where it can't be; *** of a secret point
	Result string // done, refused, failed or unknown
}

// Write writes one value to a point through all the checks of a push, and waits
// for its outcome. Who is ByPage or ByCommandLine.
func (g *Gateway) Write(ctx context.Context, who, device, point string, value Value) (Written, error) {
	d := g.office()
	o, p, err := d.find(device, point)
	if err != nil {
		return Written{Result: "refused"}, err
	}
	v := &pushed{asked: Asked{Name: point, Value: value, Raw: value.String()}, point: p}
	if err := d.weighOne(who, v); err != nil {
		d.audit.refused(v.audit(who, err))
		return Written{Result: "refused"}, err
	}
	job := &pushJob{who: who, until: time.Now().Add(validity), values: []*pushed{v}, done: make(chan []verdict, 1)}
	if err := o.accept(job); err != nil {
		d.audit.refused(v.audit(who, err))
		return Written{Result: "refused"}, err
	}
	select {
	case outcomes := <-job.done:
		r := outcomes[0]
		w := Written{Old: r.old.of(0), New: r.real.of(0), Result: r.result()}
		if p.Secret {
			w.Old, w.New = TextValue("***"), TextValue("***")
		}
		return w, r.err
	case <-ctx.Done():
		return Written{Result: "unknown"}, ctx.Err()
	}
}

// result is the outcome in a word.
func (v *verdict) result() string {
	switch {
	case v.unknown:
		return "unknown"
	case v.err != nil && v.sent:
		return "failed"
	case v.err != nil:
		return "refused"
	}
	return "done"
}

// Read reads a point at once. A secret one holds ***.
func (g *Gateway) Read(ctx context.Context, device, point string) (Sample, error) {
	o, p, err := g.office().find(device, point)
	if err != nil {
		return Sample{}, err
	}
	if p.Access == "w" {
		return Sample{}, fmt.Errorf("%s is write-only", point)
	}
	if err := o.bus.down(); err != nil {
		return Sample{}, err
	}
	samples, err := o.bus.look(ctx, p)
	if err != nil {
		return Sample{}, err
	}
	s := samples[0]
	if p.Secret && s.Quality != Bad {
		s.Value = TextValue("***")
	}
	return s, nil
}

// Command runs a command of a device and waits for its outcome: the points it
// wrote, and those of its reply.
func (g *Gateway) Command(ctx context.Context, who, device, method string, params []Asked) ([]Attribute, error) {
	o := g.office().byDevice[device]
	if o == nil {
		return nil, fmt.Errorf("there is no device %s", device)
	}
	var c *command
	for _, known := range o.commands {
		if known.ID == method {
			c = known
		}
	}
	if c == nil {
		return nil, fmt.Errorf("%s has no command %s", device, method)
	}
	refuse := func(err error) ([]Attribute, error) {
		g.office().audit.refused(Audit{Who: who, Device: device, Command: method, Reason: err.Error()})
		return nil, err
	}
	with, err := c.weigh(who, params)
	if err == nil {
		err = o.reachable(c.Preempt)
	}
	if err != nil {
		return refuse(err)
	}
	type outcome struct {
		values []Attribute
		result string
		err    error
	}
	done := make(chan outcome, 1)
	x := &execution{command: c, who: who, with: with, params: params, arrived: time.Now(), finished: func(values []Attribute, result string, err error) { done <- outcome{values, result, err} }}
	if err := o.start(x); err != nil {
		return refuse(err)
	}
	select {
	case r := <-done:
		line := Audit{Who: who, Device: device, Command: method, Result: r.result}
		if r.err != nil {
			line.Reason = r.err.Error()
		}
		g.office().audit.add(line)
		return r.values, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *office) find(device, point string) (*operator, *Point, error) {
	o := d.byDevice[device]
	if o == nil {
		return nil, nil, fmt.Errorf("there is no device %s", device)
	}
	p := o.device.point(point)
	if p == nil {
		return nil, nil, fmt.Errorf("%s has no point %s", device, point)
	}
	return o, p, nil
}

// Lock keeps everybody from writing to a device, or to any with "". Commands
// under way are stopped; their pulses are released. The reason is for people.
func (g *Gateway) Lock(who, device, reason string) error {
	return g.setLock(Lock{Device: device, Who: who, Reason: reason}, true)
}

// Unlock takes a lock away.
func (g *Gateway) Unlock(who, device string) error {
	return g.setLock(Lock{Device: device, Who: who}, false)
}

func (g *Gateway) setLock(lock Lock, on bool) error {
	d, device := g.office(), lock.Device
	if device != "" && d.byDevice[device] == nil {
		return fmt.Errorf("there is no device %s", device)
	}
	lock.Since, lock.Reason = time.Now(), short(lock.Reason)
	err := d.locks.put(lock, on)
	word := "unlock"
	if on {
		word = "lock"
		for _, o := range d.operators {
			if device == "" || o.device.Name == device {
				o.stop("lock")
			}
		}
	}
	line := Audit{Who: lock.Who, Device: device, Command: word, Asked: lock.Reason, Result: "done"}
	if err != nil {
		line.Result, line.Reason = "failed", err.Error()
	}
	d.audit.add(line)
	d.reportLocks()
	if err != nil && on {
		return fmt.Errorf("locked, but a restart will forget it: %w", err)
	}
	return err
}

// Locks are the locks in force, the one of everything first.
func (g *Gateway) Locks() []Lock {
	return slices.SortedFunc(maps.Values(g.office().locks.all()), func(a, b Lock) int { return strings.Compare(a.Device, b.Device) })
}

// LockedAttribute is the attribute of a device that tells whether it is locked.
const LockedAttribute = "writes_locked"

// reportLocks reports the devices whose lock has changed, at the start all: it
// may have changed while the gateway was away.
func (d *office) reportLocks() {
	for _, o := range d.operators {
		locked := d.locks.refuse(o.device.Name) != nil
		o.mu.Lock()
		said := o.locked != nil && *o.locked == locked
		o.locked = &locked
		o.mu.Unlock()
		if said || !o.writable() {
			continue
		}
		d.store(o.device, Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{o.device.Prefix + LockedAttribute, BoolValue(locked)}}})
	}
}
