package gateway

import (
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// builder makes the nodes of a formula from a tree whose types fit.
type builder struct {
	formula *formula
	faults  []Fault
}

// none takes the place of a node that could not be built.
func none(*bound) Value { return Value{} }

func (b *builder) fault(n ast.Node, text string) node {
	b.faults = append(b.faults, Fault{Offset: n.Location().From, Text: text})
	return none
}

func (b *builder) slot(name string) int { return slices.Index(b.formula.names, name) }

func (b *builder) build(n ast.Node) node {
	switch n := n.(type) {
	case *ast.FloatNode:
		return fixed(FloatValue(n.Value))
	case *ast.IntegerNode:
		return fixed(FloatValue(float64(n.Value)))
	case *ast.BoolNode:
		return fixed(BoolValue(n.Value))
	case *ast.StringNode:
		return fixed(TextValue(n.Value))
	case *ast.IdentifierNode:
		return b.identifier(n)
	case *ast.UnaryNode:
		return b.unary(n)
	case *ast.ConditionalNode:
		return choice(b.build(n.Cond), b.build(n.Exp1), b.build(n.Exp2))
	case *ast.ArrayNode:
		return listOf(b.all(n.Nodes))
	case *ast.MemberNode:
		return b.element(n)
	case *ast.BinaryNode:
		return b.binary(n)
	case *ast.CallNode:
		return b.call(n)
	}
	return b.fault(n, "this is no expression")
}

func (b *builder) all(nodes []ast.Node) []node {
	built := make([]node, len(nodes))
	for i, n := range nodes {
		built[i] = b.build(n)
	}
	return built
}

func fixed(v Value) node { return func(*bound) Value { return v } }

// identifier loads a point as what it is in expressions.
func (b *builder) identifier(n *ast.IdentifierNode) node {
	slot := b.slot(n.Value)
	switch b.formula.kinds[slot].Kind {
	case NumberOperand:
		return func(b *bound) Value { return asNumber(b.load(slot)) }
	case WordOperand:
		return func(b *bound) Value { return asWord(b.load(slot)) }
	case WordsOperand:
		return func(b *bound) Value { return asWords(b.load(slot)) }
	}
	return func(b *bound) Value { return b.load(slot) }
}

// asNumber is a number, a time or a truth as a float64.
func asNumber(v Value) Value {
	if v.kind == Double || v.kind == None {
		return v
	}
	if f := v.Float(); f == f {
		return FloatValue(f)
	}
	return Value{}
}

// asWord is a word; an unlabelled value of an enum is its number.
func asWord(v Value) Value {
	if v.kind == Text || v.kind == None {
		return v
	}
	return TextValue(v.String())
}

// asWords is a list; flags are the names of their bits.
func asWords(v Value) Value {
	if v.kind != Text {
		return v
	}
	var list []Value
	for name := range strings.SplitSeq(v.text, ",") {
		if name != "" {
			list = append(list, TextValue(name))
		}
	}
	return ListValue(list)
}

func (b *builder) unary(n *ast.UnaryNode) node {
	x := b.build(n.Node)
	switch n.Operator {
	case "not", "!":
		return func(b *bound) Value {
			v := x(b)
			if v.kind == None {
				return v
			}
			return BoolValue(v.bits == 0)
		}
	case "-":
		return func(b *bound) Value {
			v := x(b)
			if v.kind == None {
				return v
			}
			return FloatValue(-v.Float())
		}
	}
	return x
}

func choice(condition, yes, no node) node {
	return func(b *bound) Value {
		switch v := condition(b); {
		case v.kind == None:
			return v
		case v.bits != 0:
			return yes(b)
		}
		return no(b)
	}
}

func listOf(elements []node) node {
	return func(b *bound) Value {
		values := make([]Value, len(elements))
		for i, element := range elements {
			if values[i] = element(b); values[i].kind == None {
				return Value{}
			}
		}
		return ListValue(values)
	}
}

// element is one value of an array.
func (b *builder) element(n *ast.MemberNode) node {
	index, ok := n.Property.(*ast.IntegerNode)
	if t := n.Node.Type(); !ok || t == nil || kindName(t) != "a list" {
		return b.fault(n, "of an array one value is taken by its number: zones[0]")
	}
	values, i := b.build(n.Node), index.Value
	return func(b *bound) Value {
		v := values(b)
		if elements := v.List(); i < len(elements) {
			return elementOf(elements[i])
		}
		if v.kind != None {
			b.missing.note(-1, "the array is shorter")
		}
		return Value{}
	}
}

// elementOf is a value of an array as an operand.
func elementOf(v Value) Value {
	if v.Numeric() || v.kind == Boolean || v.kind == Moment {
		return FloatValue(v.Float())
	}
	return v
}

func (b *builder) binary(n *ast.BinaryNode) node {
	left, right := b.build(n.Left), b.build(n.Right)
	switch n.Operator {
	case "and", "&&":
		return decided(left, right, 0)
	case "or", "||":
		return decided(left, right, 1)
	case "+":
		return sum(left, right)
	case "matches":
		return b.matches(n, left)
	case "in":
		return known(left, right, func(_ *bound, x, y Value) Value {
			return BoolValue(slices.ContainsFunc(y.List(), func(z Value) bool { return same(x, z) }))
		})
	}
	if f := arithmetic[n.Operator]; f != nil {
		return known(left, right, func(b *bound, x, y Value) Value { return b.finite(f(x.Float(), y.Float())) })
	}
	if f := comparisons[n.Operator]; f != nil {
		return known(left, right, func(_ *bound, x, y Value) Value { return BoolValue(f(x, y)) })
	}
	return b.fault(n, "there is no operator "+n.Operator)
}

var arithmetic = map[string]func(x, y float64) float64{
	"-":  func(x, y float64) float64 { return x - y },
	"*":  func(x, y float64) float64 { return x * y },
	"/":  func(x, y float64) float64 { return x / y },
	"**": math.Pow,
	"^":  math.Pow,
}

var comparisons = map[string]func(x, y Value) bool{
	"==":         same,
	"!=":         func(x, y Value) bool { return !same(x, y) },
	"<":          func(x, y Value) bool { return compare(x, y) < 0 },
	"<=":         func(x, y Value) bool { return compare(x, y) <= 0 },
	">":          func(x, y Value) bool { return compare(x, y) > 0 },
	">=":         func(x, y Value) bool { return compare(x, y) >= 0 },
	"contains":   func(x, y Value) bool { return strings.Contains(x.text, y.text) },
	"startsWith": func(x, y Value) bool { return strings.HasPrefix(x.text, y.text) },
	"endsWith":   func(x, y Value) bool { return strings.HasSuffix(x.text, y.text) },
}

// same compares numbers by value, whatever their kind.
func same(x, y Value) bool {
	if x.kind == List && y.kind == List {
		return slices.EqualFunc(x.List(), y.List(), same)
	}
	if x.kind == Text || y.kind == Text {
		return x.kind == y.kind && x.text == y.text
	}
	return x.Float() == y.Float()
}

func compare(x, y Value) int {
	switch {
	case x.kind == Text:
		return strings.Compare(x.text, y.text)
	case x.Float() < y.Float():
		return -1
	case x.Float() > y.Float():
		return 1
	}
	return 0
}

// decided is and (by a 0) or or (by a 1): one side may decide it whatever the
// other is.
func decided(left, right node, by uint64) node {
	return func(b *bound) Value {
		l := left(b)
		if l.kind != None && l.bits == by {
			return l
		}
		if r := right(b); l.kind != None || r.kind != None && r.bits == by {
			return r
		}
		return Value{}
	}
}

// known needs both sides.
func known(left, right node, f func(b *bound, x, y Value) Value) node {
	return func(b *bound) Value {
		x := left(b)
		if x.kind == None {
			return x
		}
		y := right(b)
		if y.kind == None {
			return y
		}
		return f(b, x, y)
	}
}

func sum(left, right node) node {
	return known(left, right, func(b *bound, x, y Value) Value {
		if x.kind == Text {
			return TextValue(x.text + y.text)
		}
		return b.finite(x.Float() + y.Float())
	})
}

func (b *builder) matches(n *ast.BinaryNode, left node) node {
	pattern, ok := n.Right.(*ast.StringNode)
	if !ok {
		return b.fault(n, "matches takes a pattern in quotes")
	}
	re, err := regexp.Compile(pattern.Value)
	if err != nil {
		return b.fault(n.Right, "this is no pattern: "+err.Error())
	}
	return func(b *bound) Value {
		v := left(b)
		if v.kind == None {
			return v
		}
		return BoolValue(re.MatchString(v.text))
	}
}
