package gateway

import (
	"context"
	"time"
)

// beat writes the heartbeat of a device in turn, so that the PLC can fall back
// when it stays away. It stops with site.writes: locked, while the device is locked, and with while: cloud
// while the cloud is away. Only its transitions are in log and audit.
func (o *operator) beat(ctx context.Context) {
	h := o.device.Heartbeat
	p := o.device.point(h.Point)
	var values []Value
	for _, text := range h.Values {
		v, err := p.Fit(TextValue(text))
		if err != nil {
			o.office.log.Error("heartbeat can't be written", "device", o.device.Name, "error", err)
			return
		}
		values = append(values, v)
	}
	said := "" // why it stands still
	tick := time.NewTicker(h.Every)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		why := ""
		if err := o.beatOnce(ctx, p, values[i%len(values)], h); err != nil {
			why = err.Error()
		}
		if ctx.Err() != nil || why == said {
			continue
		}
		line := Audit{Who: "gateway", Device: o.device.Name, Point: p.ID, Asked: "heartbeat", Result: "done"}
		if said = why; why != "" {
			line.Result, line.Reason = "failed", why
		}
		o.office.audit.add(line)
	}
}

// beatOnce writes one value, within the time to the next.
func (o *operator) beatOnce(ctx context.Context, p *Point, v Value, h *Heartbeat) error {
	allowed := func() error { return o.office.allowed(byCloud, p, true) }
	if err := allowed(); err != nil {
		return err
	}
	if h.While == "cloud" && !o.office.connected(o.device.User) {
		return errNoCloud
	}
	if err := o.bus.down(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Every)
	defer cancel()
	w := &writing{parts: []part{o.part(p, v, nil, nil)}, force: true, blind: true, still: allowed}
	result, _ := o.bus.attempt(ctx, w)
	return result.err
}
