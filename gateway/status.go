package gateway

import (
	"context"
	"time"
)

// reportStatus reports the gateway's own attributes to its own cloud device, as
// often as the site says: what it is, and what a person far away wants to know
// first when values stay out.
func (g *Gateway) reportStatus(ctx context.Context) {
	for wait := statusFirst; Sleep(ctx, wait) == nil; {
		c := &g.Site().Cloud // a reload may have changed it
		if wait = c.Status.Every; wait <= 0 || c.Login == nil {
			wait = statusFirst
			continue
		}
		g.storeFor(c.Login.User, Record{Kind: ReportRecord, Time: time.Now(), Values: g.status(ctx)})
	}
}

// statusFirst is when the first status goes out: the devices have been asked by
// then.
const statusFirst = 5 * time.Second

// status is the gateway in a few attributes.
func (g *Gateway) status(ctx context.Context) []Attribute {
	s := g.Snapshot(ctx)
	up, down, busesDown := 0, 0, 0
	for _, b := range s.Buses {
		if b.State == BusDown {
			busesDown++
		}
		for i := range b.Devices {
			if b.Devices[i].Online {
				up++
			} else {
				down++
			}
		}
	}
	var oldest, drain, pace time.Duration
	for i := range s.Lanes {
		l := &s.Lanes[i]
		if !l.Oldest.IsZero() {
			oldest = max(oldest, s.Time.Sub(l.Oldest))
		}
		drain, pace = max(drain, l.Drain), max(pace, l.Pace)
	}
	seconds := func(d time.Duration) Value { return IntValue(int64(d / time.Second)) }
	return []Attribute{
		{"version", TextValue(g.config.Version)}, {"uptime_s", seconds(s.Time.Sub(s.Started))},
		{"devices_up", IntValue(int64(up))}, {"devices_down", IntValue(int64(down))}, {"buses_down", IntValue(int64(busesDown))},
		{"buffer_records", IntValue(int64(s.Buffer.Waiting))}, {"buffer_bytes", IntValue(s.Buffer.FileSize)}, {"buffer_ok", BoolValue(s.Buffer.FailingSince.IsZero())},
		{"oldest_s", seconds(oldest)}, {"drain_s", seconds(drain)}, {"pace_ms", IntValue(pace.Milliseconds())},
		{"lost", UintValue(s.Buffer.Dropped.Total())}, {"quarantined", UintValue(s.Buffer.Quarantined)},
	}
}
