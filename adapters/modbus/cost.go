package modbus

import (
	"strings"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// What a request is assumed to cost where it cannot be known beforehand. They
// decide how much is read for nothing, so their proportion matters more than
// their size. The round trip on TCP is not measured: from half a millisecond
// on, any gap that fits into a request is cheaper than another request, so a
// longer one changes hardly any plan, and a shorter one says that bytes cost
// less as well.
const (
	turnaround    = 10 * time.Millisecond  // of a serial unit, from request to answer
	roundTrip     = 1 * time.Millisecond   // of a request on TCP
	tcpByte       = 2 * time.Microsecond   // 125 registers cost half a request more than one
	converterBaud = 19200                  // behind a converter, where the line is not known
	requestFrame  = 8                      // bytes of a read request, RTU
	replyFrame    = 5                      // bytes of its reply beside the data
	defaultTime   = 500 * time.Millisecond // timeout where nobody says any
	sharedTime    = 3 * time.Second        // timeout of several units behind one host
)

// cost is what a read request takes of its bus: a fixed part and one for each
// byte of data.
type cost struct {
	request, data time.Duration
}

// of is the cost of a request for that many registers or bits.
func (c cost) of(table Table, size int) time.Duration {
	return c.request + time.Duration(dataBytes(table, size))*c.data
}

func dataBytes(table Table, size int) int {
	if table.Bits() {
		return (size + 7) / 8
	}
	return 2 * size
}

// fewest makes the fewest requests, and of those the shortest: for a number as
// max_gap, which allows gaps but does not weigh them.
var fewest = cost{request: 1 << 40, data: 1}

// line is a serial line as far as timing goes.
type line struct {
	baud, charBits int
}

// busLine is the serial line of a bus; zero where there is none, or it cannot be read.
func busLine(bus *gateway.Bus) line {
	if bus.Type != "modbus-rtu" {
		return line{}
	}
	l, _ := ParseLine(bus.Line)
	return line{l.Baud, l.CharBits()}
}

// cost is the cost of requests to a device. Several units of one host are taken
// to be behind a converter: a request too many costs a network less than bytes
// too many cost a serial line.
func (p planner) cost(d *gateway.Device) cost {
	l, extra := busLine(p.bus), time.Duration(0)
	if l.baud == 0 && (framed(p.bus) || len(p.atlas.units) > 1) {
		l, extra = line{converterBaud, wire.DefaultCharBits}, roundTrip
	}
	quiet := deviceQuiet(p.bus, d)
	if l.baud == 0 {
		return cost{roundTrip + quiet, tcpByte}
	}
	quiet = max(quiet, wire.QuietTime(l.baud, l.charBits))
	frames := wire.LineTime(requestFrame+replyFrame, l.baud, l.charBits)
	return cost{frames + turnaround + quiet + extra, wire.LineTime(1, l.baud, l.charBits)}
}

// deviceTimeout is how long a unit may take to answer.
func deviceTimeout(bus *gateway.Bus, d *gateway.Device) time.Duration {
	for _, t := range [...]time.Duration{d.Timeout, d.Profile.Timeout, bus.Timeout} {
		if t > 0 {
			return t
		}
	}
	return defaultTime
}

// deviceQuiet is the silence that the bus or the device asks for.
func deviceQuiet(bus *gateway.Bus, d *gateway.Device) time.Duration {
	own := d.Quiet
	if own == 0 {
		own = d.Profile.Quiet
	}
	return max(own, bus.Quiet)
}

// framed tells whether units on the bus answer in RTU frames.
func framed(bus *gateway.Bus) bool { return strings.HasPrefix(bus.Type, "modbus-rtu") }
