package systemd

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// stagehands say nothing in the log of a gateway.
var stagehands = []string{"adapters/sim", "adapters/adaptertest", "gateway/cloud/twin"}

// logged finds the lines that the program can write to its log: what is said
// by a constant text at a level that is shown by default.
func logged(t *testing.T) map[string]string {
	t.Helper()
	lines := make(map[string]string) // and where
	for _, room := range []string{"adapters", "buffer", "cmd", "gateway"} {
		err := filepath.WalkDir(filepath.Join("..", room), func(file string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			for _, s := range stagehands {
				if strings.HasPrefix(file, filepath.Join("..", s)) {
					return nil
				}
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if text := message(call); text != "" {
						lines[text] = file
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return lines
}

// message is the text of a call of a logger.
func message(call *ast.CallExpr) string {
	at, ok := map[string]int{"Info": 0, "Warn": 0, "Error": 0, "Log": 2}[method(call)]
	if !ok || len(call.Args) <= at {
		return ""
	}
	literal, ok := call.Args[at].(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return ""
	}
	text, err := strconv.Unquote(literal.Value)
	if err != nil {
		return ""
	}
	return text
}

func method(call *ast.CallExpr) string {
	if s, ok := call.Fun.(*ast.SelectorExpr); ok {
		return s.Sel.Name
	}
	return ""
}

// TestEveryLogLineIsExplained: LOG.md has each line that the program can write,
// and none that it can't.
func TestEveryLogLineIsExplained(t *testing.T) {
	explained := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.{20,}) \\|$").FindAllStringSubmatch(read(t, "LOG.md"), -1) {
		explained[row[1]] = true
	}
	lines := logged(t)
	if len(lines) < 30 {
		t.Fatalf("only %d lines found in the source", len(lines))
	}
	for line, file := range lines {
		if !explained[line] {
			t.Errorf("%s logs %q, which LOG.md does not explain", file, line)
		}
	}
	for line := range explained {
		if lines[line] == "" {
			t.Errorf("LOG.md explains %q, which nothing logs", line)
		}
	}
}
