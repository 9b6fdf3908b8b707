package gateway

import (
	"context"
	"math"
)

// Writable names the attributes of a username that the cloud may write: what it
// believes of them is asked for after each connect.
func (s *Site) Writable(user string) []string {
	var names []string
	for _, d := range s.Devices {
		if d.User != user || d.Disabled {
			continue
		}
		for _, p := range d.Points {
			if p.Access == "rw" || p.Push {
				names = append(names, p.Name)
			}
		}
	}
	return names
}

// reportDifferences reports the field's value of each writable point of a
// username where the cloud believes another, or none. A point without a good
// value is not reported, nor one that is left to somebody else.
func reportDifferences(ctx context.Context, buses []*busLoop, user string, believed []Asked, left func(*Point) bool) {
	cloud := make(map[string]Value, len(believed))
	for _, a := range believed {
		cloud[a.Name] = a.Value
	}
	for _, b := range buses {
		if !b.serves(user) {
			continue
		}
		report := func(context.Context, *busLoop) error {
			b.reporter.reportDifferences(user, cloud, left)
			return nil
		}
		select {
		case b.tasks <- report:
		case <-ctx.Done():
			return
		}
	}
}

// serves tells whether a device on the bus reports as a username.
func (b *busLoop) serves(user string) bool {
	for _, d := range b.reporter.devices {
		if d.device.User == user {
			return true
		}
	}
	return false
}

func (r *reporter) reportDifferences(user string, cloud map[string]Value, left func(*Point) bool) {
	for _, d := range r.devices {
		if d.device.User != user {
			continue
		}
		r.flush(d) // so that no point is in the report twice
		for _, st := range d.points {
			p := st.latest.Point
			if (p.Access != "rw" && !p.Push) || left(p) || !st.reportable() {
				continue
			}
			if believed, known := cloud[p.Name]; !known || !believed.means(st.latest.Value) {
				st.touch()
			}
		}
		r.flush(d)
	}
}

// means tells whether a value that came as JSON is the same as one of a point:
// numbers have lost their type on the way, and may be texts.
func (v Value) means(w Value) bool {
	if v.kind == List && w.kind == List && len(v.List()) == len(w.List()) {
		for i, x := range v.List() {
			if !x.means(w.List()[i]) {
				return false
			}
		}
		return true
	}
	a, b := v.Float(), w.Float()
	if math.IsNaN(a) || math.IsNaN(b) {
		return v.String() == w.String()
	}
	return a == b || math.Abs(a-b) <= 1e-6*math.Max(math.Abs(a), math.Abs(b)) && w.kind == Single
}
