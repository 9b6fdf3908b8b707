package gateway

import (
	"encoding/json"
	"maps"
	"slices"

	"sluice/buffer"
)

// readBack reports what a device holds after a write: at once, ahead of all that
// waits, and again behind it, so that the last word is right. Older values of
// these attributes are left out of what is still to be sent.
func (g *Gateway) readBack(d *Device, r Record) {
	a := g.account(d.User)
	behind := a != nil && a.waits()
	seq := g.storeFor(d.User, r)
	if a == nil {
		return
	}
	a = a.lock()
	defer a.mu.Unlock()
	for _, v := range r.Values {
		a.written[v.Name] = seq
	}
	if behind {
		r.Values = slices.Clone(r.Values) // the reporter makes its next report of them
		a.ahead.add(&r)
		wake(a.wake)
	}
	if behind || a.historyWaits() {
		a.keepWritten()
	}
}

// historyWaits tells whether older reports wait to go out as rows.
func (a *account) historyWaits() bool {
	return a.backlog == stream && a.buffer.Len(historyLane(a.user)) > 0
}

// waits tells whether reports wait: also those of another backlog that go out first,
// and what goes out ahead or is on its way.
func (a *account) waits() bool {
	if a.buffer.Len(a.user) > 0 || a.backlog != stream && a.buffer.Len(historyLane(a.user)) > 0 {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.flying || len(a.ahead.record.Values) > 0
}

// writtenKey is where written is kept beside the states of devices: no device
// has a name with a colon.
func (a *account) writtenKey() string { return "written:" + a.user }

// keepWritten keeps written for the next start. The caller holds the lock.
func (a *account) keepWritten() {
	var state []byte
	if a.kept = len(a.written) > 0; a.kept {
		state, _ = json.Marshal(a.written)
	}
	a.keeper.keep(a.writtenKey(), state)
}

// loadWritten finds what was written when the program ended in the middle of a
// backlog.
func (a *account) loadWritten() error {
	state, err := a.buffer.Get(ruleBucket, a.writtenKey())
	if err != nil || state == nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kept = true
	older := map[string]uint64{}
	err = json.Unmarshal(state, &older)
	for name, seq := range older {
		a.written[name] = max(seq, a.written[name])
	}
	return err
}

// strip leaves out of records what was written since they were made.
func (a *account) strip(records []Record, stored []buffer.Record) (left int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stripLocked(records, stored)
}

func (a *account) stripLocked(records []Record, stored []buffer.Record) (left int) {
	if len(a.written) == 0 {
		return 0
	}
	for i := range records {
		older := func(v Attribute) bool { return stored[i].Seq < a.written[v.Name] }
		if slices.ContainsFunc(records[i].Values, older) {
			before := len(records[i].Values)
			records[i].Values = slices.DeleteFunc(slices.Clone(records[i].Values), older) // others look at them, too
			left += before - len(records[i].Values)
		}
	}
	return left
}

// passed forgets the writes up to a number: nothing older waits any more.
func (a *account) passed(upTo uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.written) == 0 || a.historyWaits() { // which another site file may have replayed
		return
	}
	before := len(a.written)
	maps.DeleteFunc(a.written, func(_ string, seq uint64) bool { return seq <= upTo })
	if a.kept && len(a.written) < before {
		a.keepWritten()
	}
}
