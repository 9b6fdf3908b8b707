package cloud

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/gateway"
)

// lateAfter is the age from which a report carries its own time.
const lateAfter = 5 * time.Second

// Publish sends the records of one lane in order and tells how many of them,
// counted from the first, are confirmed. While there is no connection it
// waits; when one ends, it returns.
func (s *Session) Publish(ctx context.Context, records []gateway.Record) (int, error) {
	if len(records) == 0 {
		return 0, nil
	}
	lane := s.lanes[records[0].Kind]
	if lane == nil {
		return 0, &gateway.Refusal{Reason: fmt.Sprintf("a record of kind %d has no topic", records[0].Kind)}
	}
	select {
	case lane.turn <- struct{}{}:
		defer func() { <-lane.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	l, err := s.connection(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for n < len(records) && err == nil {
		var confirmed int
		gateway.Turn(ctx)
		if s.confirm.mode() == byPuback {
			confirmed, err = s.stream(ctx, l, lane, records[n:])
		} else {
			confirmed, err = s.single(ctx, l, lane, records[n])
		}
		n += confirmed
		s.confirmed.Add(uint64(confirmed))
	}
	return n, s.explain(lane, err)
}

// explain says what was tried; what the platform itself said stays as it is.
func (s *Session) explain(lane *lane, err error) error {
	var refusal *gateway.Refusal
	if err == nil || errors.Is(err, gateway.ErrTooFast) || errors.As(err, &refusal) {
		return err
	}
	return fmt.Errorf("publish to %s: %w", lane.topic, err)
}

// single sends one record and waits until the platform has answered each of its
// messages, or the time for that is over.
func (s *Session) single(ctx context.Context, l *link, lane *lane, r gateway.Record) (int, error) {
	payloads, late, err := lane.encode(nil, r, lane.late, s.lateTS)
	if err != nil {
		return 0, err
	}
	for i, payload := range payloads {
		if err := s.breathe(ctx, i); err != nil {
			return 0, err
		}
		gateway.Turn(ctx)
		if err := lane.ask(ctx, l, payload); err != nil {
			return 0, err
		}
	}
	lane.late = late
	return 1, nil
}

// breathe keeps the messages of one large record apart, as reports have to be.
func (s *Session) breathe(ctx context.Context, part int) error {
	if part == 0 || s.pace <= 0 {
		return nil
	}
	return gateway.Sleep(ctx, s.pace)
}

// flight is a record on its way: confirmed when its last message is.
type flight struct {
	messages []*message
	late     bool
}

// stream sends records with a window of them in flight and waits for their
// PUBACKs. It ends early, without an error, when answers begin to count.
func (s *Session) stream(ctx context.Context, l *link, lane *lane, records []gateway.Record) (int, error) {
	var flying []flight
	next, confirmed, afterLate := 0, 0, lane.late
	var stop error
	for {
		for stop == nil && next < len(records) && len(flying) < s.window && s.confirm.mode() == byPuback {
			f, err := s.launch(ctx, l, lane, records[next], afterLate)
			if stop = err; err == nil {
				flying, afterLate = append(flying, f), f.late
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
				return confirmed, err
			}
		}
		lane.late = flying[0].late
		flying = flying[1:]
		confirmed++
	}
}

// launch sends the messages of one record without waiting for anything.
func (s *Session) launch(ctx context.Context, l *link, lane *lane, r gateway.Record, afterLate bool) (flight, error) {
	payloads, late, err := lane.encode(nil, r, afterLate, s.lateTS)
	f := flight{late: late}
	for i := 0; err == nil && i < len(payloads); i++ {
		if err = s.breathe(ctx, i); err != nil {
			break
		}
		var m *message
		if m, err = lane.send(ctx, l, payloads[i], false); err == nil {
			f.messages = append(f.messages, m)
		}
	}
	if err != nil && len(f.messages) > 0 {
		lane.unacked = f.messages[len(f.messages)-1]
	}
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
