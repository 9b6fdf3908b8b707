package gateway

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// health is what was last said about a device, and how many of its points are
// bad now.
type health struct {
	seen, bad int
	resets    []*pointState // counters that were reset, since it was last said
	said      string
	since     time.Time
	up        atomic.Bool // gives values; for other goroutines
}

// count takes a new sample of a point into account, before it is noted.
func (h *health) count(st *pointState, bad bool) {
	if !st.seen {
		st.seen = true
		h.seen++
	} else if st.latest.Quality == Bad {
		h.bad--
	}
	if bad {
		h.bad++
	}
	if up := h.bad < h.seen; up != h.up.Load() {
		h.up.Store(up)
	}
}

// say logs what changed about the device since it was last said: one line per
// transition, and none in a healthy hour.
func (d *deviceState) say(log *slog.Logger) {
	for _, st := range d.resets {
		log.Warn("counter was reset", "device", d.device.Name, "point", st.latest.Point.ID, "before", st.meter.before, "now", st.latest.Value)
	}
	d.resets = d.resets[:0]
	now := d.describe()
	if now == d.said {
		return
	}
	log = log.With("device", d.device.Name)
	switch {
	case now == "":
		log.Info("device is well again", "after", time.Since(d.since).Round(time.Millisecond))
	case d.said == "":
		d.since = time.Now()
		log.Warn(now)
	default:
		log.Warn(now)
	}
	d.said = now
}

// describe puts the state of a device in words; "" is a healthy one.
func (d *deviceState) describe() string {
	if d.bad == 0 {
		return ""
	}
	var first *Sample
	for _, st := range d.points {
		if st.seen && st.latest.Quality == Bad {
			first = &st.latest
			break
		}
	}
	if d.bad == d.seen {
		return "device gives no values: " + first.Reason
	}
	return fmt.Sprintf("%d of %d points are bad: %s: %s", d.bad, d.seen, first.Point.ID, first.Reason)
}

// busHealth is whether a bus is there, and what was last said about that.
type busHealth struct {
	log     *slog.Logger
	lost    string // why the bus is lost; "" while it answers
	since   time.Time
	changed time.Time // to up or down; zero before the first of both
	last    string    // why it was lost last
	lastAt  time.Time
	isDown  atomic.Bool // lost; for other goroutines
}

// down notes that the connection of the bus is gone.
func (h *busHealth) down(err error) {
	now := time.Now()
	h.last, h.lastAt = err.Error(), now
	if h.lost == "" {
		h.since, h.changed = now, now
		h.log.Warn("bus lost", "error", err)
	} else if h.lost != err.Error() {
		h.log.Warn("bus still lost", "error", err)
	}
	h.lost = err.Error()
	h.isDown.Store(true)
}

// up notes a good answer: with the first one, a lost bus is back.
func (h *busHealth) up() {
	if h.lost != "" {
		h.log.Info("bus is back", "after", time.Since(h.since).Round(time.Millisecond))
		h.lost, h.changed = "", time.Now()
		h.isDown.Store(false)
	}
	if h.changed.IsZero() {
		h.changed = time.Now()
	}
}
