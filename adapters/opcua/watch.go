package opcua

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

// What a subscription is asked for. A server that keeps it over an outage also
// keeps what changed meanwhile, as far as its queues reach.
const (
	fastestPublish = 100 * time.Millisecond
	slowestPublish = time.Second
	keepAliveTime  = 2 * time.Second  // between two answers of a server with nothing to say
	lifeTime       = 10 * time.Minute // without any request, until the server forgets the subscription
	queueTime      = 30 * time.Second // of changes that the server keeps for each point
	longestQueue   = 500
	retryTime      = 8 * time.Second // between two tries of points that can't be watched
	clockTime      = time.Second     // sampling of the server's clock, which shows that values flow
)

// watch is a subscription and the points in it. It outlives sessions: the next
// one goes on with it.
type watch struct {
	points   []*gateway.Point
	items    []*item // by client handle, which is the index + 1
	events   []*eventItem
	id       uint32 // 0: there is none in the server
	complete bool   // the server was asked for all that is in it
	last     uint32 // number of the last message that was delivered
	interval time.Duration
	alive    time.Duration // the longest that the server is silent
	clock    clockItem
	ticket   *ticket // of the session that the last connection left behind

	askConditions bool // the server is to go over all its conditions
	untold        bool // alarms, since too many were on
}

// item is one point that the server watches.
type item struct {
	point *gateway.Point
	node  *node
	id    uint32 // 0: it is not watched, for the reason that was delivered
	why   string // "" while it is watched
	plain bool   // without a filter: the server has none
}

// clockItem is the server's own time: when that stands still, no values flow.
type clockItem struct {
	id    uint32
	every time.Duration
	heard time.Time
}

// clockHandle is the client handle of the server's clock. node-opcua makes 0 of
// the largest number.
const clockHandle = math.MaxInt32

// Subscribe begins to watch points in the background.
func (s *session) Subscribe(_ context.Context, points []*gateway.Point, deliver func([]gateway.Sample)) error {
	if len(points) == 0 && len(s.events) == 0 {
		return nil
	}
	w := s.watch
	if w == nil || !slices.Equal(w.points, points) || !slices.EqualFunc(w.events, s.events, sameEvent) {
		w = newWatch(points, s.events)
		if s.watch != nil {
			w.ticket = s.watch.ticket
		}
		s.Adapter.watch = w
	}
	s.background.Go(func() {
		e := &engine{session: s, watch: w, deliver: deliver}
		s.lose(e.run(s.ctx))
	})
	return nil
}

// Lost is closed when the session is over by itself.
func (s *session) Lost() <-chan struct{} { return s.lost }

// Err is why it is over.
func (s *session) Err() error { return s.over() }

func newWatch(points []*gateway.Point, events []*eventItem) *watch {
	w := &watch{points: points, events: events, interval: slowestPublish}
	for _, p := range points {
		w.items = append(w.items, &item{point: p})
		w.interval = min(w.interval, max(p.Poll, fastestPublish))
	}
	return w
}

// forget drops what is in the server no more.
func (w *watch) forget() {
	w.id, w.complete, w.last, w.clock = 0, false, 0, clockItem{}
	for _, it := range w.items {
		it.id, it.why = 0, ""
	}
	for _, it := range w.events {
		it.id, it.refreshing, it.seen = 0, false, nil
	}
}

// create makes a subscription and its items. It tells which points could not be
// watched.
func (e *engine) create(ctx context.Context) error {
	w := e.watch
	w.forget()
	answer, err := ask[ua.CreateSubscriptionResponse](ctx, e.session, &ua.CreateSubscriptionRequest{
		RequestedPublishingInterval: milliseconds(w.interval), RequestedMaxKeepAliveCount: counts(keepAliveTime, w.interval),
		RequestedLifetimeCount: max(counts(lifeTime, w.interval), 3*counts(keepAliveTime, w.interval)), PublishingEnabled: true,
	})
	if err != nil {
		return fmt.Errorf("create a subscription: %w", words(err))
	}
	w.id = answer.SubscriptionID
	w.alive = time.Duration(answer.RevisedPublishingInterval*float64(max(answer.RevisedMaxKeepAliveCount, 1))) * time.Millisecond
	w.alive = min(max(w.alive, time.Second), time.Minute)
	if err := e.watchClock(ctx); err != nil {
		return err
	}
	if err := e.watchEvents(ctx); err != nil {
		return err
	}
	if err := e.refreshConditions(ctx); err != nil {
		return err
	}
	if err := e.add(ctx, w.items); err != nil {
		return err
	}
	w.complete = true
	return nil
}

// watchClock adds the server's clock, where that can be watched.
func (e *engine) watchClock(ctx context.Context) error {
	answer, err := ask[ua.CreateMonitoredItemsResponse](ctx, e.session, &ua.CreateMonitoredItemsRequest{
		SubscriptionID: e.watch.id, TimestampsToReturn: ua.TimestampsToReturnNeither,
		ItemsToCreate: []*ua.MonitoredItemCreateRequest{itemRequest(ua.NewNumericNodeID(0, id.Server_ServerStatus_CurrentTime), "", clockHandle, clockTime, 1, nil)},
	})
	if err != nil {
		return fmt.Errorf("watch the server's clock: %w", words(err))
	}
	if results, err := complete(answer.Results, 1); err == nil && results[0].StatusCode>>30 < 2 {
		e.watch.clock = clockItem{id: results[0].MonitoredItemID, every: max(clockTime, time.Duration(results[0].RevisedSamplingInterval)*time.Millisecond), heard: time.Now()}
	}
	return nil
}

// add has the server watch items, in chunks. Those that it does not are bad,
// and tried again later.
func (e *engine) add(ctx context.Context, items []*item) error {
	var able []*item
	for _, it := range items {
		it.node = e.session.node(it.point)
		if it.node.id == nil {
			e.refuse(it, it.node.why)
		} else {
			able = append(able, it)
		}
	}
	results, err := inChunks(able, &e.session.limits.monitor, func(chunk []*item) ([]*ua.MonitoredItemCreateResult, error) { return e.createItems(ctx, chunk) })
	if err != nil {
		return fmt.Errorf("watch %d points: %w", len(able), words(err))
	}
	var again []*item
	for i, r := range results {
		it := able[i]
		switch {
		case r.StatusCode>>30 < 2:
			it.id, it.why = r.MonitoredItemID, ""
		case noFilter[r.StatusCode] && !it.plain:
			it.plain = true
			again = append(again, it)
		default:
			e.refuse(it, statusName(r.StatusCode))
		}
	}
	e.say()
	if len(again) > 0 {
		return e.add(ctx, again)
	}
	return nil
}

// noFilter are what a server says that has no deadband for a node.
var noFilter = map[ua.StatusCode]bool{
	ua.StatusBadMonitoredItemFilterUnsupported: true, ua.StatusBadFilterNotAllowed: true, ua.StatusBadMonitoredItemFilterInvalid: true, ua.StatusBadDeadbandFilterInvalid: true,
}

func (e *engine) createItems(ctx context.Context, items []*item) ([]*ua.MonitoredItemCreateResult, error) {
	requests := make([]*ua.MonitoredItemCreateRequest, len(items))
	for i, it := range items {
		var filter *ua.DataChangeFilter
		if !it.plain {
			filter = deadbandFilter(it.point, it.node.conversion)
		}
		queue := min(max(int(queueTime/max(it.point.Poll, time.Millisecond)), 2), longestQueue)
		requests[i] = itemRequest(it.node.id, it.node.address.Range, e.handles[it], it.point.Poll, queue, filter)
	}
	answer, err := ask[ua.CreateMonitoredItemsResponse](ctx, e.session, &ua.CreateMonitoredItemsRequest{
		SubscriptionID: e.watch.id, TimestampsToReturn: ua.TimestampsToReturnBoth, ItemsToCreate: requests,
	})
	if err != nil {
		return nil, err
	}
	return complete(answer.Results, len(items))
}

func itemRequest(node *ua.NodeID, elements string, handle uint32, every time.Duration, queue int, filter *ua.DataChangeFilter) *ua.MonitoredItemCreateRequest {
	parameters := &ua.MonitoringParameters{ClientHandle: handle, SamplingInterval: milliseconds(every), QueueSize: uint32(queue), DiscardOldest: true, Filter: ua.NewExtensionObject(nil)}
	if filter != nil {
		parameters.Filter = ua.NewExtensionObject(filter)
	}
	return &ua.MonitoredItemCreateRequest{ItemToMonitor: readOf(node, ua.AttributeIDValue, elements), MonitoringMode: ua.MonitoringModeReporting, RequestedParameters: parameters}
}

// deadbandFilter is the point's deadband as the server can apply it: an absolute
// one, in raw values, and a hair smaller, since a server leaves out what differs
// by exactly the deadband. Where an expression looks at the point it must see
// every change.
func deadbandFilter(p *gateway.Point, c *gateway.Conversion) *ua.DataChangeFilter {
	band := p.Deadband
	if band == nil {
		band = p.Report.Deadband
	}
	if band == nil || band.Relative || band.Value <= 0 || p.Count > 0 || len(p.Enum) > 0 || mentioned(p) {
		return nil
	}
	factor := 1.0
	switch {
	case p.Scale != nil:
		factor = p.Scale.Float
	case p.Map != nil:
		factor = (p.Map.To[1].Float - p.Map.To[0].Float) / (p.Map.Raw[1].Float - p.Map.Raw[0].Float)
	}
	return &ua.DataChangeFilter{Trigger: ua.DataChangeTriggerStatusValue, DeadbandType: uint32(ua.DeadbandTypeAbsolute), DeadbandValue: band.Value / math.Abs(factor) * (1 - 1e-6)}
}

var identifiers = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)

// mentioned tells whether an expression of the device may look at a point.
func mentioned(p *gateway.Point) bool {
	in := func(e *gateway.Expression) bool {
		return e != nil && slices.Contains(identifiers.FindAllString(e.Text, -1), p.ID)
	}
	for _, c := range p.Device.Computed {
		if in(c.Value) {
			return true
		}
	}
	for _, e := range p.Device.Events {
		if in(e.When) || in(e.Clear) || in(e.Each) {
			return true
		}
	}
	return false
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// counts is how many publishing intervals are in a time.
func counts(d, interval time.Duration) uint32 { return uint32((d + interval - 1) / interval) }
