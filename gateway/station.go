package gateway

import (
	"slices"
	"sort"
	"time"
)

// station is what answers, or is silent, as one on a bus: a unit, with one
// device or several of ours in it. It knows when its points are due.
type station struct {
	devices []*deviceState
	polls   []poll
	plans   map[string][]group // by the set of polls that are due together
	key     []byte             // of plans, being made
	pass                       // the one whose turn it is
	held    []pass             // others under way, in the order of their last requests
	since   time.Time          // when the pass under way was due, or one made the last request
	probe   *pointState        // tells whether the unit is there
	flying  bool               // its next request is chosen already

	offline  Offline
	failures int           // passes in a row without any answer
	wait     time.Duration // between the last probe and the next
	probeAt  time.Time     // the unit is silent: not asked before this
}

// poll is the set of points with one interval.
type poll struct {
	every  time.Duration
	points []*Point
	due    time.Time
}

// pass asks for what polls that are due together want. Polls with shorter
// intervals don't wait for its end, but begin passes of their own; the passes
// under way take turns, request by request.
type pass struct {
	queue   []group   // what is left of it
	slowest int       // of its polls
	asked   time.Time // when it made its last request
}

// group is one request, with the states of its points.
type group struct {
	points []*Point
	states []*pointState

	steady   bool      // the last samples said what was last reported
	strays   uint64    // of the station, then
	repeated time.Time // when they were last found to be the same; zero: the states know
	busy     int       // how often in a row the unit said that it is
}

// mostPutOff is how often a group is asked again where the unit says that it is
// busy, before its points are bad.
const mostPutOff = 5

// putOff tells whether a group is to be asked again, after the rest that a busy
// unit has. One that stayed busy is asked once a pass, until it answers.
func (g *group) putOff(samples []Sample) bool {
	for i := range samples {
		if samples[i].Busy {
			again := g.busy < mostPutOff
			g.busy = min(g.busy+1, mostPutOff)
			return again
		}
	}
	g.busy = 0
	return false
}

// newStations divides the devices of a bus into stations, which leave out what
// is not polled.
func newStations(bus *Bus, devices []*deviceState, leaveOut func(*Point) bool) []*station {
	var stations []*station
	shared := make(map[int]*station)
	for _, d := range devices {
		s := shared[d.device.Unit]
		if s == nil {
			s = &station{offline: bus.Offline, plans: make(map[string][]group)}
			stations = append(stations, s)
			if d.device.SameUnit {
				shared[d.device.Unit] = s
			}
		}
		s.devices = append(s.devices, d)
	}
	for _, s := range stations {
		s.arrange(leaveOut)
	}
	return stations
}

// arrange sorts the points by interval and finds the probe.
func (s *station) arrange(leaveOut func(*Point) bool) {
	byInterval := make(map[time.Duration][]*Point)
	for _, d := range s.devices {
		for _, st := range d.points {
			p := st.latest.Point
			if p.Access == "w" || st.computed || leaveOut(p) {
				continue
			}
			byInterval[p.Poll] = append(byInterval[p.Poll], p)
			if s.probe == nil || d.device.Profile != nil && p.ID == d.device.Profile.Probe {
				s.probe = st
			}
		}
	}
	for every, points := range byInterval {
		s.polls = append(s.polls, poll{every: every, points: points})
	}
	sort.Slice(s.polls, func(i, j int) bool { return s.polls[i].every < s.polls[j].every })
}

// due is when the station is to be asked next.
func (s *station) due() time.Time {
	switch {
	case len(s.queue) > 0:
		return s.since
	case s.failures > 0:
		return s.probeAt
	}
	return s.polled()
}

// polled is when the next poll is due.
func (s *station) polled() time.Time {
	next := s.polls[0].due
	for i := range s.polls[1:] {
		if p := &s.polls[i+1]; p.due.Before(next) {
			next = p.due
		}
	}
	return next
}

// goesOn gives the turn to the pass that has waited for the longest. It tells
// whether that goes on: there is one, and no poll that can begin another has
// waited for longer.
func (s *station) goesOn() bool {
	if len(s.held) > 0 {
		s.held = append(s.held, s.pass)
		s.resume()
	}
	if len(s.queue) == 0 {
		return false
	}
	for _, p := range s.free() {
		if p.due.Before(s.asked) {
			return false
		}
	}
	return true
}

// resume gives the turn to the first pass that is held, if there is one.
func (s *station) resume() {
	if len(s.held) > 0 {
		s.pass = s.held[0]
		s.held = slices.Delete(s.held, 0, 1)
	}
}

// drop ends all passes under way.
func (s *station) drop() { s.queue, s.held = nil, nil }

// free are the polls that can begin a pass: those with shorter intervals than
// any pass under way has, so that polls which take too long are late instead.
func (s *station) free() []poll {
	n := len(s.polls)
	if len(s.queue) > 0 {
		n = s.slowest
	}
	for i := range s.held {
		n = min(n, s.held[i].slowest)
	}
	return s.polls[:n]
}

// begin queues what is due at now and sets when it is due again: without
// drift, skipping what was missed. It tells how many polls that were. The first
// poll is at once, the later ones are whole intervals from grid.
func (s *station) begin(now, grid time.Time, plan func([]*Point) []group) (missed int) {
	s.since = s.due()
	s.key = s.key[:0]
	free := s.free()
	if len(s.queue) > 0 {
		s.held = append(s.held, s.pass)
	}
	for i := range free {
		p := &free[i]
		if now.Before(p.due) {
			continue
		}
		if p.due.IsZero() {
			p.due = onGrid(now, grid, p.every)
		}
		missed += p.advance(now)
		s.key = append(s.key, byte(i>>8), byte(i))
		s.slowest = i
	}
	queue, ok := s.plans[string(s.key)]
	if !ok {
		queue = plan(s.pointsOf(s.key))
		s.plans[string(s.key)] = queue
	}
	s.queue = queue
	return missed
}

// pointsOf are the points of the polls that a key of plans stands for.
func (s *station) pointsOf(key []byte) (points []*Point) {
	for ; len(key) > 0; key = key[2:] {
		points = append(points, s.polls[int(key[0])<<8|int(key[1])].points...)
	}
	return points
}

// onGrid is the last time up to now that is whole intervals from grid.
func onGrid(now, grid time.Time, every time.Duration) time.Time {
	past := now.Sub(grid) % every
	if past < 0 {
		past += every
	}
	return now.Add(-past)
}

// advance sets when the poll is due after now, and tells how many times it was
// missed.
func (p *poll) advance(now time.Time) (missed int) {
	p.due = p.due.Add(p.every)
	if late := now.Sub(p.due); late >= 0 {
		missed = int(late/p.every) + 1
		p.due = p.due.Add(time.Duration(missed) * p.every)
	}
	return missed
}

// silent notes a pass without an answer: the rest of it is dropped, and of the
// others under way. The unit is probed when it would be polled, or sooner; after
// some of them it is offline and probed ever more rarely.
func (s *station) silent(now time.Time, reason string) {
	s.drop()
	for _, d := range s.devices {
		for _, st := range d.points {
			if st.latest.Point.Access != "w" {
				st.note(&Sample{Point: st.latest.Point, Time: now, Reason: reason, Silent: true})
			}
		}
	}
	for i := range s.polls {
		if p := &s.polls[i]; !now.Before(p.due) {
			p.advance(now)
		}
	}
	wait := s.offline.Probe
	if s.failures++; s.failures >= max(s.offline.After, 1) {
		s.wait = min(max(2*s.wait, wait), max(wait, s.offline.ProbeMax))
		wait = s.wait
	} else if next := s.polled(); next.Before(now.Add(wait)) {
		wait = next.Sub(now)
	}
	s.probeAt = now.Add(wait)
}

// answered notes that the unit is there. Where it was not, all its points are
// bad, and are read at once.
func (s *station) answered() {
	if s.failures > 0 {
		s.hurry(time.Now())
	}
	s.failures, s.wait = 0, 0
}

// hurry makes the polls due that would not be soon, or the probe where the unit
// is silent.
func (s *station) hurry(now time.Time) {
	soon := now.Add(time.Second)
	if s.probeAt.After(soon) {
		s.probeAt = now
	}
	for i := range s.polls {
		if p := &s.polls[i]; p.due.After(soon) {
			p.due = p.due.Add(-p.every) // whole intervals, as ever
		}
	}
}

// restart drops what belongs to a session that is over.
func (s *station) restart() {
	s.drop()
	s.replan()
}

// replan drops the plans.
func (s *station) replan() {
	s.stamp()
	clear(s.plans)
}

// note takes the samples of one of the station's groups.
func (s *station) note(g *group, samples []Sample) {
	g.steady, g.repeated = true, time.Time{}
	changed := false
	for i, st := range g.states {
		if !st.take(&samples[i]) {
			g.steady = false
			changed = changed || st.plain // a group with one that is not is never steady
		}
	}
	if changed && len(s.polls) > 1 { // other plans have other groups with these points
		for _, d := range s.devices {
			d.strays++
		}
	}
	g.strays = s.strays()
}

// stands tells whether the group's states are still as its last samples left
// them, all reported: the same samples once more would change but their times.
func (s *station) stands(g *group) bool { return g.steady && g.strays == s.strays() }

// strays is how often a state changed by anything but the polls of its plan.
func (s *station) strays() (n uint64) {
	for _, d := range s.devices {
		n += d.strays
	}
	return n
}

// stamp tells the states when their samples were last found to be the same.
// Whoever looks at the time of a sample has it done before.
func (s *station) stamp() {
	for _, groups := range s.plans {
		for i := range groups {
			g := &groups[i]
			if g.repeated.IsZero() {
				continue
			}
			for _, st := range g.states {
				if g.repeated.After(st.heard) {
					st.latest.Time, st.heard = g.repeated, g.repeated
				}
			}
			g.repeated = time.Time{}
		}
	}
}

// has tells whether the group reads the point.
func (g *group) has(st *pointState) bool {
	for _, other := range g.states {
		if other == st {
			return true
		}
	}
	return false
}
