package gateway

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"time"

	"sluice/buffer"
)

// RecordKind tells what a record holds.
type RecordKind uint8

// The kinds of records.
const (
	ReportRecord RecordKind = iota + 1
	EventRecord
	StreamRecord
	HistoryRecord // a message of several reports, or bodies of a stream, with their times; it is never stored
)

// Attribute is one value under its name in the cloud.
type Attribute struct {
	Name  string
	Value Value
}

// Record is what the buffer stores: a domain message of one cloud device,
// never a finished payload.
type Record struct {
	Kind   RecordKind
	Time   time.Time     // when the field said it, to the millisecond
	Boot   uint64        // in which it was made, where Up is known; see clock
	Up     time.Duration // how long the machine was up then
	Values []Attribute   // of a report, or the params of an event; each name once

	Name     string   // of an event or a stream, in the cloud
	ID       string   // of an event: unique, also across restarts
	Severity Severity // of an event: Info, Warning or Alarm
	Body     []byte   // of a stream: the payload
	Row      bool     // of a stream: it is one of the rows of a message; not stored

	Rows   []Record // of a history: reports, or bodies of a stream
	Number uint64   // of a history: that of its first row, rising; it may be followed by one for each row
}

// The first byte of a stored record.
const (
	recordFormat  = 1
	stampedFormat = 2 // with Boot and Up
)

// AppendRecord appends the stored form of r to dst.
func AppendRecord(dst []byte, r *Record) []byte {
	if r.Boot == 0 {
		dst = append(dst, recordFormat, byte(r.Kind))
	} else {
		dst = append(dst, stampedFormat, byte(r.Kind))
		dst = binary.AppendUvarint(dst, r.Boot)
		dst = binary.AppendVarint(dst, r.Up.Milliseconds())
	}
	dst = binary.AppendVarint(dst, r.Time.UnixMilli())
	switch r.Kind {
	case EventRecord:
		dst = appendString(dst, r.Name)
		dst = appendString(dst, r.ID)
		dst = appendString(dst, string(r.Severity))
	case StreamRecord:
		dst = appendString(dst, r.Name)
		return append(dst, r.Body...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Values)))
	for i := range r.Values {
		dst = appendString(dst, r.Values[i].Name)
		dst = appendValue(dst, r.Values[i].Value)
	}
	return dst
}

func appendSeq(dst []byte, seq uint64) []byte { return binary.AppendUvarint(dst, seq) }

// appendTo puts a record at the end of a lane, and gives its number there.
func appendTo(b *buffer.Buffer, lane string, class buffer.Class, r *Record) uint64 {
	data := scratch.Get().(*[]byte)
	defer scratch.Put(data)
	*data = AppendRecord((*data)[:0], r)
	return b.Append(lane, class, r.Time, *data)
}

// scratch is for stored forms: the buffer copies them.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendValue(dst []byte, v Value) []byte {
	dst = append(dst, byte(v.kind))
	switch v.kind {
	case Text, Blob:
		return appendString(dst, v.text)
	case List:
		dst = binary.AppendUvarint(dst, uint64(len(v.List())))
		for _, x := range v.List() {
			dst = appendValue(dst, x)
		}
		return dst
	case Signed, Moment:
		return binary.AppendVarint(dst, int64(v.bits))
	case Single:
		return binary.BigEndian.AppendUint32(dst, math.Float32bits(float32(v.Float())))
	case Double:
		return binary.BigEndian.AppendUint64(dst, v.bits)
	}
	return binary.AppendUvarint(dst, v.bits)
}

// ParseRecord reads the stored form of a record.
func ParseRecord(data []byte) (Record, error) {
	p := recordReader{rest: data}
	format := p.byte()
	if p.err == nil && format != recordFormat && format != stampedFormat {
		return Record{}, fmt.Errorf("record of format %d, this program knows %d and %d", format, recordFormat, stampedFormat)
	}
	r := Record{Kind: RecordKind(p.byte())}
	if p.err == nil && (r.Kind < ReportRecord || r.Kind > StreamRecord) {
		return Record{}, fmt.Errorf("record of unknown kind %d", r.Kind)
	}
	if format == stampedFormat {
		r.Boot, r.Up = p.uvarint(), time.Duration(p.varint())*time.Millisecond
	}
	r.Time = time.UnixMilli(p.varint())
	switch r.Kind {
	case EventRecord:
		r.Name, r.ID, r.Severity = p.string(), p.string(), Severity(p.string())
	case StreamRecord:
		r.Name = p.string()
		if p.err == nil {
			r.Body, p.rest = p.rest, nil
			return r, nil
		}
	}
	p.text = string(p.rest)
	n := p.count()
	r.Values = make([]Attribute, 0, n)
	for range n {
		r.Values = append(r.Values, Attribute{Name: p.string(), Value: p.value(0)})
	}
	if p.err == nil && len(p.rest) > 0 {
		p.err = fmt.Errorf("%d bytes behind the end", len(p.rest))
	}
	if p.err != nil {
		return Record{}, fmt.Errorf("damaged record: %w", p.err)
	}
	return r, nil
}

// recordReader reads a record from the front; after an error it gives zeros.
type recordReader struct {
	rest []byte
	text string // ends as rest does; strings are parts of it, since a thousand small ones cost more than all the rest
	err  error
}

// deepest is how far lists may be nested in a record.
const deepest = 4

func (p *recordReader) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
	p.rest = nil
}

func (p *recordReader) take(n uint64) []byte {
	if p.err != nil || n > uint64(len(p.rest)) {
		p.fail("ends early")
		return nil
	}
	taken := p.rest[:n]
	p.rest = p.rest[n:]
	return taken
}

func (p *recordReader) byte() byte {
	if b := p.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *recordReader) varint() int64 {
	v, n := binary.Varint(p.rest)
	if n <= 0 {
		p.fail("ends early")
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

func (p *recordReader) uvarint() uint64 {
	v, n := binary.Uvarint(p.rest)
	if n <= 0 {
		p.fail("ends early")
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

// count reads a number of things that take at least a byte each.
func (p *recordReader) count() int {
	n := p.uvarint()
	if n > uint64(len(p.rest)) {
		p.fail("%d entries in %d bytes", n, len(p.rest))
		return 0
	}
	return int(n)
}

func (p *recordReader) string() string {
	taken := p.take(p.uvarint())
	if end := len(p.text) - len(p.rest); end >= len(taken) && p.text != "" {
		return p.text[end-len(taken) : end]
	}
	return string(taken)
}

func (p *recordReader) value(depth int) Value {
	v := Value{kind: Kind(p.byte())}
	switch v.kind {
	case Text, Blob:
		v.text = p.string()
	case List:
		if depth == deepest {
			p.fail("lists nested too deep")
			return v
		}
		list := make([]Value, p.count())
		for i := range list {
			list[i] = p.value(depth + 1)
		}
		v.list = &list
	case Signed, Moment:
		v.bits = uint64(p.varint())
	case Single:
		if b := p.take(4); b != nil {
			v.bits = math.Float64bits(float64(math.Float32frombits(binary.BigEndian.Uint32(b))))
		}
	case Double:
		if b := p.take(8); b != nil {
			v.bits = binary.BigEndian.Uint64(b)
		}
	case None, Boolean, Unsigned:
		v.bits = p.uvarint()
	default:
		p.fail("value of unknown kind %d", v.kind)
	}
	return v
}

// gathering is a report that grows: one of several of the same cloud device, in
// order. The newest value wins, and the time is the newest one's.
type gathering struct {
	record     Record
	at         map[string]int // of the attributes, in the record; nil while that is the only one
	superseded int            // values that newer ones have replaced
}

// add puts a newer report on top. A single one stays as it is, with the values
// that it has.
func (g *gathering) add(r *Record) {
	if g.record.Kind == 0 {
		g.record = *r
		return
	}
	if g.at == nil {
		first := g.record.Values
		g.at, g.record = make(map[string]int, len(first)), Record{Kind: ReportRecord}
		g.put(first)
	}
	g.record.Time, g.record.Boot, g.record.Up = r.Time, r.Boot, r.Up
	g.put(r.Values)
}

func (g *gathering) put(values []Attribute) {
	for _, a := range values {
		if i, ok := g.at[a.Name]; ok {
			g.record.Values[i] = a
			g.superseded++
			continue
		}
		g.at[a.Name] = len(g.record.Values)
		g.record.Values = append(g.record.Values, a)
	}
}
