package opcua_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"sluice/adapters/opcua"
	"sluice/gateway"
)

// oneText is a bus with a device of one text, which is watched.
func oneText(endpoint string) (*gateway.Bus, *gateway.Device) {
	bus := &gateway.Bus{Name: "plc", Type: "opcua", Endpoint: endpoint, Security: "None", Timeout: 15 * time.Second}
	d := &gateway.Device{Name: "line", Profile: &gateway.Profile{Protocol: "opcua", Mode: "subscribe"}, Bus: bus}
	d.Points = []*gateway.Point{{Definition: &gateway.Definition{ID: "a", Node: "ns=0;i=7777", Type: gateway.String, Access: "rw", Poll: time.Second}, Device: d}}
	return bus, d
}

// script is a server that tells what the test has it tell.
type script struct {
	t        *testing.T
	answer   func(request any) ua.Response // nil where it is as usual
	hangUp   func(request any) bool        // nil: never
	requests chan pending                  // for something to tell
	mutex    sync.Mutex
	asked    []any
}

// pending is a Publish request.
type pending struct {
	conn    net.Conn
	request uint32
}

func (s *script) start(t *testing.T) string {
	s.t, s.requests = t, make(chan pending, 100)
	return hostileServer(t, s.serve)
}

func (s *script) serve(c net.Conn, request uint32, service any) bool {
	s.mutex.Lock()
	s.asked = append(s.asked, service)
	hangUp := s.hangUp != nil && s.hangUp(service)
	s.mutex.Unlock()
	if hangUp {
		c.Close()
		return true
	}
	var r ua.Response
	if s.answer != nil {
		r = s.answer(service)
	}
	switch x := service.(type) {
	case *ua.PublishRequest:
		s.requests <- pending{c, request}
		return true
	case *ua.CreateSubscriptionRequest:
		if r == nil {
			r = &ua.CreateSubscriptionResponse{ResponseHeader: header(), SubscriptionID: 9, RevisedPublishingInterval: 1000, RevisedMaxKeepAliveCount: 10, RevisedLifetimeCount: 600}
		}
	case *ua.CreateMonitoredItemsRequest:
		if r == nil {
			r = created(x, ua.StatusOK)
		}
	case *ua.RepublishRequest:
		if r == nil {
			r = fault(ua.StatusBadMessageNotAvailable)
		}
	case *ua.CallRequest, *ua.DeleteSubscriptionsRequest:
		r = fault(ua.StatusBadServiceUnsupported)
	}
	if r != nil {
		c.Write(chunkOf("MSGF", request, message(s.t, r)))
	}
	return r != nil
}

// of are the requests of a type so far.
func of[T any](s *script) (requests []T) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, request := range s.asked {
		if r, ok := request.(T); ok {
			requests = append(requests, r)
		}
	}
	return requests
}

// tell gives a message to a request for one, and the connection that it went to.
func (s *script) tell(number uint32, what ...any) net.Conn {
	var p pending
	select {
	case p = <-s.requests:
	case <-time.After(time.Minute):
		s.t.Fatal("nobody asks for messages")
	}
	p.conn.Write(chunkOf("MSGF", p.request, message(s.t, &ua.PublishResponse{
		ResponseHeader: header(), SubscriptionID: 9, NotificationMessage: notification(number, what...), Results: []ua.StatusCode{}, DiagnosticInfos: []*ua.DiagnosticInfo{}})))
	return p.conn
}

func notification(number uint32, what ...any) *ua.NotificationMessage {
	m := &ua.NotificationMessage{SequenceNumber: number, PublishTime: time.Now()}
	for _, w := range what {
		m.NotificationData = append(m.NotificationData, ua.NewExtensionObject(w))
	}
	return m
}

// changed is what a server tells of the first point.
func changed(text string) *ua.DataChangeNotification {
	v := &ua.DataValue{Value: ua.MustVariant(text), SourceTimestamp: time.Now()}
	v.UpdateMask()
	return &ua.DataChangeNotification{DiagnosticInfos: []*ua.DiagnosticInfo{}, MonitoredItems: []*ua.MonitoredItemNotification{{ClientHandle: 1, Value: v}}}
}

func fault(code ua.StatusCode) ua.Response {
	h := header()
	h.ServiceResult = code
	return &ua.ServiceFault{ResponseHeader: h}
}

// created has all items watched, but for events, which have a status.
func created(s *ua.CreateMonitoredItemsRequest, events ua.StatusCode) ua.Response {
	r := &ua.CreateMonitoredItemsResponse{ResponseHeader: header(), DiagnosticInfos: []*ua.DiagnosticInfo{}}
	for _, it := range s.ItemsToCreate {
		code := ua.StatusOK
		if it.ItemToMonitor.AttributeID == ua.AttributeIDEventNotifier {
			code = events
		}
		r.Results = append(r.Results, &ua.MonitoredItemCreateResult{StatusCode: code, MonitoredItemID: 5, RevisedSamplingInterval: 1000, FilterResult: ua.NewExtensionObject(nil)})
	}
	return r
}

// scripted is an adapter that watches a scripted server.
type scripted struct {
	*script
	adapter gateway.Adapter
	device  *gateway.Device
	log     lockedLog
	samples chan gateway.Sample
	events  chan gateway.FieldEvent
}

func watchScript(t *testing.T, s *script, events ...*gateway.Event) *scripted {
	t.Helper()
	w := &scripted{script: s, samples: make(chan gateway.Sample, 1000), events: make(chan gateway.FieldEvent, 50000)}
	bus, d := oneText(s.start(t))
	d.Events, w.device = events, d
	var err error
	if w.adapter, err = opcua.New(gateway.Env{Log: slog.New(slog.NewTextHandler(&w.log, nil))}, bus, []*gateway.Device{d}); err != nil {
		t.Fatal(err)
	}
	return w
}

// openOne opens a session with a device, until the end of the test.
func openOne(t *testing.T, bus *gateway.Bus, d *gateway.Device) gateway.Session {
	t.Helper()
	a, err := opcua.New(gateway.Env{Log: slog.New(slog.DiscardHandler)}, bus, []*gateway.Device{d})
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// open opens a session, and watches.
func (w *scripted) open(t *testing.T) gateway.Subscriber {
	t.Helper()
	session, err := w.adapter.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	session.(gateway.EventSource).TellEvents([]*gateway.Device{w.device}, func(told []gateway.FieldEvent) {
		for _, e := range told {
			w.events <- e
		}
	})
	watched := session.(gateway.Subscriber)
	if err := watched.Subscribe(t.Context(), w.device.Points, func(samples []gateway.Sample) {
		for _, x := range samples {
			w.samples <- x
		}
	}); err != nil {
		t.Fatal(err)
	}
	return watched
}

// value waits for a value of the point.
func (w *scripted) value(t *testing.T, want string) {
	t.Helper()
	for late := time.After(30 * time.Second); ; {
		select {
		case x := <-w.samples:
			if x.Value.Text() == want {
				return
			}
		case <-late:
			t.Fatalf("no value %q; the log:\n%s", want, w.log.String())
		}
	}
}

// A server that begins to number anew, far ahead, is not asked for millions of
// messages that it never sent: all points are read instead.
func TestANumberFarAheadIsNoMillionMissingMessages(t *testing.T) {
	t.Parallel()
	w := watchScript(t, &script{})
	session := w.open(t)
	w.tell(1, changed("first"))
	w.value(t, "first")
	const far = 3_000_000
	for i := range uint32(3) {
		w.tell(far+i, changed(fmt.Sprint("far ", i)))
	}
	w.value(t, "far 2")
	w.tell(far+3, changed("more"))
	w.value(t, "more")
	if n := len(of[*ua.RepublishRequest](w.script)); n > 1 {
		t.Errorf("%d messages were asked for again", n)
	}
	if n := strings.Count(w.log.String(), "messages of the server are lost"); n != 1 {
		t.Errorf("said %d times", n)
	}
	read := func() bool {
		return slices.ContainsFunc(of[*ua.ReadRequest](w.script), func(r *ua.ReadRequest) bool { return wants(r) })
	}
	if !eventually(read) || session.(gateway.Session).Close() != nil {
		t.Error("the points were not read")
	}
}

// What did not arrive is asked for again, and delivered in order.
func TestMissingMessagesAreAskedForAgain(t *testing.T) {
	t.Parallel()
	w := watchScript(t, &script{answer: func(request any) ua.Response {
		if r, ok := request.(*ua.RepublishRequest); ok && r.RetransmitSequenceNumber == 2 {
			return &ua.RepublishResponse{ResponseHeader: header(), NotificationMessage: notification(2, changed("second"))}
		}
		return nil
	}})
	w.open(t)
	w.tell(1, changed("first"))
	w.value(t, "first") // answers that come at the same time may be looked at in any order
	w.tell(4)           // nothing new: the next will be 4
	w.value(t, "second")
	w.tell(4, changed("fourth"))
	w.value(t, "fourth")
	if log := w.log.String(); !strings.Contains(log, "messages of the server are lost") || !strings.Contains(log, "messages=1 first=2") {
		t.Errorf("the third is lost, and the log says %s", log)
	}
}

// TestAlarmsAreAskedForAgainAfterALossThatABreakInterrupts: the session ends
// while lost messages are asked for, and the next one finds the rest.
func TestAlarmsAreAskedForAgainAfterALossThatABreakInterrupts(t *testing.T) {
	t.Parallel()
	broken := false
	s := &script{}
	s.answer = func(request any) ua.Response {
		r, ok := request.(*ua.RepublishRequest)
		switch {
		case ok && r.RetransmitSequenceNumber == 4 && !broken:
			broken = true
			return fault(ua.StatusBadSessionClosed)
		case ok && (r.RetransmitSequenceNumber == 3 || r.RetransmitSequenceNumber == 4):
			return &ua.RepublishResponse{ResponseHeader: header(), NotificationMessage: notification(r.RetransmitSequenceNumber, changed("found"))}
		}
		return nil
	}
	w := watchScript(t, s, &gateway.Event{ID: "alarm", OPCUA: &gateway.ServerEvents{}})
	first := w.open(t)
	w.tell(1, changed("first"))
	w.value(t, "first")
	asked := len(of[*ua.CallRequest](s))
	w.tell(5) // 2 is lost, 3 is found, 4 ends the session
	<-first.Lost()
	first.(gateway.Session).Close()
	for len(s.requests) > 0 {
		<-s.requests
	}
	w.open(t)
	w.tell(5, changed("fifth"))
	w.value(t, "fifth")
	w.tell(6)
	for deadline := time.Now().Add(10 * time.Second); len(of[*ua.CallRequest](s)) == asked; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody asks for the alarms")
		}
	}
}

// A subscription that was cut while it was made is made anew: else what it
// lacks would be missing for ever.
func TestASubscriptionThatIsHalfMadeIsMadeAnew(t *testing.T) {
	t.Parallel()
	cut := true
	s := &script{}
	s.answer = func(request any) ua.Response {
		if r, ok := request.(*ua.CreateMonitoredItemsRequest); ok && len(r.ItemsToCreate) == 1 && r.ItemsToCreate[0].ItemToMonitor.NodeID.String() == "i=7777" && cut {
			cut = false
			return fault(ua.StatusBadSessionClosed)
		}
		return nil
	}
	w := watchScript(t, s)
	first := w.open(t)
	<-first.Lost()
	first.(gateway.Session).Close()
	w.open(t)
	w.tell(1, changed("first"))
	w.value(t, "first")
	if n, gone := len(of[*ua.CreateSubscriptionRequest](s)), len(of[*ua.DeleteSubscriptionsRequest](s)); n != 2 || gone != 1 {
		t.Errorf("%d subscriptions made, %d deleted", n, gone)
	}
}

// An event that the server refused is asked for again, slowly, also after the
// subscription was taken over; one that it tells is not.
func TestARefusedEventIsTriedAgainInTheNextSession(t *testing.T) {
	t.Parallel()
	inCI(t)
	s := &script{answer: func(request any) ua.Response {
		if r, ok := request.(*ua.CreateMonitoredItemsRequest); ok && r.ItemsToCreate[0].RequestedParameters.ClientHandle == 1<<30 {
			return created(r, ua.StatusBadNodeIDUnknown)
		}
		return nil
	}}
	w := watchScript(t, s, &gateway.Event{ID: "refused", OPCUA: &gateway.ServerEvents{}}, &gateway.Event{ID: "told", OPCUA: &gateway.ServerEvents{}})
	asked := func(handle uint32) (n int) {
		for _, r := range of[*ua.CreateMonitoredItemsRequest](s) {
			if r.ItemsToCreate[0].RequestedParameters.ClientHandle == handle {
				n++
			}
		}
		return n
	}
	first := w.open(t)
	w.tell(1, changed("first")).Close()
	<-first.Lost()
	first.(gateway.Session).Close()
	for len(s.requests) > 0 {
		<-s.requests
	}
	w.open(t)
	for range 12 { // it is looked after when something comes
		w.tell(2)
		time.Sleep(time.Second)
	}
	if refused, told := asked(1<<30), asked(1<<30+1); refused != 2 || told != 1 {
		t.Errorf("the refused event was asked for %d times, the other %d times", refused, told)
	}
	if n := len(of[*ua.CreateSubscriptionRequest](s)); n != 1 {
		t.Errorf("%d subscriptions", n)
	}
}

// what the server tells of an event, in the order of the filter.
func told(handle int, kind uint32, condition string, active any, severity uint16) *ua.EventFieldList {
	node := ua.NewNumericNodeID(0, 0)
	if condition != "" {
		node = ua.NewStringNodeID(1, condition)
	}
	fields := []any{"oven", time.Now(), ua.NewLocalizedText("hot"), severity, active, ua.NewNumericNodeID(0, kind), []byte(fmt.Sprint(condition, active, severity)), node}
	list := &ua.EventFieldList{ClientHandle: uint32(1<<30 + handle)}
	for _, f := range fields {
		list.EventFields = append(list.EventFields, ua.MustVariant(f))
	}
	return list
}

func events(all ...*ua.EventFieldList) *ua.EventNotificationList {
	return &ua.EventNotificationList{Events: all}
}

// count waits for as many events, and no more.
func (w *scripted) count(t *testing.T, want int) (last gateway.FieldEvent) {
	t.Helper()
	for n := range want {
		select {
		case last = <-w.events:
		case <-time.After(30 * time.Second):
			t.Fatalf("%d events, not %d", n, want)
		}
	}
	return last
}

// none checks that nothing was told before what comes now.
func (w *scripted) none(t *testing.T) {
	t.Helper()
	if len(w.events) > 0 {
		t.Errorf("told too much: %+v", <-w.events)
	}
}

const (
	refreshStart = 2787
	refreshEnd   = 2788
	anAlarm      = 2915
	plainEvent   = 2041
)

// While a server goes over the alarms that are on, plain events are told as
// ever.
func TestAPlainEventIsToldDuringARefresh(t *testing.T) {
	t.Parallel()
	w := watchScript(t, &script{}, &gateway.Event{ID: "any", OPCUA: &gateway.ServerEvents{}})
	w.open(t)
	w.tell(1, events(told(0, refreshStart, "", nil, 0), told(0, plainEvent, "", nil, 7), told(0, anAlarm, "oven", true, 8), told(0, anAlarm, "acknowledged", nil, 9), told(0, refreshEnd, "", nil, 0)))
	if got := w.count(t, 2); got.Severity != 8 {
		t.Errorf("told %+v", got)
	}
	w.tell(2, changed("then"))
	w.value(t, "then")
	w.none(t)
}

// More alarms than are kept are not told, as nothing could tell that they are
// off; they are asked for when there is room again.
func TestMoreAlarmsThanAreKept(t *testing.T) {
	t.Parallel()
	const most = 10000
	s := &script{}
	w := watchScript(t, s, &gateway.Event{ID: "any", OPCUA: &gateway.ServerEvents{}})
	w.open(t)
	number := uint32(0)
	tell := func(from, to int, active bool, severity uint16) {
		for chunk := range slices.Chunk(slices.Collect(span(from, to)), 500) {
			var list []*ua.EventFieldList
			for _, i := range chunk {
				list = append(list, told(0, anAlarm, fmt.Sprint(i), active, severity))
			}
			number++
			w.tell(number, events(list...))
		}
	}
	tell(0, most+2, true, 500)
	w.count(t, most)
	tell(5, 6, true, 800)
	if got := w.count(t, 1); got.Severity != 800 || !got.Active.Bool() {
		t.Errorf("an alarm that got worse: %+v", got)
	}
	tell(most, most+2, false, 500)
	before := len(of[*ua.CallRequest](s))
	tell(0, most/10+1, false, 500)
	if got := w.count(t, most/10+1); got.Active.Bool() {
		t.Errorf("told %+v", got)
	}
	if !eventually(func() bool { return len(of[*ua.CallRequest](s)) == before+1 }) {
		t.Error("the alarms that could not be told were not asked for")
	}
	w.none(t)
	if n := strings.Count(w.log.String(), "too many alarms"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

func span(from, to int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := from; i < to && yield(i); i++ {
		}
	}
}

// The deadband goes to the server in raw values, and a hair smaller; where the
// server has none, the point is watched without.
func TestADeadbandIsTheServersWhereItHasOne(t *testing.T) {
	t.Parallel()
	filter := func(r *ua.CreateMonitoredItemsRequest) *ua.DataChangeFilter {
		f, _ := r.ItemsToCreate[0].RequestedParameters.Filter.Value.(*ua.DataChangeFilter)
		return f
	}
	for _, has := range []bool{true, false} {
		s := &script{}
		s.answer = func(request any) ua.Response {
			if r, ok := request.(*ua.CreateMonitoredItemsRequest); ok && filter(r) != nil && !has {
				refusal := created(r, ua.StatusOK).(*ua.CreateMonitoredItemsResponse)
				refusal.Results[0].StatusCode = ua.StatusBadMonitoredItemFilterUnsupported
				return refusal
			}
			return nil
		}
		w := watchScript(t, s)
		w.device.Points[0].Deadband, w.device.Points[0].Scale = &gateway.Deadband{Value: 0.5}, &gateway.Decimal{Float: 0.1}
		w.open(t)
		w.tell(1, changed("x"))
		<-w.samples
		var filters []*ua.DataChangeFilter
		for _, r := range of[*ua.CreateMonitoredItemsRequest](s) {
			if r.ItemsToCreate[0].RequestedParameters.ClientHandle == 1 {
				filters = append(filters, filter(r))
			}
		}
		first := filters[0]
		if first == nil || first.DeadbandType != uint32(ua.DeadbandTypeAbsolute) || first.DeadbandValue >= 5 || first.DeadbandValue < 4.9999 || first.Trigger != ua.DataChangeTriggerStatusValue {
			t.Errorf("filter %+v", first)
		}
		if has != (len(filters) == 1) || filters[len(filters)-1] != nil != has {
			t.Errorf("the server has deadbands: %v, asked for %v", has, filters)
		}
	}
}

// A write that does not fit the server was never sent: that is no success. One
// whose answer can't be read may have been done.
func TestAWriteIsDoneOnlyWhereTheServerSaidSo(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 20000)
	for name, tt := range map[string]struct {
		text    string
		answer  func(c net.Conn, request uint32)
		writes  int
		unknown bool
		want    string
	}{
		"too large":            {big, nil, 0, false, "larger than the server takes"},
		"an unreadable answer": {"x", func(c net.Conn, request uint32) { c.Write(chunkOf("MSGF", request, []byte{1, 0, 0xFF, 0xFF})) }, 1, true, "can't be read"},
		"an answer broken off": {"x", func(c net.Conn, request uint32) { c.Write(chunkOf("MSGA", request, append(le(0), le(0)...))) }, 1, true, "broken off"},
		"an answer too large": {"x", func(c net.Conn, request uint32) {
			c.Write(chunkOf("MSGF", request, message(t, fault(ua.StatusBadResponseTooLarge))))
		}, 1, true, "BadResponseTooLarge"},
		"another answer": {"x", func(c net.Conn, request uint32) { c.Write(chunkOf("MSGF", request, message(t, fault(ua.StatusOK)))) }, 1, true, "can't be read"},
		"an uncertain answer": {"x", func(c net.Conn, request uint32) {
			c.Write(chunkOf("MSGF", request, message(t, fault(ua.StatusUncertain))))
		}, 1, true, "can't be read"},
		"a refusal": {"x", func(c net.Conn, request uint32) {
			c.Write(chunkOf("MSGF", request, message(t, fault(ua.StatusBadUserAccessDenied))))
		}, 1, false, "BadUserAccessDenied"},
	} {
		t.Run(name, func(t *testing.T) {
			var mutex sync.Mutex
			writes := 0
			bus, d := oneText(hostileServer(t, func(c net.Conn, request uint32, service any) bool {
				switch service.(type) {
				case string:
					c.Write(bytes.Join([][]byte{[]byte("ACKF"), le(28), le(0), le(8192), le(8192), le(8192), le(1)}, nil))
					return true
				case *ua.WriteRequest:
					mutex.Lock()
					defer mutex.Unlock()
					writes++
					tt.answer(c, request)
					return true
				}
				return false
			}))
			s := openOne(t, bus, d)
			err := s.Write(t.Context(), d.Points[0], gateway.TextValue(tt.text))
			var refusal *gateway.WriteError
			mutex.Lock()
			defer mutex.Unlock()
			if !errors.As(err, &refusal) || refusal.Unknown != tt.unknown || !strings.Contains(err.Error(), tt.want) || writes != tt.writes {
				t.Errorf("error %v (%+v), %d writes on the wire", err, refusal, writes)
			}
		})
	}
}

// What the server says of the whole connection is no word about one request:
// the session is lost, and made anew.
func TestAnErrorOfTheConnectionEndsTheSession(t *testing.T) {
	t.Parallel()
	bus, d := oneText(hostileServer(t, func(c net.Conn, _ uint32, service any) bool {
		if wants(service) {
			c.Write(bytes.Join([][]byte{[]byte("ERRF"), le(16), le(uint32(ua.StatusBadTCPInternalError)), le(1<<32 - 1)}, nil))
		}
		return wants(service)
	}))
	s := openOne(t, bus, d)
	if samples, err := s.Read(t.Context(), d.Points); err == nil || !strings.Contains(err.Error(), "BadTCPInternalError") {
		t.Errorf("samples %v, error %v", samples, err)
	}
}

// A server that hangs up when it is shown an old session is asked for a new one.
func TestAServerThatHangsUpOnAnOldSession(t *testing.T) {
	t.Parallel()
	made := false
	s := &script{}
	s.hangUp = func(request any) bool {
		switch request.(type) {
		case *ua.CreateSessionRequest:
			made = true
		case *ua.ActivateSessionRequest:
			was := made
			made = false
			return !was
		}
		return false
	}
	w := watchScript(t, s)
	first := w.open(t)
	w.tell(1, changed("first")).Close()
	<-first.Lost()
	first.(gateway.Session).Close()
	for tries := 1; ; tries++ {
		session, err := w.adapter.Open(t.Context())
		if err == nil {
			session.Close()
			break
		}
		if tries > 3 {
			t.Fatalf("no session: %v", err)
		}
	}
}
