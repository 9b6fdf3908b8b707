package gateway

import (
	"crypto/rand"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/buffer"
)

// account is what belongs to one username: its lanes, and the bucket that they
// all spend from.
type account struct {
	user    string
	bucket  *bucket
	lanes   []*lane
	buffer  *buffer.Buffer
	backlog string // replay, latest or stream
	history string // with stream: its identifier
	all     bool   // the history also gets what the pace merges

	wake   chan struct{} // something goes out ahead
	losses atomic.Uint64 // how often reports were lost, and all that waited behind them is sent

	mu      sync.Mutex
	off     bool              // with stream: what comes in goes to the history
	flying  bool              // what was taken of ahead is not confirmed
	ahead   gathering         // goes out before all that waits
	written map[string]uint64 // attributes that were written: older values than this number are not sent
	kept    bool              // written is on disk, or about to be
	keeper  *keeper           // of written
	heir    *account          // takes all, after a reload
}

// newAccount makes the lanes of a username, one for each kind of record.
func (g *Gateway) newAccount(c *Config, user string) *account {
	cloud := &c.Site.Cloud
	a := &account{
		user: user, bucket: &bucket{pace: pace{interval: cloud.MinInterval}, backlog: cloud.BacklogInterval}, buffer: c.Buffer,
		backlog: cloud.Backlog, all: cloud.History == "all", wake: make(chan struct{}, 1), written: make(map[string]uint64), keeper: g.keeper,
	}
	kinds := []RecordKind{ReportRecord, EventRecord, StreamRecord}
	if identifier, ok := strings.CutPrefix(cloud.Backlog, stream+":"); ok {
		a.backlog, a.history = stream, identifier
		kinds = append(kinds, HistoryRecord)
	}
	first := &lane{uplink: c.Uplinks[user], clock: g.clock, stats: &g.Stats, log: c.Log.With("user", user)}
	if cloud.OwnEvents["gap"] {
		first.gaps = newGapEvent
	}
	for _, kind := range kinds {
		a.lanes = append(a.lanes, a.newLane(LaneName(user, kind), kind, first))
	}
	return a
}

// newLane makes a lane that has its surroundings in common with another.
func (a *account) newLane(name string, kind RecordKind, other *lane) *lane {
	return &lane{
		name: name, user: a.user, kind: kind, account: a, buffer: a.buffer, bucket: a.bucket, stream: a.history,
		uplink: other.uplink, clock: other.clock, gaps: other.gaps, stats: other.stats, log: other.log,
	}
}

// LaneName is the buffer's name of the lane of a username's records of one
// kind. A username has no slash.
func LaneName(user string, kind RecordKind) string {
	switch kind {
	case EventRecord:
		return user + "/events"
	case StreamRecord:
		return user + "/streams"
	case HistoryRecord:
		return historyLane(user)
	}
	return user
}

func historyLane(user string) string { return user + "/history" }

// wakes tells the report lane that something goes out ahead.
func (a *account) wakes(kind RecordKind) <-chan struct{} {
	if kind != ReportRecord {
		return nil
	}
	return a.wake
}

// gapEvent makes an event of what was lost in a lane; nil where nobody wants to know.
type gapEvent func(l *lane, loss buffer.Loss) Record

// newGapEvent says what was lost, from when to when and why. Damaged records
// have no times.
func newGapEvent(l *lane, loss buffer.Loss) Record {
	what := map[RecordKind]string{ReportRecord: "reports", EventRecord: "events", StreamRecord: "streams", HistoryRecord: "reports"}[l.kind]
	if l.collects {
		what = "streams"
	}
	r := Record{Kind: EventRecord, Time: time.Now(), Name: "gap", ID: NewEventID(), Severity: Warning, Values: []Attribute{
		{"count", IntValue(int64(loss.Records))}, {"of", TextValue(what)}, {"cause", TextValue(string(loss.Cause))},
	}}
	if !loss.From.IsZero() {
		r.Values = append(r.Values, Attribute{"from", TimeValue(loss.From)}, Attribute{"to", TimeValue(loss.To)})
	}
	return r
}

// renewEvery is how often losses lead to a report of all points at most.
const renewEvery = time.Minute

// renew lets the points be reported anew once nothing old waits any more: the
// last value of a point may be among what was lost, and while it stands it would
// not be reported again.
func (l *lane) renew() {
	if l.lossy && time.Since(l.renewed) >= renewEvery {
		l.lossy, l.renewed = false, time.Now()
		l.account.losses.Add(1)
	}
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
		l.clock.stamp(&r)
		return AppendRecord(nil, &r)
	})
	if err != nil {
		l.log.Error("read buffer", "lane", l.name, "error", err)
		l.next = time.Now().Add(time.Second)
	}
	if done {
		l.lossy = l.kind == ReportRecord
		l.log.Warn("records were lost", "lane", l.name, "count", told.Records, "cause", told.Cause, "from", told.From, "to", told.To)
	}
	return done
}
