package opcua

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

// session is one connection to the server, with a session on it.
type session struct {
	*Adapter
	channel    *channel
	ticket     *ticket
	limits     limits
	namespaces []string
	resumed    bool // it is the session of the last connection
	finding    sync.RWMutex
	nodes      map[*gateway.Point]*node // replaced while nodes are looked for again
	methods    map[string][]argument
	events     []*eventItem
	tellEvent  func([]gateway.FieldEvent)
	offset     time.Duration // of the server's clock: ours minus its
	planned    int           // changes when the server takes less than was planned
	samples    []gateway.Sample

	used       atomic.Int64 // when a request was last sent, in ns
	lost       chan struct{}
	lose       func(error)
	why        error // of lost
	ctx        context.Context
	cancel     context.CancelFunc
	background sync.WaitGroup
	closing    sync.Once
}

var (
	_ gateway.Replanner  = (*session)(nil)
	_ gateway.Subscriber = (*session)(nil)
)

func newSession(a *Adapter, c *channel, t *ticket) *session {
	s := &session{Adapter: a, channel: c, ticket: t, lost: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var once sync.Once
	s.lose = func(err error) {
		once.Do(func() {
			s.why = err
			close(s.lost)
		})
	}
	return s
}

// Close ends the session and requests under way. A session that was lost is
// not said goodbye to: with the subscription in it, it is left to the next
// connection.
func (s *session) Close() error {
	s.closing.Do(func() {
		healthy := s.over() == nil
		s.lose(errors.New("the session is closed"))
		s.cancel()
		if healthy {
			s.leave()
		}
		s.channel.close()
		s.background.Wait()
		if w := s.watch; w != nil && healthy {
			w.forget()
		} else if w != nil {
			w.ticket = s.ticket
		}
	})
	return nil
}

// node is the place of a point in the server.
func (s *session) node(p *gateway.Point) *node {
	s.finding.RLock()
	defer s.finding.RUnlock()
	return s.nodes[p]
}

// over is why the session is lost; nil while it is not.
func (s *session) over() error {
	select {
	case <-s.lost:
		return s.why
	default:
		return nil
	}
}

// stayAlive asks for something where nothing else does, so that the server
// keeps the session and a dead connection is noticed.
func (s *session) stayAlive() {
	every := s.ticket.timeout / 3
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-ticker.C:
			if cert := s.server.Load(); cert != nil {
				s.warnOfEnd("the server", cert, now)
			}
			if time.Since(time.Unix(0, s.used.Load())) < every {
				continue
			}
			if err := s.ping(s.ctx); err != nil {
				s.lose(err)
				return
			}
		}
	}
}

// ping reads the server's time: any answer shows that the session is alive.
func (s *session) ping(ctx context.Context) error {
	_, err := s.read(ctx, []*ua.ReadValueID{readOf(ua.NewNumericNodeID(0, id.Server_ServerStatus_CurrentTime), ua.AttributeIDValue, "")})
	if err != nil && !refused(err) {
		return fmt.Errorf("the server does not answer: %w", words(err))
	}
	return nil
}

// Planned changes when plans must be made anew.
func (s *session) Planned() int { return s.planned }

// Plan puts points of one device into requests as large as the server takes.
func (s *session) Plan(points []*gateway.Point) [][]*gateway.Point {
	var groups [][]*gateway.Point
	limit := s.readLimit()
	byDevice := make(map[*gateway.Device]int)
	for _, p := range points {
		i, ok := byDevice[p.Device]
		if !ok || len(groups[i]) >= limit {
			i = len(groups)
			byDevice[p.Device] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], p)
	}
	return groups
}

// Read asks for a group in one request.
func (s *session) Read(ctx context.Context, group []*gateway.Point) ([]gateway.Sample, error) {
	if err := s.over(); err != nil {
		return nil, err
	}
	s.samples = s.samples[:0]
	nodes := make([]*node, len(group))
	reads := make([]*ua.ReadValueID, 0, len(group))
	for i, p := range group {
		nodes[i] = s.node(p)
		if n := nodes[i]; n.id != nil {
			reads = append(reads, readOf(n.id, ua.AttributeIDValue, n.address.Range))
		}
	}
	var values []*ua.DataValue
	var err error
	if len(reads) > 0 {
		values, err = s.read(ctx, reads)
	}
	if err != nil {
		return s.failRead(ctx, group, err)
	}
	now := time.Now()
	for i, p := range group {
		n := nodes[i]
		if n.id == nil {
			s.samples = append(s.samples, failed(p, "%s", n.why))
			continue
		}
		s.samples = append(s.samples, s.sample(n, values[0], now.Add(-p.Poll), now, false))
		values = values[1:]
	}
	return s.samples, nil
}

// failRead makes bad samples of a request that failed, or an error where the
// session is lost. After silence the server is asked for its time: the rest of
// it may be well.
func (s *session) failRead(ctx context.Context, group []*gateway.Point, err error) ([]gateway.Sample, error) {
	silent := errors.Is(err, errSilent)
	reason := words(err).Error()
	switch {
	case silent:
		if err := s.ping(ctx); err != nil {
			return nil, s.losing(ctx, err)
		}
		reason = fmt.Sprintf("no answer within %s", s.timeout)
	case tooMuch(err) && len(group) > 1:
		s.finding.Lock()
		s.limits.read = max(1, len(group)/2)
		s.finding.Unlock()
		s.planned++
	case !refused(err):
		return nil, s.losing(ctx, words(err))
	}
	for _, p := range group {
		sample := failed(p, "%s", reason)
		sample.Silent = silent
		s.samples = append(s.samples, sample)
	}
	return s.samples, nil
}

// losing notes that the session is lost, unless it is only the request that was
// given up.
func (s *session) losing(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.lose(err)
	return s.over()
}
