package site

import (
	"strconv"
	"strings"
	"time"

	"sluice/gateway"
)

// checkCommand holds the rules of a command.
func (l *loader) checkCommand(p *profile, path string, c *gateway.Command) {
	l.checkName(path, "command", c.ID)
	params := map[string]*gateway.Param{}
	more := map[string]gateway.Operand{}
	for _, param := range c.Params {
		params[param.ID] = param
		l.checkParam(p.names, path+".params."+param.ID, param)
		if param.Type != "" {
			more[param.ID] = gateway.Operand{Kind: map[string]gateway.OperandKind{
				"float": gateway.NumberOperand, "int": gateway.NumberOperand, "bool": gateway.TruthOperand, "string": gateway.WordOperand}[param.Type], Labels: param.Values}
		}
	}
	s := &steps{p: p, scope: gateway.Scope(p.names.scope).With(more), params: params, owner: "commands." + c.ID}
	l.expression(path+".guard", p.names, s.scope, c.Guard, gateway.TruthOperand, s.owner)
	if len(c.Steps) == 0 {
		l.fault(path+".steps", "write steps: [ { write: { <point>: <value> } } ]", "command %s has no steps", quote(c.ID))
	}
	if c.Timeout <= 0 {
		l.fault(path+".timeout", "", "timeout must be more than 0s")
	}
	if spent := l.checkSteps(s, path+".steps", c.Steps); spent > c.Timeout {
		l.fault(path+".timeout", "", "the waits of %s take %s, longer than its timeout of %s", quote(c.ID), spent, c.Timeout)
	}
	l.checkSteps(s, path+".on_fail", c.OnFail)
	l.readables(path+".reply", p.names, c.Reply, s.owner)
}

func (l *loader) checkParam(n *names, path string, p *gateway.Param) {
	if p.Type == "" && isListed(p) && n.points[p.ID] != nil {
		return // a point gives type and limits
	}
	l.checkIdentifier(path, "parameter", p.ID)
	_, taken := n.scope(p.ID)
	switch {
	case p.Type == "" && isListed(p):
		l.unknownName(path, "point", p.ID, pointNames(n.Profile))
	case p.Type == "":
		l.fault(path+".type", "", "parameter %s needs a type: float, int, bool or string", quote(p.ID))
	case taken:
		l.fault(path, "", "parameter %s has the name of a point: expressions could not tell them apart", quote(p.ID))
	}
	number := p.Type == "float" || p.Type == "int"
	switch {
	case p.Type != "" && !number && (p.Min != nil || p.Max != nil):
		l.misplaced(path+".min", "remove it", "min and max are for numbers, %s is %s", quote(p.ID), p.Type)
	case p.Min != nil && p.Max != nil && p.Min.Float > p.Max.Float:
		l.fault(path+".min", "", "min %s is more than max %s", p.Min.Text, p.Max.Text)
	}
	if p.Default != "" {
		l.checkDefault(path, p)
	}
}

// isListed tells whether a parameter is the element of a list of points.
func isListed(p *gateway.Param) bool {
	return p.Min == nil && p.Max == nil && p.Default == "" && p.Values == nil
}

func (l *loader) checkDefault(path string, p *gateway.Param) {
	switch p.Type {
	case "float", "int":
		var d gateway.Decimal
		if err := d.UnmarshalText([]byte(p.Default)); err != nil {
			l.fault(path+".default", "", "default: %s", err)
		} else if p.Min != nil && d.Float < p.Min.Float || p.Max != nil && d.Float > p.Max.Float {
			l.fault(path+".default", "", "default %s is outside of %s", p.Default, limitsText(p.Min, p.Max))
		}
	case "bool":
		if p.Default != "true" && p.Default != "false" {
			l.fault(path+".default", "", "default is true or false, not %s", quote(p.Default))
		}
	case "string":
		if p.Values != nil && !contains(p.Values, p.Default) {
			l.fault(path+".default", didYouMean(p.Default, p.Values), "default %s is none of values", quote(p.Default))
		}
	}
}

// steps is what the steps of a command may name.
type steps struct {
	p      *profile
	scope  gateway.Scope
	params map[string]*gateway.Param
	owner  string
}

// checkSteps looks at a list of steps and tells how long they wait at least.
func (l *loader) checkSteps(s *steps, path string, list []*gateway.Step) (spent time.Duration) {
	for i, step := range list {
		at := path + "." + strconv.Itoa(i)
		var kinds []string
		for _, k := range []struct {
			name    string
			written bool
		}{{"write", step.Write != nil}, {"pulse", step.Pulse != nil}, {"wait", step.Wait != 0}, {"expect", step.Expect != nil}, {"call", step.Call != nil}} {
			if k.written {
				kinds = append(kinds, k.name)
			}
		}
		switch {
		case len(kinds) == 0:
			l.fault(at, "", "a step is one of write, pulse, wait, expect and call")
			continue
		case len(kinds) > 1:
			l.misplaced(at+"."+kinds[1], "make two steps of it: a list has one - per step", "a step has one of %s and %s", kinds[0], kinds[1])
		}
		if step.Within != 0 && step.Expect == nil {
			l.misplaced(at+".within", "remove it", "within belongs to expect")
		}
		spent += step.Wait
		if step.Pulse != nil {
			spent += step.Pulse.For
			l.checkPulse(s, at+".pulse", step.Pulse)
		}
		if step.Write != nil {
			l.checkAssignments(s, at+".write", step.Write)
		}
		l.expression(at+".expect", s.p.names, s.scope, step.Expect, gateway.TruthOperand, s.owner)
		if step.Call != nil {
			l.checkCall(s, at+".call", step.Call)
		}
	}
	return spent
}

func (l *loader) checkAssignments(s *steps, path string, a *gateway.Assignments) {
	if a.Params {
		for id := range s.params {
			s.p.names.use(s.owner, id)
			if d := s.p.names.points[id]; d == nil {
				l.fault(path, "write { <point>: $"+id+" }", "write: params needs parameters that are points, and %s is none", quote(id))
			} else if d.Access == "r" {
				l.fault(path, "", "%s is only read (access: r)", id)
			}
		}
		return
	}
	if len(a.Values) == 0 {
		l.fault(path, "", "write has no points")
	}
	for _, w := range a.Values {
		s.p.names.use(s.owner, w.Point)
		if d := l.writablePoint(path+"."+w.Point, s.p.names, w.Point, l.misplaced); d != nil {
			l.value(path+"."+w.Point, d, w.Value, s.params)
		}
	}
}

func (l *loader) checkPulse(s *steps, path string, p *gateway.Pulse) {
	s.p.names.use(s.owner, p.Point)
	if p.Point == "" {
		l.fault(path+".point", "", "a pulse needs a point")
	} else if d := l.writablePoint(path+".point", s.p.names, p.Point, l.fault); d != nil {
		for key, text := range map[string]string{"value": p.Value, "back_to": p.BackTo} {
			if text == "" {
				l.fault(path+"."+key, "write value: true, back_to: false", "a pulse needs %s", key)
			} else {
				l.value(path+"."+key, d, text, s.params)
			}
		}
		if d.Restore {
			l.fault(path+".point", "remove restore: true from point "+p.Point, "%s is restored after a connect: a pulse could be written for good", p.Point)
		}
	}
	switch {
	case p.For == 0 && p.Until == nil:
		l.fault(path+".for", "write for: 300ms, or until: <condition>, within: 5s", "a pulse needs its length")
	case p.For != 0 && p.Until != nil:
		l.misplaced(path+".until", "remove one", "for and until exclude each other")
	case p.Until != nil && p.Within == 0:
		l.fault(path+".within", "write within: 5s", "until needs the longest time that it may take")
	}
	l.expression(path+".until", s.p.names, s.scope, p.Until, gateway.TruthOperand, s.owner)
}

func (l *loader) checkCall(s *steps, path string, c *gateway.Call) {
	if s.p.Protocol == "modbus" {
		l.fault(path, "", "Modbus has no methods to call")
		return
	}
	if c.Object == "" || c.Method == "" {
		l.fault(path+".method", "write call: { object: <node>, method: <node> }", "a call needs object and method")
	}
	for _, arg := range c.Args {
		if name, ok := strings.CutPrefix(arg, "$"); ok && s.params[name] == nil {
			l.fault(path+".args."+arg, "", "the command has no parameter %s", quote(name))
		}
	}
}
