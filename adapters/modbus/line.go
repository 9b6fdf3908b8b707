package modbus

import (
	"fmt"
	"strconv"
	"strings"
)

// Line is the format of a serial line.
type Line struct {
	Baud     int
	DataBits int
	Parity   byte // N, E or O
	StopBits int
}

// ParseLine reads a baud rate and a format: 9600 8N1.
func ParseLine(text string) (Line, error) {
	fields := strings.Fields(text)
	if len(fields) != 2 || len(fields[1]) != 3 {
		return Line{}, fmt.Errorf("line %q is not a baud rate and a format; write 9600 8N1, or 19200 8E1", text)
	}
	baud, err := strconv.Atoi(fields[0])
	if err != nil || baud < 50 || baud > 4000000 {
		return Line{}, fmt.Errorf("line %q: %q is no baud rate; write 9600 8N1, or 19200 8E1", text, fields[0])
	}
	format := strings.ToUpper(fields[1])
	l := Line{Baud: baud, DataBits: int(format[0] - '0'), Parity: format[1], StopBits: int(format[2] - '0')}
	switch {
	case l.DataBits != 8:
		return Line{}, fmt.Errorf("line %q: Modbus RTU has 8 data bits; write %d 8%c%c", text, baud, format[1], format[2])
	case !strings.ContainsRune("NEO", rune(l.Parity)):
		return Line{}, fmt.Errorf("line %q: parity %q is not N (none), E (even) or O (odd)", text, fields[1][1:2])
	case l.StopBits != 1 && l.StopBits != 2:
		return Line{}, fmt.Errorf("line %q: %q is not 1 or 2 stop bits", text, fields[1][2:])
	}
	return l, nil
}

// CharBits is how many bits a character takes on the line, with start, parity
// and stop.
func (l Line) CharBits() int {
	bits := 1 + l.DataBits + l.StopBits
	if l.Parity != 'N' {
		bits++
	}
	return bits
}

// String is the line as it is written in the site file.
func (l Line) String() string {
	return fmt.Sprintf("%d %d%c%d", l.Baud, l.DataBits, l.Parity, l.StopBits)
}
