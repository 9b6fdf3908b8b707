package site

import (
	"fmt"
	"strings"

	"sluice/gateway"

	"go.yaml.in/yaml/v4"
)

const addressingChoices = "modicon (references of 5 or 6 digits such as 40001 or 30053), one-based (its first register is 1) or protocol (the number is the address on the wire, its first register is 0)"

// checkProfile holds the rules of a profile, once for all its devices.
func (l *loader) checkProfile(p *profile) {
	if p.node == nil || p.node.Kind != yaml.MappingNode {
		return
	}
	l.checkHeadOf(p)
	p.names = namesOf(p.Profile)
	for _, point := range p.Points {
		if l.full() {
			return
		}
		l.checkPoint(p.names, p.path+".points."+point.ID, point)
	}
	l.checkComputed(p)
	for _, e := range p.Events {
		l.checkEvent(p, p.path+".events."+e.ID, e)
	}
	for _, c := range p.Commands {
		l.checkCommand(p, p.path+".commands."+c.ID, c)
	}
	for _, s := range p.Streams {
		l.checkStream(p, p.path+".streams."+s.ID, s)
	}
	p.names.checked = true
}

func (l *loader) checkHeadOf(p *profile) {
	switch {
	case p.Protocol == "":
		l.fault(p.path+".protocol", "write protocol: modbus", "profile %s needs its protocol: modbus or opcua", quote(p.Name))
	case p.Protocol == "modbus" && p.Addressing == "":
		l.fault(p.path+".addressing", "", "addressing is missing: how does the manual count registers? %s", addressingChoices)
	}
	if p.Protocol == "opcua" {
		for key, written := range map[string]bool{"addressing": p.Addressing != "", "table": p.Table != "", "order": p.Order != "", "forbid": len(p.Forbid) > 0} {
			if written {
				l.misplaced(p.path+"."+key, "remove it", "%s is for Modbus, the profile speaks opcua", key)
			}
		}
	}
	if points := child(p.node, "points"); points == nil || points.Kind == yaml.MappingNode && len(points.Content) == 0 {
		l.fault(p.path+".points", "", "profile %s has no points", quote(p.Name))
	}
	if p.Poll <= 0 {
		l.fault(p.path+".poll", "", "poll must be more than 0s")
	}
	l.checkReport(p.path, p.Report)
	if p.Probe != "" {
		l.readable(p.path+".probe", namesOf(p.Profile), p.Probe)
	}
	if p.Unlock != nil {
		n := namesOf(p.Profile)
		for name := range p.Unlock.Write {
			l.writablePoint(p.path+".unlock.write."+name, n, name, l.misplaced)
		}
	}
}

// writablePoint finds a point that is to be written, or reports why it can't
// be: with fault where the name is a value, with misplaced where it is a key.
func (l *loader) writablePoint(path string, n *names, name string, report func(path, suggestion, format string, args ...any)) *gateway.Definition {
	d := n.points[name]
	switch {
	case d == nil && n.computed[name] != nil:
		report(path, "", "%s is computed: it can't be written", name)
	case d == nil && !l.full():
		report(path, didYouMean(name, pointNames(n.Profile)), "there is no point %s", quote(name))
	case d != nil && d.Access == "r":
		report(path, fmt.Sprintf("write access: rw, or access: w, in point %s", name), "%s is only read (access: r)", name)
	}
	return d
}

// checkIdentifier holds the rule for names that stand in expressions.
func (l *loader) checkIdentifier(path, what, name string) {
	if gateway.Reserved(name) {
		l.fault(path, "choose another one; as: names it otherwise in the cloud", "%s means something else in expressions: it is no name of a %s", quote(name), what)
		return
	}
	if !identifier.MatchString(name) {
		better := strings.Trim(strings.TrimPrefix(suggestName(name), "write "), "-")
		suggestion := ""
		if better = strings.ReplaceAll(better, "-", "_"); identifier.MatchString(better) {
			suggestion = fmt.Sprintf("write %s; as: %s names it otherwise in the cloud", better, quote(name))
		}
		l.fault(path, suggestion, "%s is no name of a %s: letters, digits and _ only, since it stands in expressions", quote(name), what)
	}
}
