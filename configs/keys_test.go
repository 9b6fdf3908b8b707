package configs_test

import (
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sluice/gateway"
	"sluice/gateway/site"

	"go.yaml.in/yaml/v4"
)

// TestExamplesShowEveryKey compares the keys that occur in the examples with
// those of the Go types that the site file is read into.
func TestExamplesShowEveryKey(t *testing.T) {
	language := keys{}
	language.declare(reflect.TypeFor[site.File]())
	for _, types := range undecoded {
		language.declare(types)
	}
	if len(language) < 200 {
		t.Fatalf("the language has %d keys only: %v", len(language), language)
	}
	shown := keys{}
	for _, path := range glob(t, "*.yaml") {
		shown.read(t, path, reflect.TypeFor[site.File]())
	}
	for _, path := range glob(t, "profiles/*.yaml") {
		shown.read(t, path, reflect.TypeFor[gateway.Profile]())
	}
	reference := keys{}
	reference.read(t, "reference.yaml", reflect.TypeFor[site.File]())
	for _, key := range slices.Sorted(maps.Keys(language)) {
		if !shown[key] {
			t.Errorf("no example has %s", key)
		}
		if !reference[key] {
			t.Errorf("reference.yaml does not explain %s", key)
		}
	}
}

// undecoded are the types of the values that the loader keeps as YAML nodes
// until it knows the profile, by the key that they stand behind.
var undecoded = map[string]reflect.Type{
	"profiles":  reflect.TypeFor[gateway.Profile](),
	"devices":   reflect.TypeFor[site.Device](),
	"instances": reflect.TypeFor[site.Placement](),
	"override":  reflect.TypeFor[gateway.Definition](),
}

// keys is a set of keys, as type.key.
type keys map[string]bool

// tags lists a struct's keys with the type of their values and the struct that
// they are declared in.
func tags(t reflect.Type, do func(owner reflect.Type, key string, value reflect.Type)) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, option, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if option == "inline" {
			tags(field.Type, do)
		} else if name != "" && name != "-" {
			do(t, name, field.Type)
		}
	}
}

// element is what a pointer, list or map is of.
func element(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map || t.Kind() == reflect.Array {
		t = t.Elem()
	}
	return t
}

// declare adds all keys of a type and of the types in it.
func (k keys) declare(t reflect.Type) {
	if t = element(t); t.Kind() != reflect.Struct || t == reflect.TypeFor[yaml.Node]() {
		return
	}
	tags(t, func(owner reflect.Type, key string, value reflect.Type) {
		if id := owner.Name() + "." + key; !k[id] {
			k[id] = true
			k.declare(value)
		}
	})
}

// read adds the keys of a file.
func (k keys) read(t *testing.T, path string, root reflect.Type) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var document yaml.Node
	if err := yaml.Load(text, &document); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	k.collect(document.Content[0], root)
}

// collect adds the keys of a node that is read into a type.
func (k keys) collect(n *yaml.Node, t reflect.Type) {
	switch {
	case n.Kind == yaml.SequenceNode:
		if t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		for _, item := range n.Content {
			k.collect(item, t)
		}
	case n.Kind != yaml.MappingNode:
	case isNamed(t):
		for i := 1; i < len(n.Content); i += 2 {
			k.collect(n.Content[i], element(t))
		}
	case element(t).Kind() == reflect.Struct:
		tags(element(t), func(owner reflect.Type, key string, value reflect.Type) {
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value != key {
					continue
				}
				k[owner.Name()+"."+key] = true
				if element(value) == reflect.TypeFor[yaml.Node]() {
					value = replace(value, undecoded[key])
				}
				k.collect(n.Content[i+1], value)
			}
		})
	}
}

// replace puts another element into a list or map type.
func replace(t, element reflect.Type) reflect.Type {
	if t.Kind() == reflect.Map {
		return reflect.MapOf(t.Key(), element)
	}
	return reflect.SliceOf(element)
}

// isNamed tells whether a mapping that is read into the type has free names,
// not keys, before its values.
func isNamed(t reflect.Type) bool {
	return t.Kind() == reflect.Map || t.Kind() == reflect.Slice && element(t).Kind() == reflect.Struct
}
