package gateway

import "fmt"

// Assignment is a point and what is written to it: a number, true, false, a
// label of its enum, or $param.
type Assignment struct{ Point, Value string }

// Assignments are writes in the order of the file, or those of all parameters.
type Assignments struct {
	Params bool // each parameter is the point of its name
	Values []Assignment
}

// UnmarshalText reads params.
func (a *Assignments) UnmarshalText(text []byte) error {
	if string(text) != "params" {
		return fmt.Errorf("write takes { point: value }, or params, not %q", text)
	}
	*a = Assignments{Params: true}
	return nil
}

// UnmarshalEntry adds one write.
func (a *Assignments) UnmarshalEntry(point, value string) error {
	a.Values = append(a.Values, Assignment{point, value})
	return nil
}

// Field is one key of a stream's body.
type Field struct {
	Key   string
	Value Expression
}

// Body is the content of a stream: fields, or a text with {point} in it.
type Body struct {
	Text   string
	Fields []Field
}

// UnmarshalText keeps the text.
func (b *Body) UnmarshalText(text []byte) error {
	*b = Body{Text: string(text)}
	return nil
}

// UnmarshalEntry adds one field.
func (b *Body) UnmarshalEntry(key, value string) error {
	b.Fields = append(b.Fields, Field{key, Expression{value}})
	return nil
}
