package site

import (
	"fmt"
	"reflect"
	"slices"

	"sluice/gateway"

	"go.yaml.in/yaml/v4"
)

// unbuilt lists the keys of the language, as struct.key, whose feature the
// program does not have yet, with the values that work all the same. Such a key
// is read and checked like any other, and its first use is a warning. What gets
// built is taken out here.
var unbuilt = map[string][]string{
	"Cloud.quality": {"none"},
	"Cloud.status":  nil,
}

// noteUnbuilt keeps the first use of a key whose feature is not built yet.
func (l *loader) noteUnbuilt(src *source, t reflect.Type, k, value *yaml.Node) {
	id := t.Name() + "." + k.Value
	works, listed := unbuilt[id]
	if !listed && t == reflect.TypeFor[Device]() {
		for _, owner := range []string{"Placement", "Profile"} {
			if works, listed = unbuilt[owner+"."+k.Value]; listed {
				id = owner + "." + k.Value
				break
			}
		}
	}
	if !listed || value.Kind == yaml.ScalarNode && slices.Contains(works, value.Value) {
		return
	}
	if first, ok := l.unbuilt[id]; ok && (first.File != src.name || first.Line <= k.Line) {
		return
	}
	l.unbuilt[id] = src.diagnose(mark(k, value, works), gateway.Warning, unbuiltText(k.Value, value.Value, works), "")
}

func mark(k, value *yaml.Node, works []string) *yaml.Node {
	if len(works) > 0 && value.Kind == yaml.ScalarNode {
		return value
	}
	return k
}

func unbuiltText(key, value string, works []string) string {
	if len(works) > 0 && value != "" {
		return fmt.Sprintf("%s: %s is not built yet and has no effect", key, value)
	}
	return key + " is not built yet and has no effect"
}
