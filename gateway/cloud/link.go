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

// grace bounds the waits for the client's own goroutines: they take microseconds,
// unless the connection is stuck.
const grace = 100 * time.Millisecond

// message is one PUBLISH of QoS 1.
type message struct {
	topic   string
	payload []byte
	link    *link
	sent    chan struct{} // closed when token is set
	token   mqtt.Token
}

// outcome tells whether the PUBACK came, or that it never will.
func (m *message) outcome() (done bool, err error) {
	select {
	case <-m.sent:
	default:
		return false, nil
	}
	select {
	case <-m.token.Done():
		return true, m.token.Error()
	default:
		return false, nil
	}
}

// link is one connection, from its CONNACK to its end; it is never mended.
type link struct {
	publish  func(topic string, payload []byte) mqtt.Token
	since    time.Time
	patience time.Duration // for a PUBACK
	out      chan *message
	lost     chan struct{}
	once     sync.Once
	err      error // why it ended; set before lost is closed
}

func newLink(patience time.Duration) *link {
	return &link{patience: patience, out: make(chan *message), lost: make(chan struct{})}
}

// fail ends the link; the first reason stays.
func (l *link) fail(err error) {
	l.once.Do(func() {
		l.err = fmt.Errorf("connection lost: %w", err)
		close(l.lost)
	})
}

// write hands messages to the client until the link ends. It is a goroutine of
// its own because the client's Publish blocks for the whole write timeout when
// the connection dies under it; nobody else may wait that long.
func (l *link) write() {
	for {
		select {
		case m := <-l.out:
			m.token = l.publish(m.topic, m.payload)
			close(m.sent)
		case <-l.lost:
			return
		}
	}
}

// hand gives a message to the client. After an error it was not sent.
func (l *link) hand(ctx context.Context, m *message) error {
	select {
	case <-l.lost:
		return l.err
	case <-ctx.Done():
		return ctx.Err()
	case l.out <- m:
		return nil
	}
}

// acked waits for the message's PUBACK: nil means that it came. A broker that
// leaves one out while it answers pings costs the connection.
func (l *link) acked(ctx context.Context, m *message) error {
	if done, err := m.outcome(); done {
		return l.verdict(err)
	}
	timer := time.NewTimer(l.patience)
	defer timer.Stop()
	tick := time.NewTicker(gateway.TurnEvery)
	defer tick.Stop()
	sent, done := m.sent, (<-chan struct{})(nil)
	for {
		select {
		case <-sent:
			sent, done = nil, m.token.Done()
			continue
		case <-done:
			return l.verdict(m.token.Error())
		case <-tick.C:
			gateway.Turn(ctx)
			continue
		case <-timer.C:
			l.fail(fmt.Errorf("no PUBACK within %s", l.patience))
		case <-l.lost:
		case <-ctx.Done():
		}
		if done, err := m.outcome(); done {
			return l.verdict(err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return l.err
	}
}

// verdict turns what the client says of a message into the end of the link:
// it gives up a message only with the connection, whose own reason is better.
func (l *link) verdict(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-l.lost:
	case <-time.After(grace):
		l.fail(err)
	}
	if errors.Is(err, mqtt.ErrNotConnected) {
		return fmt.Errorf("%w: %w", err, l.err)
	}
	return l.err
}
