package cloud

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"sluice/gateway"
)

// What bounds a downlink: nothing of the protocol comes near to these.
const (
	maxDownlink = 64 << 10 // bytes of a message that is read
	maxDepth    = 8        // of nested objects and lists
	maxNames    = 1000     // in one object
	maxNumber   = 64       // characters of a number
)

// reader reads strict JSON, once and from the front: UTF-8, no name twice in an
// object, no NUL. After a fault of syntax nothing more is read; doubled names
// are noted, and the reading goes on.
type reader struct {
	text    []byte
	at      int
	depth   int
	doubled *string // the first name that stands twice in its object
	err     error
}

var errEnds = errors.New("the JSON ends early")

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
	r.at = len(r.text)
}

// peek is the next byte that is not a blank, 0 at the end.
func (r *reader) peek() byte {
	for r.at < len(r.text) {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\r', '\n':
			r.at++
		default:
			return c
		}
	}
	return 0
}

// take takes a byte that must come next.
func (r *reader) take(c byte) bool {
	if r.err != nil {
		return false
	}
	switch got := r.peek(); {
	case r.at >= len(r.text):
		r.fail("%w", errEnds)
	case got != c:
		r.fail("%q instead of %q at byte %d of the JSON", got, c, r.at)
	default:
		r.at++
		return true
	}
	return false
}

// end reports what stands behind the value.
func (r *reader) end() {
	if r.err == nil && (r.peek() != 0 || r.at < len(r.text)) {
		r.fail("more behind the end of the JSON, at byte %d", r.at)
	}
}

// fault is what is wrong with the whole text.
func (r *reader) fault() error {
	if r.err == nil && r.doubled != nil {
		return fmt.Errorf("%s stands there twice", strconv.Quote(*r.doubled))
	}
	return r.err
}

// object reads an object and hands over each name with the reader at its
// value, which field must read.
func (r *reader) object(field func(name string)) {
	if !r.enter('{') {
		return
	}
	seen := make(map[string]struct{}, 8)
	for first := true; r.more('}', first); first = false {
		name := r.quoted()
		if !r.take(':') {
			return
		}
		if _, ok := seen[name]; ok && r.doubled == nil {
			r.doubled = &name
		}
		if seen[name] = struct{}{}; len(seen) > maxNames {
			r.fail("an object of more than %d names", maxNames)
			return
		}
		field(name)
	}
}

// enter takes the bracket of an object or a list.
func (r *reader) enter(open byte) bool {
	if !r.take(open) {
		return false
	}
	if r.depth++; r.depth > maxDepth {
		r.fail("JSON nested deeper than %d", maxDepth)
		return false
	}
	return true
}

// more tells whether another element follows, and takes the comma before it or
// the bracket that closes.
func (r *reader) more(closing byte, first bool) bool {
	if r.err != nil {
		return false
	}
	if r.peek() == closing && r.at < len(r.text) {
		r.at++
		r.depth--
		return false
	}
	return first || r.take(',')
}

// value reads any value. Scalars and lists of them become a gateway.Value;
// objects, null and numbers that no float64 holds are None.
func (r *reader) value() gateway.Value {
	switch c := r.peek(); {
	case c == '{':
		r.object(func(string) { r.value() })
	case c == '[':
		return r.list()
	case c == '"':
		return gateway.TextValue(r.quoted())
	case c == '-' || c >= '0' && c <= '9':
		return r.number()
	case r.word("true"):
		return gateway.BoolValue(true)
	case r.word("false"):
		return gateway.BoolValue(false)
	case r.word("null"):
	case r.at >= len(r.text):
		r.fail("%w", errEnds)
	default:
		r.fail("%q is no JSON, at byte %d", c, r.at)
	}
	return gateway.Value{}
}

func (r *reader) word(w string) bool {
	if len(r.text)-r.at < len(w) || string(r.text[r.at:r.at+len(w)]) != w {
		return false
	}
	r.at += len(w)
	return true
}

func (r *reader) list() gateway.Value {
	var list []gateway.Value
	if !r.enter('[') {
		return gateway.Value{}
	}
	scalars := true
	for first := true; r.more(']', first); first = false {
		v := r.value()
		scalars = scalars && v.Kind() != gateway.None && v.Kind() != gateway.List
		list = append(list, v)
	}
	if !scalars || r.err != nil {
		return gateway.Value{}
	}
	return gateway.ListValue(list)
}

// number reads a number: whole ones stay exact.
func (r *reader) number() gateway.Value {
	start := r.at
	whole := true
	if r.text[r.at] == '-' {
		r.at++
	}
	digits := r.digits()
	if digits == 0 || digits > 1 && r.text[r.at-digits] == '0' {
		r.fail("a number that is none at byte %d of the JSON", start)
	}
	if r.at < len(r.text) && r.text[r.at] == '.' {
		r.at++
		if whole = false; r.digits() == 0 {
			r.fail("a number without digits behind its point at byte %d of the JSON", start)
		}
	}
	if r.at < len(r.text) && r.text[r.at]|0x20 == 'e' {
		r.at++
		if r.at < len(r.text) && (r.text[r.at] == '+' || r.text[r.at] == '-') {
			r.at++
		}
		if whole = false; r.digits() == 0 {
			r.fail("a number without an exponent at byte %d of the JSON", start)
		}
	}
	if r.err == nil && r.at-start > maxNumber {
		r.fail("a number of more than %d characters", maxNumber)
	}
	if r.err != nil {
		return gateway.Value{}
	}
	return numberOf(string(r.text[start:r.at]), whole)
}

func (r *reader) digits() (n int) {
	for r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9' {
		r.at++
		n++
	}
	return n
}

func numberOf(text string, whole bool) gateway.Value {
	if whole {
		if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			return gateway.IntValue(i)
		}
		if u, err := strconv.ParseUint(text, 10, 64); err == nil {
			return gateway.UintValue(u)
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(f, 0) {
		return gateway.Value{}
	}
	return gateway.FloatValue(f)
}

// quoted reads a string.
func (r *reader) quoted() string {
	if !r.take('"') {
		return ""
	}
	start := r.at
	for r.at < len(r.text) && r.text[r.at] >= 0x20 && r.text[r.at] < utf8.RuneSelf && r.text[r.at] != '\\' {
		if r.text[r.at] == '"' {
			r.at++
			return string(r.text[start : r.at-1])
		}
		r.at++
	}
	return r.unquote(append(make([]byte, 0, 2*(r.at-start)+16), r.text[start:r.at]...))
}

// unquote reads the rest of a string that needs a closer look.
func (r *reader) unquote(out []byte) string {
	for r.at < len(r.text) {
		switch c := r.text[r.at]; {
		case c == '"':
			r.at++
			return string(out)
		case c < 0x20:
			r.fail("a control character in a string at byte %d of the JSON", r.at)
		case c == '\\':
			out = r.escape(out)
		case c < utf8.RuneSelf:
			out = append(out, c)
			r.at++
		default:
			char, size := utf8.DecodeRune(r.text[r.at:])
			if char == utf8.RuneError && size == 1 {
				r.fail("no UTF-8 at byte %d of the JSON", r.at)
				return ""
			}
			out = append(out, r.text[r.at:r.at+size]...)
			r.at += size
		}
	}
	r.fail("%w", errEnds)
	return ""
}

var escapes = map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (r *reader) escape(out []byte) []byte {
	if r.at+1 >= len(r.text) {
		r.fail("%w", errEnds)
		return out
	}
	c := r.text[r.at+1]
	if plain, ok := escapes[c]; ok {
		r.at += 2
		return append(out, plain)
	}
	char := r.hex(r.at)
	r.at += 6
	if utf16.IsSurrogate(char) {
		char = utf16.DecodeRune(char, r.hex(r.at))
		r.at += 6
	}
	if char <= 0 || char == utf8.RuneError {
		r.fail("a bad character in a string of the JSON")
		return out
	}
	return utf8.AppendRune(out, char)
}

// hex is the code unit of \uXXXX, -1 where there is none.
func (r *reader) hex(at int) rune {
	if at+6 > len(r.text) || r.text[at] != '\\' || r.text[at+1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(r.text[at+2:at+6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

// raw reads any value and gives its text.
func (r *reader) raw() (gateway.Value, string) {
	r.peek()
	start := r.at
	v := r.value()
	if r.err != nil {
		return gateway.Value{}, ""
	}
	return v, string(r.text[start:r.at])
}
