package gateway

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
)

// OperandKind is what a name stands for in an expression, or what an
// expression gives.
type OperandKind uint8

// The kinds of operands. AnyOperand is for results that may be anything.
const (
	AnyOperand OperandKind = iota
	NumberOperand
	TruthOperand
	WordOperand
	NumbersOperand // an array
	WordsOperand
)

// Operand is a name that an expression may use. Times are numbers: ms since
// 1970 UTC.
type Operand struct {
	Kind      OperandKind
	Labels    []string // the words that it can be; nil for any
	WriteOnly bool     // it has no value to read
	Secret    bool     // messages don't tell it
}

// Scope finds the operand of a name.
type Scope func(name string) (Operand, bool)

// Fault is something wrong in an expression: at some characters of its text,
// or with all of it when Width is 0.
type Fault struct {
	Offset, Width    int
	Text, Suggestion string
	Name             string // that is unknown, for a suggestion
}

const maxExpression = 2000 // bytes; the parser's stack grows with brackets

// function is one that expressions may call.
type function struct {
	types     []any
	ofPoint   bool // its first argument is a point's name
	remembers bool // what it gives depends on what was
	hasWindow bool // its second argument, if any, is a duration or "day"
}

var ofNumbers = []any{new(func(float64, ...float64) float64), new(func([]float64) float64)}

var functions = map[string]function{
	"min":      {types: ofNumbers},
	"max":      {types: ofNumbers},
	"mean":     {types: ofNumbers},
	"sum":      {types: ofNumbers},
	"abs":      {types: []any{new(func(float64) float64)}},
	"round":    {types: []any{new(func(float64) float64), new(func(float64, float64) float64)}},
	"clamp":    {types: []any{new(func(float64, float64, float64) float64)}},
	"changed":  {types: []any{new(func(any) bool)}, remembers: true, ofPoint: true},
	"increase": {types: []any{new(func(float64) bool)}, remembers: true, ofPoint: true},
	"since":    {types: []any{new(func(bool) float64)}, remembers: true},
	"rate":     {types: []any{new(func(float64, string) float64)}, remembers: true, ofPoint: true, hasWindow: true},
	"delta":    {types: []any{new(func(float64) float64), new(func(float64, string) float64)}, remembers: true, ofPoint: true, hasWindow: true},
	"average":  {types: []any{new(func(float64, string) float64)}, remembers: true, ofPoint: true, hasWindow: true},
	"bit":      {types: []any{new(func(any, float64) bool)}},
	"good":     {types: []any{new(func(any) bool)}, ofPoint: true},
}

// FunctionNames are the functions of expressions.
func FunctionNames() []string {
	var names []string
	for name := range functions {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

var keywords = []string{"and", "or", "not", "in", "true", "false", "nil", "let", "if", "else", "matches", "contains", "startsWith", "endsWith"}

// Reserved tells whether a name means something else in expressions.
func Reserved(name string) bool {
	_, isFunction := functions[name]
	return isFunction || slices.Contains(keywords, name)
}

// Check types an expression and says which names it uses, in the order of its
// text, and what is wrong with it.
func (s Scope) Check(text string, want OperandKind) (names []string, faults []Fault) {
	f, faults := s.compile(text, want)
	return f.names, faults
}

// typed parses and types an expression. The tree holds only what package doc
// of formula.go has a meaning for, as far as that shows before its types.
func (s Scope) typed(text string, want OperandKind) (*parser.Tree, []string, []Fault) {
	if len(text) > maxExpression {
		return nil, nil, []Fault{{Text: fmt.Sprintf("the expression is longer than %d characters", maxExpression)}}
	}
	config := expressionConfig()
	tree, err := parser.ParseWithConfig(text, config)
	if err != nil {
		return nil, nil, []Fault{syntaxFault(text, err)}
	}
	w := &expressionWalk{scope: s, env: map[string]any{}, callees: map[ast.Node]bool{}, bare: map[ast.Node]string{}}
	ast.Walk(&tree.Node, visitor(w.shape))
	ast.Walk(&tree.Node, visitor(w.names))
	if len(w.faults) > 0 {
		return nil, w.used, w.faults
	}
	floatNumbers(&tree.Node)
	config.WithEnv(w.env)
	config.Expect = map[OperandKind]reflect.Kind{NumberOperand: reflect.Float64, TruthOperand: reflect.Bool}[want]
	ast.Walk(&tree.Node, visitor(w.meaning))
	if len(w.faults) > 0 {
		return nil, w.used, w.faults
	}
	if _, err := checker.Check(tree, config); err != nil {
		return nil, w.used, []Fault{typeFault(tree.Node, want, err)}
	}
	return tree, w.used, nil
}

// floatNumbers makes float64 of the whole numbers of an expression, since points
// are float64; indexes stay.
func floatNumbers(root *ast.Node) {
	index := map[ast.Node]bool{}
	ast.Walk(root, visitor(func(n ast.Node) {
		if m, ok := n.(*ast.MemberNode); ok {
			index[m.Property] = true
		}
	}))
	ast.Walk(root, patcher(func(n *ast.Node) {
		if i, ok := (*n).(*ast.IntegerNode); ok && !index[i] {
			ast.Patch(n, &ast.FloatNode{Value: float64(i.Value)})
		}
	}))
}

type patcher func(*ast.Node)

// Visit is called for each node.
func (p patcher) Visit(node *ast.Node) { p(node) }

// expressionConfig is a configuration of its own, whose functions are shared.
func expressionConfig() *conf.Config {
	config := *baseConfig()
	return &config
}

var baseConfig = sync.OnceValue(func() *conf.Config {
	config := conf.CreateNew()
	clear(config.Builtins)
	config.MaxNodes = 500
	for name, f := range functions {
		expr.Function(name, nil, f.types...)(config)
	}
	return config
})

type visitor func(ast.Node)

// Visit is called for each node, arguments before their call.
func (v visitor) Visit(node *ast.Node) { v(*node) }

// expressionWalk goes through an expression.
type expressionWalk struct {
	scope   Scope
	env     map[string]any // a value of the type of each name
	callees map[ast.Node]bool
	bare    map[ast.Node]string // labels without quotes, and their points
	used    []string
	faults  []Fault
}

func (w *expressionWalk) fault(n ast.Node, width int, suggestion, format string, args ...any) {
	w.faults = append(w.faults, Fault{Offset: n.Location().From, Width: width, Text: fmt.Sprintf(format, args...), Suggestion: suggestion})
}

// shape refuses what the language of expressions does not have, and notes which
// names are functions and which are labels without quotes.
func (w *expressionWalk) shape(n ast.Node) {
	switch n := n.(type) {
	case *ast.CallNode:
		w.callees[n.Callee] = true
	case *ast.BinaryNode:
		w.unquoted(n.Left, n.Right)
		w.unquoted(n.Right, n.Left)
	case *ast.BuiltinNode:
		w.noFunction(n, n.Name)
	case *ast.IdentifierNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.StringNode, *ast.UnaryNode,
		*ast.ConditionalNode, *ast.ArrayNode, *ast.MemberNode:
	default:
		w.faults = w.faults[:0]
		w.fault(n, 0, "", "expressions have points, numbers, texts in quotes, comparisons, and or not in, and functions; this is none of them")
	}
}

func (w *expressionWalk) noFunction(n ast.Node, name string) {
	w.fault(n, len(name), "", "there is no function %s: there are %s", name, strings.Join(FunctionNames(), " "))
	w.faults[len(w.faults)-1].Name = name
}

func (w *expressionWalk) unquoted(point, label ast.Node) {
	p, ok1 := point.(*ast.IdentifierNode)
	l, ok2 := label.(*ast.IdentifierNode)
	if !ok1 || !ok2 {
		return
	}
	if operand, _ := w.scope(p.Value); slices.Contains(operand.Labels, l.Value) {
		w.bare[label] = p.Value
	}
}

func (w *expressionWalk) names(n ast.Node) {
	id, ok := n.(*ast.IdentifierNode)
	if !ok || slices.Contains(w.used, id.Value) {
		return
	}
	name := id.Value
	if w.callees[n] {
		if _, known := functions[name]; !known {
			w.noFunction(n, name)
		}
		return
	}
	operand, ok := w.scope(name)
	bare, isParam := strings.CutPrefix(name, "$")
	switch {
	case ok && operand.WriteOnly:
		w.fault(n, len(name), "", "%s is write-only (access: w): it has no value to read", name)
	case ok:
		w.used = append(w.used, name)
		w.env[name] = [...]any{AnyOperand: 0.0, NumberOperand: 0.0, TruthOperand: false, WordOperand: "", NumbersOperand: []float64{}, WordsOperand: []string{}}[operand.Kind]
	case w.bare[n] != "":
		w.fault(n, len(name), fmt.Sprintf("write %q", name), "%s is a label of %s: it stands in quotes", name, w.bare[n])
	case isParam:
		w.fault(n, len(name), "write "+bare, "in an expression a parameter has no $")
	default:
		w.fault(n, len(name), "", "there is no point %s", name)
		w.faults[len(w.faults)-1].Name = name
	}
}

// meaning finds labels that do not exist and arguments that mean nothing.
func (w *expressionWalk) meaning(n ast.Node) {
	switch n := n.(type) {
	case *ast.BinaryNode:
		switch n.Operator {
		case "==", "!=":
			w.label(n.Left, n.Right)
			w.label(n.Right, n.Left)
		case "in":
			if list, ok := n.Right.(*ast.ArrayNode); ok {
				for _, item := range list.Nodes {
					w.label(n.Left, item)
				}
			}
			w.label(n.Right, n.Left)
		}
	case *ast.CallNode:
		if id, ok := n.Callee.(*ast.IdentifierNode); ok {
			w.arguments(id.Value, n.Arguments)
		}
	}
}

func (w *expressionWalk) label(point, word ast.Node) {
	id, ok1 := point.(*ast.IdentifierNode)
	text, ok2 := word.(*ast.StringNode)
	if !ok1 || !ok2 {
		return
	}
	operand, _ := w.scope(id.Value)
	if len(operand.Labels) > 0 && !slices.Contains(operand.Labels, text.Value) {
		w.fault(word, len([]rune(text.Value))+2, "its labels are "+strings.Join(operand.Labels[:min(len(operand.Labels), 20)], ", "), "%s has no label %q", id.Value, text.Value)
	}
}

func (w *expressionWalk) arguments(name string, arguments []ast.Node) {
	f := functions[name]
	if f.ofPoint && len(arguments) > 0 {
		if id, ok := arguments[0].(*ast.IdentifierNode); !ok || strings.HasPrefix(id.Value, "$") {
			w.fault(arguments[0], 0, "", "%s takes the name of a point, not a formula", name)
		}
	}
	if f.hasWindow && len(arguments) > 1 {
		text, ok := arguments[1].(*ast.StringNode)
		if !ok {
			w.fault(arguments[1], 0, fmt.Sprintf(`write %s(x, "1m")`, name), "%s takes a time in quotes", name)
			return
		}
		if _, err := parseWindow(text.Value); err != nil {
			w.fault(arguments[1], len(text.Value)+2, fmt.Sprintf(`write %s(x, "1m"), or "day"`, name), "%s", err)
		}
	}
}

var tokenName = regexp.MustCompile(`unexpected token \w+\("(.*)"\)`)

// syntaxFault says what the parser stumbled over.
func syntaxFault(text string, err error) Fault {
	var e *file.Error
	if !errors.As(err, &e) {
		return Fault{Text: err.Error()}
	}
	f := Fault{Offset: e.From, Width: max(1, e.To-e.From), Text: "this is no expression: " + tokenName.ReplaceAllString(firstLine(e.Message), `unexpected "$1"`)}
	switch {
	case strings.Contains(e.Message, "token EOF"):
		f.Offset, f.Width, f.Text = 0, 0, "the expression ends too early"
	case strings.Contains(text, "=<"), strings.Contains(text, "=>"):
		f.Suggestion = "comparisons are == != < <= > >="
	case strings.Contains(e.Message, "Operator(\"=\")"), isAssignment(text):
		f.Suggestion = "equal is written =="
	}
	return f
}

// isAssignment finds a single = in a text.
func isAssignment(text string) bool {
	return strings.Contains(strings.NewReplacer("==", "", "!=", "", "<=", "", ">=", "").Replace(text), "=")
}

// typeFault says what does not fit together.
func typeFault(root ast.Node, want OperandKind, err error) Fault {
	var e *file.Error
	if !errors.As(err, &e) {
		if want == TruthOperand {
			return Fault{Text: "a condition is true or false; this gives " + kindName(root.Type()), Suggestion: "compare it: … > 0"}
		}
		return Fault{Text: "a number is expected here; this gives " + kindName(root.Type())}
	}
	f := Fault{Offset: e.From, Width: max(1, e.To-e.From), Text: strings.NewReplacer("invalid operation: ", "", "[]float64", "a list", "float64", "a number", "int", "a number", "string", "a text", "bool", "true or false").Replace(strings.TrimSpace(firstLine(e.Message)))}
	if node, ok := nodeAt(root, e.From).(*ast.BinaryNode); ok && strings.Contains(e.Message, "mismatched types") {
		f.Text = fmt.Sprintf("%s compares %s with %s", node.Operator, kindName(node.Left.Type()), kindName(node.Right.Type()))
		if id, ok := node.Left.(*ast.IdentifierNode); ok && id.Type().Kind() == reflect.Bool {
			f.Suggestion = fmt.Sprintf("write %s, or not %s", id.Value, id.Value)
		}
		if !slices.Contains([]string{"==", "!=", "<", ">", "<=", ">=", "in"}, node.Operator) {
			f.Text = fmt.Sprintf("%s does not take %s and %s", node.Operator, kindName(node.Left.Type()), kindName(node.Right.Type()))
		}
	}
	return f
}

// nodeAt finds the operator whose place is an offset.
func nodeAt(root ast.Node, offset int) ast.Node {
	var found ast.Node
	ast.Walk(&root, visitor(func(n ast.Node) {
		if b, ok := n.(*ast.BinaryNode); ok && b.Location().From == offset {
			found = n
		}
	}))
	return found
}

func kindName(t reflect.Type) string {
	switch {
	case t == nil:
		return "nothing"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "a text"
	case t.Kind() == reflect.Float64, t.Kind() == reflect.Int:
		return "a number"
	}
	return "a list"
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
