package gateway

import (
	"slices"
	"strings"
	"time"
)

// A stream with batch has a lane of its own, in which each of its messages waits
// as a row: what is collected is as safe as all that waits, also when the
// program is killed. It goes out as a history does, in messages of rows with
// their times.

// batchLane is the buffer's name of the lane of a stream's rows.
func batchLane(user, stream string) string { return user + "/batch/" + stream }

// batchLanes makes the lanes of the streams of a username that collect, or did
// while rows of theirs wait. Those that run already are kept.
func (g *Gateway) batchLanes(c *Config, a *account) []*lane {
	var lanes []*lane
	for _, d := range c.Site.Devices {
		for _, s := range d.Streams {
			name := batchLane(a.user, d.Prefix+s.ID)
			if d.Disabled || d.User != a.user || s.Batch == nil && c.Buffer.Len(name) == 0 {
				continue
			}
			var batch Batch
			if s.Batch != nil {
				batch = *s.Batch
			}
			lanes = append(lanes, g.batchLane(c, a, name, d.Prefix+s.ID, batch))
		}
	}
	for _, name := range c.Buffer.Lanes() { // of streams that the site has no more
		stream, ok := strings.CutPrefix(name, batchLane(a.user, ""))
		if ok && c.Buffer.Len(name) > 0 && !slices.ContainsFunc(lanes, func(l *lane) bool { return l.name == name }) {
			lanes = append(lanes, g.batchLane(c, a, name, stream, Batch{}))
		}
	}
	return lanes
}

func (g *Gateway) batchLane(c *Config, a *account, name, stream string, batch Batch) *lane {
	for _, l := range g.lanes {
		if l.name == name && l.account == a && l.batch == batch {
			return l
		}
	}
	l := a.newLane(name, HistoryRecord, a.lanes[0])
	l.stream, l.batch, l.collects = stream, batch, true
	return l
}

// complete tells whether a lane that collects has a message, whose first row is
// of a time and takes so many bytes; else when it will have one.
func (l *lane) complete(t time.Time, size int) bool {
	waiting := l.buffer.Len(l.name)
	if l.batch.Rows > 0 && waiting >= l.batch.Rows || waiting >= batch || waiting*size >= historyMax {
		return true
	}
	age := l.clock.now().Sub(t).Abs() // a clock that was set back keeps no row for ever
	l.patience = l.batch.Within - age
	return l.patience <= 0
}
