package site_test

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/site"

	"github.com/invopop/jsonschema"
	"go.yaml.in/yaml/v4"
)

const schemaFile = "../../configs/site.schema.json"

// TestSchemaIsCurrent makes the schema from the Go types; with -update it
// writes the file.
func TestSchemaIsCurrent(t *testing.T) {
	got, err := json.MarshalIndent(schema(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(schemaFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(schemaFile)
	if err != nil || !bytes.Equal(have, got) {
		t.Errorf("%s is not what the types say (%v): go test ./gateway/site -run Schema -update", schemaFile, err)
	}
}

// structs are the structs of the language, in the order of the file.
var structs = []any{
	site.File{}, gateway.Profile{}, site.Device{}, site.Placement{}, gateway.Definition{},
}

func schema(t *testing.T) *jsonschema.Schema {
	comments := commentsOf(t, "..", ".")
	r := &jsonschema.Reflector{
		FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, Anonymous: true, Mapper: scalarSchema,
		LookupComment: func(t reflect.Type, field string) string {
			return comments[strings.TrimSuffix(t.Name()+"."+field, ".")]
		},
	}
	definitions := jsonschema.Definitions{}
	for _, s := range structs {
		for name, d := range r.Reflect(s).Definitions {
			definitions[name] = d
		}
	}
	for name, d := range definitions {
		t, ok := structTypes()[name]
		if !ok || d.Properties == nil {
			continue
		}
		finish(t, d, comments)
	}
	ref := func(name string) *jsonschema.Schema { return &jsonschema.Schema{Ref: "#/$defs/" + name} }
	whole := func(name string, required ...string) *jsonschema.Schema {
		return &jsonschema.Schema{AllOf: []*jsonschema.Schema{ref(name), {Required: required}}}
	}
	set := func(owner, key string, s *jsonschema.Schema) {
		old, _ := definitions[owner].Properties.Get(key)
		s.Description = old.Description
		definitions[owner].Properties.Set(key, s)
	}
	set("File", "profiles", mapOf(&jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"}, whole("Profile", "protocol", "points")}}))
	set("File", "devices", &jsonschema.Schema{Type: "array", Items: whole("Device", "bus")})
	set("Device", "instances", &jsonschema.Schema{Type: "array", Items: whole("Placement", "name")})
	for _, owner := range []string{"Device", "Placement"} {
		set(owner, "override", mapOf(ref("Definition")))
	}
	for _, owner := range []string{"Device", "Profile"} {
		set(owner, "points", mapOf(whole("Definition", "type")))
		set(owner, "commands", mapOf(whole("Command", "steps")))
	}
	set("Command", "params", &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "array", Items: text()}, mapOf(ref("Param"))}})
	definitions["Login"].Required = []string{"user", "password"}
	definitions["Identity"].Required = []string{"name"}
	definitions["Cloud"].Required = []string{"url", "backlog"}
	definitions["Bus"].Required = []string{"type"}
	root := definitions["File"]
	delete(definitions, "File")
	root.Required = []string{"version", "site", "cloud", "buses", "devices"}
	version, _ := root.Properties.Get("version")
	version.Const = 1
	root.Version, root.Title, root.Definitions = "http://json-schema.org/draft-07/schema#", "sluice site file", definitions
	return root
}

// structTypes finds every struct of the language by its name.
func structTypes() map[string]reflect.Type {
	all := map[string]reflect.Type{}
	var visit func(t reflect.Type)
	visit = func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || all[t.Name()] != nil || !strings.HasPrefix(t.PkgPath(), "sluice/") {
			return
		}
		all[t.Name()] = t
		for f := range t.Fields() {
			visit(f.Type)
		}
	}
	for _, s := range structs {
		visit(reflect.TypeOf(s))
	}
	return all
}

// finish says what the tags of a struct say: the words that a key takes, and
// which lists are written as maps. Keys come from inlined structs too.
func finish(t reflect.Type, d *jsonschema.Schema, comments map[string]string) {
	for f := range t.Fields() {
		name, option, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if option == "inline" {
			finish(f.Type, d, comments)
			continue
		}
		property, ok := d.Properties.Get(name)
		if !ok {
			continue
		}
		description := comments[t.Name()+"."+f.Name]
		if words := strings.Fields(f.Tag.Get("oneof")); len(words) > 0 {
			property = &jsonschema.Schema{Type: "string"}
			for _, w := range words {
				property.Enum = append(property.Enum, w)
			}
		} else if f.Tag.Get("keyed") != "" {
			property = mapOf(&jsonschema.Schema{Ref: "#/$defs/" + f.Type.Elem().Elem().Name()})
		} else if property.Ref != "" {
			property = &jsonschema.Schema{AllOf: []*jsonschema.Schema{{Ref: property.Ref}}} // editors of draft 7 skip what is beside $ref
		}
		property.Description = description
		d.Properties.Set(name, property)
	}
}

func mapOf(values *jsonschema.Schema) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "object", AdditionalProperties: values}
}

// text is a scalar that is taken as it is written.
func text() *jsonschema.Schema { return typed("", "string", "number", "boolean") }

// typed is a scalar of several types; the pattern holds for strings.
func typed(pattern string, types ...string) *jsonschema.Schema {
	s := &jsonschema.Schema{Pattern: pattern}
	for _, t := range types {
		s.AnyOf = append(s.AnyOf, &jsonschema.Schema{Type: t})
	}
	if len(types) == 1 {
		s.Type, s.AnyOf = types[0], nil
	}
	return s
}

const (
	number   = `[-+]?(0x[0-9A-Fa-f]+|[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?)`
	duration = `[0-9]+(\.[0-9]+)?(us|ms|s|m|h|d)`
)

func scalarSchema(t reflect.Type) *jsonschema.Schema {
	oneOf := func(words []string, others ...*jsonschema.Schema) *jsonschema.Schema {
		s := &jsonschema.Schema{Type: "string"}
		for _, w := range words {
			s.Enum = append(s.Enum, w)
		}
		return &jsonschema.Schema{AnyOf: append([]*jsonschema.Schema{s}, others...)}
	}
	object := func(t reflect.Type) *jsonschema.Schema {
		s := &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema}
		for f := range t.Fields() {
			if name := f.Tag.Get("yaml"); name != "" {
				value := scalarSchema(f.Type)
				if value == nil {
					value = text()
				}
				s.Properties.Set(name, value)
			}
		}
		return s
	}
	switch t {
	case reflect.TypeFor[time.Duration]():
		return typed("^"+duration+"$", "string")
	case reflect.TypeFor[gateway.Size]():
		return typed(`^[0-9]+(\.[0-9]+)?(B|kB|KB|MB|GB|KiB|MiB|GiB)$`, "string")
	case reflect.TypeFor[gateway.Decimal]():
		return typed("^"+number+"$", "number", "string")
	case reflect.TypeFor[gateway.Range]():
		return typed("^"+number+`(\.\.`+number+")?$", "number", "string")
	case reflect.TypeFor[gateway.BitRange]():
		return typed(`^[0-9]+\.\.[0-9]+$`, "string")
	case reflect.TypeFor[gateway.Deadband]():
		return typed("^"+number+" ?%?$", "number", "string")
	case reflect.TypeFor[gateway.Gap]():
		return typed("^(auto|[0-9]+)$", "integer", "string")
	case reflect.TypeFor[gateway.Rate]():
		return typed("^[0-9]+/("+duration+"|s|m|min|h|d)$", "string")
	case reflect.TypeFor[gateway.Span]():
		return typed("^("+duration+"|[0-9]+ *samples)$", "string")
	case reflect.TypeFor[gateway.Hold]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{scalarSchema(reflect.TypeFor[gateway.Span]()), object(t)}}
	case reflect.TypeFor[gateway.OwnEvents]():
		names := oneOf(gateway.OwnEventNames).AnyOf[0]
		return oneOf([]string{"none"}, &jsonschema.Schema{Type: "array", Items: names})
	case reflect.TypeFor[gateway.BusLogin]():
		return oneOf([]string{"anonymous"}, object(t))
	case reflect.TypeFor[gateway.Assignments]():
		return oneOf([]string{"params"}, mapOf(text()))
	case reflect.TypeFor[gateway.Body]():
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"}, mapOf(text())}}
	case reflect.TypeFor[gateway.Enum](), reflect.TypeFor[map[int]string]():
		return mapOf(text())
	case reflect.TypeFor[gateway.Expression](), reflect.TypeFor[string](), reflect.TypeFor[gateway.Secret]():
		return text()
	case reflect.TypeFor[yaml.Node]():
		return &jsonschema.Schema{}
	}
	return nil
}

// commentsOf reads the comments of types and fields.
func commentsOf(t *testing.T, folders ...string) map[string]string {
	comments := map[string]string{}
	for _, folder := range folders {
		files, err := filepath.Glob(folder + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				if spec, ok := n.(*ast.TypeSpec); ok {
					if s, ok := spec.Type.(*ast.StructType); ok {
						for _, f := range s.Fields.List {
							for _, name := range f.Names {
								comments[spec.Name.Name+"."+name.Name] = strings.TrimSpace(strings.ReplaceAll(f.Doc.Text(), "\n", " "))
							}
						}
					}
				}
				return true
			})
		}
	}
	return comments
}

func TestEveryKeyIsDescribed(t *testing.T) {
	var check func(path string, v any)
	check = func(path string, v any) {
		m, ok := v.(map[string]any)
		if !ok {
			return
		}
		for key, value := range m {
			if key == "properties" {
				for name, property := range value.(map[string]any) {
					if d, _ := property.(map[string]any)["description"].(string); d == "" && !strings.Contains(path, "login") && !strings.Contains(path, "for") {
						t.Errorf("%s.%s has no description", path, name)
					}
				}
			}
			check(path+"/"+key, value)
		}
	}
	check("", readSchema(t))
}

func readSchema(t *testing.T) map[string]any {
	content, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(content, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSchemaAcceptsTheExamples(t *testing.T) {
	files, err := filepath.Glob("../../configs/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	s := readSchema(t)
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if wrong := validate(s, s, generic(t, content)); wrong != "" {
			t.Errorf("%s: %s", file, wrong)
		}
	}
}

// bySchema are the planted mistakes that an editor with the schema underlines.
var bySchema = []string{
	"backlog-missing", "bool-yes", "bus-type-missing", "decimal-comma-block", "decimal-comma-flow",
	"decimal-comma-quoted", "duration-in-minutes", "duration-without-unit", "event-mistakes", "expression-comma-unquoted",
	"key-without-value", "list-instead-of-map", "override-unknown-key", "scalar-instead-of-list", "size-without-unit",
	"step-unknown-action", "type-missing", "unknown-key-manual-word", "unknown-key-point", "unknown-key-site",
	"unknown-key-top", "unknown-order", "unknown-type", "version-missing",
}

func TestSchemaRejectsMistakes(t *testing.T) {
	s := readSchema(t)
	files, err := filepath.Glob("testdata/mistakes/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var document any
		if yaml.Load(content, &document) != nil {
			continue // no YAML: the editor says so
		}
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		wrong := validate(s, s, generic(t, content))
		if listed := slices.Contains(bySchema, name); listed != (wrong != "") {
			t.Errorf("%s: listed %v, schema says %q", name, listed, wrong)
		}
	}
}

// generic reads YAML as JSON would have it.
func generic(t *testing.T, content []byte) any {
	var document any
	if err := yaml.Load(content, &document); err != nil {
		t.Fatal(err)
	}
	return jsonValue(document)
}
