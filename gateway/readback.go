package gateway

import "sluice/buffer"

// readBack reports what a device holds after a write: at once, ahead of all that
// waits, and again behind it, so that the last word is right. Older values of
// these attributes are left out of what is still to be sent.
func (g *Gateway) readBack(d *Device, r Record) {
	a := g.account(d.User)
	behind := a != nil && g.config.Buffer.Len(a.user) > 0
	seq := g.storeFor(d.User, r)
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, v := range r.Values {
		a.written[v.Name] = seq
	}
	if behind {
		a.ahead.add(&r)
		wake(a.wake)
	}
}

// strip leaves out of records what was written since they were made.
func (a *account) strip(records []Record, stored []buffer.Record) (left int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.written) == 0 {
		return 0
	}
	for i := range records {
		kept := records[i].Values[:0]
		for _, v := range records[i].Values {
			if seq, ok := a.written[v.Name]; ok && stored[i].Seq < seq {
				left++
				continue
			}
			kept = append(kept, v)
		}
		records[i].Values = kept
	}
	return left
}

// passed forgets the writes up to a number: nothing older waits any more.
func (a *account) passed(upTo uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, seq := range a.written {
		if seq <= upTo {
			delete(a.written, name)
		}
	}
}
