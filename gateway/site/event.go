package site

import (
	"strings"

	"sluice/gateway"
)

func (l *loader) checkComputed(p *profile) {
	for _, c := range p.Computed {
		if l.full() {
			return
		}
		path := p.path + ".computed." + c.ID
		l.checkIdentifier(path, "computed point", c.ID)
		if p.names.points[c.ID] != nil {
			l.fault(path, "", "%s is a point already", quote(c.ID))
		}
		if c.As != "" {
			l.checkName(path+".as", "computed point in the cloud", c.As)
		}
		if c.Decimals != nil && (*c.Decimals < 0 || *c.Decimals > 15) {
			l.fault(path+".decimals", "", "decimals is a number from 0 to 15, not %d", *c.Decimals)
		}
		if c.Value == nil {
			l.fault(path+".value", "write value: <expression>", "computed point %s has no value", quote(c.ID))
			continue
		}
		owner := "computed." + c.ID
		l.expression(path+".value", p.names, p.names.scope, c.Value, gateway.NumberOperand, owner)
		if contains(p.names.uses[owner], c.ID) {
			l.fault(path+".value", "", "computed point %s needs itself", quote(c.ID))
		}
	}
	l.checkCircles(p)
}

// checkCircles finds computed points that need each other.
func (l *loader) checkCircles(p *profile) {
	state := map[string]int{} // 1 on the way, 2 done
	var visit func(id string) bool
	visit = func(id string) bool {
		state[id] = 1
		for _, used := range p.names.uses["computed."+id] {
			if p.names.computed[used] != nil && used != id && (state[used] == 1 || state[used] == 0 && visit(used)) {
				return true
			}
		}
		state[id] = 2
		return false
	}
	for _, c := range p.Computed {
		if state[c.ID] == 0 && visit(c.ID) {
			l.fault(p.path+".computed."+c.ID+".value", "", "computed point %s needs itself, through others", quote(c.ID))
			return
		}
	}
}

// checkEvent holds the rules of an event.
func (l *loader) checkEvent(p *profile, path string, e *gateway.Event) {
	owner := "events." + e.ID
	l.checkName(path, "event", e.ID)
	var kinds []string
	for _, k := range []struct {
		name    string
		written bool
	}{{"when", e.When != nil}, {"each", e.Each != nil}, {"each_flag", e.EachFlag != nil}, {"opcua", e.OPCUA != nil}} {
		if k.written {
			kinds = append(kinds, k.name)
		}
	}
	switch {
	case len(kinds) == 0:
		l.fault(path+".when", "write when: <condition>", "event %s does not say when: it needs when, each, each_flag or opcua", quote(e.ID))
	case len(kinds) > 1:
		l.misplaced(path+"."+kinds[1], "remove one", "%s and %s exclude each other", kinds[0], kinds[1])
	}
	if e.When == nil {
		for key, written := range map[string]bool{"clear": e.Clear != nil, "for": e.For != gateway.Hold{}, "repeat": e.Repeat != 0, "clear_event": e.ClearEvent != ""} {
			if written && len(kinds) > 0 {
				l.misplaced(path+"."+key, "remove it, or write when", "%s belongs to when: an event of %s has no end", key, kinds[0])
			}
		}
	}
	l.checkConditions(p, path, e, owner)
	l.checkFlags(p, path, e, owner)
	l.readables(path+".params", p.names, e.Params, owner)
	if e.ClearEvent != "" {
		l.checkName(path+".clear_event", "event", e.ClearEvent)
		if p.things()[e.ClearEvent].event {
			l.fault(path+".clear_event", "", "%s is an event of its own already", quote(e.ClearEvent))
		}
	}
	if e.OPCUA != nil && p.Protocol == "modbus" {
		l.fault(path+".opcua", "", "Modbus has no events of its own")
	}
}

func (l *loader) checkConditions(p *profile, path string, e *gateway.Event, owner string) {
	when := l.expression(path+".when", p.names, p.names.scope, e.When, gateway.TruthOperand, owner)
	clear := l.expression(path+".clear", p.names, p.names.scope, e.Clear, gateway.TruthOperand, owner)
	if when && (clear || e.Clear == nil) {
		l.checkHysteresis(p.names, path, e)
	}
	if l.expression(path+".each", p.names, p.names.scope, e.Each, gateway.TruthOperand, owner) &&
		!strings.Contains(e.Each.Text, "changed(") && !strings.Contains(e.Each.Text, "increase(") {
		l.fault(path+".each", "write each: changed(x), or when: "+e.Each.Text, "each has no edge: it needs changed(x) or increase(x)")
	}
}

func (l *loader) checkFlags(p *profile, path string, e *gateway.Event, owner string) {
	l.readables(path+".each_flag", p.names, e.EachFlag, owner)
	for _, name := range e.EachFlag {
		point, fault := p.names.points[name], func(what string) { l.fault(path+".each_flag."+name, "", "%s is %s and has no bits", name, what) }
		switch {
		case p.names.computed[name] != nil:
			fault("a computed point")
		case point == nil || point.Type == "" || point.Type == gateway.Flags && point.Count <= 1:
		case !wholeNumber(point):
			fault(string(point.Type))
		case point.Count > 1:
			fault("an array")
		case len(point.Enum) > 0, point.Scale != nil, point.Offset != nil, point.Map != nil, point.ScaleFrom != "":
			l.fault(path+".each_flag."+name, "read its bits as a point of their own, without scale and enum", "%s is a value in engineering units or a label: its bits are not those of the device", name)
		}
	}
}

// wholeNumber tells whether the raw value of a point is an integer.
func wholeNumber(d *gateway.Definition) bool {
	return strings.HasPrefix(string(d.Type), "int") || strings.HasPrefix(string(d.Type), "uint") || strings.HasPrefix(string(d.Type), "bcd")
}
