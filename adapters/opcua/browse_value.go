package opcua

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

// described are the attributes of a variable that a tree shows.
var described = []ua.AttributeID{ua.AttributeIDDataType, ua.AttributeIDUserAccessLevel, ua.AttributeIDValue}

// describe reads the attributes of all variables that were found, and what
// their properties say.
func (w *walk) describe(ctx context.Context) error {
	var variables []*Node
	var reads []*ua.ReadValueID
	for _, n := range w.all {
		if n.Class == "variable" {
			variables = append(variables, n)
			for _, attribute := range described {
				reads = append(reads, readOf(n.id, attribute, ""))
			}
		}
	}
	values, err := w.readAll(ctx, reads)
	if err != nil {
		return err
	}
	types := make(map[string]*knownType)
	for i, n := range variables {
		of := values[i*len(described):]
		if err := w.describeType(ctx, n, of[0], types); err != nil {
			return err
		}
		n.Access = access(of[1])
		n.show(of[2])
		if w.Progress != nil && i%1000 == 999 {
			w.Progress(len(w.all))
		}
	}
	return w.describeProperties(ctx)
}

// knownType is a data type of the server.
type knownType struct {
	*dataType
	name string
}

func (w *walk) describeType(ctx context.Context, n *Node, v *ua.DataValue, types map[string]*knownType) error {
	typ, ok := v.Value.Value().(*ua.NodeID)
	if !ok {
		return nil
	}
	known := types[typ.String()]
	if known == nil {
		found, err := w.dataType(ctx, typ)
		if err != nil {
			return err
		}
		// Asked for standard types, too: the library's tables of all standard
		// names would take 1 MB of every gateway.
		names, err := w.readAll(ctx, []*ua.ReadValueID{readOf(typ, ua.AttributeIDBrowseName, "")})
		if err != nil {
			return err
		}
		known = &knownType{found, typ.String()}
		if name, ok := names[0].Value.Value().(*ua.QualifiedName); ok {
			known.name = name.Name
		}
		types[typ.String()] = known
	}
	n.Type, n.Point = known.name, pointType(known.builtIn)
	for raw, label := range known.labels {
		n.Labels = append(n.Labels, gateway.EnumLabel{Raw: raw, Label: label})
	}
	slices.SortFunc(n.Labels, func(a, b gateway.EnumLabel) int { return int(a.Raw - b.Raw) })
	return nil
}

// pointType is the type of a point for a built-in type; "" for what no point
// can hold, or not known.
func pointType(builtIn ua.TypeID) gateway.Type {
	for t, usual := range usualType {
		if usual == builtIn {
			return t
		}
	}
	switch builtIn {
	case ua.TypeIDLocalizedText, ua.TypeIDGUID, ua.TypeIDQualifiedName, ua.TypeIDNodeID, ua.TypeIDExpandedNodeID, ua.TypeIDXMLElement, ua.TypeIDStatusCode:
		return gateway.String
	}
	return ""
}

func access(v *ua.DataValue) string {
	level, _ := v.Value.Value().(byte)
	text := ""
	if level&1 != 0 {
		text += "r"
	}
	if level&2 != 0 {
		text += "w"
	}
	return text
}

// show takes the value of a variable.
func (n *Node) show(v *ua.DataValue) {
	if v.Status != ua.StatusOK {
		n.Status = statusName(v.Status)
	}
	value := v.Value.Value()
	if value == nil {
		return
	}
	if n.Point == "" {
		n.Point = pointType(v.Value.Type()) // an abstract type: any that fits
	}
	n.Count = elementCount(value)
	n.Value = text(value)
}

// elementCount is how many values an array has, over all its dimensions; 0 for a
// single one.
func elementCount(v any) int {
	if !isArray(v) {
		return 0
	}
	sum := 0
	for array, i := reflect.ValueOf(v), 0; i < array.Len(); i++ {
		sum += max(1, elementCount(array.Index(i).Interface()))
	}
	return sum
}

// text is a value of the library for people.
func text(v any) string {
	if !isArray(v) {
		raw, err := natural(v)
		if err != nil {
			return "…" // a structure: its fields are nodes, or nobody's
		}
		return raw.String()
	}
	array := reflect.ValueOf(v)
	elements := make([]string, array.Len())
	for i := range elements {
		elements[i] = text(array.Index(i).Interface())
	}
	return "[" + strings.Join(elements, ", ") + "]"
}

// describeProperties reads units, ranges and words.
func (w *walk) describeProperties(ctx context.Context) error {
	type property struct {
		of   *Node
		name string
	}
	var properties []property
	var reads []*ua.ReadValueID
	for _, n := range w.all {
		for _, name := range describing[:4] {
			if at := n.properties[name]; at != nil && n.Class == "variable" {
				properties = append(properties, property{n, name})
				reads = append(reads, readOf(at, ua.AttributeIDValue, ""))
			}
		}
	}
	values, err := w.readAll(ctx, reads)
	for i, v := range values {
		properties[i].of.takeProperty(properties[i].name, v.Value.Value())
	}
	for _, n := range w.all {
		n.label()
	}
	return err
}

func (n *Node) takeProperty(name string, v any) {
	if object, ok := v.(*ua.ExtensionObject); ok && object != nil {
		v = object.Value
	}
	switch v := v.(type) {
	case *ua.EUInformation:
		if v.DisplayName != nil {
			n.Unit = v.DisplayName.Text
		}
	case *ua.Range:
		if v.Low < v.High {
			n.Range = v
		}
	case []*ua.LocalizedText, []*ua.ExtensionObject:
		n.Labels = nil
		for raw, label := range enumLabels(v) {
			n.Labels = append(n.Labels, gateway.EnumLabel{Raw: raw, Label: label})
		}
		slices.SortFunc(n.Labels, func(a, b gateway.EnumLabel) int { return int(a.Raw - b.Raw) })
	}
}

// label puts the word of an enumeration behind its number.
func (n *Node) label() {
	for _, l := range n.Labels {
		if n.Value == fmt.Sprint(l.Raw) {
			n.Value += " " + l.Label
			return
		}
	}
}
