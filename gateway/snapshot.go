package gateway

import (
	"context"
	"strings"
	"sync"
	"time"

	"sluice/buffer"
)

// Snapshot is a copy of what a Gateway knows at a time, for the page, metrics
// and the command line. It belongs to who asked for it.
type Snapshot struct {
	Time    time.Time
	Started time.Time
	Buses   []*BusSnapshot
	Lanes   []LaneSnapshot
	Buffer  buffer.Stats
	Counts  Counts
}

// Counts are the counters of Stats at a time.
type Counts struct {
	Requests, Samples, Overruns, Reports, Confirmed, Merged, TooFast, Quarantined, Downlinks int64
}

// BusState is how a bus is.
type BusState string

// The states of a bus.
const (
	BusStarting BusState = "starting" // no answer and no failure yet
	BusUp       BusState = "up"
	BusSilent   BusState = "silent" // connected, but no unit answers
	BusDown     BusState = "down"   // no connection
)

// BusSnapshot is one bus. It is not changed after it was made.
type BusSnapshot struct {
	Bus   *Bus
	Time  time.Time // when the copy was made: a bus in a long request gives its last one
	State BusState
	Since time.Time // of the state; of BusSilent, when the bus came up
	Error string    // why it is down; "" otherwise

	LastError   string // the last reason for being down, also when that is over
	LastErrorAt time.Time

	Load
	Learnt  []Learnt // by its adapter, about its devices
	Devices []DeviceSnapshot
}

// Load is what a bus did since the start, and does per second now.
type Load struct {
	Requests, Samples, Overruns int64
	Busy                        time.Duration // spent in requests

	RequestRate float64 // per second, over the last 10 to 20 s, as the following
	SampleRate  float64
	Utilisation float64 // share of the time spent in requests: 1 is all of it
}

// DeviceSnapshot is one device.
type DeviceSnapshot struct {
	Device *Device
	Online bool      // at least one of its points has a value
	Health string    // what is wrong, in words; "" for nothing
	Since  time.Time // of what is wrong; zero for nothing
	Bad    int       // points without a value, of those that were read
	Points []Sample  // the latest of each, in the order of Device.Points, then the computed ones; a secret one holds ***
}

// snapshotWait is how long a Snapshot waits for a bus that is within a request.
const snapshotWait = 150 * time.Millisecond

// Snapshot copies the state of all buses and lanes. A bus that is within a long
// request, or opening, gives the copy it made when it was lost or last asked.
func (g *Gateway) Snapshot(ctx context.Context) *Snapshot {
	ctx, cancel := context.WithTimeout(ctx, snapshotWait)
	defer cancel()
	var wait sync.WaitGroup
	buses, lanes := g.loops()
	for _, b := range buses {
		wait.Go(func() { b.ask(ctx) })
	}
	s := &Snapshot{Time: time.Now(), Started: g.started, Buffer: g.config.Buffer.Stats(), Counts: g.Stats.counts()}
	for _, l := range lanes {
		s.Lanes = append(s.Lanes, l.show(s.Time))
	}
	wait.Wait()
	for _, b := range buses {
		shown := b.shown.Load()
		if shown == nil {
			shown = b.unread()
		}
		s.Buses = append(s.Buses, shown)
	}
	return s
}

func (s *Stats) counts() Counts {
	return Counts{
		Requests: s.Requests.Load(), Samples: s.Samples.Load(), Overruns: s.Overruns.Load(), Reports: s.Reports.Load(),
		Confirmed: s.Confirmed.Load(), Merged: s.Merged.Load(), TooFast: s.TooFast.Load(), Quarantined: s.Quarantined.Load(), Downlinks: s.Downlinks.Load(),
	}
}

// BufferStats are the figures of the buffer.
func (g *Gateway) BufferStats() buffer.Stats { return g.config.Buffer.Stats() }

// ask lets the bus goroutine make a new copy.
func (b *busLoop) ask(ctx context.Context) {
	done := make(chan struct{})
	show := func(context.Context, *busLoop) error {
		b.show()
		close(done)
		return nil
	}
	select {
	case b.tasks <- show:
		<-done
	case <-ctx.Done():
	}
}

// Raw is what devices sent last for points, which are given as device/point, in
// the words of their adapters: "" where that is not known, *** where it is
// secret.
func (g *Gateway) Raw(ctx context.Context, names []string) []string {
	ctx, cancel := context.WithTimeout(ctx, snapshotWait)
	defer cancel()
	texts := make([]string, len(names))
	buses, _ := g.loops()
	for _, b := range buses {
		asked := make(map[*Point]int)
		for i, name := range names {
			if p := b.point(name); p != nil && p.Secret {
				texts[i] = "***"
			} else if p != nil {
				asked[p] = i
			}
		}
		if len(asked) > 0 {
			b.raw(ctx, asked, texts)
		}
	}
	return texts
}

// point is the one of a device/point; nil where it is not of this bus.
func (b *busLoop) point(name string) *Point {
	device, point, _ := strings.Cut(name, "/")
	for _, d := range b.reporter.devices {
		if d.device.Name != device {
			continue
		}
		for _, p := range d.device.Points {
			if p.ID == point {
				return p
			}
		}
	}
	return nil
}

// raw lets the bus goroutine fill in the texts of points of this bus.
func (b *busLoop) raw(ctx context.Context, asked map[*Point]int, texts []string) {
	done := make(chan struct{})
	tell := func(context.Context, *busLoop) error {
		if teller, ok := b.session.(Teller); ok {
			for p, i := range asked {
				texts[i] = teller.Raw(p)
			}
		}
		close(done)
		return nil
	}
	select {
	case b.tasks <- tell:
		<-done
	case <-ctx.Done():
	}
}

// show makes the copy that others read.
func (b *busLoop) show() {
	now := time.Now()
	s := &BusSnapshot{Bus: b.bus, Time: now, Load: b.load.at(now), LastError: b.health.last, LastErrorAt: b.health.lastAt, Since: b.health.changed}
	switch {
	case b.health.lost != "":
		s.State, s.Error = BusDown, b.health.lost
	case b.health.changed.IsZero():
		s.State = BusStarting
	case b.session != nil && len(b.stations) > 0 && !b.othersAnswer():
		s.State = BusSilent
	default:
		s.State = BusUp
	}
	if learner, ok := b.adapter.(Learner); ok {
		s.Learnt = learner.Learnt()
	}
	for _, d := range b.reporter.devices {
		s.Devices = append(s.Devices, d.show())
	}
	b.shown.Store(s)
}

// unread is the copy of a bus that has none yet, made of what never changes.
func (b *busLoop) unread() *BusSnapshot {
	s := &BusSnapshot{Bus: b.bus, Time: time.Now(), State: BusStarting}
	for _, d := range b.reporter.devices {
		shown := DeviceSnapshot{Device: d.device}
		for _, p := range d.device.Points {
			shown.Points = append(shown.Points, Sample{Point: p, Reason: unread})
		}
		s.Devices = append(s.Devices, shown)
	}
	return s
}

func (d *deviceState) show() DeviceSnapshot {
	s := DeviceSnapshot{
		Device: d.device, Online: d.seen > d.bad, Health: d.describe(), Bad: d.bad, Points: make([]Sample, len(d.points)),
	}
	if d.said != "" {
		s.Since = d.since
	}
	for i, st := range d.points {
		s.Points[i] = st.latest
		if st.latest.Point.Secret && st.latest.Quality != Bad {
			s.Points[i].Value = TextValue("***")
		}
	}
	return s
}

// load counts what a bus does, and remembers how far it was a while ago. It
// belongs to the bus goroutine.
type load struct {
	Load
	marks [2]milestone // the older one is 10 to 20 s old
}

// milestone is how far a bus was at a time.
type milestone struct {
	time              time.Time
	requests, samples int64
	busy              time.Duration
}

const markEvery = 10 * time.Second

// note counts a request.
func (l *load) note(now time.Time, took time.Duration, samples int) {
	l.Requests++
	l.Samples += int64(samples)
	l.Busy += took
	if now.Sub(l.marks[1].time) >= markEvery {
		l.turn(now)
	}
}

// turn forgets the older mark and sets a new one.
func (l *load) turn(now time.Time) {
	l.marks[0], l.marks[1] = l.marks[1], milestone{now, l.Requests, l.Samples, l.Busy}
	if l.marks[0].time.IsZero() {
		l.marks[0] = l.marks[1]
	}
}

// at is the load with its rates.
func (l *load) at(now time.Time) Load {
	out := l.Load
	if now.Sub(l.marks[1].time) >= markEvery {
		l.turn(now)
	}
	m := l.marks[0]
	if seconds := now.Sub(m.time).Seconds(); seconds > 0.5 {
		out.RequestRate = float64(l.Requests-m.requests) / seconds
		out.SampleRate = float64(l.Samples-m.samples) / seconds
		out.Utilisation = min(1, (l.Busy-m.busy).Seconds()/seconds)
	}
	return out
}
