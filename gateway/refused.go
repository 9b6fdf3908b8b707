package gateway

import (
	"sluice/buffer"
)

const (
	refusals = 3  // of a record, until it is taken apart or put aside
	losses   = 3  // connections in a row that end with a record in flight, until it goes out by itself; again as many, and it is put aside
	silences = 10 // times that a message stays unanswered, the later half by itself, until the next one is sent as a probe
)

// Reasons to put a record aside.
const (
	othersAreAnswered = "the platform answers others, but not this one"
	endsConnections   = "in flight at several lost connections in a row"
)

// doubt is what speaks against the first record of a lane. A record that can
// never be confirmed must not block the ones behind it, and a silent platform or
// a bad line must not put good records aside.
type doubt struct {
	refused    int // by the cloud, since it goes out alone
	lost       int // connections in a row that ended with it in flight
	unanswered int // times that the broker had it and the platform did not answer
}

// probes tells whether the next record is to be sent ahead of the first.
func (d *doubt) probes() bool { return d.unanswered >= silences }

// refuse deals with the cloud's refusal of a message: what was merged is tried
// one by one; a report that is refused again and again is taken apart, any other
// record put aside.
func (l *lane) refuse(m message, reason string) {
	switch {
	case l.dissection != nil:
		if m.probe {
			reason = othersAreAnswered
		}
		l.refusePart(reason)
		return
	case m.probe: // an answer, though not a good one
		l.unconfirmable()
		return
	}
	if !m.whole {
		l.alone = max(l.alone, m.last)
		if m.merged > 1 {
			return
		}
	}
	l.doubt.unanswered = 0
	if l.doubt.refused++; l.doubt.refused < refusals {
		return
	}
	if l.kind != ReportRecord {
		l.putAside(m.first, reason)
		return
	}
	l.dissect(m.last, m.record, reason)
}

// refusePart takes the part that is sent now apart, or puts it aside.
func (l *lane) refusePart(reason string) {
	l.doubt = doubt{}
	if l.dissection.refuse(reason); len(l.dissection.parts) == 0 {
		l.settle()
	}
}

// dissect takes a refused report apart; seq is its number in the lane, or 0.
func (l *lane) dissect(seq uint64, r Record, reason string) {
	l.doubt = doubt{} // about the whole
	if l.dissection = newDissection(seq, r, reason); len(l.dissection.parts) == 0 {
		l.settle()
	}
}

// lost notes that a connection ended with the message in flight. It goes out
// next as it was: then an answer to either copy is an answer to it.
func (l *lane) lost(m message) {
	l.doubt.lost++
	switch last := l.doubt.lost >= 2*losses; {
	case last && m.probe:
		l.doubt.lost = 0
		l.quarantine(m.first, endsConnections)
	case last && l.dissection != nil:
		l.refusePart(endsConnections)
	case m.probe || l.dissection != nil:
	case last:
		l.putMessageAside(m, endsConnections)
	case l.doubt.lost >= losses:
		l.alone = max(l.alone, m.last)
	default:
		l.again = &m
	}
}

// unanswered notes that the platform did not answer. Only when it answers the
// next record, something is wrong with this one.
func (l *lane) unanswered(m message) {
	switch {
	case m.probe:
		l.doubt.unanswered = 0
	case l.dissection != nil:
		l.doubt.unanswered++
	default:
		if l.doubt.unanswered++; l.doubt.unanswered >= silences/2 {
			l.alone = max(l.alone, m.last)
		}
	}
}

// copyAside puts aside a report that is none of the lane's.
func (l *lane) copyAside(r *Record, reason string) bool {
	seq, err := l.buffer.QuarantineNew(l.name, buffer.Attributes, r.Time, AppendRecord(nil, r), reason)
	return l.isAside(seq, reason, err)
}

// muted puts aside what went ahead and was never answered, since another message
// was. Its values are in the history too, or stand behind in the lane.
func (l *lane) muted() {
	if l.mute == nil {
		return
	}
	if l.copyAside(l.mute, othersAreAnswered) {
		l.mute = nil
		l.account.landed()
	}
}

// unmute has it go out again with what is newer, since nothing is answered.
func (l *lane) unmute() {
	if l.mute != nil {
		l.account.putBack(*l.mute)
		l.mute = nil
	}
}

// putMessageAside puts aside the first record of a message; what is held is none
// of the lane's yet.
func (l *lane) putMessageAside(m message, reason string) bool {
	if l.held == nil || m.first != l.held.upTo {
		return l.putAside(m.first, reason)
	}
	done := l.copyAside(&m.record, reason)
	if done {
		l.doubt = doubt{}
		l.release()
	}
	return done
}

// unconfirmable puts the first record aside, or what is held in front of it,
// since the one behind it was answered.
func (l *lane) unconfirmable() bool {
	first := l.heldAlone()
	if first == nil {
		first = single(l.peek(1))
	}
	return len(first) > 0 && l.putMessageAside(first[0], othersAreAnswered)
}

func (l *lane) putAside(seq uint64, reason string) bool {
	done := l.quarantine(seq, reason)
	if done {
		l.doubt = doubt{}
	}
	return done
}

// dissection takes a refused report apart: its halves are sent by themselves,
// those that are refused again are halved, until the refused attributes stand
// alone. Only these go to quarantine; the rest has been delivered.
type dissection struct {
	seq    uint64   // of the report; 0 if it is none of the lane's
	parts  []Record // still to be sent
	whole  Record   // the report
	poison Record   // the attributes that were refused
	reason string
}

func newDissection(seq uint64, r Record, reason string) *dissection {
	d := &dissection{seq: seq, whole: r, parts: []Record{r}, poison: Record{Kind: r.Kind, Time: r.Time, Boot: r.Boot, Up: r.Up}, reason: reason}
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
	l.dissection, l.doubt = nil, doubt{}
	if len(d.poison.Values) > 0 && !l.copyAside(&d.poison, d.reason) {
		appendTo(l.buffer, l.name, buffer.Attributes, &d.poison) // it is refused again later
	}
	if d.seq == 0 { // it went ahead
		l.account.landed()
		l.forward = doubt{}
		return
	}
	l.buffer.Ack(l.name, d.seq)
	l.release()
}
