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
		g.storeFor(c.Login.User, Record{Kind: ReportRecord, Time: time.Now(), Values: g.status()})
	}
}

// statusFirst is when the first status goes out: the devices have been asked by
// then.
const statusFirst = 5 * time.Second

// status is the gateway in a few attributes. It asks no bus: a copy of all its
// points would take more memory than all the rest of this.
func (g *Gateway) status() []Attribute {
	now, sum, store := time.Now(), g.Summary(), g.config.Buffer.Stats()
	buses, lanes := g.loops()
	busesDown := 0
	for _, b := range buses {
		if b.health.isDown.Load() {
			busesDown++
		}
	}
	var oldest, drain, pace time.Duration
	for _, lane := range lanes {
		l := lane.show(now)
		if !l.Oldest.IsZero() {
			oldest = max(oldest, now.Sub(l.Oldest))
		}
		drain, pace = max(drain, l.Drain), max(pace, l.Pace)
	}
	seconds := func(d time.Duration) Value { return IntValue(int64(d / time.Second)) }
	return []Attribute{
		{"version", TextValue(g.config.Version)}, {"uptime_s", seconds(now.Sub(g.started))},
		{"devices_up", IntValue(int64(sum.Up))}, {"devices_down", IntValue(int64(sum.Devices - sum.Up))}, {"buses_down", IntValue(int64(busesDown))},
		{"buffer_records", IntValue(int64(store.Waiting))}, {"buffer_bytes", IntValue(store.FileSize)}, {"buffer_ok", BoolValue(store.FailingSince.IsZero())},
		{"oldest_s", seconds(oldest)}, {"drain_s", seconds(drain)}, {"pace_ms", IntValue(pace.Milliseconds())},
		{"lost", UintValue(store.Dropped.Total() + store.Evicted)}, {"quarantined", UintValue(store.Quarantined)},
	}
}
