package gateway

import (
	"sluice/buffer"
)

// refusals is how often the cloud must refuse a report before it is taken apart.
const refusals = 3

// dissection takes a refused report apart: its halves are sent by themselves,
// those that are refused again are halved, until the refused attributes stand
// alone. Only these go to quarantine; the rest has been delivered.
type dissection struct {
	seq    uint64   // of the report
	parts  []Record // still to be sent
	poison Record   // the attributes that were refused
	reason string
}

func newDissection(seq uint64, r Record, reason string) *dissection {
	d := &dissection{seq: seq, parts: []Record{r}, poison: Record{Kind: r.Kind, Time: r.Time}, reason: reason}
	d.refuse(reason)
	return d
}

// refuse notes that the first part was refused.
func (d *dissection) refuse(reason string) {
	part := d.parts[0]
	d.parts = d.parts[1:]
	d.reason = reason
	if len(part.Values) <= 1 {
		d.poison.Values = append(d.poison.Values, part.Values...)
		return
	}
	left, right := part, part
	half := len(part.Values) / 2
	left.Values, right.Values = part.Values[:half], part.Values[half:]
	d.parts = append([]Record{left, right}, d.parts...)
}

// settle ends a dissection that has nothing left to send.
func (l *lane) settle() {
	d := l.dissection
	l.dissection, l.refused, l.alone = nil, 0, false
	if len(d.poison.Values) > 0 {
		seq := l.buffer.Append(l.name, buffer.Attributes, d.poison.Time, AppendRecord(nil, &d.poison))
		l.quarantine(seq, d.reason)
	}
	l.buffer.Ack(l.name, d.seq)
}
