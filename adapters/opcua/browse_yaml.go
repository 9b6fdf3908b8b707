package opcua

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"sluice/gateway"
)

// WritePoints writes the variables of a tree as points for a site file: the
// namespace that most of them are in, and a line each. What is no point becomes
// a comment. Access is left at r: what may be written, and within which limits,
// is for people to say.
func (t *Tree) WritePoints(out io.Writer) error {
	var variables []*Node
	counts := make(map[string]int)
	collect(t.Root, func(n *Node) {
		if n.Class == "variable" {
			variables = append(variables, n)
			if n.Index > 0 {
				counts[n.URI]++
			}
		}
	})
	namespace := ""
	for uri, n := range counts {
		if n > counts[namespace] || n == counts[namespace] && uri < namespace {
			namespace = uri
		}
	}
	var b strings.Builder
	if namespace != "" {
		fmt.Fprintf(&b, "namespace: %s\n", quote(namespace))
	}
	b.WriteString("points:\n")
	names := make(map[string]bool)
	for _, n := range variables {
		b.WriteString("  " + n.line(namespace, names) + "\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func collect(n *Node, visit func(*Node)) {
	visit(n)
	for _, c := range n.Children {
		collect(c, visit)
	}
}

// line is a point, or a comment that says why it is none.
func (n *Node) line(namespace string, names map[string]bool) string {
	switch {
	case n.Point == "":
		return fmt.Sprintf("# %s: %s, %s: name the nodes of its fields", n.Path, n.ID, strings.TrimSpace("a structure "+n.Type))
	case !strings.Contains(n.Access, "r"):
		return fmt.Sprintf("# %s: %s, %s: it can't be read", n.Path, n.ID, n.Type)
	}
	address := n.ID
	if n.URI != namespace {
		address = "nsu=" + n.URI + ";" + n.ID
	}
	line := fmt.Sprintf("%s: { node: %s, type: %s", n.name(names), single(address), n.Point)
	if n.Count > 0 {
		line += fmt.Sprintf(", count: %d", n.Count)
	}
	numeric := n.Point != gateway.Bool && n.Point != gateway.String && n.Point != gateway.Bytes && n.Point != gateway.Time
	if labels := enum(n.Labels); labels != "" && (numeric || n.Point == gateway.Bool) {
		line += ", enum: " + labels
		numeric = false
	}
	if n.Unit != "" && numeric {
		line += ", unit: " + quote(n.Unit)
	}
	if n.Range != nil && numeric {
		line += fmt.Sprintf(", plausible: %s..%s", decimal(n.Range.Low), decimal(n.Range.High))
	}
	line += " }"
	if strings.Contains(n.Access, "w") {
		line += "   # writable"
	}
	return line
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// enum is a map of labels; "" where there are none, or two are the same.
func enum(labels []gateway.EnumLabel) string {
	var pairs []string
	seen := make(map[string]bool)
	for _, l := range labels {
		if l.Label == "" || seen[l.Label] {
			return ""
		}
		seen[l.Label] = true
		pairs = append(pairs, fmt.Sprintf("%d: %s", l.Raw, quote(l.Label)))
	}
	if len(pairs) == 0 {
		return ""
	}
	return "{ " + strings.Join(pairs, ", ") + " }"
}

// plain is a text that YAML takes as it is, within a flow map.
var plain = regexp.MustCompile(`^[\pL_/°µ][\pL\pN_./°µ³²-]*(:[\pL\pN_./-]+)*$`)

func quote(text string) string {
	if plain.MatchString(text) {
		return text
	}
	return strconv.Quote(text)
}

// single quotes a text that may have double quotes in it.
func single(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// taken are words of expressions that no point can be called.
var taken = map[string]bool{"not": true, "and": true, "or": true, "in": true, "true": true, "false": true, "nil": true, "let": true, "if": true, "else": true,
	"matches": true, "contains": true, "value": true}

// name makes the name of a point of the browse name, with those above it where
// another has it already.
func (n *Node) name(names map[string]bool) string {
	steps := strings.Split(n.Path, "/")
	name := ""
	for i := len(steps) - 1; i >= 0; i-- {
		if step := snake(steps[i]); step != "" {
			name = strings.TrimSuffix(step+"_"+name, "_")
		}
		if name != "" && !unicode.IsDigit(rune(name[0])) && !names[name] && !taken[name] {
			names[name] = true
			return name
		}
	}
	for i := 2; ; i++ {
		if numbered := fmt.Sprintf("p_%s_%d", name, i); !names[numbered] {
			names[numbered] = true
			return numbered
		}
	}
}

// snake writes a name as points are called: peak_pressure for PeakPressure.
func snake(text string) string {
	var b strings.Builder
	lower := false // the letter before
	for _, r := range text {
		switch {
		case r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)):
			if unicode.IsUpper(r) && lower {
				b.WriteByte('_')
			}
			lower = !unicode.IsUpper(r)
			b.WriteRune(unicode.ToLower(r))
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "_"):
			b.WriteByte('_')
			lower = false
		}
	}
	return strings.Trim(b.String(), "_")
}
