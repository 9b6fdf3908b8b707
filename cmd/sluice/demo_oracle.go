package main

import (
	"encoding/json"
	"maps"
	"sync"

	"sluice/gateway"
	"sluice/gateway/cloud"
)

// oracle compares what was measured with what the cloud got. It counts for
// itself: it sees reports as they enter the buffer and messages as they leave
// the broker, and nothing of what lies between.
type oracle struct {
	mu      sync.Mutex
	devices map[string]*trail // by username
	lateTS  string            // attribute to leave out of the comparison
}

// trail is what happened to the reports of one cloud device.
type trail struct {
	reports  []map[string]string // as measured: attributes as JSON, by name
	next     int                 // first report that has not arrived
	previous map[string]string   // the message before
	tally
}

// tally counts reports.
type tally struct {
	measured, delivered int
	merged              int // arrived within the message of a later report
	doubled             int // messages that arrived again
	lost                int // passed over by a later report
	foreign             int // messages that match no report
}

// furthest is how many reports one message may hold, or may have gone missing
// before it, to be recognised.
const furthest = 500

func newOracle(lateTS string) *oracle {
	return &oracle{devices: make(map[string]*trail), lateTS: lateTS}
}

func (o *oracle) trail(user string) *trail {
	t := o.devices[user]
	if t == nil {
		t = &trail{}
		o.devices[user] = t
	}
	return t
}

// reported notes a report that the buffer took.
func (o *oracle) reported(user string, r gateway.Record) {
	attributes := parseAttributes(cloud.AppendAttributes(nil, r, ""))
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.trail(user)
	t.reports = append(t.reports, attributes)
	t.measured++
}

// arrived notes a message that the cloud got.
func (o *oracle) arrived(user string, payload []byte) {
	message := parseAttributes(payload)
	delete(message, o.lateTS)
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.trail(user)
	repeated := maps.Equal(message, t.previous)
	for skipped := 0; skipped < furthest && t.next+skipped < len(t.reports) && (skipped == 0 || !repeated); skipped++ {
		if n := t.match(t.next+skipped, message); n > 0 {
			t.lost += skipped
			t.next += skipped + n
			t.delivered += n
			t.merged += n - 1
			t.previous = message
			return
		}
	}
	if repeated {
		t.doubled++
	} else {
		t.foreign++
	}
}

// match tells how many reports from the given one on make up the message; 0
// when it is another.
func (t *trail) match(from int, message map[string]string) int {
	merged := make(map[string]string)
	for n := 0; n < furthest && from+n < len(t.reports); n++ {
		for name, value := range t.reports[from+n] {
			if _, there := message[name]; !there {
				return 0
			}
			merged[name] = value
		}
		if maps.Equal(merged, message) {
			return n + 1
		}
	}
	return 0
}

// total adds up all devices. What was measured and neither arrived nor waits
// in the buffer is lost. So is what a later report seems to have taken along,
// beyond the merged reports that the gateway knows of.
func (o *oracle) total(waiting func(user string) int, merged int) tally {
	o.mu.Lock()
	defer o.mu.Unlock()
	var sum tally
	for user, t := range o.devices {
		sum.measured += t.measured
		sum.delivered += t.delivered
		sum.merged += t.merged
		sum.doubled += t.doubled
		sum.foreign += t.foreign
		sum.lost += t.lost + max(0, len(t.reports)-t.next-waiting(user))
	}
	if silent := sum.merged - merged; silent > 0 {
		sum.merged -= silent
		sum.delivered -= silent
		sum.lost += silent
	}
	return sum
}

func parseAttributes(payload []byte) map[string]string {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(payload, &raw); err != nil {
		return map[string]string{"": err.Error()}
	}
	attributes := make(map[string]string, len(raw))
	for name, value := range raw {
		attributes[name] = string(value)
	}
	return attributes
}
