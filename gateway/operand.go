package gateway

import (
	"fmt"
	"slices"
)

// Operand is what a point is in an expression: an enum its label, flags the
// list of the names of the bits that are set.
func (d *Definition) Operand() Operand {
	o := Operand{Kind: NumberOperand, WriteOnly: d.Access == "w", Secret: d.Secret}
	switch {
	case len(d.Enum) > 0:
		o.Kind = WordOperand
		for _, label := range d.Enum {
			o.Labels = append(o.Labels, label.Label)
		}
	case d.Type == Flags:
		o.Kind, o.Labels = WordsOperand, d.flagNames()
	case d.Type == Bool:
		o.Kind = TruthOperand
	case d.Type == String, d.Type == Bytes:
		o.Kind = WordOperand
	}
	if d.Count > 1 {
		o.Kind = NumbersOperand
		if o.Labels != nil || d.Type == String {
			o.Kind = WordsOperand
		}
	}
	return o
}

// flagNames are the names of the bits of a flags point.
func (d *Definition) flagNames() []string {
	names := make([]string, 8*d.Length)
	for bit := range names {
		names[bit] = d.flagName(bit)
	}
	return names
}

func (d *Definition) flagName(bit int) string {
	if name := d.Flags[bit]; name != "" {
		return name
	}
	return fmt.Sprint("bit", bit)
}

// Scope is what the expressions of a device may use.
func (d *Device) Scope() Scope {
	return func(name string) (Operand, bool) {
		for _, p := range d.Points {
			if p.ID == name {
				return p.Operand(), true
			}
		}
		for _, c := range d.Computed {
			if c.ID == name {
				return Operand{Kind: NumberOperand}, true
			}
		}
		return Operand{}, false
	}
}

// With is a scope that has more names, which go first.
func (s Scope) With(more map[string]Operand) Scope {
	return func(name string) (Operand, bool) {
		if operand, ok := more[name]; ok {
			return operand, true
		}
		return s(name)
	}
}

// Equal tells whether an expression that is right with one operand is right
// with the other.
func (o Operand) Equal(other Operand) bool {
	return o.Kind == other.Kind && o.WriteOnly == other.WriteOnly && slices.Equal(o.Labels, other.Labels)
}
