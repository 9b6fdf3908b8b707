package opcua

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

// Tree is a part of a server's address space.
type Tree struct {
	Namespaces []string `json:"namespaces"` // URIs by index
	Root       *Node    `json:"root"`
	Nodes      int      `json:"nodes"`
	Cut        bool     `json:"cut"` // there is more, beyond the most that was asked for
}

// Node is one node of a tree. What is about values only variables have.
type Node struct {
	Name     string              `json:"name"`
	Path     string              `json:"path"`      // as browse: takes it
	ID       string              `json:"node"`      // as node: takes it
	URI      string              `json:"namespace"` // of the identifier
	Index    int                 `json:"-"`         // of the namespace, in this session
	Class    string              `json:"class"`     // object, variable, method, view or type
	Type     string              `json:"type,omitempty"`
	Count    int                 `json:"count,omitempty"`  // elements of an array
	Access   string              `json:"access,omitempty"` // r, rw or w
	Value    string              `json:"value,omitempty"`
	Status   string              `json:"status,omitempty"` // why there is no value, or what is wrong with it
	Unit     string              `json:"unit,omitempty"`
	Range    *ua.Range           `json:"range,omitempty"`
	Labels   []gateway.EnumLabel `json:"labels,omitempty"`
	Point    gateway.Type        `json:"point,omitempty"`  // type of a point for it; "" where none fits
	Closed   bool                `json:"closed,omitempty"` // what is below was not looked at
	Children []*Node             `json:"children,omitempty"`

	id         *ua.NodeID
	properties map[string]*ua.NodeID
}

// BrowseOptions bound what Browse does.
type BrowseOptions struct {
	From     string      // path or node; "" for /Objects
	Depth    int         // levels below it; 0 is only itself
	Most     int         // nodes
	Progress func(n int) // told now and then how many nodes were found; may be nil
}

// Browse walks the address space of a server, parents before children and each
// node once, and reads the values of variables. It connects as the gateway
// does, with the same trust. The Server object is opened only when asked for:
// it has hundreds of nodes that are the same everywhere.
func Browse(ctx context.Context, env gateway.Env, bus *gateway.Bus, o BrowseOptions) (*Tree, error) {
	a, err := New(env, bus, nil)
	if err != nil {
		return nil, err
	}
	s, err := a.(*Adapter).connect(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	w := &walk{session: s, BrowseOptions: o, seen: make(map[string]bool)}
	root, err := w.begin(ctx)
	if err != nil {
		return nil, err
	}
	level := []*Node{root}
	for range o.Depth {
		if level, err = w.open(ctx, level); err != nil {
			return nil, fmt.Errorf("browse: %w", words(err))
		}
	}
	for _, n := range level {
		n.Closed = n.Class == "object"
	}
	if err := w.describe(ctx); err != nil {
		return nil, fmt.Errorf("read what was found: %w", words(err))
	}
	return &Tree{Namespaces: s.namespaces, Root: root, Nodes: len(w.all), Cut: w.cut}, nil
}

// walk is one Browse.
type walk struct {
	*session
	BrowseOptions
	seen map[string]bool
	all  []*Node
	cut  bool
}

// begin finds the node to begin at.
func (w *walk) begin(ctx context.Context) (*Node, error) {
	from := w.From
	if from == "" {
		from = "/Objects"
	}
	parse := ParseBrowse
	if !strings.HasPrefix(from, "/") {
		parse = ParseNode
	}
	address, err := parse(from, "")
	if err != nil {
		return nil, err
	}
	at := &node{place: &place{address: address}}
	if w.locate(at); address.Kind == 0 {
		if err := w.follow(ctx, []*node{at}); err != nil {
			return nil, fmt.Errorf("find %s: %w", from, words(err))
		}
	}
	if at.why != "" {
		return nil, fmt.Errorf("find %s: %s", from, at.why)
	}
	values, err := w.readAll(ctx, []*ua.ReadValueID{readOf(at.id, ua.AttributeIDNodeClass, ""), readOf(at.id, ua.AttributeIDBrowseName, "")})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", from, words(err))
	}
	class, ok := values[0].Value.Value().(int32)
	name, named := values[1].Value.Value().(*ua.QualifiedName)
	if !ok || !named {
		return nil, fmt.Errorf("read %s: %s", from, statusName(values[0].Status))
	}
	return w.add(at.id, name.Name, strings.TrimSuffix(from, "/"), ua.NodeClass(class)), nil
}

// add makes a node of the tree.
func (w *walk) add(at *ua.NodeID, name, path string, class ua.NodeClass) *Node {
	n := &Node{Name: name, Path: path, Index: int(at.Namespace()), Class: className(class), id: at}
	n.ID = at.String()
	if _, rest, ok := strings.Cut(n.ID, ";"); ok && strings.HasPrefix(n.ID, "ns=") {
		n.ID = rest
	}
	if n.Index < len(w.namespaces) {
		n.URI = w.namespaces[n.Index]
	}
	w.seen[at.String()] = true
	w.all = append(w.all, n)
	return n
}

func className(class ua.NodeClass) string {
	switch class {
	case ua.NodeClassObject, ua.NodeClassVariable, ua.NodeClassMethod, ua.NodeClassView:
		return strings.ToLower(strings.TrimPrefix(class.String(), "NodeClass"))
	}
	return "type"
}

// open finds what is below the nodes of one level.
func (w *walk) open(ctx context.Context, level []*Node) (next []*Node, err error) {
	level = slices.DeleteFunc(level, func(n *Node) bool {
		n.Closed = w.cut || n != w.all[0] && n.id.Namespace() == 0 && n.id.IntID() == id.Server
		return n.Closed || n.Class == "method" || n.Class == "type"
	})
	results, err := inChunks(level, &w.limits.browse, func(chunk []*Node) ([]*ua.BrowseResult, error) {
		return w.references(ctx, chunk)
	})
	if err != nil {
		return nil, err
	}
	for i, r := range results {
		for _, reference := range r.References {
			if n := w.take(level[i], reference); n != nil {
				next = append(next, n)
			}
		}
	}
	return next, nil
}

// references asks for the references of some nodes: all of them, in as many
// requests as the server makes of it.
func (w *walk) references(ctx context.Context, nodes []*Node) ([]*ua.BrowseResult, error) {
	request := &ua.BrowseRequest{View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)}}
	for _, n := range nodes {
		request.NodesToBrowse = append(request.NodesToBrowse, browseOf(n.id, id.HierarchicalReferences, ua.BrowseDirectionForward).NodesToBrowse...)
	}
	answer, err := ask[ua.BrowseResponse](ctx, w.session, request)
	if err != nil {
		return nil, err
	}
	results, err := complete(answer.Results, len(nodes))
	if err != nil {
		return nil, err
	}
	for i, r := range results {
		if r.StatusCode == ua.StatusBadNoContinuationPoints && len(nodes) > 1 {
			alone, err := w.references(ctx, nodes[i:i+1]) // others are done with by then
			if err != nil {
				return nil, err
			}
			results[i] = alone[0]
			continue
		}
		for point := r.ContinuationPoint; len(point) > 0; {
			more, err := ask[ua.BrowseNextResponse](ctx, w.session, &ua.BrowseNextRequest{ContinuationPoints: [][]byte{point}})
			if err != nil {
				return nil, err
			}
			rest, err := complete(more.Results, 1)
			if err != nil {
				return nil, err
			}
			r.References = append(r.References, rest[0].References...)
			point = rest[0].ContinuationPoint
		}
	}
	if w.Progress != nil {
		w.Progress(len(w.all))
	}
	return results, nil
}

// describing are the properties that say what a variable's value means.
var describing = []string{"EngineeringUnits", "EURange", "EnumStrings", "EnumValues", "InputArguments", "OutputArguments"}

// take adds what a reference leads to, once; nil where that is nothing new.
func (w *walk) take(parent *Node, r *ua.ReferenceDescription) *Node {
	if r.NodeID == nil || r.NodeID.NodeID == nil || r.NodeID.ServerIndex != 0 || r.BrowseName == nil || w.seen[r.NodeID.NodeID.String()] {
		return nil
	}
	at, name := r.NodeID.NodeID, r.BrowseName.Name
	if slices.Contains(describing, name) && r.BrowseName.NamespaceIndex == 0 {
		if parent.properties == nil {
			parent.properties = make(map[string]*ua.NodeID)
		}
		parent.properties[name] = at
		return nil
	}
	if len(w.all) >= w.Most {
		w.cut = true
		return nil
	}
	n := w.add(at, name, parent.Path+"/"+escape.Replace(name), r.NodeClass)
	parent.Children = append(parent.Children, n)
	return n
}

var escape = strings.NewReplacer("&", "&&", "/", "&/", ":", "&:")
