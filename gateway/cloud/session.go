package cloud

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/gateway"
)

// Config is what a session needs. Of Cloud, zero values of keepalive, confirm,
// confirm_timeout and client_id stand for their defaults; late_ts is as it is.
type Config struct {
	Cloud gateway.Cloud
	Login gateway.Login // its password in clear
	Site  string        // for client ids
	Log   *slog.Logger  // with the user name
	Ask   []string      // attributes that the platform is asked for after each connect; see Receive

	Streams []string // identifiers of the streams that take downlinks

	Memory []byte       // what the process before had of Session.Memory, or was told by Keep; nil: none has sent anything
	Keep   func([]byte) // is told what a process that comes after one that was killed needs as Memory, when that changes; may be nil
}

// Session is the connection of one username to the cloud, with one Run and one
// Publish per lane at a time. It is a gateway.Uplink.
type Session struct {
	cloud    gateway.Cloud
	broker   *url.URL
	ask      []byte // the payload of attributes_get; nil for none
	user     string
	password string
	clientID string
	keys
	log    *slog.Logger
	window int           // records in flight at puback
	pace   time.Duration // between the messages of one record
	limits limits

	lanes     map[gateway.RecordKind]*lane
	inbound   []subscription
	down      *downlinks
	confirmed atomic.Uint64
	retained  atomic.Uint64

	mu      sync.Mutex
	current *link         // nil while there is none
	up      chan struct{} // closed while there is one
	lastErr error
	outage  outage

	denied []string // subscriptions; of Run
	beat   gateway.Beat
}

// limits are the times that tests shorten.
type limits struct {
	attempt, attemptTLS time.Duration // for one attempt to connect
	write               time.Duration // for one packet
	puback              time.Duration // for the acknowledgement of one packet
	end                 time.Duration // for the goodbye
	steady              time.Duration // a connection that lived shorter did not end the outage
	delay               func(b *backoff, down time.Duration, refused bool) time.Duration
}

var standard = limits{
	attempt: 4 * time.Second, attemptTLS: 8 * time.Second, write: 10 * time.Second,
	puback: time.Minute, end: 250 * time.Millisecond, steady: 10 * time.Second, delay: (*backoff).next,
}

// New makes a session; Run brings it to life. An error means that no connection
// can ever come about.
func New(c Config) (*Session, error) {
	broker, err := address(c.Cloud.URL)
	if err != nil {
		return nil, err
	}
	if c.Login.User == "" || strings.ContainsAny(c.Login.User, "/+#\x00") {
		return nil, fmt.Errorf("cloud user %q cannot be part of a topic", c.Login.User)
	}
	s := &Session{
		cloud: c.Cloud, broker: broker, user: c.Login.User, password: string(c.Login.Password), log: c.Log, keys: keysOf(c.Cloud),
		window: 100, pace: c.Cloud.MinInterval, limits: standard, up: make(chan struct{}), down: newDownlinks(),
	}
	s.cloud.Keepalive = orDefault(s.cloud.Keepalive, 15*time.Second)
	s.cloud.ConfirmTimeout = orDefault(s.cloud.ConfirmTimeout, 5*time.Second)
	template := orDefault(s.cloud.ClientID, "{user}")
	s.clientID = strings.NewReplacer("{user}", s.user, "{site}", c.Site).Replace(template)
	if len(c.Ask) > 0 {
		s.ask = appendKeys(nil, c.Ask)
	}
	s.outage.begin(time.Now())
	s.lanes = map[gateway.RecordKind]*lane{
		gateway.ReportRecord: s.answered(Attributes, AttributesResponse),
		gateway.EventRecord:  s.answered(EventReport, EventResponse),
		gateway.StreamRecord: newLane(Data, "", s.user, 0, &confirmation{setting: byPuback}),
		// Streams of their own, so that a long history keeps none of the others waiting.
		gateway.HistoryRecord: newLane(Data, "", s.user, 0, &confirmation{setting: byPuback}),
	}
	s.inbound = append(s.inbound, s.down.subscriptions(s.user, c.Streams)...)
	if c.Keep != nil {
		var turn sync.Mutex // what is kept last is the newest
		keep := func() {
			turn.Lock()
			defer turn.Unlock()
			c.Keep(s.Memory(true))
		}
		for _, n := range s.lanes {
			n.confirm.changed = keep
		}
	}
	s.remember(c.Memory)
	return s, nil
}

// answered makes a lane whose messages the platform may answer, and listens to
// the answers. Whether it does is found out for each topic, since the platform
// can be told to answer one and not the other.
func (s *Session) answered(up, down Kind) *lane {
	confirm := &confirmation{setting: orDefault(s.cloud.Confirm, byAuto), topic: down.Topic(s.user), log: s.log}
	n := newLane(up, down, s.user, s.cloud.ConfirmTimeout, confirm)
	s.inbound = append(s.inbound, subscription{n.response, confirm.setting == byResponse, func(payload []byte) { n.hear(parseAnswer(payload)) }})
	return n
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Follow makes the session the one after another of the same user, which has
// ended and that nobody publishes on any more: an answer to what that has sent
// is not taken for one to the first message of this.
func (s *Session) Follow(old *Session) {
	for kind, n := range s.lanes {
		n.follow(old.lanes[kind])
	}
}

// Run keeps the session connected until ctx ends; then it says goodbye, which
// takes less than 300 ms.
func (s *Session) Run(ctx context.Context) {
	ctx = gateway.WithBeat(ctx, &s.beat)
	var b backoff
	for {
		gateway.Turn(ctx)
		up, err := s.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		steady := up > 0 && up >= s.limits.steady
		if steady {
			b = backoff{}
		}
		down := s.failed(err, steady)
		if gateway.Sleep(ctx, s.limits.delay(&b, down, refused(err))) != nil {
			return
		}
	}
}

// Watched is the loop of Run.
func (s *Session) Watched() gateway.Watched {
	return gateway.Watched{Name: "cloud " + s.user, Turned: s.beat.Turned}
}

// connection waits for the connection.
func (s *Session) connection(ctx context.Context) (*link, error) {
	for {
		gateway.Turn(ctx)
		s.mu.Lock()
		l, up := s.current, s.up
		s.mu.Unlock()
		if l != nil {
			select {
			case <-l.lost: // Run will notice
				s.forget(l)
				continue
			default:
				return l, nil
			}
		}
		select {
		case <-up:
		case <-time.After(gateway.TurnEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// offer makes the link the session's connection.
func (s *Session) offer(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.lastErr = l, nil
	close(s.up)
	attrs := []any{"broker", s.broker.Redacted()}
	down, said, news := s.outage.connected(l.since)
	if said {
		attrs = append(attrs, "down", down)
	}
	if news {
		s.log.Info("connected to the cloud", attrs...)
	}
}

// forget takes the link away from those who look for a connection.
func (s *Session) forget(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == l {
		s.current, s.up = nil, make(chan struct{})
	}
}

// failed notes why there is no connection, says it where it is news, and tells how
// long there has been none that was steady; the one that has just ended may have
// been.
func (s *Session) failed(err error, steady bool) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastErr = err
	if steady {
		s.outage.begin(time.Now())
	}
	down, news := s.outage.note(time.Now(), err)
	if news {
		s.log.Warn("no connection to the cloud", "broker", s.broker.Redacted(), "error", err)
	}
	return down
}

// Status is a snapshot of a session.
type Status struct {
	Connected time.Time // since when; zero while there is no connection
	Err       error     // why there is none
	Confirmed uint64    // records
	Mode      string    // what counts as a delivered report: puback, response, or auto while that is open
	Retained  uint64    // downlinks that were ignored because the broker had kept them
	Dropped   uint64    // downlinks that came faster than they could be read
}

// Mode is what counts as delivered for records of a kind: puback, response, or
// auto while that is open.
func (s *Session) Mode(kind gateway.RecordKind) string {
	if n := s.lanes[kind]; n != nil {
		return n.confirm.mode()
	}
	return ""
}

// Status tells how the session is.
func (s *Session) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := Status{Err: s.lastErr, Confirmed: s.confirmed.Load(), Mode: s.Mode(gateway.ReportRecord), Retained: s.retained.Load(), Dropped: s.down.dropped.Load()}
	if s.current != nil {
		status.Connected = s.current.since
	}
	return status
}
