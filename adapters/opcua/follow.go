package opcua

import (
	"context"
	"fmt"
	"slices"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// step is one name below one node, for all the paths that go that way.
type step struct {
	from  *ua.NodeID
	name  Name
	own   uint16 // namespace that goes first where the name says none
	nodes []*node
	found map[uint16]*ua.NodeID // by the namespace of the name
}

// follow finds the nodes of browse paths, all of them name by name together. A
// name without a namespace is looked for in the profile's, then in the
// standard's, then in all others, where it must be in one alone.
func (s *session) follow(ctx context.Context, nodes []*node) error {
	for _, n := range nodes {
		if n.why == "" {
			n.id = ua.NewNumericNodeID(0, id.RootFolder)
		}
	}
	for depth := 0; ; depth++ {
		steps := s.steps(nodes, depth)
		if len(steps) == 0 {
			return nil
		}
		if err := s.translate(ctx, steps, func(t *step) []uint16 { return t.likely() }); err != nil {
			return err
		}
		open := slices.DeleteFunc(slices.Clone(steps), func(t *step) bool { return len(t.found) > 0 || t.name.Index >= 0 })
		if err := s.translate(ctx, open, func(t *step) []uint16 { return t.others(len(s.namespaces)) }); err != nil {
			return err
		}
		for _, t := range steps {
			t.settle()
		}
	}
}

// steps gathers what is to be looked for at a depth.
func (s *session) steps(nodes []*node, depth int) []*step {
	var steps []*step
	byName := make(map[string]*step)
	for _, n := range nodes {
		if n.why != "" || depth >= len(n.address.Path) {
			continue
		}
		own, _ := s.namespace(&n.address)
		name := n.address.Path[depth]
		key := fmt.Sprintf("%s\x00%s\x00%d", n.id, name, own)
		t := byName[key]
		if t == nil {
			t = &step{from: n.id, name: name, own: own, found: make(map[uint16]*ua.NodeID)}
			byName[key] = t
			steps = append(steps, t)
		}
		t.nodes = append(t.nodes, n)
	}
	return steps
}

// likely are the namespaces that are tried first.
func (t *step) likely() []uint16 {
	if t.name.Index >= 0 {
		return []uint16{uint16(t.name.Index)}
	}
	return slices.Compact([]uint16{t.own, 0})
}

// others are the rest of a server's namespaces.
func (t *step) others(count int) []uint16 {
	var rest []uint16
	for i := 1; i < count; i++ {
		if uint16(i) != t.own {
			rest = append(rest, uint16(i))
		}
	}
	return rest
}

// translate asks for the steps' names in some namespaces each.
func (s *session) translate(ctx context.Context, steps []*step, in func(*step) []uint16) error {
	type try struct {
		step  *step
		index uint16
	}
	var tries []try
	var paths []*ua.BrowsePath
	for _, t := range steps {
		for _, index := range in(t) {
			tries = append(tries, try{t, index})
			paths = append(paths, &ua.BrowsePath{StartingNode: t.from, RelativePath: &ua.RelativePath{Elements: []*ua.RelativePathElement{{
				ReferenceTypeID: ua.NewNumericNodeID(0, id.HierarchicalReferences), IncludeSubtypes: true,
				TargetName: &ua.QualifiedName{NamespaceIndex: index, Name: t.name.Text},
			}}}})
		}
	}
	results, err := inChunks(paths, &s.limits.translate, func(chunk []*ua.BrowsePath) ([]*ua.BrowsePathResult, error) {
		answer, err := ask[ua.TranslateBrowsePathsToNodeIDsResponse](ctx, s, &ua.TranslateBrowsePathsToNodeIDsRequest{BrowsePaths: chunk})
		if err != nil {
			return nil, err
		}
		return complete(answer.Results, len(chunk))
	})
	if err != nil {
		return err
	}
	for i, r := range results {
		if len(r.Targets) > 0 && r.Targets[0].TargetID.ServerIndex == 0 {
			tries[i].step.found[tries[i].index] = r.Targets[0].TargetID.NodeID
		}
	}
	return nil
}

// settle moves the paths on by what was found.
func (t *step) settle() {
	target, ok := t.found[t.own]
	if t.name.Index >= 0 {
		target, ok = t.found[uint16(t.name.Index)]
	}
	if !ok {
		target, ok = t.found[0]
	}
	why := ""
	switch {
	case ok:
	case len(t.found) == 1:
		for _, target = range t.found {
		}
	case len(t.found) == 0:
		why = fmt.Sprintf("there is no %s below %s", t.name, t.from)
	default:
		why = fmt.Sprintf("%s is in several namespaces: write it with the index of one, as 2:%s", t.name, t.name.Text)
	}
	for _, n := range t.nodes {
		if n.why = why; why == "" {
			n.id = target
		} else {
			n.id = nil
		}
	}
}
