package gateway

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// allowed says which rooms of the house a room may import: arrows run one way,
// cmd → {adapters/*, gateway/{site,cloud,web}} → gateway → buffer. A room may
// use the rooms below it of the same branch; sim and twin are stand-ins.
var allowed = map[string][]string{
	"buffer":               {},
	"configs":              {},
	"gateway":              {"buffer"},
	"gateway/site":         {"gateway"},
	"gateway/cloud":        {"gateway"},
	"gateway/cloud/twin":   {"gateway", "gateway/cloud"},
	"gateway/web":          {"gateway"},
	"adapters/modbus/wire": {},
	"adapters/modbus":      {"gateway", "adapters/modbus/wire"},
	"adapters/opcua":       {"gateway"},
	"adapters/adaptertest": {"gateway"},
	"adapters/sim":         {"gateway", "gateway/site", "adapters/modbus", "adapters/modbus/wire", "adapters/opcua"},
}

// forbidden are libraries that a room must not know.
var forbidden = map[string][]string{
	"gateway": {"net/http", "github.com/eclipse/paho", "github.com/simonvetter", "github.com/gopcua", "go.yaml.in", "go.bug.st"},
}

func TestImports(t *testing.T) {
	root := ".."
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		room := path.Dir(filepath.ToSlash(rel))
		if room == "cmd" || strings.HasPrefix(room, "cmd/") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			checkImport(t, rel, room, imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkImport(t *testing.T, file, room, imported string) {
	for _, library := range forbidden[room] {
		if strings.HasPrefix(imported, library) {
			t.Errorf("%s imports %s, which %s must not know", file, imported, room)
		}
	}
	ours, ok := strings.CutPrefix(imported, "sluice/")
	if !ok {
		return
	}
	rooms, known := allowed[room]
	if !known {
		t.Errorf("%s: room %s is not in the house's plan", file, room)
		return
	}
	for _, r := range rooms {
		if r == ours {
			return
		}
	}
	t.Errorf("%s: %s may not import %s", file, room, ours)
}
