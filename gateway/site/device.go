package site

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"sluice/gateway"

	"go.yaml.in/yaml/v4"
)

// origin is where a device is written.
type origin struct {
	entry    *yaml.Node // in the list of devices
	instance *yaml.Node // in the entry's instances, or nil
	profile  *profile   // nil when it is not known

	drop    []string
	changed map[string]*gateway.Definition // by override
}

var variable = regexp.MustCompile(`\{[A-Za-z0-9_-]+\}`)

// own are the keys of an entry of the list of devices that belong to no profile.
var own = append(slices.Clone(recordOf(reflect.TypeFor[Placement]()).names), "profile", "bus", "instances")

// readDevice reads one entry of the list of devices.
func (l *loader) readDevice(site *gateway.Site, entry *yaml.Node) {
	if l.full() {
		return
	}
	d := newValue(reflect.TypeFor[Device]()).Interface().(*Device)
	l.decoder(l.file).value(entry, reflect.ValueOf(d).Elem(), "a device", nil)
	if entry.Kind != yaml.MappingNode {
		return
	}
	p := l.profileOf(d, entry)
	bus := l.busOf(site, d, entry)
	if d.Instances == nil {
		l.place(site, d.Placement, nil, &origin{entry: entry, profile: p}, bus)
		return
	}
	if d.Placement.Name != "" {
		l.report(l.file, child(entry, "name"), gateway.Error, "a device with instances has no name of its own", "move the name into the instances")
	}
	for _, instance := range d.Instances {
		if l.full() || l.points > maxPoints {
			return
		}
		placed := Placement{Login: d.Login, Prefix: d.Prefix, Unit: d.Unit, SameUnit: d.SameUnit, Shift: d.Shift, Heartbeat: d.Heartbeat,
			Label: d.Placement.Label, Disabled: d.Disabled, Timeout: d.Placement.Timeout, Quiet: d.Placement.Quiet}
		l.decoder(l.file).value(instance, reflect.ValueOf(&placed).Elem(), "an instance", nil)
		placed.Drop, placed.Lock = join(d.Drop, placed.Drop), join(d.Lock, placed.Lock)
		vars := maps.Clone(d.Vars)
		if vars == nil {
			vars = map[string]string{}
		}
		maps.Copy(vars, placed.Vars)
		placed.Vars = vars
		if instance.Kind == yaml.MappingNode {
			l.place(site, placed, d.Override, &origin{entry: entry, instance: instance, profile: p}, bus)
		}
	}
}

func join(a, b []string) []string { return append(slices.Clone(a), b...) }

// child is the value behind a key of a mapping.
func child(n *yaml.Node, key string) *yaml.Node {
	if s, ok := (spot{value: n}).step(key); ok {
		return s.value
	}
	return nil
}

// profileOf finds the profile of an entry, or makes it from the entry's own
// points.
func (l *loader) profileOf(d *Device, entry *yaml.Node) *profile {
	var inline *yaml.Node
	for i := 0; i+1 < len(entry.Content) && inline == nil; i += 2 {
		key := entry.Content[i]
		if _, known := recordOf(reflect.TypeFor[Device]()).byName[key.Value]; known && !contains(own, key.Value) {
			inline = key
		}
	}
	switch node := child(entry, "profile"); {
	case node != nil && inline != nil:
		l.report(l.file, inline, gateway.Error, "a device has a profile, or "+quote(inline.Value)+" written here, not both", "what is different on this unit goes under override: { <point>: { … } }")
		return l.profiles[d.Model]
	case node != nil:
		p := l.profiles[d.Model]
		if p == nil && d.Model != "" {
			l.report(l.file, node, gateway.Error, "there is no profile "+quote(d.Model), didYouMean(d.Model, slices.Collect(maps.Keys(l.profiles))))
		}
		return p
	case inline == nil:
		l.missing(entry, "profile", "a device needs profile: <name>, or points of its own")
		return nil
	}
	complete(&d.Profile)
	d.Profile.Name = d.Placement.Name
	return &profile{Profile: &d.Profile, src: l.file, node: entry, path: "devices." + d.Placement.Name}
}

// missing reports a key that an entry of the list of devices does not have.
func (l *loader) missing(entry *yaml.Node, key, text string) {
	n := child(entry, "name")
	if n == nil && len(entry.Content) > 0 {
		n = entry.Content[0]
	}
	if n == nil {
		n = entry
	}
	if child(entry, key) == nil {
		l.report(l.file, n, gateway.Error, text, "")
	}
}

func (l *loader) busOf(site *gateway.Site, d *Device, entry *yaml.Node) *gateway.Bus {
	var names []string
	for _, b := range site.Buses {
		if b.Name == d.Bus {
			return b
		}
		names = append(names, b.Name)
	}
	node := child(entry, "bus")
	if node == nil {
		l.missing(entry, "bus", "a device needs bus: <name>: which wire is it on")
	} else if d.Bus != "" {
		l.report(l.file, node, gateway.Error, "there is no bus "+quote(d.Bus), didYouMean(d.Bus, names))
	}
	return nil
}

// place makes one device. outer are the overrides that count for all instances.
func (l *loader) place(site *gateway.Site, p Placement, outer map[string]*yaml.Node, o *origin, bus *gateway.Bus) {
	node := o.entry
	if o.instance != nil {
		node = o.instance
	}
	if p.Name == "" {
		l.missing(node, "name", "a device needs a name")
		return
	}
	if first := l.origins[p.Name]; first != nil {
		l.report(l.file, child(node, "name"), gateway.Error, "two devices are named "+quote(p.Name), "names are unique in the site")
		return
	}
	l.origins[p.Name] = o
	if o.profile == nil || bus == nil {
		l.lost = true
		return // both have been reported
	}
	d := &gateway.Device{
		Name: p.Name, Label: p.Label, Profile: o.profile.Profile, Bus: bus, SameUnit: p.SameUnit, Shift: p.Shift, Vars: p.Vars,
		Login: p.Login, Disabled: p.Disabled, Timeout: p.Timeout, Quiet: p.Quiet, Heartbeat: p.Heartbeat,
	}
	switch {
	case p.Unit != nil:
		d.Unit = *p.Unit
	case d.Profile.Protocol == "modbus":
		l.fault("devices."+d.Name+".unit", "write unit: 1", "device %s needs its unit id", quote(d.Name))
	}
	l.reportsAs(site, d, p.Prefix)
	if !l.afford(d) {
		return
	}
	things, drop := o.profile.things(), setOf(p.Drop)
	o.drop, o.changed = p.Drop, l.override(d, things, []map[string]*yaml.Node{outer, p.Override})
	l.pointsOf(d, drop, setOf(p.Lock), o.changed)
	l.restOf(d, p, things, drop)
	site.Devices = append(site.Devices, d)
}

// reportsAs finds the cloud device that a device reports as, and the prefix of
// its names there.
func (l *loader) reportsAs(site *gateway.Site, d *gateway.Device, prefix *string) {
	switch {
	case d.Login != nil:
		d.User = d.Login.User
	case site.Cloud.Login != nil:
		d.User = site.Cloud.Login.User
		d.Prefix = d.Name + "_"
	default:
		l.fault("devices."+d.Name+".login", "give it login: { user, password }, or the gateway its own under cloud", "device %s has no login, and cloud has none", quote(d.Name))
	}
	if prefix != nil {
		d.Prefix = *prefix
	}
}

// maxPoints bounds what a small file can ask for with many devices of a large
// profile.
const maxPoints = 150_000

// afford counts the points and rules of a site.
func (l *loader) afford(d *gateway.Device) bool {
	p := d.Profile
	before := l.points
	l.points += len(p.Points) + len(p.Computed) + len(p.Events) + len(p.Commands) + len(p.Streams)
	if before <= maxPoints && l.points > maxPoints {
		l.fault("devices."+d.Name, "", "the site has more than %d points, events and commands, counted over all its devices", maxPoints)
	}
	l.lost = l.lost || l.points > maxPoints
	return l.points <= maxPoints
}

// pointsOf makes the points of a device: its profile's, without the dropped
// ones and with what is changed on it.
func (l *loader) pointsOf(d *gateway.Device, drop, lock set, changed map[string]*gateway.Definition) {
	points := make([]gateway.Point, 0, len(d.Profile.Points))
	d.Points = make([]*gateway.Point, 0, len(d.Profile.Points))
	for _, definition := range d.Profile.Points {
		if drop[definition.ID] {
			continue
		}
		if own := changed[definition.ID]; own != nil {
			definition = own
		}
		if len(d.Vars) > 0 || d.Profile.Protocol == "opcua" {
			definition = l.fill(d, definition)
		}
		name := definition.As
		if name == "" {
			name = definition.ID
		}
		points = append(points, gateway.Point{Definition: definition, Device: d, Name: d.Prefix + name, Locked: lock[definition.ID]})
		d.Points = append(d.Points, &points[len(points)-1])
	}
}

// override decodes what is different on a device onto copies of the points.
func (l *loader) override(d *gateway.Device, things map[string]thing, overrides []map[string]*yaml.Node) map[string]*gateway.Definition {
	changed := map[string]*gateway.Definition{}
	for _, nodes := range overrides {
		for _, id := range inFileOrder(nodes) {
			base := changed[id]
			if base == nil {
				base = things[id].point
			}
			if base == nil {
				l.unknownName("devices."+d.Name+".override."+id, "point", id, pointNames(d.Profile))
				continue
			}
			own := *base
			l.decoder(l.file).value(nodes[id], reflect.ValueOf(&own).Elem(), id, nil)
			completePoint(&own)
			changed[id] = &own
		}
	}
	return changed
}

// unknownName reports a name that is written at a path and stands for nothing.
func (l *loader) unknownName(path, what, name string, known []string) {
	if !l.full() {
		l.fault(path, didYouMean(name, known), "there is no %s %s", what, quote(name))
	}
}

func pointNames(p *gateway.Profile) []string {
	names := make([]string, len(p.Points))
	for i, point := range p.Points {
		names[i] = point.ID
	}
	return names
}

// restOf takes the computed points, events, commands and streams of the profile
// that are not dropped, and the locks of commands.
func (l *loader) restOf(d *gateway.Device, p Placement, things map[string]thing, drop set) {
	d.Computed = without(d.Profile.Computed, drop, func(c *gateway.Computed) string { return c.ID })
	d.Events = without(d.Profile.Events, drop, func(e *gateway.Event) string { return e.ID })
	d.Commands = without(d.Profile.Commands, drop, func(c *gateway.Command) string { return c.ID })
	d.Streams = without(d.Profile.Streams, drop, func(s *gateway.Stream) string { return s.ID })
	for _, name := range p.Lock {
		switch t := things[name]; {
		case t.command:
			d.LockedCommands = append(d.LockedCommands, name)
		case t.point == nil:
			l.unknownName("devices."+d.Name+".lock."+name, "point or command", name, pointNames(d.Profile))
		}
	}
	for _, name := range p.Drop {
		if _, known := things[name]; !known {
			l.unknownName("devices."+d.Name+".drop."+name, "point", name, pointNames(d.Profile))
		}
	}
}

// set is a list of names to look up.
type set map[string]bool

func setOf(names []string) set {
	s := set{}
	for _, name := range names {
		s[name] = true
	}
	return s
}

// thing is what a name in a profile stands for.
type thing struct {
	point          *gateway.Definition
	event, command bool
}

// things finds what a profile has, by name.
func (p *profile) things() map[string]thing {
	if p.named != nil {
		return p.named
	}
	p.named = make(map[string]thing, len(p.Points))
	for _, s := range p.Streams {
		p.named[s.ID] = thing{}
	}
	for _, e := range p.Events {
		p.named[e.ID] = thing{event: true}
	}
	for _, c := range p.Computed {
		p.named[c.ID] = thing{}
	}
	for _, c := range p.Commands {
		t := p.named[c.ID]
		t.command = true
		p.named[c.ID] = t
	}
	for _, d := range p.Points {
		t := p.named[d.ID]
		t.point = d
		p.named[d.ID] = t
	}
	return p.named
}

// without leaves out what is dropped; a device that drops nothing shares the
// profile's list.
func without[T any](list []T, drop set, id func(T) string) []T {
	if !slices.ContainsFunc(list, func(t T) bool { return drop[id(t)] }) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(t T) bool { return drop[id(t)] })
}

// fill puts the variables of a device into the texts of a point.
func (l *loader) fill(d *gateway.Device, definition *gateway.Definition) *gateway.Definition {
	if !strings.Contains(definition.Node+definition.Browse+definition.Label, "{") {
		return definition
	}
	filled := *definition
	for key, text := range map[string]*string{"node": &filled.Node, "browse": &filled.Browse, "label": &filled.Label} {
		*text = variable.ReplaceAllStringFunc(*text, func(match string) string {
			value, ok := d.Vars[strings.Trim(match, "{}")]
			if !ok {
				l.fault("devices."+d.Name+".vars", didYouMean(strings.Trim(match, "{}"), slices.Collect(maps.Keys(d.Vars))), "%s of point %s has %s, and vars does not", key, quote(definition.ID), match)
			}
			return value
		})
	}
	return &filled
}
