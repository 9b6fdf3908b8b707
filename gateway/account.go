package gateway

import (
	"crypto/rand"
	"strings"
	"time"

	"sluice/buffer"
)

// account is what belongs to one username: its lanes, and the bucket that they
// all spend from.
type account struct {
	user   string
	bucket *bucket
	lanes  []*lane
}

// newAccount makes the lanes of a username, one for each kind of record.
func (g *Gateway) newAccount(user string, uplink Uplink) *account {
	c := &g.config
	a := &account{user: user, bucket: &bucket{pace: pace{interval: c.Site.Cloud.MinInterval}, backlog: c.Site.Cloud.BacklogInterval}}
	var gaps gapEvent
	if c.Site.Cloud.OwnEvents["gap"] {
		gaps = newGapEvent
	}
	for _, kind := range []RecordKind{ReportRecord, EventRecord, StreamRecord} {
		a.lanes = append(a.lanes, &lane{
			name: LaneName(user, kind), user: user, kind: kind, uplink: uplink, buffer: c.Buffer, bucket: a.bucket,
			gaps: gaps, stats: &g.Stats, log: c.Log.With("user", user),
		})
	}
	return a
}

// LaneName is the buffer's name of the lane of a username's records of one
// kind. A username has no slash.
func LaneName(user string, kind RecordKind) string {
	switch kind {
	case EventRecord:
		return user + "/events"
	case StreamRecord:
		return user + "/streams"
	}
	return user
}

// gapEvent makes an event of what was lost in a lane; nil where nobody wants to know.
type gapEvent func(l *lane, loss buffer.Loss) Record

// newGapEvent says what was lost, from when to when and why. Damaged records
// have no times.
func newGapEvent(l *lane, loss buffer.Loss) Record {
	what := map[RecordKind]string{ReportRecord: "reports", EventRecord: "events", StreamRecord: "streams"}[l.kind]
	r := Record{Kind: EventRecord, Time: time.Now(), Name: "gap", ID: NewEventID(), Severity: Warning, Values: []Attribute{
		{"count", IntValue(int64(loss.Records))}, {"of", TextValue(what)}, {"cause", TextValue(string(loss.Cause))},
	}}
	if !loss.From.IsZero() {
		r.Values = append(r.Values, Attribute{"from", TimeValue(loss.From)}, Attribute{"to", TimeValue(loss.To)})
	}
	return r
}

// NewEventID makes the id of an event: no two are the same, also across restarts.
func NewEventID() string { return strings.ToLower(rand.Text()[:16]) }

// tellGap makes an event of the gap at the front of the lane, exactly once: both
// change in one step of the buffer. It tells whether the gap is gone.
func (l *lane) tellGap() bool {
	var told buffer.Loss
	done, err := l.buffer.ReplaceGap(l.name, LaneName(l.user, EventRecord), func(loss buffer.Loss) []byte {
		told = loss
		if l.gaps == nil {
			return nil
		}
		r := l.gaps(l, loss)
		return AppendRecord(nil, &r)
	})
	if err != nil {
		l.log.Error("read buffer", "lane", l.name, "error", err)
		l.next = time.Now().Add(time.Second)
	}
	if done {
		l.log.Warn("records were lost", "lane", l.name, "count", told.Records, "cause", told.Cause, "from", told.From, "to", told.To)
	}
	return done
}
