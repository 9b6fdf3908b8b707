package opcua

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

// engine runs a subscription on one session: it begins where the last session
// ended, keeps some Publish requests in the server's hands, puts the messages
// in order, and notices when they stay away.
type engine struct {
	*session
	watch      *watch
	deliver    func([]gateway.Sample)
	handles    map[*item]uint32
	samples    []gateway.Sample                   // gathered, not yet delivered
	waiting    map[uint32]*ua.NotificationMessage // that came before the next in order
	overflowed bool                               // was said
	refresh    bool                               // every point is to be read, once the server has caught up
	retryAt    time.Time

	alarmsChanged bool // since they were kept
}

const (
	outstanding = 3    // Publish requests that the server holds
	mostMissing = 1000 // messages in a row that are asked for again
)

// published is the outcome of a Publish request.
type published struct {
	answer *ua.PublishResponse
	err    error
}

// run works until the session is lost, and says why.
func (e *engine) run(ctx context.Context) error {
	e.handles = make(map[*item]uint32, len(e.watch.items))
	for i, it := range e.watch.items {
		e.handles[it] = uint32(i + 1)
	}
	e.waiting = make(map[uint32]*ua.NotificationMessage)
	defer e.say() // what came before the error, and will not be asked for again
	e.loadAlarms()
	if err := e.begin(ctx); err != nil {
		return err
	}
	e.retryAt = time.Now().Add(retryTime)
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan published, outstanding)
	acks := &acknowledgements{subscription: e.watch.id}
	for range outstanding {
		e.background.Go(func() { e.publish(ctx, acks, answers) })
	}
	defer cancel()
	return e.receive(ctx, acks, answers)
}

// begin goes on with the subscription of the last session, or makes a new one.
func (e *engine) begin(ctx context.Context) error {
	w := e.watch
	if !w.complete {
		e.drop(ctx)
		return e.create(ctx)
	}
	kept, err := e.takeOver(ctx)
	if err != nil {
		return err
	}
	if !kept {
		e.env.Log.Debug("the server has forgotten the subscription", "subscription", w.id)
		return e.create(ctx)
	}
	w.clock.heard = time.Now()
	for _, it := range w.items {
		it.node = e.session.node(it.point)
		if it.id == 0 {
			it.why = "" // say it again: to the framework all points are bad
			e.refuse(it, "not watched yet")
		}
	}
	e.refresh = true
	e.say()
	return nil
}

// takeOver moves the subscription into this session, if it is not in it, and
// gets the messages that the last one missed.
func (e *engine) takeOver(ctx context.Context) (kept bool, err error) {
	if !e.resumed {
		answer, err := ask[ua.TransferSubscriptionsResponse](ctx, e.session, &ua.TransferSubscriptionsRequest{SubscriptionIDs: []uint32{e.watch.id}})
		if err != nil {
			return false, unlessRefused(err)
		}
		if results, err := complete(answer.Results, 1); err != nil || results[0].StatusCode>>30 >= 2 {
			return false, nil
		}
	}
	for {
		err := e.republish(ctx, next(e.watch.last))
		switch {
		case err == nil:
			e.say()
			continue
		case errors.Is(err, ua.StatusBadMessageNotAvailable):
			e.say()
			return true, nil
		}
		return false, unlessRefused(err)
	}
}

func unlessRefused(err error) error {
	if refused(err) {
		return nil
	}
	return fmt.Errorf("go on with the subscription: %w", words(err))
}

// republish asks for a message that did not arrive.
func (e *engine) republish(ctx context.Context, number uint32) error {
	answer, err := ask[ua.RepublishResponse](ctx, e.session, &ua.RepublishRequest{SubscriptionID: e.watch.id, RetransmitSequenceNumber: number})
	if err != nil {
		return err
	}
	if m := answer.NotificationMessage; m != nil && m.SequenceNumber == number {
		return e.note(m)
	}
	return ua.StatusBadMessageNotAvailable
}

// next is the number of the message after another one; 0 is none.
func next(number uint32) uint32 {
	if number == math.MaxUint32 {
		return 1
	}
	return number + 1
}

// publish keeps one request in the server's hands.
func (e *engine) publish(ctx context.Context, acks *acknowledgements, answers chan<- published) {
	for ctx.Err() == nil {
		taken := acks.take()
		limited, cancel := context.WithTimeout(ctx, publishTime)
		answer, err := send[ua.PublishResponse](limited, e.session, &ua.PublishRequest{SubscriptionAcknowledgements: taken})
		cancel()
		switch {
		case errors.Is(err, ua.StatusBadTooManyPublishRequests):
			acks.giveBack(taken)
			return // the others are enough
		case errors.Is(err, ua.StatusBadTimeout) || errors.Is(err, context.DeadlineExceeded):
			acks.giveBack(taken)
			continue
		}
		select {
		case answers <- published{answer, err}:
		case <-ctx.Done():
		}
		if err != nil {
			return
		}
	}
}

// receive takes the answers in order until there are none.
func (e *engine) receive(ctx context.Context, acks *acknowledgements, answers <-chan published) error {
	silence := 3*e.watch.alive + time.Second
	timer := time.NewTimer(silence)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return fmt.Errorf("the server has said nothing for %s", silence)
		case p := <-answers:
			timer.Reset(silence)
			if p.err != nil {
				return e.failed(p.err)
			}
			if err := e.arrange(ctx, p.answer, acks); err != nil {
				return err
			}
		}
		if err := e.checkClock(ctx); err != nil {
			return err
		}
		if err := e.retry(ctx); err != nil {
			return err
		}
		if err := e.refreshConditions(ctx); err != nil {
			return err
		}
		e.say()
	}
}

// failed is the error of a Publish request. A subscription that is gone is made
// anew by the next session.
func (e *engine) failed(err error) error {
	if errors.Is(err, ua.StatusBadNoSubscription) || errors.Is(err, ua.StatusBadSubscriptionIDInvalid) {
		e.watch.forget()
		return errors.New("the server has dropped the subscription")
	}
	return fmt.Errorf("wait for values: %w", words(err))
}

// arrange takes an answer: messages are noted in the order of their numbers.
func (e *engine) arrange(ctx context.Context, answer *ua.PublishResponse, acks *acknowledgements) error {
	m := answer.NotificationMessage
	if m == nil || answer.SubscriptionID != e.watch.id {
		return nil
	}
	expected := m.SequenceNumber // a keep-alive has the number of the message to come
	if len(m.NotificationData) > 0 {
		expected = next(expected)
		acks.add(m.SequenceNumber)
		if !after(m.SequenceNumber, e.watch.last) {
			return nil // it was republished
		}
		e.waiting[m.SequenceNumber] = m
	}
	if err := e.inOrder(); err != nil {
		return err
	}
	missing := len(e.waiting) >= outstanding || len(m.NotificationData) == 0 && after(expected, next(e.watch.last))
	for ; missing && after(expected, next(e.watch.last)); missing = len(e.waiting) > 0 {
		there := expected
		for number := range e.waiting {
			if after(there, number) {
				there = number
			}
		}
		if err := e.recover(ctx, there); err != nil {
			return err
		}
	}
	if e.refresh && !answer.MoreNotifications && len(e.waiting) == 0 {
		e.refresh = false
		return e.readAgain(ctx)
	}
	return nil
}

// after tells whether a number comes after another one, also around the end of
// the numbers.
func after(a, b uint32) bool { return int32(a-b) > 0 }

// inOrder notes the messages whose turn it is.
func (e *engine) inOrder() error {
	for {
		m := e.waiting[next(e.watch.last)]
		if m == nil {
			return nil
		}
		delete(e.waiting, m.SequenceNumber)
		if err := e.note(m); err != nil {
			return err
		}
	}
}

// recover asks for the messages that did not arrive before one that is there.
// Where the server does not have them any more, their values are lost, and all
// points are read.
func (e *engine) recover(ctx context.Context, there uint32) error {
	first := next(e.watch.last)
	lost := there - first
	if lost <= mostMissing {
		lost = 0
		for number := first; after(there, number); number = next(number) {
			err := e.republish(ctx, number)
			if err != nil && !refused(err) {
				return fmt.Errorf("ask for a lost message: %w", words(err))
			} else if err != nil {
				lost++
				e.missed()
			}
			e.say()
		}
	}
	e.watch.last = there - 1
	if lost > 0 {
		e.env.Log.Warn("messages of the server are lost: all points are read", "messages", lost, "first", first)
		e.missed()
	}
	return e.inOrder()
}

// missed has all points read, and alarms told again, since a message is lost.
func (e *engine) missed() {
	e.refresh, e.watch.askConditions = true, len(e.watch.events) > 0
	for _, it := range e.watch.events {
		it.refreshing = false // its beginning, or what it told, may be among them
	}
}

// note makes samples of a message.
func (e *engine) note(m *ua.NotificationMessage) error {
	e.watch.last = m.SequenceNumber
	for _, data := range m.NotificationData {
		if data == nil {
			continue
		}
		switch n := data.Value.(type) {
		case *ua.DataChangeNotification:
			e.samples = slices.Grow(e.samples, len(n.MonitoredItems))
			now := time.Now()
			for _, change := range n.MonitoredItems {
				e.change(change, now)
			}
		case *ua.EventNotificationList:
			e.say() // what was before
			e.occur(n)
		case *ua.StatusChangeNotification:
			if n.Status>>30 >= 2 {
				e.watch.forget()
				return fmt.Errorf("the server has ended the subscription: %s", statusName(n.Status))
			}
		}
	}
	return nil
}

// change makes a sample of a value that changed.
func (e *engine) change(c *ua.MonitoredItemNotification, now time.Time) {
	if c == nil || c.Value == nil {
		return
	}
	if c.ClientHandle == clockHandle {
		e.watch.clock.heard = now
		return
	}
	if c.ClientHandle == 0 || int(c.ClientHandle) > len(e.watch.items) {
		return
	}
	it := e.watch.items[c.ClientHandle-1]
	if c.Value.Status&overflow == overflow && !e.overflowed {
		e.overflowed = true
		e.env.Log.Warn("the server's queue has overflowed: values of this point, and maybe others, are lost", "device", it.point.Device.Name, "point", it.point.ID)
	}
	e.samples = append(e.samples, e.sample(it.node, c.Value, time.Time{}, now, e.refresh))
	if gone[c.Value.Status] && it.why == "" {
		it.why = statusName(c.Value.Status) // watched anew when the node is back
	}
}

// overflow is in the status of the first value after some that were lost.
const overflow ua.StatusCode = 0x480

// gone are what a server says of a node that it had.
var gone = map[ua.StatusCode]bool{ua.StatusBadNodeIDUnknown: true, ua.StatusBadNodeIDInvalid: true}

// refuse makes a point bad that can't be watched, unless that was said.
func (e *engine) refuse(it *item, why string) {
	if it.id = 0; it.why == why {
		return
	}
	it.why = why
	e.samples = append(e.samples, failed(it.point, "%s", why))
}

// say delivers what was gathered.
func (e *engine) say() {
	if len(e.samples) > 0 {
		e.deliver(e.samples)
		e.samples = nil
	}
}

// checkClock tells whether values still flow: the server's clock has to change.
// A subscription without values is not taken over by the next session.
func (e *engine) checkClock(ctx context.Context) error {
	c := &e.watch.clock
	still := time.Since(c.heard)
	if c.id == 0 || still <= max(3*e.watch.alive, 5*c.every) {
		return nil
	}
	e.drop(ctx)
	return fmt.Errorf("no value has come for %s, though the server answers", still.Round(time.Second))
}

// drop has the server forget the subscription, if it knows it.
func (e *engine) drop(ctx context.Context) {
	if e.watch.id != 0 {
		_, _ = ask[ua.DeleteSubscriptionsResponse](ctx, e.session, &ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{e.watch.id}})
	}
	e.watch.forget()
}

// retry tries again, slowly, what could not be watched.
func (e *engine) retry(ctx context.Context) error {
	if time.Now().Before(e.retryAt) {
		return nil
	}
	e.retryAt = time.Now().Add(retryTime)
	if err := e.watchEvents(ctx); err != nil {
		return err
	}
	var bad []*item
	var old []uint32
	for _, it := range e.watch.items {
		if it.why != "" {
			bad = append(bad, it)
			if it.id != 0 {
				old = append(old, it.id)
			}
		}
	}
	if len(bad) == 0 {
		return nil
	}
	for chunk := range slices.Chunk(old, e.limits.monitor) {
		_, err := ask[ua.DeleteMonitoredItemsResponse](ctx, e.session, &ua.DeleteMonitoredItemsRequest{SubscriptionID: e.watch.id, MonitoredItemIDs: chunk})
		if err != nil && !refused(err) {
			return fmt.Errorf("watch points anew: %w", words(err))
		}
	}
	if err := e.findAgain(ctx, bad); err != nil {
		return err
	}
	return e.add(ctx, bad)
}

// findAgain looks for nodes that were not found.
func (e *engine) findAgain(ctx context.Context, items []*item) error {
	var lost []*gateway.Point
	for _, it := range items {
		if it.node.id == nil {
			lost = append(lost, it.point)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	if err := e.session.readNamespaces(ctx); err != nil {
		return err
	}
	return e.session.find(ctx, lost)
}

// readAgain reads every point after a recovery, so that nothing stale stands. A
// value that is newer than the last message comes with the next one.
func (e *engine) readAgain(ctx context.Context) error {
	var items []*item
	var reads []*ua.ReadValueID
	for _, it := range e.watch.items {
		if it.id != 0 && it.why == "" {
			items = append(items, it)
			reads = append(reads, readOf(it.node.id, ua.AttributeIDValue, it.node.address.Range))
		}
	}
	values, err := e.readAll(ctx, reads)
	if err != nil {
		return fmt.Errorf("read all points: %w", words(err))
	}
	now := time.Now()
	for i, v := range values {
		if !e.isNewer(items[i].node, v) {
			e.samples = append(e.samples, e.sample(items[i].node, v, time.Time{}, now, false))
		}
	}
	return nil
}
