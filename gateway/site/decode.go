package site

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"sluice/gateway"

	"go.yaml.in/yaml/v4"
)

// entryUnmarshaler is a mapping of scalars, or a list of words, that reads its
// entries in the order of the file.
type entryUnmarshaler interface {
	UnmarshalEntry(key, value string) error
}

// decoder reads the nodes of one source into Go values. It sets only what is
// written: a value decoded onto a copy of its defaults keeps the others.
type decoder struct {
	*loader
	src *source
}

func (d decoder) fail(n *yaml.Node, suggestion, format string, args ...any) {
	d.failures++
	d.report(d.src, n, gateway.Error, fmt.Sprintf(format, args...), suggestion)
}

var (
	nodeType     = reflect.TypeFor[*yaml.Node]()
	durationType = reflect.TypeFor[time.Duration]()
)

// value reads a node into v. key is the word in front of the node, f its field
// when it has one.
func (d decoder) value(n *yaml.Node, v reflect.Value, key string, f *field) {
	switch {
	case d.full():
		return
	case n.Kind == yaml.AliasNode:
		d.fail(n, "what devices share belongs in a profile", "aliases (*%s) are not part of this language", n.Value)
		return
	case n.Style&yaml.TaggedStyle != 0:
		d.fail(n, "leave the tag out: values are read as text", "tags (%s) are not part of this language", n.Tag)
		return
	case v.Type() == nodeType:
		v.Set(reflect.ValueOf(n))
		return
	case isEmpty(n):
		d.fail(n, "write a value, or leave the key out", "%s has no value", quote(key))
		if f != nil && v.Type() == reflect.TypeFor[gateway.Order]() {
			v.SetString(f.oneof[0]) // nothing more is to follow from it
		}
		return
	case v.Kind() == reflect.Pointer:
		d.pointer(n, v, key, f)
		return
	}
	switch n.Kind {
	case yaml.ScalarNode:
		d.scalar(n, v, key, f)
	case yaml.SequenceNode:
		d.sequence(n, v, key, f)
	case yaml.MappingNode:
		d.mapping(n, v, key, f)
	}
}

// isEmpty tells whether nothing is written behind a key.
func isEmpty(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Value == "" &&
		n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
}

// pointer reads into a copy of what v points to: others may share it.
func (d decoder) pointer(n *yaml.Node, v reflect.Value, key string, f *field) {
	fresh := newValue(v.Type().Elem())
	if !v.IsNil() {
		fresh.Elem().Set(v.Elem())
	}
	before := d.failures
	d.value(n, fresh.Elem(), key, f)
	if n.Kind == yaml.ScalarNode && d.failures > before {
		return // what can't be read counts as not written
	}
	v.Set(fresh)
}

// newValue makes a pointer to a value with its defaults.
func newValue(t reflect.Type) reflect.Value {
	v := reflect.New(t)
	if proto, ok := defaults[t]; ok {
		v.Elem().Set(reflect.ValueOf(proto))
	}
	return v
}

func (d decoder) scalar(n *yaml.Node, v reflect.Value, key string, f *field) {
	text := n.Value
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(text)); err != nil {
			d.fail(n, "", "%s: %s", key, err)
		}
		return
	}
	switch {
	case v.Type() == durationType:
		duration, err := gateway.ParseDuration(text)
		if err != nil {
			d.fail(n, "", "%s: %s", key, err)
			return
		}
		v.SetInt(int64(duration))
	case v.Kind() == reflect.String:
		if f != nil && len(f.oneof) > 0 && !contains(f.oneof, text) {
			d.fail(n, didYouMean(text, f.oneof), "%s is not %s: it is one of %s", quote(text), article(key), strings.Join(f.oneof, ", "))
			v.SetString(nearest(text, f.oneof)) // nothing more is to follow from it
			return
		}
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			d.fail(n, didYouMean(text, []string{"true", "false"}), "%s takes true or false, not %s", key, quote(text))
		}
		v.SetBool(text == "true")
	case v.CanInt():
		d.integer(n, v, key)
	default:
		d.fail(n, shape(v.Type()), "%s does not take a single value", quote(key))
	}
}

func (d decoder) integer(n *yaml.Node, v reflect.Value, key string) {
	i, err := gateway.ParseInt(n.Value)
	switch {
	case err != nil && strings.Count(n.Value, ",") == 1:
		d.fail(n, "", "%s: %s is not a whole number", key, quote(n.Value))
	case err != nil:
		d.fail(n, "", "%s: %s", key, err)
	case v.OverflowInt(i) || i > math.MaxInt32 || i < math.MinInt32:
		d.fail(n, "", "%s: %s is too large", key, n.Value)
	default:
		v.SetInt(i)
	}
}

func (d decoder) sequence(n *yaml.Node, v reflect.Value, key string, f *field) {
	if u, ok := v.Addr().Interface().(entryUnmarshaler); ok && v.Kind() == reflect.Map {
		v.SetZero()
		for _, item := range n.Content {
			if text, ok := d.text(item, key); !ok {
				continue
			} else if err := u.UnmarshalEntry(text, ""); err != nil {
				d.fail(item, didYouMean(text, gateway.OwnEventNames), "%s: %s", key, err)
			}
		}
		return
	}
	switch {
	case v.Kind() == reflect.Array:
		if len(n.Content) != v.Len() {
			d.fail(n, "", "%s takes %d values, not %d", key, v.Len(), len(n.Content))
			return
		}
		for i, item := range n.Content {
			d.value(item, v.Index(i), key, nil)
		}
	case v.Kind() == reflect.Slice && f != nil && f.keyed != "" && v.Type().Elem() == reflect.TypeFor[*gateway.Param]():
		d.names(n, v, key, f)
	case v.Kind() == reflect.Slice && (f == nil || f.keyed == "") && !isEntries(v):
		list := reflect.MakeSlice(v.Type(), 0, len(n.Content))
		for _, item := range n.Content {
			element := reflect.New(v.Type().Elem()).Elem()
			d.value(item, element, key, nil)
			if element.Kind() != reflect.Pointer || !element.IsNil() { // else it has been reported
				list = reflect.Append(list, element)
			}
		}
		v.Set(list)
	default:
		d.fail(n, shape(v.Type()), "%s does not take a list", quote(key))
	}
}

// names reads a list of names as elements that have nothing but their name.
func (d decoder) names(n *yaml.Node, v reflect.Value, key string, f *field) {
	v.SetZero()
	for _, item := range n.Content {
		if text, ok := d.text(item, key); ok {
			element := newValue(v.Type().Elem().Elem())
			element.Elem().FieldByName(f.keyed).SetString(text)
			v.Set(reflect.Append(v, element))
		}
	}
}

// text reads a scalar that is taken as it is.
func (d decoder) text(n *yaml.Node, key string) (string, bool) {
	var text string
	before := d.failures
	d.value(n, reflect.ValueOf(&text).Elem(), key, nil)
	return text, d.failures == before
}

func isEntries(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(entryUnmarshaler)
	return ok
}

func (d decoder) mapping(n *yaml.Node, v reflect.Value, key string, f *field) {
	switch {
	case isEntries(v) && v.Kind() != reflect.Map:
		d.entries(n, v, key)
	case v.Kind() == reflect.Slice && f != nil && f.keyed != "":
		d.keyed(n, v, f, reflect.Value{})
	case v.Kind() == reflect.Map && !isEntries(v):
		d.goMap(n, v, key)
	case v.Kind() == reflect.Struct && len(recordOf(v.Type()).fields) > 0:
		d.record(n, v, key)
	default:
		d.fail(n, shape(v.Type()), "%s does not take a map { }", quote(key))
	}
}

// entries reads a mapping of scalars in the order of the file.
func (d decoder) entries(n *yaml.Node, v reflect.Value, key string) {
	v.SetZero()
	u := v.Addr().Interface().(entryUnmarshaler)
	d.each(n, func(k, item *yaml.Node) {
		if text, ok := d.text(item, k.Value); ok {
			if err := u.UnmarshalEntry(k.Value, text); err != nil {
				d.fail(k, "", "%s: %s", key, err)
			}
		}
	})
}

// keyed reads a mapping of names to structs into a slice in the order of the
// file. parent is the struct that has the slice.
func (d decoder) keyed(n *yaml.Node, v reflect.Value, f *field, parent reflect.Value) {
	list := reflect.MakeSlice(v.Type(), 0, len(n.Content)/2)
	d.each(n, func(k, item *yaml.Node) {
		element := newValue(v.Type().Elem().Elem())
		if point, ok := element.Interface().(*gateway.Definition); ok && parent.IsValid() {
			*point = newPoint(parent.Addr().Interface().(*gateway.Profile))
		}
		element.Elem().FieldByName(f.keyed).SetString(k.Value)
		d.value(item, element.Elem(), k.Value, nil)
		list = reflect.Append(list, element)
	})
	v.Set(list)
}

func (d decoder) goMap(n *yaml.Node, v reflect.Value, key string) {
	t := v.Type()
	result := reflect.MakeMapWithSize(t, len(n.Content)/2)
	d.each(n, func(k, item *yaml.Node) {
		name, element := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		before := d.failures
		d.value(k, name, "a key of "+key, nil)
		d.value(item, element, k.Value, nil)
		if d.failures == before {
			result.SetMapIndex(name, element)
		}
	})
	v.Set(result)
}

// each goes through a mapping whose keys are free, and refuses doubles.
func (d decoder) each(n *yaml.Node, do func(key, value *yaml.Node)) {
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if !d.isKey(k) {
			continue
		}
		if first, ok := seen[k.Value]; ok {
			d.fail(k, "", "%s is here twice; the first is on line %d", quote(k.Value), first.Line)
			continue
		}
		seen[k.Value] = k
		if !d.cutByComma(n, i) {
			do(k, n.Content[i+1])
		}
	}
}

func (d decoder) isKey(k *yaml.Node) bool {
	switch {
	case k.Kind != yaml.ScalarNode:
		d.fail(k, "", "a key is a word, not a list, map or alias")
	case k.Tag == "!!merge" || k.Value == "<<":
		d.fail(k, "what devices share belongs in a profile", "merge keys (<<) are not part of this language")
	case k.Style&yaml.TaggedStyle != 0:
		d.fail(k, "leave the tag out: values are read as text", "tags (%s) are not part of this language", k.Tag)
	default:
		return true
	}
	return false
}

// record reads a mapping into a struct, field by field in the struct's order,
// so that a profile's defaults are known before its points.
func (d decoder) record(n *yaml.Node, v reflect.Value, key string) {
	r := recordOf(v.Type())
	var space [64]*yaml.Node
	values := space[:]
	if len(r.fields) > len(values) {
		values = make([]*yaml.Node, len(r.fields))
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, item := n.Content[i], n.Content[i+1]
		if d.full() {
			return
		}
		if !d.isKey(k) {
			continue
		}
		at, ok := r.byName[k.Value]
		switch {
		case !ok && !d.cutByComma(n, i):
			d.fail(k, didYouMean(k.Value, r.names), "unknown key %s%s", quote(k.Value), in(key))
		case ok && values[at] != nil:
			d.fail(k, "", "%s is here twice; the first is on line %d", quote(k.Value), values[at].Line)
		case ok:
			values[at] = item
		}
	}
	for i := range r.fields {
		if item := values[i]; item != nil {
			f := &r.fields[i]
			target := v.FieldByIndex(f.index)
			if f.keyed != "" && item.Kind == yaml.MappingNode {
				d.keyed(item, target, f, v.FieldByIndex(f.index[:len(f.index)-1]))
				continue
			}
			d.value(item, target, f.name, f)
		}
	}
}

// cutByComma finds a value that a comma of its own cut in two, and says so:
// { scale: 0,01 } is scale 0 and a key 01 without a value.
func (d decoder) cutByComma(n *yaml.Node, at int) bool {
	if at < 2 || n.Style&yaml.FlowStyle == 0 || !isEmpty(n.Content[at+1]) {
		return false
	}
	name, head, k := n.Content[at-2], n.Content[at-1], n.Content[at]
	switch {
	case head.Kind != yaml.ScalarNode:
		return false
	case isDigits(head.Value) && isDigits(k.Value):
		d.fail(head, fmt.Sprintf("write %s: %s.%s", name.Value, head.Value, k.Value), "%s: %s,%s has a decimal comma", name.Value, head.Value, k.Value)
	case strings.Count(head.Value, "(") > strings.Count(head.Value, ")"):
		d.fail(head, fmt.Sprintf(`write %s: "%s, %s"`, name.Value, head.Value, k.Value), "in a flow map { } a comma ends the value: an expression with a comma must be quoted")
	default:
		return false
	}
	return true
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(strings.TrimLeft(s, "+-"), "0123456789") == ""
}

func contains(list []string, word string) bool {
	for _, w := range list {
		if w == word {
			return true
		}
	}
	return false
}

// quote shows a word of the file, shortened when it is none.
func quote(s string) string {
	if runes := []rune(s); len(runes) > 60 {
		s = string(runes[:57]) + "…"
	}
	return strconv.Quote(s)
}

func article(key string) string {
	if strings.ContainsRune("aeiou", rune(key[0])) {
		return "an " + key
	}
	return "a " + key
}

func in(key string) string {
	if key == "" {
		return ""
	}
	return " in " + key
}

// shape shows how a value of a type is written.
func shape(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[gateway.Enum]():
		return "write { 0: stopped, 1: running }"
	case t == reflect.TypeFor[gateway.Ranges]():
		return "write a list: [0x8000, 0..3599]"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Pointer && t.Elem() != nodeType:
		return "write a map: { name: { … } }"
	case t.Kind() == reflect.Slice:
		return "write a list: [a, b]"
	case t.Kind() == reflect.Array:
		return "write a list of two: [0, 100]"
	case t.Kind() == reflect.Map:
		return "write a map: { key: value }"
	case t.Kind() == reflect.Struct && len(recordOf(t).names) > 0:
		return "write a map: { " + recordOf(t).names[0] + ": … }"
	}
	return "write a single value"
}
