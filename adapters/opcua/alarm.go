package opcua

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

// alarm is one that is on and was told: over sessions, and over starts of the
// gateway where there is a place to keep it.
type alarm struct {
	EventID  []byte // of the server's last word about it
	Source   string
	Message  string
	Severity int
}

const (
	alarmBucket = "opcua_alarms"
	mostAlarms  = 10000 // that are remembered
	mostText    = 1000  // bytes of each of their texts
)

// loadAlarms reads what was on when the gateway ran last.
func (a *Adapter) loadAlarms() {
	if a.alarms != nil {
		return
	}
	a.alarms = make(map[string]alarm)
	if a.env.State == nil {
		return
	}
	data, err := a.env.State.Get(alarmBucket, a.bus.Name)
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, &a.alarms)
	}
	if err != nil {
		a.env.Log.Warn("the alarms that were told are not known: those that stand are told again", "error", err)
	}
}

func (a *Adapter) saveAlarms() {
	if a.env.State == nil {
		return
	}
	data, err := json.Marshal(a.alarms)
	if err == nil {
		err = a.env.State.Put(alarmBucket, a.bus.Name, data)
	}
	if err != nil {
		a.env.Log.Warn("the alarms that were told can't be kept: those that stand are told again after a restart", "error", err)
	}
}

// key is the name of a condition as an event of the site file tells it.
func (it *eventItem) key(condition string) string {
	return it.device.Name + " " + it.event.ID + " " + condition
}

// worthTelling tells whether what the server says of a condition is new: an
// alarm that is on is told once for each severity, and one that is off where it
// was told to be on.
func (e *engine) worthTelling(it *eventItem, condition string, eventID []byte, event *gateway.FieldEvent) bool {
	enough := event.Severity >= it.event.OPCUA.Severity
	if condition == "" || event.Active.Kind() == gateway.None {
		return enough && (condition == "" || !it.refreshing)
	}
	key, active := it.key(condition), event.Active.Bool()
	event.Subject = key
	was, on := e.alarms[key]
	if it.refreshing && on {
		it.seen[key] = true
	}
	switch {
	case on && (bytes.Equal(was.EventID, eventID) || active && was.Severity == event.Severity):
		return false
	case !on && !active:
		return false
	case !enough && active:
		return false
	case active && !on && len(e.alarms) >= mostAlarms: // it could not be told to be off
		if !e.watch.untold {
			e.watch.untold = true
			e.env.Log.Warn("too many alarms are on: the others are told when some are off", "most", mostAlarms)
		}
		return false
	case active:
		e.alarms[key] = alarm{EventID: eventID, Source: event.Source, Message: event.Message, Severity: event.Severity}
		if it.refreshing {
			it.seen[key] = true
		}
	default:
		delete(e.alarms, key)
		delete(it.seen, key)
	}
	e.alarmsChanged = true
	return true
}

// refreshes follows a server that goes over all its conditions: an alarm that
// was on, and is not among them, has gone meanwhile.
func (e *engine) refreshes(it *eventItem, kind uint32) (gone []gateway.FieldEvent) {
	switch kind {
	case id.RefreshStartEventType:
		it.refreshing, it.seen = true, make(map[string]bool)
	case id.RefreshEndEventType:
		for key, was := range e.alarms {
			if it.refreshing && strings.HasPrefix(key, it.key("")) && !it.seen[key] {
				gone = append(gone, gateway.FieldEvent{Device: it.device, Event: it.event, Time: time.Now(), Source: was.Source, Message: was.Message, Severity: was.Severity, Active: gateway.BoolValue(false), Subject: key})
				delete(e.alarms, key)
				e.alarmsChanged = true
			}
		}
		it.refreshing, it.seen = false, nil
	case id.RefreshRequiredEventType:
		e.watch.askConditions = true
	case id.EventQueueOverflowEventType:
		e.env.Log.Warn("the server's queue of events has overflowed: some are lost", "device", it.device.Name, "event", it.event.ID)
		e.watch.askConditions = true
	}
	return gone
}

// refreshConditions has the server tell all conditions that are of interest, so
// that an alarm that was on before the subscription is told. A server without
// alarms refuses.
func (e *engine) refreshConditions(ctx context.Context) error {
	if !e.watch.askConditions {
		return nil
	}
	answer, err := ask[ua.CallResponse](ctx, e.session, &ua.CallRequest{MethodsToCall: []*ua.CallMethodRequest{{
		ObjectID: ua.NewNumericNodeID(0, id.ConditionType), MethodID: ua.NewNumericNodeID(0, id.ConditionType_ConditionRefresh),
		InputArguments: []*ua.Variant{ua.MustVariant(e.watch.id)},
	}}})
	if err != nil && !refused(err) && !errors.Is(err, errSilent) {
		return fmt.Errorf("ask for the alarms that are on: %w", words(err))
	}
	e.watch.askConditions = false
	if err == nil && len(answer.Results) == 1 && answer.Results[0].StatusCode>>30 >= 2 {
		err = answer.Results[0].StatusCode
	}
	if err != nil {
		e.env.Log.Debug("the server does not tell the alarms that are on", "error", words(err))
	}
	return nil
}
