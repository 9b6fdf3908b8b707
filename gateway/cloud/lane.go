package cloud

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"sluice/gateway"
)

// lane is one kind of message that we publish and the topic of its answers.
// Answers carry no id, so it counts how many may still come: an answer belongs
// to the message in flight only when no other can be on its way, or when all
// that can are answers to copies of the same message.
type lane struct {
	topic    string
	response string        // "" where there are no answers
	timeout  time.Duration // for an answer, from the PUBACK
	confirm  *confirmation

	turn chan struct{} // held by the one Publish that is at work

	// Of the holder of turn.
	pause   time.Duration // between the parts of a large record, found
	late    bool          // the last confirmed report was late
	unacked *message      // left without a PUBACK by an earlier Publish
	cut     bool          // the last message was left by a connection that was lost
	first   bool          // nothing was sent yet, but by the process before

	answers chan answer   // to the message in flight
	settled chan struct{} // told when owed becomes 0

	mu      sync.Mutex
	current *message        // in flight, waiting for its answer
	owed    int             // answers that may still come
	unsaid  int             // messages whose PUBACK is waited for
	quiet   time.Time       // when none can come any more
	asked   *gateway.Record // all of them are to copies of this one; nil: they are not
}

func newLane(up, down Kind, user string, timeout time.Duration, confirm *confirmation) *lane {
	return &lane{
		topic: up.Topic(user), response: down.Topic(user), timeout: timeout, confirm: confirm,
		turn: make(chan struct{}, 1), answers: make(chan answer, 1), settled: make(chan struct{}, 1),
	}
}

// packet is a message to be sent.
type packet struct {
	topic   string
	payload []byte
}

// send puts a message on its way and expects an answer to it. of is the record
// that it holds completely, and whose answer is waited for; else nil.
func (n *lane) send(ctx context.Context, l *link, p packet, of *gateway.Record, wait bool) (*message, error) {
	m := &message{topic: p.topic, payload: p.payload, link: l, sent: make(chan struct{})}
	n.mu.Lock()
	if n.unacked == nil && n.unsaid == 0 && !time.Now().Before(n.quiet) {
		n.owed = 0
	}
	if n.owed == 0 {
		n.asked = of
	} else if !same(of, n.asked) {
		n.asked = nil
	}
	n.owed++
	n.unsaid++
	if wait {
		n.current = m
	}
	n.mu.Unlock()
	err := l.hand(ctx, m)
	if err != nil {
		n.said()
		n.expectLess()
		return m, err
	}
	n.first = false
	return m, nil
}

// acked waits for the PUBACK of a message; the time of its answer runs from there.
func (n *lane) acked(ctx context.Context, l *link, m *message) error {
	err := l.acked(ctx, m)
	defer n.said()
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

// said notes that the PUBACK of a message has come, or is not waited for any more.
func (n *lane) said() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unsaid--
}

// giveUp is said of all messages.
func (n *lane) giveUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unsaid = 0
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
	if n.first {
		return nil
	}
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
		case <-time.After(min(left, gateway.TurnEvery)):
			gateway.Turn(ctx)
		case <-l.lost:
			return l.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hear takes an answer. One that comes before its message's PUBACK is ignored,
// one that may be an earlier message's, or can't be read, only counts.
func (n *lane) hear(a answer) {
	if a.err == nil {
		n.confirm.heard()
	} else {
		n.confirm.unreadable(a.err)
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
	if n.owed--; n.owed == 0 {
		tell(n.settled, struct{}{})
	} else if n.asked == nil {
		return
	}
	if n.current != nil && n.current == m && a.err == nil {
		tell(n.answers, a)
	}
}

func tell[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

// ask sends one message alone and waits until it is confirmed. of is the record
// that it holds completely; nil where it is only a part.
func (n *lane) ask(ctx context.Context, l *link, p packet, of *gateway.Record) error {
	if n.confirm.mode() == byResponse && !n.copies(of) {
		if err := n.settle(ctx, l); err != nil {
			return err
		}
	}
	n.cut = false
	select { // an answer that an earlier Publish left behind
	case <-n.answers:
	default:
	}
	defer n.finish()
	m, err := n.send(ctx, l, p, of, true)
	if err != nil {
		return err
	}
	if err := n.acked(ctx, l, m); err != nil {
		n.cut = true
		return lost(err)
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
		return outcome{fmt.Errorf("no answer on %s within %s", n.response, n.timeout), gateway.ErrUnanswered}
	case <-l.lost:
		n.cut, err = true, lost(l.err)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if n.confirm.mode() == byResponse {
		return err
	}
	return nil // the broker has it, and no answer was ever seen
}

// lost says of an error that the message was in flight.
func lost(err error) error { return outcome{err, gateway.ErrLost} }

// outcome is an error that says what became of a message.
type outcome struct {
	error
	kind error
}

// Is tells the kind.
func (o outcome) Is(target error) bool { return target == o.kind }

// Unwrap gives the error itself.
func (o outcome) Unwrap() error { return o.error }

// copies tells whether all answers that may still come are to copies of this
// record that a lost connection has left: then any of them says what became of
// it, and there is nothing to hold off for. After a silence there is all the
// same, so that a slow platform is not asked faster and faster.
func (n *lane) copies(of *gateway.Record) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut && same(of, n.asked)
}

// same tells whether two records hold the same.
func same(a, b *gateway.Record) bool {
	return a != nil && b != nil && a.Kind == b.Kind && a.Time.Equal(b.Time) && a.ID == b.ID && a.Name == b.Name &&
		slices.EqualFunc(a.Values, b.Values, func(x, y gateway.Attribute) bool { return x.Name == y.Name && x.Value.Equal(y.Value) })
}

func (n *lane) finish() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.current = nil
}

// follow makes the lane one that goes on where that of an ended session has
// stopped: answers to what it has sent may still come.
func (n *lane) follow(old *lane) {
	n.confirm.follow(old.confirm)
	old.mu.Lock()
	defer old.mu.Unlock()
	n.owed, n.quiet, n.unacked, n.first = old.owed, old.quiet, nil, false
	if old.unacked != nil {
		n.quieten(time.Now())
	}
}
