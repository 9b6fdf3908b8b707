package site

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"sluice/gateway"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

// checkHysteresis tries out an event's conditions where they are plain: names,
// constants, comparisons, and, or, not. Such a condition is the same between
// two neighbouring constants, so that trying the values at and beside each
// constant tries them all.
func (l *loader) checkHysteresis(n *names, path string, e *gateway.Event) {
	when, ok := plainCondition(e.When.Text)
	if !ok {
		return
	}
	clear := when
	if e.Clear != nil {
		if clear, ok = plainCondition(e.Clear.Text); !ok {
			return
		}
	}
	axes := map[string][]any{}
	for _, name := range append(slices.Clone(when.names), clear.names...) {
		if axes[name] == nil {
			axes[name] = n.samples(name, slices.Concat(when.constants, clear.constants))
		}
	}
	total := combinations(axes)
	if l.trials += total; total == 0 || l.trials > maxTrials {
		return
	}
	result, ok := tryOut(axes, total, when, clear, e.Clear == nil)
	switch {
	case !ok:
	case !result.raised:
		l.fault(path+".when", "", "event %s can never be raised: no value makes %s true", quote(e.ID), quote(e.When.Text))
	case !result.cleared && e.Clear == nil:
		l.fault(path+".when", "", "event %s can never clear: every value makes %s true", quote(e.ID), quote(e.When.Text))
	case !result.cleared:
		l.fault(path+".clear", "", "event %s can never clear: no value makes %s true", quote(e.ID), quote(e.Clear.Text))
	case result.both != "":
		l.fault(path+".clear", "hysteresis leaves a gap: when: x > 80, clear: x < 75", "clear holds already while when does: at %s both are true", result.both)
	}
}

// condition is a plain condition.
type condition struct {
	program   *vm.Program
	names     []string
	constants []float64
}

func plainCondition(text string) (condition, bool) {
	tree, err := parser.Parse(text)
	if err != nil {
		return condition{}, false
	}
	c, plain := condition{}, true
	ast.Walk(&tree.Node, nodeVisitor(func(n ast.Node) {
		switch n := n.(type) {
		case *ast.IdentifierNode:
			if !slices.Contains(c.names, n.Value) {
				c.names = append(c.names, n.Value)
			}
		case *ast.IntegerNode:
			c.constants = append(c.constants, float64(n.Value), -float64(n.Value))
		case *ast.FloatNode:
			c.constants = append(c.constants, n.Value, -n.Value)
		case *ast.UnaryNode:
			_, constant := n.Node.(*ast.IdentifierNode)
			plain = plain && (n.Operator == "not" || n.Operator == "!" || !constant)
		case *ast.BinaryNode:
			plain = plain && slices.Contains([]string{"==", "!=", "<", ">", "<=", ">=", "and", "or", "&&", "||", "in"}, n.Operator)
		case *ast.StringNode, *ast.BoolNode, *ast.ArrayNode:
		default:
			plain = false
		}
	}))
	if !plain {
		return condition{}, false
	}
	c.program, err = expr.Compile(text, expr.AsBool())
	return c, err == nil
}

type nodeVisitor func(ast.Node)

// Visit is called for each node.
func (v nodeVisitor) Visit(n *ast.Node) { v(*n) }

// samples are the values to try for a name; nil when they can't be told.
func (n *names) samples(name string, constants []float64) []any {
	d := n.points[name]
	if d == nil { // computed
		return floats(constants)
	}
	operand := d.Operand()
	switch {
	case operand.Kind == gateway.TruthOperand:
		return []any{true, false}
	case operand.Labels != nil && operand.Kind == gateway.WordOperand:
		labels := []any{}
		for _, label := range operand.Labels {
			labels = append(labels, label)
		}
		return labels
	case operand.Kind != gateway.NumberOperand:
		return nil
	case wholeNumber(d) && d.Map == nil && d.ScaleFrom == "":
		return integers(d, constants)
	}
	return floats(constants)
}

// floats are the values at, beside, between and beyond the constants.
func floats(constants []float64) []any {
	sorted := slices.Compact(slices.Sorted(slices.Values(append([]float64{0}, constants...))))
	values := []any{sorted[0] - 1 - math.Abs(sorted[0])}
	for i, c := range sorted {
		values = append(values, c)
		if i+1 < len(sorted) {
			values = append(values, c/2+sorted[i+1]/2)
		}
	}
	last := sorted[len(sorted)-1]
	return append(values, last+1+math.Abs(last))
}

// integers are the values that a whole number with a scale can have at and
// beside the constants, and at the ends of its type.
func integers(d *gateway.Definition, constants []float64) []any {
	scale, offset, places := 1.0, 0.0, 0
	if d.Scale != nil {
		scale, places = d.Scale.Float, d.Scale.Places
	}
	if d.Offset != nil {
		offset, places = d.Offset.Float, max(places, d.Offset.Places)
	}
	low, high := rawRange(d)
	raws := []float64{low, high}
	for _, c := range constants {
		raw := math.Round((c - offset) / scale)
		for _, r := range []float64{raw - 1, raw, raw + 1} {
			if r >= low && r <= high {
				raws = append(raws, r)
			}
		}
	}
	var values []any
	for _, raw := range slices.Compact(slices.Sorted(slices.Values(raws))) {
		shift := math.Pow(10, float64(places))
		values = append(values, math.Round((raw*scale+offset)*shift)/shift)
	}
	return values
}

// rawRange is what the type of a whole number can hold.
func rawRange(d *gateway.Definition) (low, high float64) {
	if d.Bits != nil {
		return 0, math.Pow(2, float64(d.Bits.High-d.Bits.Low+1)) - 1
	}
	digits := strings.TrimLeft(string(d.Type), "abcdefghijklmnopqrstuvwxyz")
	bits, _ := strconv.Atoi(digits)
	switch {
	case strings.HasPrefix(string(d.Type), "bcd"):
		return 0, math.Pow(10, float64(bits/4)) - 1
	case strings.HasPrefix(string(d.Type), "uint"):
		return 0, math.Pow(2, float64(bits)) - 1
	}
	return -math.Pow(2, float64(bits-1)), math.Pow(2, float64(bits-1)) - 1
}

// trial is what trying all samples showed.
type trial struct {
	raised, cleared bool
	both            string // a value at which both conditions hold
}

// An event has at most so many combinations of values to try, a site so many in
// all; beyond that nothing is said about its conditions.
const (
	maxCombinations = 2000
	maxTrials       = 200_000
)

// combinations counts the combinations of the samples; 0 when they are too many
// or can't be told.
func combinations(axes map[string][]any) int {
	total := 1
	for _, values := range axes {
		if total *= len(values); total > maxCombinations {
			return 0
		}
	}
	return total
}

// tryOut runs two conditions over all combinations of the samples. negate says
// that the second one is the opposite of what clears.
func tryOut(axes map[string][]any, total int, when, clear condition, negate bool) (trial, bool) {
	names := slices.Sorted(maps.Keys(axes))
	var t trial
	env := map[string]any{}
	for i := range total {
		rest := i
		for _, name := range names {
			env[name] = axes[name][rest%len(axes[name])]
			rest /= len(axes[name])
		}
		raised, err1 := expr.Run(when.program, env)
		cleared, err2 := expr.Run(clear.program, env)
		if err1 != nil || err2 != nil {
			return trial{}, false
		}
		w, c := raised == true, (cleared == true) != negate
		t.raised, t.cleared = t.raised || w, t.cleared || c
		if w && c && t.both == "" {
			t.both = describe(names, env)
		}
	}
	return t, true
}

func describe(names []string, env map[string]any) string {
	parts := make([]string, len(names))
	for i, name := range names {
		parts[i] = fmt.Sprintf("%s = %v", name, env[name])
	}
	return strings.Join(parts, ", ")
}
