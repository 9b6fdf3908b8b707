package cloud

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/gateway"
)

// lateAfter is the age from which a report carries its own time.
const lateAfter = 5 * time.Second

var errNoConnection = errors.New("no connection")

// Publish sends the records of one lane in order and tells how many of them,
// counted from the first, are confirmed. Without a connection it waits for one,
// but not for long; when one ends, it returns.
func (s *Session) Publish(ctx context.Context, records []gateway.Record) (int, error) {
	if len(records) == 0 {
		return 0, nil
	}
	lane := s.lanes[records[0].Kind]
	if lane == nil {
		return 0, &gateway.Refusal{Reason: fmt.Sprintf("a record of kind %d has no topic", records[0].Kind)}
	}
	short, cancel := context.WithTimeout(ctx, lateAfter)
	l, err := s.enter(short, lane)
	cancel()
	if err != nil {
		return 0, s.explain(lane, cmp.Or(ctx.Err(), errNoConnection))
	}
	defer lane.leave()
	n := 0
	for n < len(records) && err == nil {
		var confirmed int
		gateway.Turn(ctx)
		if lane.confirm.mode() == byPuback {
			confirmed, err = s.stream(ctx, l, lane, records[n:])
		} else {
			confirmed, err = s.single(ctx, l, lane, records[n])
		}
		n += confirmed
		s.confirmed.Add(uint64(confirmed))
	}
	return n, s.explain(lane, err)
}

// Await returns when there is a connection, and no answer can come any more that
// would be taken for the next record's.
func (s *Session) Await(ctx context.Context, kind gateway.RecordKind, repeat bool) error {
	lane := s.lanes[kind]
	if lane == nil {
		return nil // Publish will say so
	}
	for {
		l, err := s.enter(ctx, lane)
		if err != nil {
			return err
		}
		if lane.confirm.mode() == byResponse && !(repeat && lane.cut) {
			err = lane.settle(ctx, l)
		}
		lane.leave()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// enter makes the caller the one that is at work on a lane, on a connection.
func (s *Session) enter(ctx context.Context, n *lane) (*link, error) {
	for {
		select {
		case n.turn <- struct{}{}:
			l, err := s.connection(ctx)
			if err != nil {
				n.leave()
			}
			return l, err
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(gateway.TurnEvery):
			gateway.Turn(ctx)
		}
	}
}

func (n *lane) leave() { <-n.turn }

// explain says what was tried; what the platform itself said stays as it is.
func (s *Session) explain(lane *lane, err error) error {
	var refusal *gateway.Refusal
	if err == nil || errors.Is(err, gateway.ErrTooFast) || errors.As(err, &refusal) {
		return err
	}
	return fmt.Errorf("publish to %s: %w", lane.topic, err)
}

// encode gives the messages of a record that is sent now, and whether it is
// late. The report after a late one still carries its time, so that the reader
// sees the time return to now.
func (s *Session) encode(r *gateway.Record, afterLate bool) (packets []packet, late bool, err error) {
	late = time.Since(r.Time) > lateAfter && r.Known()
	payloads, err := s.payloads(r, late || afterLate && r.Kind == gateway.ReportRecord && r.Known())
	for _, payload := range payloads {
		packets = append(packets, packet{topicOf(s.user, r), payload})
	}
	return packets, late, err
}

// single sends one record and waits until the platform has answered each of its
// messages, or the time for that is over.
func (s *Session) single(ctx context.Context, l *link, lane *lane, r gateway.Record) (int, error) {
	packets, late, err := s.encode(&r, lane.late)
	if err != nil {
		return 0, err
	}
	whole := &r
	if len(packets) > 1 {
		whole = nil
	}
	for i, pause := 0, max(s.pace, lane.pause); i < len(packets); {
		gateway.Turn(ctx)
		err := lane.ask(ctx, l, packets[i], whole)
		switch {
		case i > 0 && errors.Is(err, gateway.ErrTooFast): // only this one again: the others are stored
			pause = min(2*max(pause, leastPause), mostPause)
			lane.pause = pause * 10 / 9
		case err != nil:
			return 0, err
		default:
			i++
		}
		if len(packets) > 1 { // after the last one, too: who sends next knows of the first
			if err := breathe(ctx, pause); err != nil && i < len(packets) {
				return 0, err
			}
		}
	}
	if len(packets) > 1 {
		lane.pause = lane.pause * 9 / 10 // a limit that has gone is found out
	}
	lane.late = late
	return 1, nil
}

// Between the messages of one large record.
const (
	leastPause = 100 * time.Millisecond
	mostPause  = time.Minute
)

// breathe keeps the messages of one large record apart, as reports have to be.
func breathe(ctx context.Context, pause time.Duration) error {
	if pause <= 0 {
		return nil
	}
	return gateway.Sleep(ctx, pause)
}

// flight is a record on its way: confirmed when its last message is.
type flight struct {
	messages []*message
	late     bool
	part     bool // the rest of it was not sent
}

// flightMost is how many bytes are in flight at most, but for the last record.
const flightMost = 256 << 10

func (f *flight) bytes() (n int) {
	for _, m := range f.messages {
		n += len(m.payload)
	}
	return n
}

// stream sends records with a window of them in flight and waits for their
// PUBACKs. It ends early, without an error, when answers begin to count.
func (s *Session) stream(ctx context.Context, l *link, lane *lane, records []gateway.Record) (int, error) {
	var flying []flight
	next, confirmed, afterLate, bytes := 0, 0, lane.late, 0
	var stop error
	for {
		for stop == nil && next < len(records) && len(flying) < s.window && bytes < flightMost && lane.confirm.mode() == byPuback {
			f, err := s.launch(ctx, l, lane, records[next], afterLate)
			if stop = err; err == nil || f.part {
				flying, afterLate = append(flying, f), f.late
				bytes += f.bytes()
				next++
			}
		}
		if len(flying) == 0 {
			return confirmed, stop
		}
		gateway.Turn(ctx)
		for _, m := range flying[0].messages {
			if err := lane.acked(ctx, l, m); err != nil {
				lane.unacked = newest(flying)
				lane.giveUp()
				return confirmed, lost(err)
			}
		}
		if flying[0].part {
			return confirmed, stop
		}
		lane.late = flying[0].late
		bytes -= flying[0].bytes()
		flying = flying[1:]
		confirmed++
	}
}

// launch sends the messages of one record without waiting for anything.
func (s *Session) launch(ctx context.Context, l *link, lane *lane, r gateway.Record, afterLate bool) (flight, error) {
	packets, late, err := s.encode(&r, afterLate)
	f := flight{late: late}
	for i := 0; err == nil && i < len(packets); i++ {
		if i > 0 {
			if err = breathe(ctx, s.pace); err != nil {
				break
			}
		}
		var m *message
		if m, err = lane.send(ctx, l, packets[i], nil, false); err == nil {
			f.messages = append(f.messages, m)
		}
	}
	f.part = err != nil && len(f.messages) > 0
	return f, err
}

func newest(flying []flight) *message {
	for i := len(flying) - 1; i >= 0; i-- {
		if k := len(flying[i].messages); k > 0 {
			return flying[i].messages[k-1]
		}
	}
	return nil
}
