package modbus

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// Describe shows a bus that Check has no error about; disabled devices are
// left out. What a request takes is counted as frames, silence and 10 ms of
// turn-around on a serial line, 1 ms a request on TCP.
func Describe(bus *gateway.Bus, devices []*gateway.Device) (gateway.Overview, error) {
	var active []*gateway.Device
	for _, d := range devices {
		if !d.Disabled {
			active = append(active, d)
		}
	}
	atlas, err := newAtlas(active, make(models))
	if err != nil {
		return gateway.Overview{}, err
	}
	o := gateway.Overview{Estimated: bus.Type != "modbus-rtu"}
	for _, d := range active {
		for _, p := range d.Points {
			o.Points = append(o.Points, describePoint(atlas.places[p]))
		}
	}
	plan := planner{bus: bus, atlas: atlas}
	for _, l := range plan.loads(active) {
		for _, r := range l.requests {
			o.Requests = append(o.Requests, describeRequest(r, l.every, plan.takes(r)))
		}
		o.Busy += l.busy()
		o.Cycle = cmp.Or(o.Cycle, l.every)
	}
	o.PerCycle = time.Duration(o.Busy * float64(o.Cycle))
	plan.auto = true
	var auto gateway.Saving
	for _, l := range plan.loads(active) {
		auto.Requests += len(l.requests)
		auto.Busy += l.busy()
	}
	if auto.Requests < len(o.Requests) && auto.Busy < o.Busy {
		o.AutoGap = &auto
	}
	return o, nil
}

func describePoint(at *place) gateway.PointOverview {
	p, shifted := at.point, at.address
	shifted.Wire = at.start
	o := gateway.PointOverview{
		Device: p.Device.Name, Point: p.ID, Printed: p.At, Full: at.address.In(p.Device.Profile.Addressing), Wire: shifted.String(),
		Size: at.size(), Type: p.Type, Poll: p.Poll,
	}
	if at.codec.ordered() {
		o.Order = cmp.Or(p.Order, p.Device.Profile.Order)
	}
	if p.Access == "w" {
		o.Poll = 0
	}
	return o
}

func describeRequest(r *request, every, takes time.Duration) gateway.RequestOverview {
	reads := fmt.Sprintf("unit %d, %s %d to %d", r.unit, r.table, r.start, r.start+r.count-1)
	o := gateway.RequestOverview{Reads: reads, Points: len(r.readings), Every: every, Takes: takes}
	var names []string
	for i := range r.readings {
		if name := r.readings[i].point.Device.Name; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	o.Device = strings.Join(names, "+")
	return o
}

// load is what the points with one poll interval ask of the bus.
type load struct {
	every    time.Duration
	requests []*request
	takes    time.Duration // all requests once
}

// busy is the share of the time.
func (l *load) busy() float64 { return float64(l.takes) / float64(l.every) }

// loads plans the polls of a bus, by interval.
func (p planner) loads(devices []*gateway.Device) []load {
	points := make(map[time.Duration][]*gateway.Point)
	for _, d := range devices {
		for _, point := range d.Points {
			if point.Access != "w" && point.Poll > 0 {
				points[point.Poll] = append(points[point.Poll], point)
			}
		}
	}
	var list []load
	for every, points := range points {
		l := load{every: every}
		for _, group := range p.plan(points) {
			places := make([]*place, len(group))
			for i, point := range group {
				places[i] = p.atlas.places[point]
			}
			if r, err := newRequest(p.bus, places); err == nil {
				l.requests = append(l.requests, r)
				l.takes += p.takes(r)
			}
		}
		list = append(list, l)
	}
	slices.SortFunc(list, func(x, y load) int { return cmp.Compare(x.every, y.every) })
	return list
}

// takes is the time that a request needs of its bus.
func (p planner) takes(r *request) time.Duration {
	return p.cost(r.readings[0].point.Device).of(r.table, r.count)
}

// lineTime is how long its frames are on the line.
func (r *request) lineTime(l line) time.Duration {
	send, receive := wire.FrameTime(r.pdu, l.baud, l.charBits)
	return send + receive
}

// checkLoad computes whether a serial bus can do what it is asked.
func (c *checker) checkLoad(devices []*gateway.Device, atlas *atlas) {
	l := busLine(c.bus)
	if l.baud == 0 {
		return
	}
	list := planner{bus: c.bus, atlas: atlas}.loads(devices)
	longest := make(map[*gateway.Device]*request)
	busy := 0.0
	for _, load := range list {
		busy += load.busy()
		for _, r := range load.requests {
			d := r.readings[0].point.Device
			if was := longest[d]; was == nil || r.lineTime(l) > was.lineTime(l) {
				longest[d] = r
			}
		}
	}
	var worst *gateway.Device // of those that wait as long as the bus
	for _, d := range devices {
		switch r := longest[d]; {
		case r == nil:
		case d.Timeout > 0 || d.Profile.Timeout > 0:
			c.checkTimeout(d, r, l)
		case worst == nil || r.lineTime(l) > longest[worst].lineTime(l):
			worst = d
		}
	}
	if worst != nil {
		c.checkTimeout(worst, longest[worst], l)
	}
	if busy > 1 {
		c.onBus(gateway.Error, "", fitting(list), "bus %s can't keep up: its polls need %.2f s of line time in each second (%.0f %%)", c.bus.Name, busy, 100*busy)
	}
}

// usual are the intervals that people write.
var usual = []time.Duration{
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 10 * time.Second,
	15 * time.Second, 20 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour,
}

// enough is how full a bus may be planned: retries and writes need room.
const enough = 0.85

// fitting says which poll intervals would fit: the fastest polls are slowed
// down first, the next ones with them when that is not enough.
func fitting(list []load) string {
	for _, floor := range usual {
		busy, changed := 0.0, []string(nil)
		for _, l := range list {
			every := max(l.every, floor)
			if every != l.every {
				changed = append(changed, duration(l.every))
			}
			busy += float64(l.takes) / float64(every)
		}
		if busy <= enough && len(changed) > 0 {
			return fmt.Sprintf("poll: %s instead of %s would use %.0f %%; a faster line or fewer points help too", duration(floor), strings.Join(changed, ", "), 100*busy)
		}
	}
	return "split the devices over several buses"
}
