package sim

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/awcullen/opcua/ua"

	"sluice/gateway"
)

// node is a variable of a simulated OPC UA server.
type node struct {
	place
	kind     gateway.Type    // of what it holds
	length   int             // of its array; 0 for a single value
	raw      []gateway.Value // elements
	parts    []*part         // points that are in it, whole values first
	fails    ua.StatusCode   // of any request for it; 0 for none
	changed  time.Time
	writable bool
}

// part is a point in its node: all of it, elements, or some bits.
type part struct {
	point      *gateway.Point
	conversion *gateway.Conversion
	node       *node
	first      int     // element
	shows      []*part // show what is written here
	generate   generator

	written bool // a client or Set did: it moves no more
	moved   time.Duration
}

func newPart(p *gateway.Point, first int) (*part, error) {
	conversion, err := gateway.NewConversion(p.Definition)
	return &part{point: p, conversion: conversion, first: first}, err
}

// width is how many elements the point has.
func (p *part) width() int { return max(1, p.point.Count) }

// put makes the node hold a value in engineering units.
func (p *part) put(v gateway.Value) error {
	raw, err := p.conversion.Raw(v, 0)
	if err == nil && p.point.Type == gateway.Flags {
		raw, err = packFlags(raw, p.point.Definition)
	}
	if err == nil && layer(p.point.Definition) > 0 {
		raw, err = mergeBits(p.point.Definition, p.load(), raw)
	}
	if err != nil {
		return err
	}
	elements := []gateway.Value{raw}
	if p.point.Count > 0 {
		elements = raw.List()
	}
	if len(elements) != p.width() {
		return fmt.Errorf("%d values, the point has %d", len(elements), p.width())
	}
	return p.node.store(p.first, elements)
}

// value is what the node holds, in engineering units.
func (p *part) value() (gateway.Value, gateway.Quality, string) {
	raw := p.load()
	if p.point.Type == gateway.Flags {
		raw = gateway.TextValue(flagNames(raw.Uint(), p.point.Definition))
	}
	return p.conversion.Engineering(raw, 0)
}

func (p *part) load() gateway.Value {
	if p.point.Count > 0 {
		return gateway.ListValue(slices.Clone(p.node.raw[p.first : p.first+p.point.Count]))
	}
	return p.node.raw[p.first]
}

// store puts raw values into elements.
func (n *node) store(first int, values []gateway.Value) error {
	if first < 0 || first+len(values) > len(n.raw) {
		return fmt.Errorf("%d values from [%d] on, the node has %d", len(values), first, len(n.raw))
	}
	fitting := make([]gateway.Value, len(values))
	for i, v := range values {
		var err error
		if fitting[i], err = fit(n.kind, v); err != nil {
			return err
		}
	}
	old := n.raw[first : first+len(values)]
	if !slices.EqualFunc(old, fitting, gateway.Value.Equal) {
		copy(old, fitting)
		n.changed = time.Now()
	}
	return nil
}

// update brings the points of a node up to date, but for what was written.
func (n *node) update(now time.Duration) {
	for _, p := range n.parts {
		if !p.written && p.moved != now {
			p.moved = now
			_ = p.put(p.generate(now)) // begin has told
		}
	}
}

// keep makes all that is in some elements stay as it is, and be shown where the
// site says.
func (n *node) keep(first, count int) {
	for _, p := range n.parts {
		if p.first >= first+count || first >= p.first+p.width() {
			continue
		}
		p.written = true
		for _, other := range p.shows {
			if v, quality, _ := p.value(); quality == gateway.Good && other != p && other.put(v) == nil {
				other.written = true
			}
		}
	}
}

// shared is a point of a space that may be worked on at any time.
type shared struct {
	space *space
	part  *part
}

func (s shared) set(v gateway.Value, now time.Duration) error {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	s.part.node.update(now)
	if err := s.part.put(v); err != nil {
		return err
	}
	s.part.node.keep(s.part.first, s.part.width())
	return nil
}

func (s shared) get(now time.Duration) (gateway.Value, gateway.Quality, string) {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	s.part.node.update(now)
	return s.part.value()
}

func (s shared) fail(code uint32) {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	s.part.node.fails = ua.StatusCode(code)
}

// read answers a client.
func (s *space) read(n *node, elements string) ua.DataValue {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	first, count, err := n.elements(elements)
	switch {
	case n.fails != 0:
		return ua.NewDataValue(nil, n.fails, now, 0, now, 0)
	case err != nil:
		return ua.NewDataValue(nil, ua.BadIndexRangeNoData, now, 0, now, 0)
	}
	n.update(s.elapsed())
	return ua.NewDataValue(variant(n.kind, n.raw[first:first+count], n.length > 0), ua.Good, n.changed, 0, now, 0)
}

// write takes what a client wrote, and gives what the node holds then.
func (s *space) write(n *node, v ua.Variant, elements string) (ua.DataValue, ua.StatusCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.fails != 0 {
		return ua.DataValue{}, n.fails
	}
	first, count, err := n.elements(elements)
	if err != nil {
		return ua.DataValue{}, ua.BadIndexRangeNoData
	}
	values := values(v)
	if len(values) != count {
		return ua.DataValue{}, ua.BadTypeMismatch
	}
	n.update(s.elapsed())
	if err := n.store(first, values); err != nil {
		return ua.DataValue{}, ua.BadTypeMismatch
	}
	n.keep(first, count)
	return ua.NewDataValue(v, ua.Good, n.changed, 0, time.Now(), 0), ua.Good
}

var errRange = errors.New("no such elements")

// elements reads a range of OPC UA: "", 3 or 0:4.
func (n *node) elements(text string) (first, count int, err error) {
	if text == "" {
		return 0, len(n.raw), nil
	}
	low, high, isRange := strings.Cut(text, ":")
	first, err = strconv.Atoi(low)
	last := first
	if isRange && err == nil {
		last, err = strconv.Atoi(high)
	}
	if err != nil || n.length == 0 || first < 0 || last < first || first >= n.length {
		return 0, 0, errRange
	}
	return first, min(last+1, n.length) - first, nil
}
