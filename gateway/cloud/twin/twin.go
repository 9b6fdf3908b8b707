package twin

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
)

// Options say how the platform is set up.
type Options struct {
	Addr        string            // default 127.0.0.1:0: a free port of loopback
	TLS         *tls.Config       // serve mqtts
	Users       map[string]string // user name → password
	Respond     bool              // answer reports and events; the platform does so only on demand
	MinInterval time.Duration     // a report that comes sooner after the last stored one is refused
	Delay       time.Duration     // before each answer
	Keep        int               // messages kept per user; default 100,000, then the oldest go
	// OnMessage sees each message of a user before its PUBACK goes out. It may
	// call all methods of the twin but Stop and Restart.
	OnMessage func(user, topic string, payload []byte)
}

// Message is what the twin received on one of a user's topics.
type Message struct {
	Topic   string
	Payload []byte
	Time    time.Time // of its arrival
	Code    int       // the error code of the answer, whether it was sent or not; 0 = stored
}

// Faults is what the platform does wrong.
type Faults struct {
	BlackHole     bool          // connections stay up, and nothing passes until it ends
	DropAnswers   bool          // answers are not sent
	AnswerDelay   time.Duration // answers come later by this
	NoPuback      bool          // messages are taken, but not acknowledged
	Refuse        string        // reports with this attribute get error code 400
	DenySubscribe string        // a subscription to this topic gets 0x80
}

// Twin is the running stand-in.
type Twin struct {
	options Options
	addr    string

	mu       sync.Mutex
	server   *mqtt.Server // nil while stopped
	listener *listener
	faults   Faults
	users    map[string]*account
	denied   int
	healed   chan struct{} // closed while there is no black hole
}

// Start starts the stand-in; Stop ends it.
func Start(options Options) (*Twin, error) {
	options.Keep = cmp.Or(options.Keep, 100_000)
	t := &Twin{options: options, addr: cmp.Or(options.Addr, "127.0.0.1:0"), users: map[string]*account{}, healed: make(chan struct{})}
	close(t.healed)
	for user := range options.Users {
		t.users[user] = newAccount()
	}
	return t, t.Restart()
}

// Restart starts a stopped twin on the same address. What it has stored and
// received is still there; sessions are not.
func (t *Twin) Restart() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.server != nil {
		return errors.New("restart the twin: it is running")
	}
	l, err := listen(t, t.addr)
	if err != nil {
		return fmt.Errorf("start the twin: %w", err)
	}
	if t.listener == nil {
		t.addr = l.Address()
	}
	server := mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})
	if err := serve(server, newHook(t), l); err != nil {
		return errors.Join(fmt.Errorf("start the twin: %w", err), l.Listener.Close())
	}
	t.listener, t.server = l, server
	return nil
}

func serve(server *mqtt.Server, h *hook, l *listener) error {
	if err := server.AddHook(h, nil); err != nil {
		return err
	}
	if err := server.AddListener(l); err != nil {
		return err
	}
	return server.Serve()
}

// Stop closes the listener and all connections, as a broker that goes away. It
// returns when they are closed; stopping twice is no error.
func (t *Twin) Stop() {
	t.mu.Lock()
	server := t.server
	t.server = nil
	t.mu.Unlock()
	if server != nil {
		server.Close()
	}
}

// Cut closes all connections; clients may connect again at once.
func (t *Twin) Cut() {
	t.mu.Lock()
	listener := t.listener
	t.mu.Unlock()
	listener.cut()
}

// Addr is host and port.
func (t *Twin) Addr() string { return t.addr }

// URL is the address for a site file.
func (t *Twin) URL() string {
	if t.options.TLS != nil {
		return "mqtts://" + t.addr
	}
	return "mqtt://" + t.addr
}

// SetFaults replaces the faults in force.
func (t *Twin) SetFaults(f Faults) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case f.BlackHole && !t.faults.BlackHole:
		t.healed = make(chan struct{})
	case !f.BlackHole && t.faults.BlackHole:
		close(t.healed)
	}
	t.faults = f
}

// SetRespond switches the answers to reports and events on or off.
func (t *Twin) SetRespond(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.options.Respond = on
}

// Send publishes a downlink; while the twin is stopped it is lost.
func (t *Twin) Send(topic string, payload []byte) error {
	t.mu.Lock()
	server := t.server
	t.mu.Unlock()
	if server == nil {
		return nil
	}
	if err := server.Publish(topic, payload, false, 0); err != nil {
		return fmt.Errorf("send to %s: %w", topic, err)
	}
	return nil
}

// Received is what came from a user, oldest first.
func (t *Twin) Received(user string) []Message {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.users[user]; a != nil {
		return slices.Clone(a.received[max(0, len(a.received)-t.options.Keep):])
	}
	return nil
}

// Attributes is what the platform has stored of a user: raw JSON by name.
func (t *Twin) Attributes(user string) map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	attributes := map[string]string{}
	if a := t.users[user]; a != nil {
		for name, value := range a.attributes {
			attributes[name] = string(value)
		}
	}
	return attributes
}

// Denied is the number of messages on topics that were not their sender's:
// acknowledged, and dropped.
func (t *Twin) Denied() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.denied
}
