//go:build !lean

package sim

import (
	"fmt"
	"time"

	library "github.com/awcullen/opcua/server"
	"github.com/awcullen/opcua/ua"

	"sluice/gateway"
)

// build makes the nodes of the space in a server of the library.
func (s *space) build(l *library.Server) error {
	nodes := l.NamespaceManager()
	for i, uri := range s.uris {
		if index := nodes.Add(uri); int(index) != i {
			return fmt.Errorf("namespace %s is %d, not %d", uri, index, i)
		}
	}
	for _, o := range s.objects {
		made := library.NewObjectNode(l, o.id, o.name, ua.NewLocalizedText(o.name.Name, ""), ua.LocalizedText{}, nil, o.references(ua.ObjectTypeIDBaseObjectType), 0)
		if err := nodes.AddNode(made); err != nil {
			return err
		}
	}
	for _, n := range s.ordered {
		if err := nodes.AddNodes(s.buildVariable(l, n)...); err != nil {
			return err
		}
	}
	for _, m := range s.methods {
		if err := nodes.AddNodes(s.buildMethod(l, m)...); err != nil {
			return err
		}
	}
	return nil
}

// references lead to the type of a node, if it has one, and to its parent.
func (p *place) references(kind ua.NodeID) []ua.Reference {
	how := ua.ReferenceTypeIDHasComponent
	if p.parent == ua.ObjectIDObjectsFolder {
		how = ua.ReferenceTypeIDOrganizes
	}
	references := []ua.Reference{ua.NewReference(how, true, ua.NewExpandedNodeID(p.parent))}
	if kind != nil {
		references = append(references, ua.NewReference(ua.ReferenceTypeIDHasTypeDefinition, false, ua.NewExpandedNodeID(kind)))
	}
	return references
}

// buildVariable makes the library's nodes of a variable: with the properties
// that its point gives it.
func (s *space) buildVariable(l *library.Server, n *node) []library.Node {
	d := n.parts[0].point.Definition
	kind, properties := describe(l, n, d)
	rank, dimensions, access := ua.ValueRankScalar, []uint32(nil), ua.AccessLevelsCurrentRead
	if n.length > 0 {
		rank, dimensions = ua.ValueRankOneDimension, []uint32{uint32(n.length)}
	}
	if n.writable {
		access |= ua.AccessLevelsCurrentWrite
	}
	made := library.NewVariableNode(l, n.id, n.name, ua.NewLocalizedText(n.name.Name, ""), ua.NewLocalizedText(d.Label, ""), nil,
		n.references(kind), ua.DataValue{}, wireTypes[n.kind].id, rank, dimensions, access, 0, false, nil)
	made.SetReadValueHandler(func(_ *library.Session, r ua.ReadValueID) ua.DataValue { return s.read(n, r.IndexRange) })
	made.SetWriteValueHandler(func(_ *library.Session, w ua.WriteValue) (ua.DataValue, ua.StatusCode) {
		return s.write(n, w.Value.Value, w.IndexRange)
	})
	return append([]library.Node{made}, properties...)
}

// describe gives the type of a variable and its properties, by the point that
// it was made for: the words of an enum, a unit and a range.
func describe(l *library.Server, n *node, d *gateway.Definition) (kind ua.NodeID, properties []library.Node) {
	if layer(d) > 0 {
		return ua.VariableTypeIDBaseDataVariableType, nil
	}
	if len(d.Enum) > 0 {
		return describeEnum(l, n, d)
	}
	kind = ua.VariableTypeIDBaseDataVariableType
	if d.Unit != "" {
		kind = ua.VariableTypeIDBaseAnalogType
		unit := ua.EUInformation{NamespaceURI: "http://www.opcfoundation.org/UA/units/un/cefact", UnitID: -1, DisplayName: ua.NewLocalizedText(d.Unit, "")}
		properties = append(properties, property(l, n.id, "EngineeringUnits", unit, ua.DataTypeIDEUInformation))
	}
	limits, ranged := ua.Range{}, true
	switch {
	case d.Plausible != nil:
		limits = ua.Range{Low: d.Plausible.Low.Float, High: d.Plausible.High.Float}
	case d.Min != nil && d.Max != nil:
		limits = ua.Range{Low: d.Min.Float, High: d.Max.Float}
	default:
		ranged = false
	}
	if ranged {
		kind = ua.VariableTypeIDAnalogItemType
		properties = append(properties, property(l, n.id, "EURange", limits, ua.DataTypeIDRange))
	}
	return kind, properties
}

// describeEnum names the values: in a list, where they are 0, 1, 2 …
func describeEnum(l *library.Server, n *node, d *gateway.Definition) (ua.NodeID, []library.Node) {
	words := make([]ua.LocalizedText, len(d.Enum))
	pairs := make([]ua.ExtensionObject, len(d.Enum))
	counted := true
	for i, e := range d.Enum {
		words[i] = ua.NewLocalizedText(e.Label, "")
		pairs[i] = ua.EnumValueType{Value: e.Raw, DisplayName: words[i]}
		counted = counted && e.Raw == int64(i)
	}
	if counted {
		return ua.VariableTypeIDMultiStateDiscreteType, []library.Node{property(l, n.id, "EnumStrings", words, ua.DataTypeIDLocalizedText)}
	}
	return ua.VariableTypeIDMultiStateValueDiscreteType, []library.Node{property(l, n.id, "EnumValues", pairs, ua.DataTypeIDEnumValueType)}
}

// property makes a property of a node.
func property(l *library.Server, of ua.NodeID, name string, v ua.Variant, kind ua.NodeID) library.Node {
	rank := ua.ValueRankScalar
	switch v.(type) {
	case []ua.LocalizedText, []ua.ExtensionObject:
		rank = ua.ValueRankOneDimension
	}
	references := []ua.Reference{
		ua.NewReference(ua.ReferenceTypeIDHasProperty, true, ua.NewExpandedNodeID(of)),
		ua.NewReference(ua.ReferenceTypeIDHasTypeDefinition, false, ua.NewExpandedNodeID(ua.VariableTypeIDPropertyType)),
	}
	now := time.Now()
	return library.NewVariableNode(l, ua.NewNodeIDString(own, fmt.Sprintf("%v/%s", of, name)), ua.NewQualifiedName(0, name), ua.NewLocalizedText(name, ""), ua.LocalizedText{}, nil,
		references, ua.NewDataValue(v, ua.Good, now, 0, now, 0), kind, rank, nil, ua.AccessLevelsCurrentRead, 0, false, nil)
}
