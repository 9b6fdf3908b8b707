package site

import (
	"regexp"
	"strings"
)

// expressionKey finds the keys that take an expression.
var expressionKey = regexp.MustCompile(`\b(when|clear|each|value|guard|expect|until)\s*:`)

// synonyms are words of manuals and other programs, by ours.
var synonyms = map[string]string{
	"float": "float32", "real": "float32", "single": "float32", "double": "float64", "lreal": "float64",
	"int": "int16", "sint": "int8", "short": "int16", "word": "uint16", "uint": "uint16", "ushort": "uint16", "u16": "uint16", "s16": "int16",
	"dint": "int32", "long": "int32", "dword": "uint32", "udint": "uint32", "ulong": "uint32", "u32": "uint32", "s32": "int32",
	"lint": "int64", "ulint": "uint64", "qword": "uint64", "boolean": "bool", "bit": "bool", "text": "string", "bcd": "bcd16",
	"big": "ABCD", "big-endian": "ABCD", "big_endian": "ABCD", "be": "ABCD", "1234": "ABCD",
	"little": "DCBA", "little-endian": "DCBA", "little_endian": "DCBA", "le": "DCBA", "4321": "DCBA",
	"word-swap": "CDAB", "swap": "CDAB", "3412": "CDAB", "byte-swap": "BADC", "2143": "BADC",
	"address": "at", "register": "at", "addr": "at", "factor": "scale", "multiplier": "scale", "interval": "poll", "period": "poll",
	"name": "label", "slave": "unit", "slave_id": "unit", "unit_id": "unit", "byte_order": "order", "endianness": "order",
	"username": "user", "yes": "true", "on": "true", "no": "false", "off": "false", "zero-based": "protocol",
	"readwrite": "rw", "read": "r", "write": "w", "ro": "r", "wo": "w", "tcp": "modbus-tcp", "rtu": "modbus-rtu", "modbus": "modbus-tcp", "opc-ua": "opcua", "opc_ua": "opcua",
	"host": "url", "broker": "url", "baud": "line", "baudrate": "line", "device": "port", "ip": "host",
}

// didYouMean suggests the candidate that was probably meant.
func didYouMean(word string, candidates []string) string {
	if best := nearest(word, candidates); best != "" {
		return "did you mean " + best + "?"
	}
	return ""
}

// nearest is the candidate that was probably meant, or "".
func nearest(word string, candidates []string) string {
	if len(word) > 64 {
		return ""
	}
	lower := strings.ToLower(word)
	best, bestDistance := "", 1+max(1, len(word)/3)
	for _, c := range candidates {
		if synonyms[lower] == c || strings.ToLower(c) == lower {
			return c
		}
		if d := distance(lower, strings.ToLower(c), bestDistance); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance counts the edits (insert, delete, replace, swap of neighbours) from
// a to b; at least limit when there are that many.
func distance(a, b string, limit int) int {
	if abs(len(a)-len(b)) >= limit {
		return limit
	}
	var rows [3][]int
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
	}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row := rows[(i-1)%3], rows[i%3], rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}

func abs(n int) int { return max(n, -n) }
