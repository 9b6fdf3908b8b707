package gateway

import (
	"encoding/hex"
	"math"
	"strconv"
	"time"
)

// Type is the type of a point on the wire.
type Type string

// The types of points.
const (
	Bool    Type = "bool"
	Int8    Type = "int8"
	Int16   Type = "int16"
	Int32   Type = "int32"
	Int64   Type = "int64"
	Uint8   Type = "uint8"
	Uint16  Type = "uint16"
	Uint32  Type = "uint32"
	Uint64  Type = "uint64"
	Float32 Type = "float32"
	Float64 Type = "float64"
	BCD16   Type = "bcd16"
	BCD32   Type = "bcd32"
	String  Type = "string"
	Bytes   Type = "bytes"
	Flags   Type = "flags"
	Time    Type = "time"
)

// Order is the order of the bytes of a value on the wire; A is the most
// significant. CDAB swaps words, BADC the bytes of each word, DCBA both.
type Order string

// The four orders.
const (
	ABCD Order = "ABCD"
	CDAB Order = "CDAB"
	BADC Order = "BADC"
	DCBA Order = "DCBA"
)

// Kind is what a Value holds.
type Kind uint8

// The kinds of values. Single is a float32: it prints with the digits that
// tell float32 values apart, so that 230.1 stays 230.1.
const (
	None Kind = iota
	Boolean
	Signed
	Unsigned
	Single
	Double
	Text
	Blob
	Moment
	List
)

// Value is the value of a point, raw or in engineering units. The zero Value
// holds nothing. Integers of 64 bits are exact.
type Value struct {
	kind Kind
	bits uint64
	text string
	list *[]Value
}

// BoolValue makes a Boolean.
func BoolValue(b bool) Value {
	if b {
		return Value{kind: Boolean, bits: 1}
	}
	return Value{kind: Boolean}
}

// IntValue makes a Signed.
func IntValue(i int64) Value { return Value{kind: Signed, bits: uint64(i)} }

// UintValue makes an Unsigned.
func UintValue(u uint64) Value { return Value{kind: Unsigned, bits: u} }

// Float32Value makes a Single.
func Float32Value(f float32) Value {
	return Value{kind: Single, bits: math.Float64bits(float64(f))}
}

// FloatValue makes a Double.
func FloatValue(f float64) Value { return Value{kind: Double, bits: math.Float64bits(f)} }

// TextValue makes a Text.
func TextValue(s string) Value { return Value{kind: Text, text: s} }

// BlobValue makes a Blob of a copy of b.
func BlobValue(b []byte) Value { return Value{kind: Blob, text: string(b)} }

// TimeValue makes a Moment, exact to the millisecond.
func TimeValue(t time.Time) Value { return Value{kind: Moment, bits: uint64(t.UnixMilli())} }

// ListValue makes a List; the slice belongs to the value afterwards.
func ListValue(l []Value) Value { return Value{kind: List, list: &l} }

// Kind tells what the value holds.
func (v Value) Kind() Kind { return v.kind }

// Bool is the value of a Boolean; of a number, whether it is not 0.
func (v Value) Bool() bool { return v.Float() != 0 }

// Int is the value of an integer, Boolean or Moment (ms since 1970); of a float, what is left of it without its fraction.
func (v Value) Int() int64 {
	if v.kind == Single || v.kind == Double {
		return int64(v.Float())
	}
	return int64(v.bits)
}

// Uint is the value of an Unsigned.
func (v Value) Uint() uint64 { return v.bits }

// Float is the value of a number, Boolean or Moment as a float64; NaN for the rest.
func (v Value) Float() float64 {
	switch v.kind {
	case Boolean, Unsigned:
		return float64(v.bits)
	case Signed, Moment:
		return float64(int64(v.bits))
	case Single, Double:
		return math.Float64frombits(v.bits)
	}
	return math.NaN()
}

// Text is the text of a Text or the bytes of a Blob.
func (v Value) Text() string { return v.text }

// List is the elements of a List.
func (v Value) List() []Value {
	if v.list == nil {
		return nil
	}
	return *v.list
}

// Numeric tells whether the value is a number.
func (v Value) Numeric() bool { return v.kind >= Signed && v.kind <= Double }

// Equal tells whether two values are the same in kind and content.
func (v Value) Equal(w Value) bool {
	if v.kind != w.kind || v.bits != w.bits || v.text != w.text || len(v.List()) != len(w.List()) {
		return false
	}
	for i, x := range v.List() {
		if !x.Equal(w.List()[i]) {
			return false
		}
	}
	return true
}

// same is Equal for values that are no list; those it calls different.
func (v *Value) same(w *Value) bool {
	return v.kind == w.kind && v.bits == w.bits && v.list == nil && w.list == nil && v.text == w.text
}

// String is the value for people and logs.
func (v Value) String() string { return string(v.AppendText(nil)) }

// AppendText appends the value for people and logs: shortest exact digits,
// times as RFC 3339 in UTC, bytes as hexadecimal.
func (v Value) AppendText(dst []byte) []byte {
	switch v.kind {
	case Boolean:
		return strconv.AppendBool(dst, v.bits != 0)
	case Signed:
		return strconv.AppendInt(dst, int64(v.bits), 10)
	case Unsigned:
		return strconv.AppendUint(dst, v.bits, 10)
	case Single:
		return strconv.AppendFloat(dst, v.Float(), 'g', -1, 32)
	case Double:
		return strconv.AppendFloat(dst, v.Float(), 'g', -1, 64)
	case Text:
		return append(dst, v.text...)
	case Blob:
		return hex.AppendEncode(dst, []byte(v.text))
	case Moment:
		return time.UnixMilli(int64(v.bits)).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z07:00")
	case List:
		dst = append(dst, '[')
		for i, x := range v.List() {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = x.AppendText(dst)
		}
		return append(dst, ']')
	}
	return append(dst, '-')
}
