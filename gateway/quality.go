package gateway

import (
	"fmt"
	"strings"
	"time"
)

// Attributes that each device reports of itself, with its prefix. The other one,
// which names the points that are not good, has its name in the site file.
const (
	onlineAttribute = "online"
	mostBadNamed    = 50              // more points are counted only
	qualityRefresh  = 2 * time.Minute // after this they go again with the next report
)

// quality is what was last reported of the state of a device's points.
type quality struct {
	dirty      bool // a point has another quality, or another reason for it
	busLost    string
	bad        string
	online     bool
	reportedAt time.Time
}

// qualityOf gives the attributes of a device's state: when they have changed, and
// now and then with another report.
func (r *reporter) qualityOf(d *deviceState) []Attribute {
	q := &d.quality
	now := time.Now()
	refresh := len(d.touched) > 0 && now.Sub(q.reportedAt) >= qualityRefresh
	if r.quality == "" || d.seen == 0 || !q.dirty && !refresh {
		return nil
	}
	bad, online := q.bad, d.up.Load()
	if q.dirty {
		bad = d.badPoints()
	}
	q.dirty = false
	if !refresh && !q.reportedAt.IsZero() && bad == q.bad && online == q.online {
		return nil
	}
	q.bad, q.online, q.reportedAt = bad, online, now
	values := make([]Attribute, 0, 2)
	for _, a := range []Attribute{{d.device.Prefix + r.quality, TextValue(bad)}, {d.device.Prefix + onlineAttribute, BoolValue(online)}} {
		if !d.hasPoint(a.Name) {
			values = append(values, a)
		}
	}
	return values
}

// hasPoint tells whether a point of the device has that name in the cloud.
func (d *deviceState) hasPoint(name string) bool {
	for _, p := range d.device.Points {
		if p.Name == name {
			return true
		}
	}
	return false
}

// badPoints names the points that are not good, with a word for the reason:
// pressure:invalid,flow:timeout; *:timeout where it is all of them for one reason.
func (d *deviceState) badPoints() string {
	var out strings.Builder
	first, same, bad, seen := "", true, 0, 0
	for _, st := range d.points {
		if !st.seen {
			continue
		}
		if seen++; st.latest.Quality == Good {
			continue
		}
		word := d.word(&st.latest)
		if bad++; bad == 1 {
			first = word
		}
		same = same && word == first
		if bad > mostBadNamed {
			continue
		}
		if bad > 1 {
			out.WriteByte(',')
		}
		out.WriteString(st.latest.Point.ID + ":" + word)
	}
	switch {
	case same && bad == seen && bad > 1:
		return "*:" + first
	case bad > mostBadNamed:
		return fmt.Sprintf("%s,and %d more", out.String(), bad-mostBadNamed)
	}
	return out.String()
}

// word is the short form of the reason why a sample is not good.
func (d *deviceState) word(s *Sample) string {
	switch {
	case s.Quality == Bad && s.Reason == d.quality.busLost:
		return "bus down"
	case s.Silent:
		return "timeout"
	}
	word, _, _ := strings.Cut(s.Reason, ":")
	word = strings.ReplaceAll(word, ",", " ")
	if len(word) > 40 {
		word = strings.ToValidUTF8(word[:40], "")
	}
	return word
}
