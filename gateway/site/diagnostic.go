package site

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"sluice/gateway"

	"go.yaml.in/yaml/v4"
)

// maxDiagnostics bounds what a hostile file can make us say.
const maxDiagnostics = 500

// Diagnostic is one thing wrong in a file, with its place. Lines and columns
// count from 1, columns in characters; EndColumn is behind the last one.
type Diagnostic struct {
	File       string           `json:"file"`
	Line       int              `json:"line"`
	Column     int              `json:"column"`
	EndColumn  int              `json:"end_column"`
	Severity   gateway.Severity `json:"severity"`
	Text       string           `json:"text"`
	Suggestion string           `json:"suggestion,omitempty"`
	Source     string           `json:"source,omitempty"` // the line, passwords hidden
}

// Diagnostics is what was found in one run, in the order of the file.
type Diagnostics []Diagnostic

// Errors counts the errors; the others are warnings.
func (ds Diagnostics) Errors() int {
	n := 0
	for _, d := range ds {
		if d.Severity == gateway.Error {
			n++
		}
	}
	return n
}

// Print writes each diagnostic as file:line:col: error: what is wrong, the
// source line, a caret under the word and the suggestion.
func (ds Diagnostics) Print(w io.Writer) {
	for _, d := range ds {
		io.WriteString(w, d.String())
	}
}

// String is the diagnostic as Print writes it.
func (d Diagnostic) String() string {
	var b strings.Builder
	b.WriteString(d.File)
	if d.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", d.Line, d.Column)
	}
	fmt.Fprintf(&b, ": %s: %s\n", d.Severity, d.Text)
	if d.Source != "" {
		line, column := window(d.Source, d.Column)
		width := max(1, min(d.EndColumn-d.Column, utf8.RuneCountInString(line)-column+1))
		fmt.Fprintf(&b, "    %s\n    %s%s\n", line, strings.Repeat(" ", column-1), strings.Repeat("^", width))
	}
	if d.Suggestion != "" {
		fmt.Fprintf(&b, "    %s\n", d.Suggestion)
	}
	return b.String()
}

// window cuts a long line to what surrounds the column.
func window(line string, column int) (string, int) {
	const before, width = 80, 160
	runes := []rune(line)
	column = min(max(column, 1), len(runes)+1)
	if len(runes) <= width {
		return line, column
	}
	start := min(max(0, column-before), len(runes)-width)
	return string(runes[start : start+width]), column - start
}

// sort puts the diagnostics in the order of the files, the first file first.
func (ds Diagnostics) sort(files []string) {
	slices.SortStableFunc(ds, func(a, b Diagnostic) int {
		return cmp.Or(
			cmp.Compare(slices.Index(files, a.File), slices.Index(files, b.File)),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// diagnose makes the diagnostic of a node of the source.
func (s *source) diagnose(n *yaml.Node, severity gateway.Severity, text, suggestion string) Diagnostic {
	if n == nil {
		return Diagnostic{File: s.name, Severity: severity, Text: text, Suggestion: suggestion}
	}
	return s.mark(n.Line, n.Column, s.width(n), severity, text, suggestion)
}

// mark makes the diagnostic of some columns of a line.
func (s *source) mark(line, column, width int, severity gateway.Severity, text, suggestion string) Diagnostic {
	return Diagnostic{
		File: s.name, Line: line, Column: column, EndColumn: column + width,
		Severity: severity, Text: text, Suggestion: suggestion, Source: hide(s.line(line)),
	}
}

// width is the number of columns that a node takes on its line.
func (s *source) width(n *yaml.Node) int {
	if n.Kind != yaml.ScalarNode {
		return 1
	}
	rest := []rune(s.line(n.Line))
	if n.Column < 1 || n.Column > len(rest) {
		return 1
	}
	rest = rest[n.Column-1:]
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
		for i := 1; i < len(rest); i++ {
			switch {
			case rest[i] == '\\' && rest[0] == '"':
				i++
			case rest[i] == rest[0]:
				return i + 1
			}
		}
		return len(rest)
	}
	return max(1, min(len(rest), utf8.RuneCountInString(n.Value)))
}

var clearSecret = regexp.MustCompile(`(password|key)(["']?\s*:\s*)("[^"]*"|'[^']*'|[^\s,}#{\[&!][^\s,}#]*)`)

// hide makes a source line fit to be shown: passwords in clear become
// asterisks, whatever does not print a space, and columns stay where they are.
func hide(line string) string {
	line = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, line)
	return clearSecret.ReplaceAllStringFunc(line, func(match string) string {
		parts := clearSecret.FindStringSubmatch(match)
		if kind, _ := gateway.Secret(strings.Trim(parts[3], `"'`)).Reference(); kind != "" {
			return match
		}
		return parts[1] + parts[2] + strings.Repeat("*", utf8.RuneCountInString(parts[3]))
	})
}
