package opcua

import (
	"fmt"
	"slices"
	"time"

	"sluice/gateway"
)

// Describe shows a bus that Check has no error about; disabled devices are left
// out. What a server takes in one request it says itself, so the requests are
// estimates: 1,000 points each, 1 ms and 3 µs a point.
func Describe(bus *gateway.Bus, devices []*gateway.Device) (gateway.Overview, error) {
	o := gateway.Overview{Estimated: true}
	for _, d := range devices {
		if d.Disabled {
			continue
		}
		polls := make(map[time.Duration]int)
		for _, p := range d.Points {
			at, err := newPlace(p)
			if err != nil {
				return gateway.Overview{}, err
			}
			o.Points = append(o.Points, describePoint(p, at))
			if p.Access != "w" {
				polls[p.Poll]++
			}
		}
		for every, points := range polls {
			o.Requests = append(o.Requests, describeRequests(d, every, points)...)
		}
	}
	slices.SortStableFunc(o.Requests, func(x, y gateway.RequestOverview) int { return int(x.Every - y.Every) })
	for _, r := range o.Requests {
		if d := r.Every; o.Cycle == 0 || d < o.Cycle {
			o.Cycle = d
		}
		o.Busy += float64(r.Takes) / float64(r.Every)
	}
	o.PerCycle = time.Duration(o.Busy * float64(o.Cycle))
	return o, nil
}

func describePoint(p *gateway.Point, at *place) gateway.PointOverview {
	printed := p.Node
	if printed == "" {
		printed = p.Browse
	}
	o := gateway.PointOverview{Device: p.Device.Name, Point: p.ID, Printed: printed, Full: at.address.String(), Wire: at.address.String(), Size: max(p.Count, 1), Type: p.Type, Poll: p.Poll}
	if p.Access == "w" {
		o.Poll = 0
	}
	return o
}

func describeRequests(d *gateway.Device, every time.Duration, points int) []gateway.RequestOverview {
	what := "reads %d nodes"
	if watched(d) {
		what = "watches %d nodes"
	}
	var requests []gateway.RequestOverview
	for ; points > 0; points -= mostOperations {
		n := min(points, mostOperations)
		requests = append(requests, gateway.RequestOverview{
			Device: d.Name, Reads: fmt.Sprintf(what, n), Points: n, Every: every, Takes: time.Millisecond + time.Duration(n)*3*time.Microsecond,
		})
	}
	return requests
}

// watched tells whether the server says what changes on a device by itself.
func watched(d *gateway.Device) bool { return d.Profile != nil && d.Profile.Mode == "subscribe" }
