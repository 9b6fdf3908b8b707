package modbus

import (
	"fmt"
	"strconv"
	"strings"
)

// Table is one of the four address spaces of a Modbus unit.
type Table uint8

// The four tables.
const (
	Holding  Table = iota // read and write registers: function codes 3, 6, 16, 22
	Input                 // read-only registers: 4
	Coil                  // read and write bits: 1, 5, 15
	Discrete              // read-only bits: 2
)

var tableNames = [...]string{"holding", "input", "coil", "discrete"}

// String is the table's name in the site file.
func (t Table) String() string { return tableNames[t] }

// one is what a single address of the table is, with its article.
func (t Table) one() string {
	return [...]string{"a holding register", "an input register", "a coil", "a discrete input"}[t]
}

// Bits tells whether the table holds bits, not registers.
func (t Table) Bits() bool { return t >= Coil }

// Writable tells whether Modbus can write to the table.
func (t Table) Writable() bool { return t == Holding || t == Coil }

// modiconDigit is the first digit of the table's references.
func (t Table) modiconDigit() byte { return "4301"[t] }

func parseTable(name string) (Table, bool) {
	for i, n := range tableNames {
		if n == name {
			return Table(i), true
		}
	}
	return 0, false
}

// Address is a place in a unit, as it goes over the wire.
type Address struct {
	Table Table
	Wire  int // 0 to 65535, before the device's shift
	// Explicit: written with a table prefix or in hexadecimal, so that its
	// digits cannot be a modicon reference by mistake.
	Explicit bool
}

// String is the address on the wire: input 52 (0x0034).
func (a Address) String() string { return fmt.Sprintf("%s %d (0x%04X)", a.Table, a.Wire, a.Wire) }

// In is the address as the given addressing prints it, with its table: 30053,
// input:53, input:52.
func (a Address) In(addressing string) string {
	switch addressing {
	case "modicon":
		if a.Wire >= 9999 {
			return fmt.Sprintf("%c%05d", a.Table.modiconDigit(), a.Wire+1)
		}
		return fmt.Sprintf("%c%04d", a.Table.modiconDigit(), a.Wire+1)
	case "one-based":
		return fmt.Sprintf("%s:%d", a.Table, a.Wire+1)
	}
	return fmt.Sprintf("%s:%d", a.Table, a.Wire)
}

// AddressError says what is wrong with the text of an address and what to
// write instead.
type AddressError struct {
	Text       string // what is wrong
	Suggestion string // what to write; may be empty
}

// Error is both sentences.
func (e *AddressError) Error() string {
	if e.Suggestion == "" {
		return e.Text
	}
	return e.Text + "; " + e.Suggestion
}

func addressError(suggestion, format string, args ...any) error {
	return &AddressError{Text: fmt.Sprintf(format, args...), Suggestion: suggestion}
}

// ParseAddress reads an address as a manual prints it. The addressing of the
// profile (modicon, one-based or protocol) says how the manual counts; table
// is the profile's table for bare numbers and may be empty. Errors are
// *AddressError.
func ParseAddress(text, addressing, table string) (Address, error) {
	prefix, digits, hasPrefix := strings.Cut(text, ":")
	if !hasPrefix {
		prefix, digits = "", text
	}
	if digits == "" {
		return Address{}, addressError("write the number that the manual prints", "address %q has no number", text)
	}
	var t Table
	if hasPrefix {
		var ok bool
		if t, ok = parseTable(prefix); !ok {
			return Address{}, addressError("write holding:, input:, coil: or discrete:", "address %q: %q is not a table", text, prefix)
		}
	}
	if err := checkDigits(text, digits); err != nil {
		return Address{}, err
	}
	switch addressing {
	case "modicon":
		return parseModicon(text, digits, t, hasPrefix)
	case "one-based", "protocol":
	default:
		return Address{}, addressError("write addressing: modicon, one-based or protocol", "addressing %q of address %q is unknown", addressing, text)
	}
	if !hasPrefix {
		var ok bool
		if t, ok = parseTable(table); !ok {
			return Address{}, addressError(fmt.Sprintf("write holding:%s, input:%s, coil:%s or discrete:%s, or give the profile a table", digits, digits, digits, digits),
				"address %q does not say which table it is in", text)
		}
	}
	return parseCounted(text, digits, t, addressing == "one-based", hasPrefix)
}

// checkDigits finds the ways in which people write something else than a number.
func checkDigits(text, digits string) error {
	number, bit, dotted := strings.Cut(digits, ".")
	switch {
	case dotted && isDigits(bit) && len(bit) <= 2:
		return addressError(fmt.Sprintf("write at: %s, bit: %s", number, bit), "address %q has a bit behind the point", text)
	case strings.HasPrefix(digits, "-"):
		return addressError("", "address %q is negative", text)
	case isHex(digits) || isDigits(digits):
		return nil
	case len(digits) > 2 && (digits[1] == 'x' || digits[1] == 'X') && isDigits(digits[2:]) && strings.Contains("0134", digits[:1]):
		return addressError(fmt.Sprintf("under addressing: modicon write %s%s", digits[:1], leftPad(digits[2:], 4)), "address %q is not a number", text)
	case strings.HasSuffix(digits, "h") || strings.HasSuffix(digits, "H"):
		if hex := digits[:len(digits)-1]; isHex("0x" + hex) {
			return addressError("write 0x"+hex, "address %q is not a number", text)
		}
	case isHex("0x" + digits):
		return addressError("write 0x"+digits+" for a hexadecimal number", "address %q is not a number", text)
	}
	return addressError("write the number that the manual prints, such as 40001, 0x2101 or holding:12", "address %q is not a number", text)
}

// parseModicon reads references of 5 or 6 digits: 40001 and 400001 are holding
// register 0 on the wire.
func parseModicon(text, digits string, t Table, hasPrefix bool) (Address, error) {
	if isHex(digits) {
		suggestion := "write the reference, such as 40019, or addressing: protocol where the manual prints hexadecimal wire addresses"
		if wire, err := strconv.ParseUint(digits[2:], 16, 16); err == nil {
			suggestion = fmt.Sprintf("write %s, or addressing: protocol where the manual prints hexadecimal wire addresses", Address{Table: t, Wire: int(wire)}.In("modicon"))
		}
		return Address{}, addressError(suggestion, "address %q is hexadecimal, but addressing is modicon", text)
	}
	table := Table(strings.IndexByte("4301", digits[0]) & 3)
	if len(digits) != 5 && len(digits) != 6 {
		return Address{}, modiconLength(text, digits, t, hasPrefix)
	}
	if !strings.Contains("0134", digits[:1]) {
		return Address{}, addressError("references start with 0 (coil), 1 (discrete input), 3 (input register) or 4 (holding register); where the manual prints plain numbers, write addressing: one-based or protocol",
			"address %q is no modicon reference", text)
	}
	if hasPrefix && table != t {
		return Address{}, addressError(fmt.Sprintf("write %s", digits), "address %q contradicts itself: %s is in the %s table", text, digits, table)
	}
	number, _ := strconv.Atoi(digits[1:])
	if number == 0 {
		return Address{}, addressError(fmt.Sprintf("the first is %s1; where the manual counts from 0, write addressing: protocol", digits[:len(digits)-1]), "address %q: modicon references count from 1", text)
	}
	if number > 65536 {
		return Address{}, addressError("", "address %q is past the end of its table (%c65536)", text, digits[0])
	}
	return Address{Table: table, Wire: number - 1, Explicit: true}, nil
}

func modiconLength(text, digits string, t Table, hasPrefix bool) error {
	number, err := strconv.Atoi(digits)
	if err != nil || number < 1 || number > 65536 {
		return addressError("write a reference such as 40001 or 400001", "address %q has %d digits, modicon references have 5 or 6", text, len(digits))
	}
	suggestion := fmt.Sprintf("write %s for a holding register, %s for an input register, %s for a coil or %s for a discrete input",
		Address{Holding, number - 1, false}.In("modicon"), Address{Input, number - 1, false}.In("modicon"),
		Address{Coil, number - 1, false}.In("modicon"), Address{Discrete, number - 1, false}.In("modicon"))
	if hasPrefix {
		suggestion = "write " + Address{t, number - 1, false}.In("modicon")
	}
	return addressError(suggestion, "address %q is no modicon reference of 5 or 6 digits", text)
}

// parseCounted reads a number that counts from 0 (the wire address) or 1.
func parseCounted(text, digits string, t Table, oneBased, hasPrefix bool) (Address, error) {
	base, hex := 10, isHex(digits)
	if hex {
		base, digits = 16, digits[2:]
	}
	number, err := strconv.ParseUint(digits, base, 32)
	last := uint64(65535)
	if oneBased {
		last++
		if err == nil && number == 0 {
			return Address{}, addressError("where the manual counts from 0, write addressing: protocol", "address %q: one-based addresses count from 1", text)
		}
	}
	if err != nil || number > last {
		suggestion := ""
		if err == nil && base == 10 && len(digits) == 6 && strings.Contains("0134", digits[:1]) {
			suggestion = "where the manual prints references of 6 digits, write addressing: modicon"
		}
		return Address{}, addressError(suggestion, "address %q is past the end of its table (%d)", text, last)
	}
	if oneBased {
		number--
	}
	return Address{Table: t, Wire: int(number), Explicit: hex || hasPrefix}, nil
}

// parseRange reads two addresses as the manual prints them (30100..30199), or
// one; the table prefix of the first holds for both.
func parseRange(text, addressing, table string) (first, last Address, err error) {
	low, high, isRange := strings.Cut(text, "..")
	if first, err = ParseAddress(low, addressing, table); err != nil || !isRange {
		return first, first, err
	}
	if prefix, _, ok := strings.Cut(low, ":"); ok && !strings.Contains(high, ":") {
		high = prefix + ":" + high
	}
	if last, err = ParseAddress(high, addressing, table); err != nil {
		return first, last, err
	}
	if first.Table != last.Table || last.Wire < first.Wire {
		return first, last, addressError("write the smaller address first, both of one table", "range %q does not run upwards within one table", text)
	}
	return first, last, nil
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func isHex(s string) bool {
	return len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") && strings.Trim(s[2:], "0123456789abcdefABCDEF") == ""
}

func leftPad(s string, width int) string {
	return strings.Repeat("0", max(0, width-len(s))) + s
}
