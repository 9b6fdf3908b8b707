//go:build !lean

package sim

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/awcullen/opcua/ua"

	"sluice/adapters/opcua"
)

// locate is where an address is on this server. What an identifier says of the
// way there is found out by lead, when all variables are known.
func (s *space) locate(a opcua.Address) (place, error) {
	if a.Kind == 0 {
		return s.walk(a)
	}
	id, err := s.identify(a)
	return place{id: id}, err
}

func (s *space) identify(a opcua.Address) (ua.NodeID, error) {
	index := s.index(a)
	if a.Kind == 'i' {
		n, err := strconv.ParseUint(a.ID, 10, 32)
		return ua.NewNodeIDNumeric(index, uint32(n)), err
	}
	// The library reads what is not a number or a text.
	switch id := ua.ParseNodeID(string(a.Kind) + "=" + a.ID).(type) {
	case ua.NodeIDGUID:
		return ua.NewNodeIDGUID(index, id.ID), nil
	case ua.NodeIDOpaque:
		return ua.NewNodeIDOpaque(index, id.ID), nil
	case ua.NodeIDString:
		return ua.NewNodeIDString(index, a.ID), nil
	}
	return nil, fmt.Errorf("%s is no identifier", a)
}

// index is the namespace of an address; one that the server has not yet is
// added.
func (s *space) index(a opcua.Address) uint16 {
	if a.URI == "" {
		for len(s.uris) <= a.Index {
			s.uris = append(s.uris, fmt.Sprintf("urn:sluice:sim:ns%d", len(s.uris)))
		}
		return uint16(a.Index)
	}
	i := slices.Index(s.uris, a.URI)
	if i < 0 {
		i = len(s.uris)
		s.uris = append(s.uris, a.URI)
	}
	return uint16(i)
}

// walk follows a browse path from the root, and makes the objects that are
// missing on it.
func (s *space) walk(a opcua.Address) (place, error) {
	at, index, way := place{id: ua.ObjectIDRootFolder}, uint16(own), ""
	if a.URI != "" {
		index = s.index(a)
	}
	for i, step := range a.Path {
		way += "/" + step.Text
		next, there := s.child(at.id, step)
		if !there {
			if i == 0 {
				return place{}, fmt.Errorf("%s is nowhere in a server: a path begins with /Objects", way)
			}
			ns := index
			if step.Index >= 0 {
				ns = s.index(opcua.Address{Index: step.Index})
			}
			next = place{ua.NewNodeIDString(ns, way), ua.NewQualifiedName(ns, step.Text), at.id}
			if i < len(a.Path)-1 {
				s.addObject(next)
			}
		}
		at = next
	}
	return at, nil
}

// child finds what stands under a node by its name: in our nodes or in the
// standard's.
func (s *space) child(parent ua.NodeID, step opcua.Name) (place, bool) {
	fits := func(name ua.QualifiedName) bool {
		return name.Name == step.Text && (step.Index < 0 || int(name.NamespaceIndex) == step.Index)
	}
	for _, o := range s.objects {
		if o.parent == parent && fits(o.name) {
			return o, true
		}
	}
	for _, n := range s.ordered {
		if n.parent == parent && fits(n.name) {
			return n.place, true
		}
	}
	from, ok := s.standard.FindNode(parent)
	if !ok {
		return place{}, false
	}
	for _, r := range from.References() {
		to, ok := s.standard.FindNode(ua.ToNodeID(r.TargetID, s.uris))
		if ok && !r.IsInverse && r.ReferenceTypeID != ua.ReferenceTypeIDHasTypeDefinition && fits(to.BrowseName()) {
			return place{to.NodeID(), to.BrowseName(), parent}, true
		}
	}
	return place{}, false
}

func (s *space) addObject(p place) {
	if _, there := s.standard.FindNode(p.id); !there && !s.known[p.id] {
		s.known[p.id] = true
		s.objects = append(s.objects, p)
	}
}

// symbolic is how an S7 identifies what stands in its data blocks.
var symbolic = regexp.MustCompile(`^"[^"]+"(\."[^"]+")*$`)

// lead makes the objects that an identifier names before its last part, as
// "DB"."Cycle"."Time" does. One that names none stands under its device.
func (s *space) lead(id ua.NodeID, device, name string) place {
	text, _ := id.(ua.NodeIDString)
	parts, separator := strings.Split(text.ID, "."), "."
	if symbolic.MatchString(text.ID) {
		parts = strings.SplitAfter(text.ID, `".`)
		separator = ""
	}
	if text.ID == "" || slices.Contains(parts, "") || len(parts) == 1 {
		under := place{ua.NewNodeIDString(own, device), ua.NewQualifiedName(own, device), ua.ObjectIDObjectsFolder}
		s.addObject(under)
		ns := uint16(own)
		if n, ok := id.(ua.NodeIDString); ok {
			ns, name = n.NamespaceIndex, strings.Trim(n.ID, `"`)
		}
		return place{id, ua.NewQualifiedName(ns, name), under.id}
	}
	at := place{parent: ua.ObjectIDObjectsFolder}
	for i := range parts {
		prefix := strings.TrimSuffix(strings.Join(parts[:i+1], separator), ".")
		at = place{ua.NewNodeIDString(text.NamespaceIndex, prefix), ua.NewQualifiedName(text.NamespaceIndex, strings.Trim(parts[i], `".`)), at.parent}
		if i < len(parts)-1 {
			s.addObject(at)
			at.parent = at.id
		}
	}
	return at
}
