//go:build !lean

package sim

import (
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	library "github.com/awcullen/opcua/server"
	"github.com/awcullen/opcua/ua"

	"sluice/adapters/opcua"
	"sluice/gateway"
)

// space is the address space of a simulated OPC UA server: the nodes that the
// points of its devices name, the objects that lead there and the methods that
// commands call. It outlives the library's servers, which are made of it.
type space struct {
	elapsed func() time.Duration
	log     *slog.Logger

	uris     []string                  // of the namespaces, by index
	standard *library.NamespaceManager // while it is filled
	objects  []place                   // parents first
	known    map[ua.NodeID]bool        // of all objects and variables
	nodes    map[ua.NodeID]*node
	ordered  []*node
	methods  []*method

	mu sync.Mutex // of values and calls
}

// place is where something stands in the address space.
type place struct {
	id     ua.NodeID
	name   ua.QualifiedName
	parent ua.NodeID
}

const own = 1 // namespace of the server itself

func newSpace(elapsed func() time.Duration) *space {
	return &space{elapsed: elapsed, known: make(map[ua.NodeID]bool), nodes: make(map[ua.NodeID]*node)}
}

// fill makes the nodes of the devices on a bus. What a server has anyway, as
// the standard says, is not made again.
func (s *space) fill(bus *gateway.Bus, devices []*gateway.Device, standard *library.NamespaceManager, o Options) error {
	s.log, s.standard = o.Log.With("bus", bus.Name), standard
	s.uris = slices.Clone(standard.NamespaceUris())
	for _, d := range devices {
		if d.Bus != bus || d.Disabled {
			continue
		}
		for _, p := range d.Points {
			if err := s.addPoint(p); err != nil {
				return fmt.Errorf("device %s: point %s: %w", d.Name, p.ID, err)
			}
		}
		if err := s.addMethods(d); err != nil {
			return fmt.Errorf("device %s: %w", d.Name, err)
		}
		s.relate(d)
	}
	for _, n := range s.ordered {
		if n.parent == nil {
			n.place = s.lead(n.id, n.parts[0].point.Device.Name, n.parts[0].point.ID)
		}
	}
	for _, m := range s.methods {
		s.leadMethod(m)
	}
	s.begin(o)
	s.standard = nil
	return nil
}

// addPoint puts a point into its node.
func (s *space) addPoint(p *gateway.Point) error {
	a, err := parsePlace(p)
	if err != nil {
		return err
	}
	first, length, err := elementsOf(a, p.Definition)
	if err != nil {
		return err
	}
	kind, err := kindOf(p.Definition)
	if err != nil {
		return err
	}
	at, err := s.locate(a)
	if err != nil {
		return err
	}
	if _, there := s.standard.FindNode(at.id); there {
		return nil
	}
	n := s.nodes[at.id]
	if n == nil {
		n = &node{place: at, kind: kind, length: length, changed: time.Now()}
		s.nodes[at.id], s.known[at.id] = n, true
		s.ordered = append(s.ordered, n)
	}
	if n.kind, err = wider(n.kind, kind); err != nil {
		return err
	}
	if (n.length > 0) != (length > 0) {
		return fmt.Errorf("node %s can't be both an array and a single value", at.id)
	}
	n.length = max(n.length, length)
	n.writable = n.writable || p.Access == "rw" || p.Access == "w"
	part, err := newPart(p, first)
	if err != nil {
		return err
	}
	part.node = n
	n.parts = append(n.parts, part)
	return nil
}

func parsePlace(p *gateway.Point) (opcua.Address, error) {
	if p.Browse != "" {
		return opcua.ParseBrowse(p.Browse, p.Device.Profile.Namespace)
	}
	return opcua.ParseNode(p.Node, p.Device.Profile.Namespace)
}

// elementsOf is where a point begins in an array, and how long that is at
// least; 0 and 0 for a single value.
func elementsOf(a opcua.Address, d *gateway.Definition) (first, length int, err error) {
	if a.Range == "" {
		return 0, d.Count, nil
	}
	low, high, isRange := strings.Cut(a.Range, ":")
	first, err = strconv.Atoi(low)
	last := first
	if err == nil && isRange {
		last, err = strconv.Atoi(high)
	}
	if err != nil || last < first || last-first+1 != max(1, d.Count) {
		return 0, 0, fmt.Errorf("elements [%s] with count: %d are not simulated", a.Range, d.Count)
	}
	return first, last + 1, nil
}

// relate joins points of a device to those that show what is written to them.
func (s *space) relate(d *gateway.Device) {
	for _, n := range s.ordered {
		for _, p := range n.parts {
			if p.point.Device != d {
				continue
			}
			if v := p.point.Verify; v != nil && v.From != "" {
				if other := s.find(d.Name, v.From); other != nil {
					p.shows = append(p.shows, other)
				}
			}
		}
	}
}

// begin gives every point its first value.
func (s *space) begin(o Options) {
	var parts []*part
	for _, n := range s.ordered {
		n.raw = make([]gateway.Value, max(1, n.length))
		for i := range n.raw {
			n.raw[i] = empty(n.kind)
		}
		slices.SortStableFunc(n.parts, func(a, b *part) int { return layer(a.point.Definition) - layer(b.point.Definition) })
		parts = append(parts, n.parts...)
	}
	for _, p := range parts {
		p.generate = newGenerator(p.point.Definition, scaling{}, o.seed(p.point))
		if err := p.put(p.generate(0)); err != nil {
			s.log.Warn("no value to simulate", "device", p.point.Device.Name, "point", p.point.ID, "error", err)
		}
	}
	for _, p := range parts {
		if len(p.shows) > 0 {
			p.node.keep(p.first, p.width())
		}
	}
}

func (s *space) find(device, point string) *part {
	for _, n := range s.ordered {
		for _, p := range n.parts {
			if p.point.Device.Name == device && p.point.ID == point {
				return p
			}
		}
	}
	return nil
}
