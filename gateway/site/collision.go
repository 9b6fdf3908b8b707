package site

import (
	"slices"
	"strings"

	"sluice/gateway"
)

// checkDevices holds the rules between devices: names, logins, what collides
// in the cloud.
func (l *loader) checkDevices(site *gateway.Site) {
	users := map[string]string{} // login → device
	names := map[[2]string]named{}
	rest := rest{names: map[[3]string]*gateway.Device{}}
	rest.history, _ = strings.CutPrefix(site.Cloud.Backlog, "stream:")
	if site.Cloud.Login != nil {
		users[site.Cloud.Login.User] = "the gateway"
	}
	for _, d := range site.Devices {
		if l.full() {
			return
		}
		path := "devices." + d.Name
		l.checkName(path+".name", "device", d.Name)
		if d.Login != nil {
			l.checkLogin(path+".login", d.Login)
			if other, ok := users[d.Login.User]; ok && d.Login.User != "" {
				l.fault(path+".login.user", "each cloud device has its own login; a device without login reports as the gateway", "%s and device %s have the same login %s", other, quote(d.Name), quote(d.Login.User))
			}
			users[d.Login.User] = "device " + quote(d.Name)
		}
		if p := l.origins[d.Name].profile; p.path == path {
			l.checkProfile(p)
		}
		if d.Profile.Protocol != "" && d.Bus.Type != "" && d.Bus.Protocol() != d.Profile.Protocol {
			l.fault(path+".bus", "", "profile %s speaks %s, bus %s is %s", quote(d.Profile.Name), d.Profile.Protocol, quote(d.Bus.Name), d.Bus.Type)
		}
		l.checkOwn(d)
		for _, point := range d.Points {
			l.checkCollision(names, d.User, point.ID, point.Name, d)
		}
		for _, c := range d.Computed {
			l.checkCollision(names, d.User, c.ID, d.Prefix+cmpOr(c.As, c.ID), d)
		}
		l.checkRest(rest, d)
	}
}

// named is what has a name in the cloud.
type named struct {
	device *gateway.Device
	id     string
}

func (l *loader) checkCollision(names map[[2]string]named, user, id, name string, d *gateway.Device) {
	path := "devices." + d.Name + ".points." + id
	key := [2]string{user, name}
	other, taken := names[key]
	switch {
	case taken && other.device == d && other.id == id: // a computed point with a point's name, reported
	case taken && other.device == d:
		l.fault(path+".as", "", "points %s and %s have the same name %s in the cloud", quote(other.id), quote(id), quote(name))
	case taken:
		l.fault("devices."+d.Name+".prefix", "give one of the devices another prefix", "point %s of device %s and point %s of device %s have the same name %s in the cloud",
			quote(other.id), quote(other.device.Name), quote(id), quote(d.Name), quote(name))
	case len(name) > 100:
		l.fault(path, "give the device a shorter prefix, or the point a shorter name with as", "the name %s of point %s is longer than 100 characters in the cloud", quote(name), quote(id))
	}
	names[key] = named{d, id}
}

// rest is what events, commands and streams are called in the cloud: kind, user
// and name.
type rest struct {
	names   map[[3]string]*gateway.Device
	history string // the stream of the backlog, of all users
}

func (l *loader) checkRest(r rest, d *gateway.Device) {
	check := func(kind, id string) {
		name := d.Prefix + id
		key := [3]string{kind, d.User, name}
		other := r.names[key]
		switch r.names[key] = d; {
		case id == "":
		case other != nil && other != d:
			l.fault("devices."+d.Name+".prefix", "give one of the devices another prefix", "device %s and device %s both have %s %s in the cloud", quote(other.Name), quote(d.Name), article(kind), quote(name))
		case len(name) > 100:
			l.fault("devices."+d.Name+".prefix", "give the device a shorter prefix", "the name %s of %s %s is longer than 100 characters in the cloud", quote(name), kind, quote(id))
		case kind == "stream" && name == r.history:
			l.fault("cloud.backlog", "name another stream", "stream %s of device %s goes to the same %s", quote(id), quote(d.Name), quote(name))
		}
	}
	for _, e := range d.Events {
		check("event", e.ID)
		check("event", e.ClearEvent)
	}
	for _, c := range d.Commands {
		check("command", c.ID)
	}
	for _, s := range d.Streams {
		check("stream", s.ID)
	}
}

// checkOwn looks at what a device has of its own: overridden points, dropped
// ones and what needs them, a heartbeat, a prefix.
func (l *loader) checkOwn(d *gateway.Device) {
	o, path := l.origins[d.Name], "devices."+d.Name
	n := o.profile.names
	if n == nil {
		return
	}
	for id, point := range o.changed {
		l.checkPoint(n, path+".points."+id, point)
	}
	l.retype(path, n, o.changed)
	if d.Heartbeat != nil {
		l.checkHeartbeat(n, path+".heartbeat", d.Heartbeat)
		if slices.ContainsFunc(d.Points, func(p *gateway.Point) bool { return p.Locked && p.ID == d.Heartbeat.Point }) {
			l.fault(path+".heartbeat.point", "take it out of lock, or leave the heartbeat out", "%s is under lock: nothing writes it", quote(d.Heartbeat.Point))
		}
	}
	if strings.ContainsFunc(d.Prefix, func(r rune) bool { return r >= 128 || !cloudName.MatchString(string(r)) }) {
		l.fault(path+".prefix", suggestName(d.Prefix), "prefix %s has more than letters, digits, _ and -", quote(d.Prefix))
	}
	if d.Timeout <= 0 {
		l.fault(path+".timeout", "", "timeout must be more than 0s")
	}
	if len(o.drop) > 0 {
		l.dropUsers(d, n, o.drop)
	}
}

// dropUsers takes away what needs a dropped point, and says so.
func (l *loader) dropUsers(d *gateway.Device, n *names, drop []string) {
	needs := func(what, id string) bool {
		for _, used := range n.uses[what+"s."+id] {
			if slices.Contains(drop, used) {
				l.warn("devices."+d.Name+".drop."+used, "drop "+id+" too, if that is right", "%s %s needs %s, so it is dropped too", what, quote(id), used)
				return true
			}
		}
		return false
	}
	d.Computed = keep(d.Computed, func(c *gateway.Computed) bool {
		for _, used := range n.uses["computed."+c.ID] {
			if slices.Contains(drop, used) {
				l.warn("devices."+d.Name+".drop."+used, "drop "+c.ID+" too, if that is right", "computed point %s needs %s, so it is dropped too", quote(c.ID), used)
				return false
			}
		}
		return true
	})
	d.Events = keep(d.Events, func(e *gateway.Event) bool { return !needs("event", e.ID) })
	d.Commands = keep(d.Commands, func(c *gateway.Command) bool { return !needs("command", c.ID) })
	d.Streams = keep(d.Streams, func(s *gateway.Stream) bool {
		if s.Each == "" || slices.ContainsFunc(d.Events, func(e *gateway.Event) bool { return e.ID == s.Each }) {
			return !needs("stream", s.ID)
		}
		l.warn("devices."+d.Name+".drop", "drop "+s.ID+" too, if that is right", "stream %s is sent at each %s, so it is dropped too", quote(s.ID), quote(s.Each))
		return false
	})
}

func keep[T any](list []T, good func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(list), func(t T) bool { return !good(t) })
}
