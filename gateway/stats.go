package gateway

import "sync/atomic"

// Stats counts what a Gateway did since its start.
type Stats struct {
	Requests    atomic.Int64 // to the field
	Samples     atomic.Int64
	Overruns    atomic.Int64 // polls that were skipped because the bus was late
	Reports     atomic.Int64 // put into the buffer
	Confirmed   atomic.Int64 // messages that the cloud confirmed
	Merged      atomic.Int64 // reports that went out within the message of a later one
	TooFast     atomic.Int64 // messages that the cloud ignored as too fast
	Quarantined atomic.Int64
	Superseded  atomic.Int64 // values of a backlog in whose place a newer one went out (backlog: latest)
	LeftOut     atomic.Int64 // values that were not sent because the point was written since

	Downlinks      atomic.Int64 // messages of the cloud
	Repeated       atomic.Int64 // commands that came again
	RepliesDropped atomic.Int64 // that could not be sent in time, or said busy in a flood

	LastConfirmed atomic.Int64 // when, in Unix nanoseconds; 0 for never
}
