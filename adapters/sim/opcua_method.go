//go:build !lean

package sim

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	library "github.com/awcullen/opcua/server"
	"github.com/awcullen/opcua/ua"

	"sluice/adapters/opcua"
	"sluice/gateway"
)

// method is what a call step calls. It takes its arguments, keeps them, and
// does nothing.
type method struct {
	place
	object  ua.NodeID
	device  string
	command string
	inputs  []ua.Argument
	kinds   []gateway.Type
	calls   [][]gateway.Value
}

// addMethods makes the methods that the commands of a device call.
func (s *space) addMethods(d *gateway.Device) error {
	for _, c := range d.Commands {
		for _, step := range slices.Concat(c.Steps, c.OnFail) {
			if step.Call == nil {
				continue
			}
			m, err := s.newMethod(d, c, step.Call)
			if err != nil {
				return fmt.Errorf("command %s: %w", c.ID, err)
			}
			if !s.known[m.id] {
				s.known[m.id] = true
				s.methods = append(s.methods, m)
			}
		}
	}
	return nil
}

func (s *space) newMethod(d *gateway.Device, c *gateway.Command, call *gateway.Call) (*method, error) {
	m := &method{device: d.Name, command: c.ID}
	var err error
	if m.object, err = s.identifyText(call.Object, d); err != nil {
		return nil, err
	}
	if m.id, err = s.identifyText(call.Method, d); err != nil {
		return nil, err
	}
	for i, argument := range call.Args {
		kind := kindOfArgument(d, c, argument)
		m.kinds = append(m.kinds, kind)
		m.inputs = append(m.inputs, ua.Argument{Name: argumentName(argument, i), DataType: wireTypes[kind].id, ValueRank: ua.ValueRankScalar})
	}
	return m, nil
}

func (s *space) identifyText(text string, d *gateway.Device) (ua.NodeID, error) {
	a, err := opcua.ParseNode(fillIn(text, d.Vars), d.Profile.Namespace)
	if err != nil {
		return nil, err
	}
	return s.identify(a)
}

var variable = regexp.MustCompile(`\{[A-Za-z0-9_-]+\}`)

// fillIn puts the variables of a device into a text.
func fillIn(text string, vars map[string]string) string {
	return variable.ReplaceAllStringFunc(text, func(match string) string { return vars[strings.Trim(match, "{}")] })
}

func argumentName(argument string, i int) string {
	if name, ok := strings.CutPrefix(argument, "$"); ok {
		return name
	}
	return fmt.Sprintf("argument%d", i+1)
}

// kindOfArgument is the type that a PLC would give to an argument.
func kindOfArgument(d *gateway.Device, c *gateway.Command, argument string) gateway.Type {
	name, isParam := strings.CutPrefix(argument, "$")
	if !isParam {
		if _, err := strconv.ParseFloat(argument, 64); err == nil {
			return gateway.Float64
		} else if argument == "true" || argument == "false" {
			return gateway.Bool
		}
		return gateway.String
	}
	for _, p := range c.Params {
		if p.ID != name {
			continue
		}
		switch p.Type {
		case "float":
			return gateway.Float64
		case "int":
			return gateway.Int32
		case "bool":
			return gateway.Bool
		}
	}
	for _, p := range d.Points {
		if p.ID == name {
			if kind, err := kindOf(p.Definition); err == nil {
				return kind
			}
		}
	}
	return gateway.String
}

// leadMethod makes the object of a method, where it is none of the nodes yet.
func (s *space) leadMethod(m *method) {
	s.addObject(s.lead(m.object, m.device, "methods"))
	m.place = s.lead(m.id, m.device, m.command)
	m.parent = m.object
}

// call answers a client that calls a method.
func (s *space) call(m *method, r ua.CallMethodRequest) ua.CallMethodResult {
	switch {
	case r.ObjectID != m.object:
		return ua.CallMethodResult{StatusCode: ua.BadMethodInvalid}
	case len(r.InputArguments) < len(m.kinds):
		return ua.CallMethodResult{StatusCode: ua.BadArgumentsMissing}
	case len(r.InputArguments) > len(m.kinds):
		return ua.CallMethodResult{StatusCode: ua.BadTooManyArguments}
	}
	arguments := make([]gateway.Value, len(m.kinds))
	results := make([]ua.StatusCode, len(m.kinds))
	refused := false
	for i, a := range r.InputArguments {
		arguments[i] = value(a)
		if _, err := fit(m.kinds[i], arguments[i]); err != nil {
			results[i], refused = ua.BadTypeMismatch, true
		}
	}
	if refused {
		return ua.CallMethodResult{StatusCode: ua.BadInvalidArgument, InputArgumentResults: results}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.calls = append(m.calls, arguments)
	return ua.CallMethodResult{InputArgumentResults: results}
}

func (s *space) calls(device, command string) [][]gateway.Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.methods {
		if m.device == device && m.command == command {
			return slices.Clone(m.calls)
		}
	}
	return nil
}

// buildMethod makes the library's nodes of a method.
func (s *space) buildMethod(l *library.Server, m *method) []library.Node {
	node := library.NewMethodNode(l, m.id, m.name, ua.NewLocalizedText(m.name.Name, ""), ua.LocalizedText{}, nil, m.references(nil), true)
	node.SetCallMethodHandler(func(_ *library.Session, r ua.CallMethodRequest) ua.CallMethodResult { return s.call(m, r) })
	if len(m.inputs) == 0 {
		return []library.Node{node}
	}
	inputs := make([]ua.ExtensionObject, len(m.inputs))
	for i, a := range m.inputs {
		inputs[i] = a
	}
	return []library.Node{node, property(l, m.id, "InputArguments", inputs, ua.DataTypeIDArgument)}
}
