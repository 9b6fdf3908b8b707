package site

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// spot is a node that a path led to: a key and its value, or an item of a list.
type spot struct {
	src        *source
	key, value *yaml.Node
	depth      int  // how many segments of the path were found
	exact      bool // all of them
}

// mark is the node to put a caret under: a value of one word, else its key.
func (s spot) mark() *yaml.Node {
	if s.exact && s.value != nil && s.value.Kind == yaml.ScalarNode && !isEmpty(s.value) || s.key == nil {
		return s.value
	}
	return s.key
}

// locate finds what a path in the resolved model means in the files. The
// deepest node on the way stands for what is not written.
func (l *loader) locate(path string) spot {
	segments := strings.Split(path, ".")
	root := spot{src: l.file, value: l.file.root}
	if segments[0] == "log" && len(segments) > 1 {
		segments = []string{"log", strings.Join(segments[1:], ".")} // bus.<name>
	}
	if len(segments) > 1 && segments[0] == "devices" {
		if o := l.origins[segments[1]]; o != nil {
			return l.inDevice(o, segments[2:])
		}
	}
	if len(segments) > 1 && segments[0] == "profiles" {
		if p := l.profiles[segments[1]]; p != nil {
			return p.spot().walk(segments[2:])
		}
	}
	return root.walk(segments)
}

// inDevice looks for a path in an instance, its entry in the list of devices
// and its profile; a point's key first in their overrides.
func (l *loader) inDevice(o *origin, path []string) spot {
	places := []spot{{src: l.file, value: o.instance}, {src: l.file, value: o.entry}}
	if o.instance == nil {
		places = places[1:]
	}
	if len(path) == 0 {
		return name(places[0])
	}
	var best spot
	consider := func(s spot) {
		if best.value == nil || s.depth > best.depth {
			best = s
		}
	}
	if path[0] == "profile" && len(path) > 1 && o.profile != nil {
		return o.profile.spot().walk(path[1:])
	}
	if path[0] == "points" {
		if o.profile != nil {
			consider(o.profile.spot().walk(path))
		}
		for _, p := range places {
			if s := p.walk(append([]string{"override"}, path[1:]...)); s.exact {
				return s
			}
		}
	}
	for _, p := range places {
		consider(p.walk(path))
	}
	if o.profile != nil {
		consider(o.profile.spot().walk(path))
	}
	if bus := child(o.entry, "bus"); best.depth == 0 && bus != nil && (path[0] == "timeout" || path[0] == "quiet") {
		if s := (spot{src: l.file, value: l.file.root}).walk([]string{"buses", bus.Value, path[0]}); s.exact {
			return s
		}
	}
	if best.depth == 0 {
		return name(places[0])
	}
	return best
}

// name is the name of a device, which stands for what it does not have.
func name(entry spot) spot {
	s := entry.walk([]string{"name"})
	if s.exact {
		s.key, s.exact = s.value, false
		return s
	}
	return firstKey(entry)
}

// firstKey stands for a map that has no key in front of it.
func firstKey(s spot) spot {
	if s.key == nil && s.value != nil && s.value.Kind == yaml.MappingNode && len(s.value.Content) > 0 {
		s.key = s.value.Content[0]
	}
	return s
}

// walk goes down a path as far as it is written.
func (s spot) walk(path []string) spot {
	s.depth = 0
	for _, segment := range path {
		next, ok := s.step(segment)
		if !ok {
			return firstKey(s)
		}
		next.depth = s.depth + 1
		s = next
	}
	s.exact = true
	return s
}

func (s spot) step(segment string) (spot, bool) {
	if s.value == nil {
		return s, false
	}
	content := s.value.Content
	switch s.value.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(content); i += 2 {
			if content[i].Value == segment {
				return spot{src: s.src, key: content[i], value: content[i+1]}, true
			}
		}
	case yaml.SequenceNode:
		i, err := strconv.Atoi(segment)
		if err == nil && i >= 0 && i < len(content) {
			return spot{src: s.src, value: content[i]}, true
		}
		for _, item := range content {
			if item.Kind == yaml.ScalarNode && item.Value == segment {
				return spot{src: s.src, value: item}, true
			}
		}
	}
	return s, false
}

// inside is the column of an offset (in characters) into the text of a scalar,
// when its text stands in the line as it is.
func (s *source) inside(n *yaml.Node, offset, width int) (int, bool) {
	if n == nil || n.Kind != yaml.ScalarNode || n.Column < 1 {
		return 0, false
	}
	column := n.Column
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		column++
	}
	runes := []rune(s.line(n.Line))
	if column-1+utf8.RuneCountInString(n.Value) > len(runes) ||
		string(runes[column-1:column-1+utf8.RuneCountInString(n.Value)]) != n.Value ||
		offset+width > utf8.RuneCountInString(n.Value) {
		return 0, false
	}
	return column + offset, true
}
