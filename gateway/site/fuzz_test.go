package site_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"sluice/gateway"
	"sluice/gateway/site"
)

// FuzzParse feeds the loader with damaged site files: it never panics, says
// something about every file that it refuses, and its diagnostics have places.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/mistakes/*.yaml", "../../configs/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(content)
		}
	}
	for _, text := range hostile {
		if t := text(); len(t) < 10_000 {
			f.Add([]byte(t))
		}
	}
	o := options(f)
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) > 1<<16 {
			return
		}
		s, diagnostics := site.Parse(filepath.Join(t.TempDir(), "site.yaml"), content, o)
		if (s == nil) != (diagnostics.Errors() > 0) {
			t.Fatalf("site %v with %d errors", s != nil, diagnostics.Errors())
		}
		for _, d := range diagnostics {
			if d.Text == "" || d.File == "" || d.Line < 0 || d.Column < 0 || d.EndColumn < d.Column || !utf8.ValidString(d.String()) {
				t.Errorf("%+v", d)
			}
		}
		var b strings.Builder
		diagnostics.Print(&b)
		if s != nil {
			checkModel(t, s)
		}
	})
}

// checkModel holds what everybody may expect of a site without errors.
func checkModel(t *testing.T, s *gateway.Site) {
	for _, d := range s.Devices {
		if d.Bus == nil || d.Profile == nil || d.User == "" || d.Timeout <= 0 {
			t.Fatalf("device %+v", d)
		}
		for _, p := range d.Points {
			if p.Device != d || p.Definition == nil || p.Name == "" || p.Type == "" || p.Poll <= 0 {
				t.Fatalf("point %+v of %s", p, d.Name)
			}
		}
	}
	site.FindSecrets(s)
}

// FuzzExpression types damaged expressions: no panic, and every fault is at a
// place in the text.
func FuzzExpression(f *testing.F) {
	for _, text := range []string{
		"x > 3", `mode == "auto"`, `mode in ["auto", "manual"]`, "max(x, 3) > min(y, 2)", "changed(x) and not b", `rate(x, "1m") > 3`, "power-l1 > 3",
		"bit(x, 3)", "a[0] + sum(a)", "x = 3", "((x", "$hz", "b ? x : y", "let z = 1; z", "filter(a, # > 1)", "x matches 'a('", "x | abs()", "1..100000000", "x ?? y", "{a: 1}.a",
	} {
		f.Add(text)
	}
	scope := gateway.Scope(func(name string) (gateway.Operand, bool) {
		o, ok := map[string]gateway.Operand{
			"x": {Kind: gateway.NumberOperand}, "y": {Kind: gateway.NumberOperand}, "b": {Kind: gateway.TruthOperand}, "w": {WriteOnly: true},
			"mode": {Kind: gateway.WordOperand, Labels: []string{"auto", "manual"}}, "a": {Kind: gateway.NumbersOperand},
		}[name]
		return o, ok
	})
	f.Fuzz(func(t *testing.T, text string) {
		for _, want := range []gateway.OperandKind{gateway.AnyOperand, gateway.NumberOperand, gateway.TruthOperand} {
			_, faults := scope.Check(text, want)
			for _, fault := range faults {
				if fault.Text == "" || fault.Offset < 0 || fault.Offset > utf8.RuneCountInString(text) {
					t.Errorf("%q: %+v", text, fault)
				}
			}
		}
	})
}
