package gateway

import (
	"slices"
	"strings"
	"testing"
)

var testScope = Scope(func(name string) (Operand, bool) {
	o, ok := map[string]Operand{
		"x": {Kind: NumberOperand}, "y": {Kind: NumberOperand}, "b": {Kind: TruthOperand}, "w": {WriteOnly: true},
		"mode": {Kind: WordOperand, Labels: []string{"auto", "manual"}}, "text": {Kind: WordOperand}, "zones": {Kind: NumbersOperand},
	}[name]
	return o, ok
})

func TestExpressionsAreTyped(t *testing.T) {
	for text, want := range map[string]OperandKind{
		"x > 3 and not b":                    TruthOperand,
		`mode == "auto" or text == "any"`:    TruthOperand,
		`mode in ["auto", "manual"]`:         TruthOperand,
		"max(x, 3) > min(y, 2, 1)":           TruthOperand,
		"mean(zones) - zones[0]":             NumberOperand,
		"b ? 100 * x / y : 0":                NumberOperand,
		"round(x / 3, 1) + abs(-y)":          NumberOperand,
		`rate(x, "1m") + average(y, "1h")`:   NumberOperand,
		"changed(mode) and increase(x)":      TruthOperand,
		"since(x > 3) > 60 and good(mode)":   TruthOperand,
		"bit(x, 3) and clamp(y, 0, 10) == 3": TruthOperand,
		"mode":                               AnyOperand,
	} {
		if _, faults := testScope.Check(text, want); len(faults) > 0 {
			t.Errorf("%s: %+v", text, faults)
		}
	}
}

func TestExpressionFaultsAreAtTheirWord(t *testing.T) {
	for _, c := range []struct{ text, word, says string }{
		{"x > pwoer", "pwoer", "no point"},
		{`mode == "atuo"`, `"atuo"`, "no label"},
		{`mode in ["auto", "off"]`, `"off"`, "no label"},
		{"mode == auto", "auto", "stands in quotes"},
		{"w > 1", "w", "write-only"},
		{"x > $hz", "$hz", "no $"},
		{"b == 1", "==", "compares true or false with a number"},
		{"x + b > 1", "+", "does not take"},
		{"foo(x) > 1", "foo", "no function"},
		{"len(mode) > 1", "len", "no function"},
		{"x = 3", "=", "no expression"},
		{`rate(x, "1 min") > 1`, `"1 min"`, "no time"},
		{"x > 3 and (mode == 4)", "==", "compares a text with a number"},
	} {
		_, faults := testScope.Check(c.text, TruthOperand)
		if len(faults) != 1 || !strings.Contains(faults[0].Text, c.says) {
			t.Errorf("%s: %+v", c.text, faults)
			continue
		}
		if f := faults[0]; string([]rune(c.text)[f.Offset:f.Offset+f.Width]) != c.word {
			t.Errorf("%s: marks %d+%d, not %s", c.text, f.Offset, f.Width, c.word)
		}
	}
}

func TestExpressionsHaveNoSideRooms(t *testing.T) {
	for _, text := range []string{
		"let a = x; a > 1", "x == nil", "{a: 1}.a > 2", "filter(zones, # > 1)", "$env.x > 1", "x > 1; b", "now() > x", "zones[1:2] == zones",
		strings.Repeat("(", 900) + "x" + strings.Repeat(")", 900) + strings.Repeat(" ", 300), "", "x >", "x", "rate(x, 60) > 1", "changed(abs(x))",
	} {
		if _, faults := testScope.Check(text, TruthOperand); len(faults) == 0 {
			t.Errorf("%s is taken", text)
		}
	}
}

func TestExpressionNamesAreToldOnce(t *testing.T) {
	names, _ := testScope.Check("x > 3 and max(x, y) < 9 or b", TruthOperand)
	if !slices.Equal(names, []string{"x", "y", "b"}) {
		t.Errorf("got %v", names)
	}
}
