package gateway

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// command is a method of one device, ready to run.
type command struct {
	*Command
	operator *operator
	params   []*param
	guard    *demand
	steps    []*step
	onFail   []*step
	reply    []*Point
	locked   bool
	calls    quota // of the office's listening goroutine and of Command, by operator.mu
}

// param is a parameter; a listed one is a point.
type param struct {
	*Param
	point  *Point
	secret bool // it goes to a secret point
}

// step is one thing to do, with its points and demands found.
type step struct {
	*Step
	writes []assigned
	pulse  *pulse
	expect *demand
	call   []arg
}

// assigned is a point and what is written to it: a constant, or a parameter.
type assigned struct {
	point *Point
	param string
	value Value
}

// pulse is the two halves of a pulse.
type pulse struct {
	on, off assigned
	until   *demand
}

// arg is an argument of a call.
type arg struct {
	param string
	value Value
}

// compile finds what a command names.
func (o *operator) compile(c *Command, place *time.Location) (*command, error) {
	out := &command{Command: c, operator: o, locked: slices.Contains(o.device.LockedCommands, c.ID)}
	scope := make(map[string]Operand)
	for _, p := range c.Params {
		known := &param{Param: p, secret: o.goesSecret(c, p.ID)}
		if p.Type == "" {
			if known.point = o.device.point(p.ID); known.point == nil {
				return nil, fmt.Errorf("there is no point %s", p.ID)
			}
			known.secret = known.secret || known.point.Secret
		} else {
			operand := p.operand()
			operand.Secret = known.secret
			scope[p.ID] = operand
		}
		out.params = append(out.params, known)
	}
	compiler := &stepCompiler{operator: o, command: out, scope: scope, place: place}
	if c.Guard != nil {
		out.guard = compiler.demand(c.Guard)
	}
	out.steps, out.onFail = compiler.steps(c.Steps), compiler.steps(c.OnFail)
	for _, id := range c.Reply {
		if p := o.device.point(id); p != nil { // a computed value has no address to read
			out.reply = append(out.reply, p)
		}
	}
	return out, compiler.err
}

// goesSecret tells whether a parameter is written to a secret point.
func (o *operator) goesSecret(c *Command, param string) bool {
	for _, s := range slices.Concat(c.Steps, c.OnFail) {
		var writes []Assignment
		if s.Write != nil {
			writes = s.Write.Values
		}
		if s.Pulse != nil {
			writes = append(slices.Clone(writes), Assignment{s.Pulse.Point, s.Pulse.Value}, Assignment{s.Pulse.Point, s.Pulse.BackTo})
		}
		for _, w := range writes {
			if p := o.device.point(w.Point); w.Value == "$"+param && p != nil && p.Secret {
				return true
			}
		}
	}
	return false
}

// operand is what a typed parameter is in an expression.
func (p *Param) operand() Operand {
	switch p.Type {
	case "bool":
		return Operand{Kind: TruthOperand}
	case "string":
		return Operand{Kind: WordOperand, Labels: p.Values}
	}
	return Operand{Kind: NumberOperand}
}

// stepCompiler keeps the first error.
type stepCompiler struct {
	operator *operator
	command  *command
	scope    map[string]Operand
	place    *time.Location
	err      error
}

func (c *stepCompiler) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

func (c *stepCompiler) demand(e *Expression) *demand {
	cond, err := c.operator.bus.compileDemand(c.operator.device, e, c.scope, c.place)
	if err != nil {
		c.fail("%w", err)
	}
	return cond
}

func (c *stepCompiler) steps(list []*Step) []*step {
	var out []*step
	for _, s := range list {
		st := &step{Step: s}
		if s.Write != nil {
			st.writes = c.writes(s.Write)
		}
		if s.Pulse != nil {
			st.pulse = &pulse{on: c.assign(s.Pulse.Point, s.Pulse.Value), off: c.assign(s.Pulse.Point, s.Pulse.BackTo)}
			if s.Pulse.Until != nil {
				st.pulse.until = c.demand(s.Pulse.Until)
			}
		}
		if s.Expect != nil {
			st.expect = c.demand(s.Expect)
		}
		if s.Call != nil {
			st.call = c.args(s.Call.Args)
		}
		out = append(out, st)
	}
	return out
}

func (c *stepCompiler) writes(a *Assignments) []assigned {
	var out []assigned
	if a.Params {
		for _, p := range c.command.params {
			out = append(out, assigned{point: p.point, param: p.ID})
			if p.point == nil {
				c.fail("parameter %s is no point", p.ID)
			}
		}
	}
	for _, w := range a.Values {
		out = append(out, c.assign(w.Point, w.Value))
	}
	return out
}

func (c *stepCompiler) assign(point, text string) assigned {
	a := assigned{point: c.operator.device.point(point)}
	if a.point == nil {
		c.fail("there is no point %s", point)
		return a
	}
	if name, ok := strings.CutPrefix(text, "$"); ok {
		a.param = name
		return a
	}
	var err error
	if a.value, err = a.point.Fit(TextValue(text)); err != nil {
		c.fail("%w", err)
	}
	return a
}

func (c *stepCompiler) args(list []string) []arg {
	var out []arg
	for _, text := range list {
		if name, ok := strings.CutPrefix(text, "$"); ok {
			out = append(out, arg{param: name})
			continue
		}
		value := numberOf(text)
		switch {
		case text == "true" || text == "false":
			value = BoolValue(text == "true")
		case value.kind == None:
			value = TextValue(text)
		}
		out = append(out, arg{value: value})
	}
	return out
}

// fit turns what came into the values of the parameters, or says why not.
func (c *command) fit(given []Asked) (map[string]Value, error) {
	values := make(map[string]Value, len(c.params))
	for i := range given {
		p := c.param(given[i].Name)
		if p == nil {
			return nil, fmt.Errorf("%s has no parameter %s", c.ID, short(given[i].Name))
		}
		v, err := p.fit(given[i].Value)
		if err != nil {
			return nil, err
		}
		values[p.ID] = v
	}
	for _, p := range c.params {
		if _, ok := values[p.ID]; ok {
			continue
		}
		if p.Default == "" {
			return nil, fmt.Errorf("parameter %s is missing", p.ID)
		}
		v, err := p.fit(TextValue(p.Default))
		if err != nil {
			return nil, err
		}
		values[p.ID] = v
	}
	return values, nil
}

func (c *command) param(name string) *param {
	for _, p := range c.params {
		if p.ID == name {
			return p
		}
	}
	return nil
}

// fit holds type and limits of a parameter, as those of a point.
func (p *param) fit(asked Value) (Value, error) {
	if p.point != nil {
		return p.point.Fit(asked)
	}
	like := &Point{Definition: &Definition{ID: p.ID, Secret: p.secret, Min: p.Min, Max: p.Max, Type: map[string]Type{"float": Float64, "int": Int64, "bool": Bool, "string": String}[p.Type]}}
	number := asked
	if asked.kind == Text {
		number = numberOf(asked.text)
	}
	v, err := like.Fit(asked)
	switch {
	case err != nil:
		return Value{}, err
	case p.Type == "int" && number.Float() != math.Trunc(number.Float()):
		return Value{}, fmt.Errorf("%s %s is no whole number", p.ID, like.show(asked))
	case len(p.Values) > 0 && !slices.Contains(p.Values, v.String()):
		return Value{}, fmt.Errorf("%s %s is none of %s", p.ID, like.show(v), strings.Join(p.Values, ", "))
	}
	return v, nil
}

// value is what an assignment writes, with the parameters of a call.
func (a *assigned) fit(with map[string]Value) (Value, error) {
	if a.param == "" {
		return a.value, nil
	}
	return a.point.Fit(with[a.param])
}

// assignments are all the writes of a command, those of on_fail too.
func (c *command) assignments() []*assigned {
	var all []*assigned
	for _, list := range [][]*step{c.steps, c.onFail} {
		for _, s := range list {
			for i := range s.writes {
				all = append(all, &s.writes[i])
			}
			if s.pulse != nil {
				all = append(all, &s.pulse.on, &s.pulse.off)
			}
		}
	}
	return all
}

// weigh makes all checks that need no bus: nothing is written before all of
// them hold.
func (c *command) weigh(who string, given []Asked) (map[string]Value, error) {
	d := c.operator.office
	if c.locked {
		return nil, fmt.Errorf("%s is locked on %s by the site file", c.ID, c.operator.device.Name)
	}
	if err := d.open(who, c.operator.device); err != nil {
		return nil, err
	}
	with, err := c.fit(given)
	if err != nil {
		return nil, err
	}
	for _, a := range c.assignments() {
		if err := d.allowed(who, a.point, true); err != nil {
			return nil, err
		}
		if _, err := a.fit(with); err != nil {
			return nil, err
		}
	}
	return with, nil
}
