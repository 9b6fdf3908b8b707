package gateway

import (
	"encoding/hex"
	"math"
	"strconv"
	"unicode/utf8"
)

// exactInteger is the largest integer that is exact where numbers are kept as
// float64, as the platform does.
const exactInteger = 1 << 53

// AppendJSON appends the value as JSON, as the cloud gets it: integers beyond ±2^53 are
// strings, times are ms since 1970 UTC, bytes are lower-case hexadecimal. What
// JSON has no place for (NaN, infinities, nothing) is null.
func (v Value) AppendJSON(dst []byte) []byte {
	switch v.kind {
	case Boolean:
		return strconv.AppendBool(dst, v.Bool())
	case Signed, Moment:
		return appendInteger(dst, v.Int())
	case Unsigned:
		if v.Uint() <= exactInteger {
			return strconv.AppendUint(dst, v.Uint(), 10)
		}
		return append(strconv.AppendUint(append(dst, '"'), v.Uint(), 10), '"')
	case Single:
		return appendFloat(dst, v.Float(), 32)
	case Double:
		return appendFloat(dst, v.Float(), 64)
	case Text:
		return AppendJSONString(dst, v.text)
	case Blob:
		dst = append(dst, '"')
		dst = hex.AppendEncode(dst, []byte(v.text))
		return append(dst, '"')
	case List:
		return appendList(dst, v.List())
	}
	return append(dst, "null"...)
}

func appendInteger(dst []byte, i int64) []byte {
	if i >= -exactInteger && i <= exactInteger {
		return strconv.AppendInt(dst, i, 10)
	}
	return append(strconv.AppendInt(append(dst, '"'), i, 10), '"')
}

// appendFloat writes an exponent only where the digits would be many.
func appendFloat(dst []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, "null"...)
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, f, format, -1, bits)
}

// appendList keeps the place of an element that cannot be sent.
func appendList(dst []byte, list []Value) []byte {
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = v.AppendJSON(dst)
	}
	return append(dst, ']')
}

const hexDigits = "0123456789abcdef"

// AppendJSONString quotes s; what is not UTF-8 becomes U+FFFD.
func AppendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		switch b := s[i]; {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
			i++
		case b < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&15])
			i++
		case b < utf8.RuneSelf:
			dst = append(dst, b)
			i++
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += size
		}
	}
	return append(dst, '"')
}
