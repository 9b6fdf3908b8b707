package gateway

import "time"

// brake lets at most so many records out in a time. What is held back for a
// subject gives way to what follows on the same subject, and is counted; the
// last one goes out when there is room.
type brake struct {
	rate   *Rate // nil for no brake
	sent   []time.Time
	queue  []heldRecord
	passed int // records that gave way to later ones, since the last that went out
}

type heldRecord struct {
	subject string
	record  Record
}

// offer is a new record: out says that it may go now.
func (k *brake) offer(subject string, r Record, now time.Time) (out bool) {
	if k.rate == nil || k.room(now) && len(k.queue) == 0 {
		k.count(now)
		return true
	}
	for i := range k.queue {
		if k.queue[i].subject == subject {
			k.queue = append(k.queue[:i], k.queue[i+1:]...)
			k.passed++
			break
		}
	}
	k.queue = append(k.queue, heldRecord{subject, r})
	return false
}

// release gives the next record that has waited long enough.
func (k *brake) release(now time.Time) (r Record, ok bool) {
	if len(k.queue) == 0 || !k.room(now) {
		return Record{}, false
	}
	r = k.queue[0].record
	k.queue = k.queue[1:]
	if k.passed > 0 {
		r.Values = addParam(r.Values, "held_back", IntValue(int64(k.passed)))
		k.passed = 0
	}
	k.count(now)
	return r, true
}

// due is when release has something; zero for never.
func (k *brake) due() time.Time {
	if len(k.queue) == 0 {
		return time.Time{}
	}
	if len(k.sent) < k.rate.Count {
		return k.queue[0].record.Time
	}
	return k.sent[0].Add(k.rate.Per)
}

func (k *brake) room(now time.Time) bool {
	for len(k.sent) > 0 && now.Sub(k.sent[0]) >= k.rate.Per {
		k.sent = k.sent[1:]
	}
	return len(k.sent) < k.rate.Count
}

func (k *brake) count(now time.Time) {
	if k.rate != nil {
		k.sent = append(k.sent, now)
	}
}

// addParam adds a parameter that the record does not have yet.
func addParam(values []Attribute, name string, v Value) []Attribute {
	for i := range values {
		if values[i].Name == name {
			return values
		}
	}
	return append(values, Attribute{name, v})
}
