package modbus

import (
	"bytes"
	"fmt"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// request is one read of a plan, compiled: what is sent, and where in the
// answer each point is.
type request struct {
	unit           byte
	table          Table
	start, count   int
	timeout, quiet time.Duration
	pdu            []byte
	readings       []reading

	// Of the session that made it:
	at         *unit
	samples    []gateway.Sample // of the group, in the Read under way
	again      bool             // an answer that repeats the last one needs no samples
	generation int              // of what was known of the unit
	err        error            // of the last read
	took       time.Duration
	failures   int       // in a row, without an exception
	answers    int       // of the unit, at the last of them
	last       []byte    // data of the last answer
	good       bool      // it made good samples, all of them
	same       bool      // the answer in this Reread was as the one before
	heard      time.Time // when it came
}

// reading is one point in the answer to a request.
type reading struct {
	point      *gateway.Point
	place      *place
	offset     int32 // bytes, or bits of a table of bits
	exponent   int32 // the same of its scale_from
	slot       int32 // of its sample
	start, end int32 // of what has to be read for it
	quick      quick
	straight   *gateway.Straight // with quick: what becomes of its number; nil leaves it
}

// readFunctions are the function codes that read the tables.
var readFunctions = [...]byte{Holding: wire.FuncReadHoldingRegisters, Input: wire.FuncReadInputRegisters, Coil: wire.FuncReadCoils, Discrete: wire.FuncReadDiscreteInputs}

// newRequest reads the places, all of one table of one unit, together.
func newRequest(bus *gateway.Bus, places []*place) (*request, error) {
	first := places[0]
	r := &request{unit: byte(first.point.Device.Unit), table: first.address.Table, readings: make([]reading, len(places))}
	items := make([]item, len(places))
	for i, p := range places {
		d := p.point.Device
		if d.Unit != first.point.Device.Unit || p.address.Table != r.table {
			return nil, fmt.Errorf("%s and %s can't be read in one request", first.point.ID, p.point.ID)
		}
		items[i] = newItem(p)
		r.timeout = max(r.timeout, deviceTimeout(bus, d))
		r.quiet = max(r.quiet, deviceQuiet(bus, d))
	}
	joinBlocks(items)
	start, end := items[0].start, items[0].end
	for _, it := range items {
		start, end = min(start, it.start), max(end, it.end)
	}
	r.start, r.count = start, end-start
	if most := mostIn(r.table, &gateway.Profile{}); r.count > most {
		return nil, fmt.Errorf("%s at %s %d are more than the %d of one request", r.table.counted(r.count), r.table, start, most)
	}
	for i, p := range places {
		r.readings[i] = reading{point: p.point, place: p, offset: int32(r.offset(p)), slot: int32(i), start: int32(items[i].start), end: int32(items[i].end), quick: quickOf(p), straight: p.straight}
		if p.exponent != nil {
			r.readings[i].exponent = int32(r.offset(p.exponent))
		}
	}
	r.pdu = wire.AppendRead(nil, readFunctions[r.table], uint16(r.start), uint16(r.count))
	return r, nil
}

// span is what the request reads.
func (r *request) span() span { return span{r.start, r.start + r.count - 1} }

// bricks are the runs of registers that a request for less can't divide.
func (r *request) bricks() []brick {
	items := make([]item, len(r.readings))
	for i := range r.readings {
		items[i].start, items[i].end = int(r.readings[i].start), int(r.readings[i].end)
	}
	var d divider
	d.lay(items, nil)
	return d.bricks
}

// piece is a request for another span of the same table.
func (r *request) piece(s span) *request {
	p := *r
	p.start, p.count, p.readings = s.first, s.size(), nil
	p.pdu = wire.AppendRead(nil, readFunctions[r.table], uint16(s.first), uint16(s.size()))
	return &p
}

// unitName is what the table holds.
func (t Table) unitName() string {
	if t.Bits() {
		return "bit"
	}
	return "register"
}

// counted is a number of what the table holds.
func (t Table) counted(n int) string {
	if n == 1 {
		return "1 " + t.unitName()
	}
	return fmt.Sprintf("%d %ss", n, t.unitName())
}

func (r *request) offset(p *place) int {
	if r.table.Bits() {
		return p.start - r.start
	}
	return 2 * (p.start - r.start)
}

// matches tells whether the request's points are where they were in the group.
func (r *request) matches(group []*gateway.Point) bool {
	for i := range r.readings {
		if at := &r.readings[i]; group[at.slot] != at.point {
			return false
		}
	}
	return true
}

// sample is one point of the answer's data.
func (r *request) sample(at *reading, data []byte, now time.Time) gateway.Sample {
	value, quality, why := r.value(at, data)
	return gateway.Sample{Point: at.point, Time: now, Value: value, Quality: quality, Reason: why}
}

// fill makes the samples of all its points.
func (r *request) fill(samples []gateway.Sample, data []byte, now time.Time) {
	r.keep(data)
	r.good, r.same = true, false
	for i := range r.readings {
		at := &r.readings[i]
		v, ok := at.quick.value(data, int(at.offset))
		if ok && at.straight != nil {
			v, ok = at.straight.Engineering(v)
		}
		if ok {
			samples[at.slot] = gateway.Sample{Point: at.point, Time: now, Value: v, Quality: gateway.Good}
		} else {
			samples[at.slot] = r.sample(at, data, now)
			r.good = r.good && samples[at.slot].Quality == gateway.Good
		}
	}
}

// repeats tells whether data are those of the last answer, which were good.
func (r *request) repeats(data []byte) bool { return r.good && bytes.Equal(r.last, data) }

// fail makes the samples of all its points bad.
func (r *request) fail(samples []gateway.Sample, now time.Time) {
	r.keep(nil)
	r.good, r.same = false, false
	why, silent, busy := reason(r.err, r.timeout), silence(r.err), busy(r.err)
	for i := range r.readings {
		at := &r.readings[i]
		samples[at.slot] = gateway.Sample{Point: at.point, Time: now, Reason: why, Silent: silent, Busy: busy}
	}
}

// raw decodes one point of the answer's data.
func (r *request) raw(p *place, data []byte, offset int) (gateway.Value, error) {
	if r.table.Bits() {
		return p.codec.DecodeBits(data, offset)
	}
	if offset < 0 || offset > len(data) {
		return gateway.Value{}, errShort
	}
	return p.codec.Decode(data[offset:])
}

// value is one point of the answer's data in engineering units.
func (r *request) value(at *reading, data []byte) (gateway.Value, gateway.Quality, string) {
	exponent := 0
	if at.place.exponent != nil {
		e, err := r.raw(at.place.exponent, data, int(at.exponent))
		n, reason := exponentOf(at.place.exponent, e, err)
		if reason != "" {
			return gateway.Value{}, gateway.Bad, reason
		}
		exponent = n
	}
	raw, err := r.raw(at.place, data, int(at.offset))
	if err != nil {
		return gateway.Value{}, gateway.Bad, err.Error()
	}
	return at.place.conversion.Engineering(raw, exponent)
}

// exponentOf is the number that a scale_from says, or why it says none.
func exponentOf(p *place, raw gateway.Value, err error) (exponent int, reason string) {
	if err != nil {
		return 0, fmt.Sprintf("scale factor %s: %v", p.point.ID, err)
	}
	v, quality, why := p.conversion.Engineering(raw, 0)
	if quality == gateway.Bad {
		return 0, fmt.Sprintf("scale factor %s: %s", p.point.ID, why)
	}
	if f := v.Float(); !(f >= -30 && f <= 30) {
		return 0, fmt.Sprintf("scale factor %s is %s, not a power of ten", p.point.ID, v)
	}
	return int(v.Int()), ""
}
