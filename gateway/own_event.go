package gateway

import "time"

// ownEvent reports an event of the gateway itself, where the site wants its
// kind (one of OwnEventNames); name is the kind, or what ends it. It goes to the
// cloud device that d reports as; without a device to the gateway's own, and
// where it has none to those of the devices in around. Any goroutine may call it.
func (g *Gateway) ownEvent(kind, name string, severity Severity, d *Device, around []*Device, params ...Attribute) {
	site := g.Site()
	if !site.Cloud.OwnEvents[kind] {
		return
	}
	record := Record{Kind: EventRecord, Time: time.Now(), Name: name, Severity: severity, Values: params}
	note := RecentEvent{Time: record.Time, Event: name, Severity: severity, State: Happened, Params: params}
	to := map[string]bool{}
	switch {
	case d != nil:
		record.Name, note.Device = d.Prefix+name, d.Name
		to[d.User] = true
	case site.Cloud.Login != nil:
		to[site.Cloud.Login.User] = true
	default:
		for _, d := range around {
			to[d.User] = true
		}
	}
	for user := range to {
		record.ID = NewEventID()
		g.store(&Device{User: user}, record)
	}
	g.book.recent.add(note)
}

// told is whether the cloud was told that a bus or a device is away.
type told struct {
	Away  bool
	Since time.Time
}

// turn notes that it is away or back, and tells whether that is new, and for how
// long it was away.
func (t *told) turn(away bool) (turned bool, gone Attribute) {
	if t.Away == away {
		return false, Attribute{}
	}
	now := time.Now()
	gone = Attribute{"down_s", IntValue(int64(now.Sub(t.Since).Seconds()))}
	t.Away, t.Since = away, now
	return true, gone
}

// sayBus tells the cloud that the bus is down or back. A bus that is down stands for its
// devices: theirs are not told.
func (b *busLoop) sayBus(down bool) {
	turned, gone := b.told.turn(down)
	if !turned || b.gateway == nil {
		return
	}
	var devices []*Device
	for _, d := range b.reporter.devices {
		devices = append(devices, d.device)
	}
	name := Attribute{"bus", TextValue(b.bus.Name)}
	if down {
		b.gateway.ownEvent("bus_down", "bus_down", Alarm, nil, devices, name, Attribute{"reason", TextValue(b.health.lost)})
	} else {
		b.gateway.ownEvent("bus_down", "bus_up", Info, nil, devices, name, gone)
	}
	b.gateway.keepTold(busKey(b.bus), b.told)
}

// sayDevices tells the cloud which devices of a station are silent or back.
func (b *busLoop) sayDevices(s *station) {
	silent := s.failures >= max(s.offline.After, 1)
	if b.gateway == nil || s.failures > 0 && !silent {
		return
	}
	for _, d := range s.devices {
		turned, gone := d.rules.told.turn(silent)
		if !turned {
			continue
		}
		d.rules.save(time.Now())
		if d.rules.told.Away {
			reason := Attribute{"reason", TextValue(s.probe.latest.Reason)}
			b.gateway.ownEvent("device_offline", "device_offline", Warning, d.device, nil, reason)
		} else {
			b.gateway.ownEvent("device_offline", "device_online", Info, d.device, nil, gone)
		}
	}
}

// busKey is where the state of a bus is kept beside those of the devices: no
// device has a name with a colon.
func busKey(b *Bus) string { return "bus:" + b.Name }
