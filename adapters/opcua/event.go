package opcua

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

var _ gateway.EventSource = (*session)(nil)

// eventItem is an event of the site file that the server tells. It outlives
// sessions with the subscription that it is in.
type eventItem struct {
	device *gateway.Device
	event  *gateway.Event
	id     uint32
	why    string // that was said

	refreshing bool            // the server goes over all conditions
	seen       map[string]bool // since then
}

// Client handles of events begin here; those of points are smaller.
const eventHandles = 1 << 30

// Fields of an event, in the order of the filter.
const (
	fieldSource = iota
	fieldTime
	fieldMessage
	fieldSeverity
	fieldActive // of an alarm
	fieldType
	fieldEventID
	fieldCondition // the node of it
)

// eventQueue is how many events the server keeps while nobody asks.
const eventQueue = 1000

// server is the node that notifies of all events, however a profile's own
// namespace is called.
const server = "i=2253"

// sourceOf reads the node that notifies.
func sourceOf(d *gateway.Device, e *gateway.Event) (Address, error) {
	if e.OPCUA.Source == "" || e.OPCUA.Source == server {
		return ParseNode(server, "")
	}
	return parseFor(d, e.OPCUA.Source)
}

// TellEvents begins to watch for the events that the devices' profiles choose.
// They come with the subscription of the points.
func (s *session) TellEvents(devices []*gateway.Device, deliver func([]gateway.FieldEvent)) {
	s.tellEvent = deliver
	s.events = nil
	for _, d := range devices {
		for _, e := range d.Events {
			if e.OPCUA != nil {
				s.events = append(s.events, &eventItem{device: d, event: e})
			}
		}
	}
}

func sameEvent(a, b *eventItem) bool { return a.device == b.device && a.event == b.event }

// watchEvents has the server tell the events. One that it does not tell is said
// in the log, and tried again later.
func (e *engine) watchEvents(ctx context.Context) error {
	for i, it := range e.watch.events {
		if it.id != 0 {
			continue
		}
		why, err := e.watchEvent(ctx, it, uint32(eventHandles+i))
		if err != nil {
			return fmt.Errorf("watch event %s: %w", it.event.ID, words(err))
		}
		if why != it.why && why != "" {
			e.env.Log.Warn("the server does not tell an event", "device", it.device.Name, "event", it.event.ID, "error", why)
		}
		it.why = why
	}
	return nil
}

func (e *engine) watchEvent(ctx context.Context, it *eventItem, handle uint32) (why string, err error) {
	source, err := sourceOf(it.device, it.event)
	if err != nil {
		return err.Error(), nil
	}
	index, ok := e.namespace(&source)
	if !ok {
		return "the server has no namespace " + source.URI, nil
	}
	request := itemRequest(source.nodeID(index, true), "", handle, 0, eventQueue, nil)
	request.ItemToMonitor.AttributeID = ua.AttributeIDEventNotifier
	request.RequestedParameters.Filter = ua.NewExtensionObject(&ua.EventFilter{
		SelectClauses: []*ua.SimpleAttributeOperand{
			field(id.BaseEventType, "SourceName"), field(id.BaseEventType, "Time"), field(id.BaseEventType, "Message"), field(id.BaseEventType, "Severity"),
			field(id.AlarmConditionType, "ActiveState", "Id"), field(id.BaseEventType, "EventType"), field(id.BaseEventType, "EventId"),
			{TypeDefinitionID: ua.NewNumericNodeID(0, id.ConditionType), BrowsePath: []*ua.QualifiedName{}, AttributeID: ua.AttributeIDNodeID},
		},
		WhereClause: &ua.ContentFilter{},
	})
	answer, err := ask[ua.CreateMonitoredItemsResponse](ctx, e.session, &ua.CreateMonitoredItemsRequest{
		SubscriptionID: e.watch.id, TimestampsToReturn: ua.TimestampsToReturnNeither, ItemsToCreate: []*ua.MonitoredItemCreateRequest{request},
	})
	if err != nil {
		if refused(err) {
			return words(err).Error(), nil
		}
		return "", err
	}
	results, err := complete(answer.Results, 1)
	if err != nil {
		return "", err
	}
	if results[0].StatusCode>>30 >= 2 {
		return statusName(results[0].StatusCode), nil
	}
	it.id = results[0].MonitoredItemID
	e.watch.askConditions = true
	return "", nil
}

// field is one field of the events of a type.
func field(typ uint32, path ...string) *ua.SimpleAttributeOperand {
	names := make([]*ua.QualifiedName, len(path))
	for i, name := range path {
		names[i] = &ua.QualifiedName{Name: name}
	}
	return &ua.SimpleAttributeOperand{TypeDefinitionID: ua.NewNumericNodeID(0, typ), BrowsePath: names, AttributeID: ua.AttributeIDValue}
}

// occur makes events of a message.
func (e *engine) occur(list *ua.EventNotificationList) {
	var told []gateway.FieldEvent
	for _, fields := range list.Events {
		if fields == nil || fields.ClientHandle < eventHandles || int(fields.ClientHandle-eventHandles) >= len(e.watch.events) {
			continue
		}
		it := e.watch.events[fields.ClientHandle-eventHandles]
		if kind, ok := fieldOf(fields.EventFields, fieldType).(*ua.NodeID); ok && kind.Namespace() == 0 && ofTheServer[kind.IntID()] {
			told = append(told, e.refreshes(it, kind.IntID())...)
			continue
		}
		condition := ""
		if node, ok := fieldOf(fields.EventFields, fieldCondition).(*ua.NodeID); ok && node.String() != "i=0" {
			condition = node.String()
		}
		eventID, _ := fieldOf(fields.EventFields, fieldEventID).([]byte)
		if len(condition)+len(eventID) > mostText {
			condition = "" // too long a name to remember
		}
		if event := eventOf(it, fields.EventFields); e.worthTelling(it, condition, eventID, &event) {
			told = append(told, event)
		}
	}
	if len(told) > 0 {
		e.tellEvent(told)
	}
	if e.alarmsChanged {
		e.alarmsChanged = false
		e.saveAlarms()
		if e.watch.untold && len(e.alarms) < mostAlarms*9/10 {
			e.watch.untold, e.watch.askConditions = false, true
		}
	}
}

// ofTheServer are events about events.
var ofTheServer = map[uint32]bool{id.RefreshStartEventType: true, id.RefreshEndEventType: true, id.RefreshRequiredEventType: true, id.EventQueueOverflowEventType: true}

func fieldOf(fields []*ua.Variant, i int) any {
	if i >= len(fields) || fields[i] == nil {
		return nil
	}
	return fields[i].Value()
}

func eventOf(it *eventItem, fields []*ua.Variant) gateway.FieldEvent {
	event := gateway.FieldEvent{Device: it.device, Event: it.event, Time: time.Now()}
	if t, ok := fieldOf(fields, fieldTime).(time.Time); ok && !t.IsZero() && time.Until(t) < clockLimit {
		event.Time = t
	}
	if text, ok := fieldOf(fields, fieldMessage).(*ua.LocalizedText); ok {
		event.Message = clip(text.Text)
	}
	if text, ok := fieldOf(fields, fieldSource).(string); ok {
		event.Source = clip(text)
	}
	if severity, ok := fieldOf(fields, fieldSeverity).(uint16); ok {
		event.Severity = int(severity)
	}
	if active, ok := fieldOf(fields, fieldActive).(bool); ok {
		event.Active = gateway.BoolValue(active)
	}
	return event
}

// clip shortens what a server may make as long as it likes.
func clip(text string) string {
	if len(text) <= mostText {
		return text
	}
	return strings.ToValidUTF8(text[:mostText], "")
}
