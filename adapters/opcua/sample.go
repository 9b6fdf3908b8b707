package opcua

import (
	"fmt"
	"time"

	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

// clockLimit is how far a clock may be from ours before its times are replaced.
const clockLimit = 5 * time.Minute

// stamp is what is known of the times of a point, over all sessions.
type stamp struct {
	source time.Time // of the last value; zero before the first
	given  time.Time // of the last sample
	heard  time.Time // when the last value came, by our clock, unless it had waited in the server
}

// sample makes the sample of a point of what its node said, which is not older
// than since; it is heard now, and may have waited in the server where it is
// late.
func (s *session) sample(n *node, v *ua.DataValue, since, now time.Time, late bool) gateway.Sample {
	sample := gateway.Sample{Point: n.point, Time: s.timeOf(n, v, since, now, late), Quality: gateway.Good}
	status := v.Status
	if status>>30 >= 2 {
		sample.Time, sample.Quality, sample.Reason = now, gateway.Bad, statusName(status)
		return sample
	}
	raw, err := n.decode(v.Value.Value())
	if err != nil {
		sample.Quality, sample.Reason = gateway.Bad, err.Error()
		return sample
	}
	sample.Value, sample.Quality, sample.Reason = n.conversion.Engineering(raw, 0)
	if status>>30 == 1 && sample.Quality == gateway.Good {
		sample.Quality, sample.Reason = gateway.Uncertain, statusName(status)
	}
	return sample
}

// timeOf is when the field said a value: the source's time (the server's where
// there is none) of a value that came since the one before, else when it was
// read, by the same clock: an old time of a value that has stood since says
// nothing about now, and a poll says only what came since the one before. A
// clock that is off is replaced by ours. The times of a point never go back.
func (s *session) timeOf(n *node, v *ua.DataValue, since, now time.Time, late bool) time.Time {
	said := saidAt(v)
	s.stamping.Lock()
	defer s.stamping.Unlock()
	before, t := *n.last, now
	switch {
	case s.isOff(n, said, now):
	case !before.source.IsZero() && said.After(before.source) && said.After(since):
		t = said
	case s.offset.Abs() > clockJitter:
		t = now.Add(-s.offset)
	}
	if !t.After(before.given) { // the source's clock is behind
		t = before.given.Add(max(said.Sub(before.source), time.Microsecond))
		if t.After(now) && now.After(before.given) {
			t = now
		}
	}
	n.last.source, n.last.given = said, t
	if !late {
		n.last.heard = now
	}
	return t
}

// saidAt is the source's time of a value, the server's where there is none.
func saidAt(v *ua.DataValue) time.Time {
	if v.SourceTimestamp.IsZero() {
		return v.ServerTimestamp
	}
	return v.SourceTimestamp
}

// isNewer tells whether a value came after the last sample of its point.
func (s *session) isNewer(n *node, v *ua.DataValue) bool {
	s.stamping.Lock()
	defer s.stamping.Unlock()
	return !n.last.source.IsZero() && v.SourceTimestamp.After(n.last.source)
}

// clockJitter is a difference of clocks that may be the time a request took.
const clockJitter = time.Second

// isOff tells whether the clock behind a value is off, and says so once for a
// device: the server's by what it said when the session was opened, the
// source's when it is ahead, or behind what we heard before this value was there.
func (s *session) isOff(n *node, said, now time.Time) bool {
	off, heard := s.offset, n.last.heard
	switch {
	case off.Abs() > clockLimit:
	case said.IsZero():
		return false
	case said.Sub(now) > clockLimit, said.After(n.last.source) && !n.last.source.IsZero() && heard.Sub(said) > clockLimit:
		off = now.Sub(said)
	default:
		return false
	}
	d := n.point.Device
	if !s.clockSaid[d] {
		s.clockSaid[d] = true
		direction := "behind"
		if off < 0 {
			direction = "ahead"
		}
		s.env.Log.Warn("clock of the device is off: its values get the gateway's time", "device", d.Name, direction, off.Abs().Round(time.Second))
	}
	return true
}

// failed is the sample of a point that could not be asked.
func failed(p *gateway.Point, format string, args ...any) gateway.Sample {
	return gateway.Sample{Point: p, Time: time.Now(), Reason: fmt.Sprintf(format, args...)}
}
