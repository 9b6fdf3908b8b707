package modbus

import (
	"errors"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	tests := []struct {
		text, addressing, table string
		want                    string // "!" for what the error says
	}{
		// These four are one register.
		{"30053", "modicon", "", "input 52 (0x0034)"},
		{"input:53", "one-based", "", "input 52 (0x0034)"},
		{"input:52", "protocol", "", "input 52 (0x0034)"},
		{"input:0x0034", "protocol", "", "input 52 (0x0034)"},

		{"40001", "modicon", "", "holding 0 (0x0000)"},
		{"400001", "modicon", "", "holding 0 (0x0000)"},
		{"49999", "modicon", "", "holding 9998 (0x270E)"},
		{"465536", "modicon", "", "holding 65535 (0xFFFF)"},
		{"00017", "modicon", "", "coil 16 (0x0010)"},
		{"10001", "modicon", "", "discrete 0 (0x0000)"},
		{"holding:40010", "modicon", "", "holding 9 (0x0009)"},
		{"40001", "modicon", "input", "holding 0 (0x0000)"},
		{"53", "one-based", "holding", "holding 52 (0x0034)"},
		{"65536", "one-based", "coil", "coil 65535 (0xFFFF)"},
		{"0x0001", "one-based", "holding", "holding 0 (0x0000)"},
		{"0x2101", "protocol", "holding", "holding 8449 (0x2101)"},
		{"0X21fF", "protocol", "holding", "holding 8703 (0x21FF)"},
		{"coil:17", "protocol", "holding", "coil 17 (0x0011)"},
		{"0100", "protocol", "holding", "holding 100 (0x0064)"},
		{"40001", "protocol", "holding", "holding 40001 (0x9C41)"},
		{"65535", "protocol", "discrete", "discrete 65535 (0xFFFF)"},

		{"", "protocol", "holding", `!address "" has no number; write the number that the manual prints`},
		{"holding:", "protocol", "", `!address "holding:" has no number; write the number that the manual prints`},
		{"hold:1", "protocol", "", `!address "hold:1": "hold" is not a table; write holding:, input:, coil: or discrete:`},
		{"12", "protocol", "", `!address "12" does not say which table it is in; write holding:12, input:12, coil:12 or discrete:12, or give the profile a table`},
		{"12", "", "holding", `!addressing "" of address "12" is unknown; write addressing: modicon, one-based or protocol`},
		{"40010.3", "modicon", "", `!address "40010.3" has a bit behind the point; write at: 40010, bit: 3`},
		{"4x0012", "modicon", "", `!address "4x0012" is not a number; under addressing: modicon write 40012`},
		{"2101h", "protocol", "holding", `!address "2101h" is not a number; write 0x2101`},
		{"21FF", "protocol", "holding", `!address "21FF" is not a number; write 0x21FF for a hexadecimal number`},
		{"-1", "protocol", "holding", `!address "-1" is negative`},
		{"VW100", "protocol", "holding", `!address "VW100" is not a number; write the number that the manual prints, such as 40001, 0x2101 or holding:12`},
		{"65536", "protocol", "holding", `!address "65536" is past the end of its table (65535)`},
		{"400001", "protocol", "holding", `!address "400001" is past the end of its table (65535); where the manual prints references of 6 digits, write addressing: modicon`},
		{"0x10000", "protocol", "holding", `!address "0x10000" is past the end of its table (65535)`},
		{"99999999999999999999", "protocol", "holding", `!address "99999999999999999999" is past the end of its table (65535)`},
		{"0", "one-based", "holding", `!address "0": one-based addresses count from 1; where the manual counts from 0, write addressing: protocol`},
		{"40000", "modicon", "", `!address "40000": modicon references count from 1; the first is 40001; where the manual counts from 0, write addressing: protocol`},
		{"465537", "modicon", "", `!address "465537" is past the end of its table (465536)`},
		{"20001", "modicon", "", `!address "20001" is no modicon reference; references start with 0 (coil), 1 (discrete input), 3 (input register) or 4 (holding register); where the manual prints plain numbers, write addressing: one-based or protocol`},
		{"17", "modicon", "", `!address "17" is no modicon reference of 5 or 6 digits; write 40017 for a holding register, 30017 for an input register, 00017 for a coil or 10017 for a discrete input`},
		{"coil:17", "modicon", "", `!address "coil:17" is no modicon reference of 5 or 6 digits; write 00017`},
		{"4000001", "modicon", "", `!address "4000001" has 7 digits, modicon references have 5 or 6; write a reference such as 40001 or 400001`},
		{"input:40001", "modicon", "", `!address "input:40001" contradicts itself: 40001 is in the holding table; write 40001`},
		{"0x0012", "modicon", "", `!address "0x0012" is hexadecimal, but addressing is modicon; write 40019, or addressing: protocol where the manual prints hexadecimal wire addresses`},
	}
	for _, tt := range tests {
		a, err := ParseAddress(tt.text, tt.addressing, tt.table)
		got := a.String()
		if err != nil {
			got = "!" + err.Error()
		}
		if got != tt.want {
			t.Errorf("%q %s: %s\nwant %s", tt.text, tt.addressing, got, tt.want)
		}
	}
}

// TestAddressPrints: what In prints is read as the same address.
func TestAddressPrints(t *testing.T) {
	for _, addressing := range []string{"modicon", "one-based", "protocol"} {
		for table := Holding; table <= Discrete; table++ {
			for _, wire := range []int{0, 52, 9998, 9999, 65535} {
				text := Address{Table: table, Wire: wire}.In(addressing)
				got, err := ParseAddress(text, addressing, "")
				if err != nil || got.Table != table || got.Wire != wire {
					t.Errorf("%s %s: %v, %v, want %s %d", text, addressing, got, err, table, wire)
				}
			}
		}
	}
}

func TestParseRange(t *testing.T) {
	for text, want := range map[string]string{
		"30100..30199":       "input 99 to 198",
		"30100":              "input 99 to 99",
		"input:30100..30199": "input 99 to 198",
	} {
		first, last, err := parseRange(text, "modicon", "")
		if got := first.Table.String(); err != nil || want != got+" "+strings.Join([]string{itoa(first.Wire), "to", itoa(last.Wire)}, " ") {
			t.Errorf("%s: %v to %v, %v, want %s", text, first, last, err, want)
		}
	}
	for _, text := range []string{"30199..30100", "30100..40100", "30100..", "..", ""} {
		if _, _, err := parseRange(text, "modicon", ""); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"30053", "input:53", "0x2101", "coil:0x1F", "4x0001", "40010.3", "00017", "2101h", ":", "x", "0x"} {
		f.Add(s, "modicon", "holding")
		f.Add(s, "protocol", "coil")
		f.Add(s, "one-based", "")
	}
	f.Fuzz(func(t *testing.T, text, addressing, table string) {
		a, err := ParseAddress(text, addressing, table)
		if err != nil {
			var e *AddressError
			if !errors.As(err, &e) || e.Text == "" {
				t.Errorf("%q: %#v is no *AddressError", text, err)
			}
			return
		}
		if a.Wire < 0 || a.Wire > 65535 || a.Table > Discrete {
			t.Fatalf("%q: %v", text, a)
		}
		again, err := ParseAddress(a.In(addressing), addressing, table)
		if err != nil || again.Wire != a.Wire || again.Table != a.Table {
			t.Errorf("%q is %v, printed as %s it is %v, %v", text, a, a.In(addressing), again, err)
		}
	})
}
