package gateway

import (
	"slices"
	"sync"
	"time"
)

// EventState says what an event tells.
type EventState string

// An event with a state is raised, and cleared; others happen.
const (
	Raised   EventState = "raised"
	Cleared  EventState = "cleared"
	Happened EventState = "happened"
)

// RecentEvent is an event for the page: also one that a flood brake held back,
// and the end of one that has no clear_event.
type RecentEvent struct {
	Time     time.Time // of the sample
	Device   string
	Event    string // its key in the profile
	Severity Severity
	State    EventState
	Params   []Attribute
}

// mostRecent bounds the events that are remembered for the page.
const mostRecent = 200

// recentEvents is a ring.
type recentEvents struct {
	mu   sync.Mutex
	list []RecentEvent
	next int // the oldest, once the ring is full
}

func (r *recentEvents) add(e RecentEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) < mostRecent {
		r.list = append(r.list, e)
		return
	}
	r.list[r.next] = e
	r.next = (r.next + 1) % mostRecent
}

// RecentEvents are the last events of all devices, oldest first.
func (g *Gateway) RecentEvents() []RecentEvent {
	r := g.book.recent
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Concat(r.list[r.next:], r.list[:r.next])
}
