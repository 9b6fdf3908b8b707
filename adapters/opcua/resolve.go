package opcua

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

// node is a point's place in the server of one session.
type node struct {
	*place
	id     *ua.NodeID
	typ    ua.TypeID        // the built-in type, for writing; Null while it is not known
	labels map[int64]string // of an enumeration, by the server
	why    string           // why it can't be asked; "" where it can
}

// resolve finds the nodes of all points in this session: the numbers of
// namespaces and the nodes of paths may be others in the next one.
func (s *session) resolve(ctx context.Context) error {
	s.nodes = make(map[*gateway.Point]*node, len(s.places))
	var points []*gateway.Point
	for _, d := range s.devices {
		points = append(points, d.Points...)
	}
	return s.find(ctx, points)
}

// find looks for the nodes of points.
func (s *session) find(ctx context.Context, points []*gateway.Point) error {
	var all, paths, asked []*node
	for _, p := range points {
		n := &node{place: s.places[p]}
		all = append(all, n)
		s.locate(n)
		if n.address.Kind == 0 {
			paths = append(paths, n)
		}
		if p.Access != "r" || p.Type == gateway.String || n.address.Literal != "" {
			asked = append(asked, n)
		}
	}
	if err := s.follow(ctx, paths); err != nil {
		return fmt.Errorf("find nodes by their paths: %w", words(err))
	}
	if err := s.learnTypes(ctx, asked); err != nil {
		return fmt.Errorf("ask for the types of nodes: %w", words(err))
	}
	s.finding.Lock()
	defer s.finding.Unlock()
	for i, p := range points {
		s.nodes[p] = all[i]
	}
	return nil
}

// locate gives a node its identifier in this session.
func (s *session) locate(n *node) {
	index, ok := s.namespace(&n.address)
	switch {
	case !ok:
		n.why = "the server has no namespace " + n.address.URI
	case n.address.Kind != 0:
		n.id = n.address.nodeID(index, true)
	}
}

// namespace is the number of an address's namespace in this session.
func (s *session) namespace(a *Address) (uint16, bool) {
	if a.URI == "" {
		return uint16(a.Index), true
	}
	s.finding.RLock()
	defer s.finding.RUnlock()
	i := slices.Index(s.namespaces, a.URI)
	return uint16(max(i, 0)), i >= 0
}

// learnTypes asks for the types of nodes: for those that are written, and
// whether a literal identifier exists. Enumerations give their labels.
func (s *session) learnTypes(ctx context.Context, nodes []*node) error {
	types, err := s.typesOf(ctx, nodes)
	if err != nil {
		return err
	}
	var plain []int // where no node has the literal identifier
	for i, n := range nodes {
		if n.address.Literal == "" || n.id == nil {
			continue
		}
		if types[i] == nil {
			index, _ := s.namespace(&n.address)
			n.id = n.address.nodeID(index, false)
			plain = append(plain, i)
			continue
		}
		whole := *n.place
		whole.address.Range = "" // the brackets are part of the identifier
		n.place = &whole
	}
	again := make([]*node, len(plain))
	for k, i := range plain {
		again[k] = nodes[i]
	}
	found, err := s.typesOf(ctx, again)
	if err != nil {
		return err
	}
	for k, i := range plain {
		types[i] = found[k]
	}
	return s.setTypes(ctx, nodes, types)
}

func (s *session) setTypes(ctx context.Context, nodes []*node, types []*ua.NodeID) error {
	byType := make(map[string]*dataType)
	for i, n := range nodes {
		known := &dataType{}
		if types[i] != nil {
			var err error
			if known = byType[types[i].String()]; known == nil {
				if known, err = s.dataType(ctx, types[i]); err != nil {
					return err
				}
				byType[types[i].String()] = known
			}
		}
		n.typ = cmp.Or(known.builtIn, usualType[n.point.Type])
		if n.point.Type == gateway.String && len(n.point.Enum) == 0 {
			n.labels = known.labels
		}
	}
	return nil
}

// usualType is what a point's type is in OPC UA, where the server does not say.
var usualType = map[gateway.Type]ua.TypeID{
	gateway.Bool: ua.TypeIDBoolean, gateway.Int8: ua.TypeIDSByte, gateway.Int16: ua.TypeIDInt16, gateway.Int32: ua.TypeIDInt32, gateway.Int64: ua.TypeIDInt64,
	gateway.Uint8: ua.TypeIDByte, gateway.Uint16: ua.TypeIDUint16, gateway.Uint32: ua.TypeIDUint32, gateway.Uint64: ua.TypeIDUint64,
	gateway.Float32: ua.TypeIDFloat, gateway.Float64: ua.TypeIDDouble, gateway.String: ua.TypeIDString, gateway.Bytes: ua.TypeIDByteString, gateway.Time: ua.TypeIDDateTime,
}

// typesOf reads the data type of each node; nil where there is none.
func (s *session) typesOf(ctx context.Context, nodes []*node) ([]*ua.NodeID, error) {
	types := make([]*ua.NodeID, len(nodes))
	var reads []*ua.ReadValueID
	var slots []int
	for i, n := range nodes {
		if n.id != nil {
			reads = append(reads, readOf(n.id, ua.AttributeIDDataType, ""))
			slots = append(slots, i)
		}
	}
	values, err := s.readAll(ctx, reads)
	for k, v := range values {
		types[slots[k]], _ = v.Value.Value().(*ua.NodeID)
	}
	return types, err
}

// dataType is what a type of the server is built on.
type dataType struct {
	builtIn ua.TypeID
	labels  map[int64]string
}

// deepestType is how far a type may be derived from a built-in one.
const deepestType = 10

// dataType follows a type to the built-in one that it is derived from.
func (s *session) dataType(ctx context.Context, own *ua.NodeID) (*dataType, error) {
	typ := own
	for range deepestType {
		if n := typ.IntID(); typ.Namespace() == 0 && typ.Type() <= ua.NodeIDTypeNumeric {
			switch {
			case n == id.Enumeration:
				labels, err := s.labels(ctx, own)
				return &dataType{builtIn: ua.TypeIDInt32, labels: labels}, err
			case n >= id.Boolean && n < id.BaseDataType:
				return &dataType{builtIn: ua.TypeID(n)}, nil
			case n <= id.UInteger:
				return &dataType{}, nil // abstract: any number
			}
		}
		answer, err := ask[ua.BrowseResponse](ctx, s, browseOf(typ, id.HasSubtype, ua.BrowseDirectionInverse))
		switch {
		case err != nil && !refused(err):
			return nil, err
		case err != nil || len(answer.Results) != 1 || len(answer.Results[0].References) == 0:
			return &dataType{}, nil
		}
		typ = answer.Results[0].References[0].NodeID.NodeID
	}
	return &dataType{}, nil
}

// browseOf asks for the references of one type from a node.
func browseOf(node *ua.NodeID, reference uint32, direction ua.BrowseDirection) *ua.BrowseRequest {
	return &ua.BrowseRequest{
		View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)},
		NodesToBrowse: []*ua.BrowseDescription{{
			NodeID: node, BrowseDirection: direction, ReferenceTypeID: ua.NewNumericNodeID(0, reference), IncludeSubtypes: true, ResultMask: uint32(ua.BrowseResultMaskAll),
		}},
	}
}

// labels reads the labels of an enumeration from its EnumStrings or EnumValues.
func (s *session) labels(ctx context.Context, typ *ua.NodeID) (map[int64]string, error) {
	answer, err := ask[ua.BrowseResponse](ctx, s, browseOf(typ, id.HasProperty, ua.BrowseDirectionForward))
	if err != nil || len(answer.Results) != 1 {
		if refused(err) {
			err = nil
		}
		return nil, err
	}
	for _, r := range answer.Results[0].References {
		if r.BrowseName.Name != "EnumStrings" && r.BrowseName.Name != "EnumValues" {
			continue
		}
		values, err := s.readAll(ctx, []*ua.ReadValueID{readOf(r.NodeID.NodeID, ua.AttributeIDValue, "")})
		if err != nil {
			return nil, err
		}
		return enumLabels(values[0].Value.Value()), nil
	}
	return nil, nil
}

func enumLabels(v any) map[int64]string {
	labels := make(map[int64]string)
	switch v := v.(type) {
	case []*ua.LocalizedText:
		for i, text := range v {
			labels[int64(i)] = text.Text
		}
	case []*ua.ExtensionObject:
		for _, object := range v {
			if entry, ok := object.Value.(*ua.EnumValueType); ok {
				labels[entry.Value] = entry.DisplayName.Text
			}
		}
	}
	return labels
}
