package opcua

import (
	"context"
	"fmt"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

var _ gateway.Caller = (*session)(nil)

// argument is what a method takes.
type argument struct {
	name string
	typ  ua.TypeID
}

// nodeOf finds a node that is written in a profile beside the points, with the
// variables of a device in it.
func (s *session) nodeOf(d *gateway.Device, text string) (*ua.NodeID, error) {
	a, err := parseFor(d, text)
	if err != nil {
		return nil, err
	}
	index, ok := s.namespace(&a)
	if !ok {
		return nil, fmt.Errorf("the server has no namespace %s", a.URI)
	}
	return a.nodeID(index, true), nil
}

// parseFor reads a node of a device.
func parseFor(d *gateway.Device, text string) (Address, error) {
	for name, value := range d.Vars {
		text = strings.ReplaceAll(text, "{"+name+"}", value)
	}
	return ParseNode(text, d.Profile.Namespace)
}

// Call calls a method once, with arguments of the types that the server says it
// takes.
func (s *session) Call(ctx context.Context, d *gateway.Device, object, method string, args []gateway.Value) ([]gateway.Value, error) {
	if err := s.over(); err != nil {
		return nil, err
	}
	what := "call " + method
	refuse := func(err error) error { return &gateway.WriteError{Err: fmt.Errorf("%s: %w", what, err)} }
	objectID, err := s.nodeOf(d, object)
	if err != nil {
		return nil, refuse(err)
	}
	methodID, err := s.nodeOf(d, method)
	if err != nil {
		return nil, refuse(err)
	}
	taken, err := s.arguments(ctx, methodID)
	if err != nil {
		if refused(err) {
			return nil, refuse(words(err))
		}
		return nil, s.losing(ctx, words(err))
	}
	inputs, err := inputsOf(taken, args)
	if err != nil {
		return nil, refuse(err)
	}
	answer, err := ask[ua.CallResponse](ctx, s, &ua.CallRequest{MethodsToCall: []*ua.CallMethodRequest{{ObjectID: objectID, MethodID: methodID, InputArguments: inputs}}})
	if err != nil {
		return nil, s.failWrite(ctx, what, err)
	}
	results, err := complete(answer.Results, 1)
	if err != nil {
		return nil, &gateway.WriteError{Err: fmt.Errorf("%s: %w", what, err), Unknown: true}
	}
	if err := refusal(what, results[0].StatusCode); err != nil {
		return nil, err
	}
	return outputsOf(results[0].OutputArguments)
}

// inputsOf makes the arguments of a call.
func inputsOf(taken []argument, args []gateway.Value) ([]*ua.Variant, error) {
	if len(taken) != len(args) {
		return nil, fmt.Errorf("the method takes %d arguments, not %d", len(taken), len(args))
	}
	inputs := make([]*ua.Variant, len(args))
	for i, a := range taken {
		v, ok := encodeAs(args[i], a.typ)
		if !ok {
			return nil, fmt.Errorf("argument %s is of type %s, which %s does not fit", a.name, typeName(a.typ), args[i])
		}
		var err error
		if inputs[i], err = ua.NewVariant(v); err != nil {
			return nil, err
		}
	}
	return inputs, nil
}

// outputsOf are the results of a call. One that can't be told is None: the
// call is done all the same.
func outputsOf(outputs []*ua.Variant) ([]gateway.Value, error) {
	values := make([]gateway.Value, len(outputs))
	for i, v := range outputs {
		if v != nil && !isArray(v.Value()) {
			values[i], _ = natural(v.Value())
		}
	}
	return values, nil
}

// arguments asks what a method takes, once in a session.
func (s *session) arguments(ctx context.Context, method *ua.NodeID) ([]argument, error) {
	if known, ok := s.methods[method.String()]; ok {
		return known, nil
	}
	answer, err := ask[ua.BrowseResponse](ctx, s, browseOf(method, id.HasProperty, ua.BrowseDirectionForward))
	if err != nil {
		return nil, err
	}
	results, err := complete(answer.Results, 1)
	if err != nil {
		return nil, err
	}
	if code := results[0].StatusCode; code>>30 >= 2 {
		return nil, code
	}
	var taken []argument
	for _, r := range results[0].References {
		if r.BrowseName.Name != "InputArguments" {
			continue
		}
		if taken, err = s.readArguments(ctx, r.NodeID.NodeID); err != nil {
			return nil, err
		}
	}
	if s.methods == nil {
		s.methods = make(map[string][]argument)
	}
	s.methods[method.String()] = taken
	return taken, nil
}

func (s *session) readArguments(ctx context.Context, property *ua.NodeID) ([]argument, error) {
	values, err := s.read(ctx, []*ua.ReadValueID{readOf(property, ua.AttributeIDValue, "")})
	if err != nil {
		return nil, err
	}
	objects, _ := values[0].Value.Value().([]*ua.ExtensionObject)
	taken := make([]argument, len(objects))
	for i, object := range objects {
		a, ok := object.Value.(*ua.Argument)
		if !ok {
			return nil, ua.StatusBadDecodingError
		}
		typ, err := s.dataType(ctx, a.DataType)
		if err != nil {
			return nil, err
		}
		taken[i] = argument{name: a.Name, typ: typ.builtIn}
	}
	return taken, nil
}
