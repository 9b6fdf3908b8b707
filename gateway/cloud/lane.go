package cloud

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"sluice/gateway"
)

// lane is one topic that we publish on and the topic of its answers. Answers
// carry no id, so it counts how many may still come: an answer belongs to the
// message in flight only when no other can be on its way.
type lane struct {
	topic    string
	response string
	timeout  time.Duration // for an answer, from the PUBACK
	confirm  *confirmation

	turn chan struct{} // held by the one Publish that is at work

	// Of the holder of turn.
	late    bool     // the last confirmed report was late
	unacked *message // left without a PUBACK by an earlier Publish

	answers chan answer   // to the message in flight
	settled chan struct{} // told when owed becomes 0

	mu      sync.Mutex
	current *message  // in flight, waiting for its answer
	owed    int       // answers that may still come
	quiet   time.Time // when none can come any more
}

func newLane(up, down Kind, user string, timeout time.Duration, confirm *confirmation) *lane {
	return &lane{
		topic: up.Topic(user), response: down.Topic(user), timeout: timeout, confirm: confirm,
		turn: make(chan struct{}, 1), answers: make(chan answer, 1), settled: make(chan struct{}, 1),
	}
}

// send puts a message on its way and expects an answer to it.
func (n *lane) send(ctx context.Context, l *link, payload []byte, wait bool) (*message, error) {
	m := &message{topic: n.topic, payload: payload, link: l, sent: make(chan struct{})}
	n.mu.Lock()
	if n.unacked == nil && !time.Now().Before(n.quiet) {
		n.owed = 0
	}
	n.owed++
	if wait {
		n.current = m
	}
	n.mu.Unlock()
	err := l.hand(ctx, m)
	if err != nil {
		n.expectLess()
	}
	return m, err
}

// acked waits for the PUBACK of a message; the time of its answer runs from there.
func (n *lane) acked(ctx context.Context, l *link, m *message) error {
	err := l.acked(ctx, m)
	switch {
	case err == nil:
		n.quieten(time.Now())
	case errors.Is(err, mqtt.ErrNotConnected):
		n.expectLess()
	default:
		n.unacked = m
	}
	return err
}

func (n *lane) expectLess() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.owed = max(0, n.owed-1)
}

// quieten says that the broker had a message at the given time: its answer
// comes within twice the timeout, or never.
func (n *lane) quieten(at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if end := at.Add(2 * n.timeout); end.After(n.quiet) {
		n.quiet = end
	}
}

// settle is the hold-off: it waits until no answer to an earlier message can
// come any more. A message that an ended connection left without a PUBACK may
// have reached the broker until the next one was accepted.
func (n *lane) settle(ctx context.Context, l *link) error {
	if m := n.unacked; m != nil {
		at := l.since
		if m.link == l {
			if err := l.acked(ctx, m); err != nil {
				return err
			}
			at = time.Now()
		}
		n.quieten(at)
		n.unacked = nil
	}
	for {
		n.mu.Lock()
		owed, left := n.owed, time.Until(n.quiet)
		n.mu.Unlock()
		if owed == 0 || left <= 0 {
			return nil
		}
		select {
		case <-n.settled:
		case <-time.After(left):
		case <-l.lost:
			return l.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hear takes an answer. One that comes before its message's PUBACK is ignored,
// one that may be an earlier message's only counts.
func (n *lane) hear(a answer) {
	if a.err == nil {
		n.confirm.heard()
	}
	n.mu.Lock()
	m := n.current
	n.mu.Unlock()
	if m != nil {
		select {
		case <-m.sent:
		case <-time.After(grace):
		}
		if done, err := m.outcome(); !done || err != nil {
			return
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.owed == 0 {
		return
	}
	n.owed--
	if n.owed > 0 {
		return
	}
	tell(n.settled, struct{}{})
	if n.current != nil && n.current == m {
		tell(n.answers, a)
	}
}

func tell[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

// ask sends one message alone and waits until it is confirmed.
func (n *lane) ask(ctx context.Context, l *link, payload []byte) error {
	if n.confirm.mode() == byResponse {
		if err := n.settle(ctx, l); err != nil {
			return err
		}
	}
	select { // an answer that an earlier Publish left behind
	case <-n.answers:
	default:
	}
	defer n.finish()
	m, err := n.send(ctx, l, payload, true)
	if err != nil {
		return err
	}
	if err := n.acked(ctx, l, m); err != nil {
		return err
	}
	timer := time.NewTimer(n.timeout)
	defer timer.Stop()
	select {
	case a := <-n.answers:
		return a.verdict()
	case <-timer.C:
		if n.confirm.silence() {
			return nil
		}
		return fmt.Errorf("no answer on %s within %s", n.response, n.timeout)
	case <-l.lost:
		err = l.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if n.confirm.mode() == byResponse {
		return err
	}
	return nil // the broker has it, and no answer was ever seen
}

func (n *lane) finish() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.current = nil
}

// encode gives the messages of a record that is sent now, and whether it is
// late. The report after a late one still carries its time, so that the reader
// sees the time return to now.
func (n *lane) encode(list [][]byte, r gateway.Record, afterLate bool, lateTS string) (_ [][]byte, late bool, _ error) {
	late = time.Since(r.Time) > lateAfter
	if !late && !afterLate {
		lateTS = ""
	}
	list, err := appendReport(list, r, lateTS)
	return list, late, err
}
