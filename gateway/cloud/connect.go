package cloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"sluice/gateway"
)

// subscription is a topic that the platform sends on. The handler gets the
// payload on the library's goroutine and must not block.
type subscription struct {
	topic   string
	needed  bool // no connection is better than one without it
	handler func(payload []byte)
}

// errRefused is in every error that another attempt will not cure soon.
var errRefused = errors.New("refused")

func refused(err error) bool { return errors.Is(err, errRefused) }

// connect makes one attempt and, where it succeeds, serves the connection until
// it ends. It tells how long that took, and why it ended.
func (s *Session) connect(ctx context.Context) (up time.Duration, err error) {
	client, l, err := s.attempt(ctx)
	if err != nil {
		return 0, err
	}
	go l.write()
	if s.ask != nil { // before anything else; nobody waits for the answer
		err := l.hand(ctx, &message{topic: AttributesGet.Topic(s.user), payload: s.ask, link: l, sent: make(chan struct{})})
		if err != nil {
			l.fail(err)
		}
	}
	s.offer(l)
	s.stay(ctx, l)
	select {
	case <-l.lost:
		client.Disconnect(0)
	default:
		client.Disconnect(uint(s.limits.end.Milliseconds()))
		l.fail(ctx.Err())
	}
	s.forget(l)
	return time.Since(l.since), l.err
}

// stay waits until the connection is lost, or ctx ends.
func (s *Session) stay(ctx context.Context, l *link) {
	tick := time.NewTicker(gateway.TurnEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.lost:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			gateway.Turn(ctx)
		}
	}
}

// attempt connects and subscribes, within the time of one attempt.
func (s *Session) attempt(ctx context.Context) (mqtt.Client, *link, error) {
	within := s.limits.attempt
	if secure(s.broker) {
		within = s.limits.attemptTLS
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	l := newLink(s.limits.puback)
	options := s.options(l, within)
	var dialed error
	var release func() bool
	options.SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
		conn, err := dial(ctx, s.broker, s.cloud.TLS, within)
		if dialed = err; err != nil {
			return nil, err
		}
		release = context.AfterFunc(ctx, func() { conn.Close() })
		return watch(gather(conn, s.limits.write), &s.down.stalled), nil
	})
	options.AddBroker(s.broker.String())
	client := mqtt.NewClient(options)
	token := client.Connect().(*mqtt.ConnectToken)
	select {
	case <-token.Done():
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		go client.Disconnect(0) // it waits for the attempt, which ends with the connection
		return nil, nil, fmt.Errorf("connect: no answer within %s", within)
	}
	if err := s.connack(token, dialed); err != nil {
		return nil, nil, err
	}
	l.since = time.Now()
	l.publish = func(topic string, payload []byte) mqtt.Token { return client.Publish(topic, 1, false, payload) }
	err := s.subscribe(ctx, client, l)
	if err == nil && !release() {
		err = fmt.Errorf("subscribe: no answer within %s", within)
	}
	if err != nil {
		client.Disconnect(0)
		return nil, nil, err
	}
	return client, l, nil
}

func (s *Session) options(l *link, within time.Duration) *mqtt.ClientOptions {
	// The library looks at the clock every few seconds only and pings late by
	// as much: with these, a dead line is noticed within 1.5 × keep-alive.
	keepalive := max(s.cloud.Keepalive*2/3, time.Second)
	o := mqtt.NewClientOptions().SetProtocolVersion(4).SetCleanSession(true).
		SetAutoReconnect(false).SetConnectRetry(false).
		SetClientID(s.clientID).SetUsername(s.user).SetPassword(s.password).
		SetKeepAlive(keepalive).SetPingTimeout(s.cloud.Keepalive * 2 / 5).
		SetConnectTimeout(within + time.Second).SetWriteTimeout(s.limits.write)
	return o.SetConnectionLostHandler(func(_ mqtt.Client, err error) { l.fail(err) })
}

// connack says what the broker, or the network, thinks of the attempt.
func (s *Session) connack(token *mqtt.ConnectToken, dialed error) error {
	if dialed != nil {
		return fmt.Errorf("connect: %w", dialed)
	}
	switch token.ReturnCode() {
	case packets.Accepted:
		return nil
	case packets.ErrRefusedBadUsernameOrPassword, packets.ErrRefusedNotAuthorised:
		return fmt.Errorf("login %w by the broker: bad user name or password for user %q", errRefused, s.user)
	case packets.ErrRefusedIDRejected:
		return fmt.Errorf("login %w by the broker: client id %q is not accepted", errRefused, s.clientID)
	case packets.ErrRefusedBadProtocolVersion:
		return fmt.Errorf("login %w by the broker: it does not speak MQTT 3.1.1", errRefused)
	}
	return fmt.Errorf("connect: %w", token.Error())
}

// subscribe asks for all downlinks in one packet and looks at each code of the
// answer: the library takes a refusal for a success.
func (s *Session) subscribe(ctx context.Context, client mqtt.Client, l *link) error {
	filters := make(map[string]byte, len(s.inbound))
	handlers := make(map[string]func([]byte), len(s.inbound))
	for _, in := range s.inbound {
		filters[in.topic], handlers[in.topic] = 1, in.handler
	}
	token := client.SubscribeMultiple(filters, func(_ mqtt.Client, m mqtt.Message) {
		switch handle := handlers[m.Topic()]; {
		case m.Retained():
			s.retained.Add(1)
		case handle != nil:
			handle(m.Payload())
		}
	}).(*mqtt.SubscribeToken)
	select {
	case <-token.Done():
	case <-l.lost:
		return l.err
	case <-ctx.Done():
		return errors.New("subscribe: no answer")
	}
	if err := token.Error(); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	return s.granted(token.Result())
}

// granted looks at the codes of a SUBACK.
func (s *Session) granted(codes map[string]byte) error {
	var denied, needed []string
	for _, in := range s.inbound {
		if code, ok := codes[in.topic]; !ok || code >= 0x80 {
			denied = append(denied, in.topic)
			if in.needed {
				needed = append(needed, in.topic)
			}
		}
	}
	if len(needed) > 0 {
		return fmt.Errorf("subscription to %s %w by the broker", strings.Join(needed, ", "), errRefused)
	}
	if !slices.Equal(denied, s.denied) {
		s.denied = denied
		if len(denied) > 0 {
			s.log.Error("subscription refused by the broker", "topics", strings.Join(denied, ", "))
		}
	}
	return nil
}
