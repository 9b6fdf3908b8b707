package cloud

import (
	"bytes"
	"fmt"
	"math"
	"strconv"

	"sluice/gateway"
)

// MaxMessage is the size up to which a payload is sent, in bytes: below 64 KB
// in either reading of the unit.
const MaxMessage = 64_000

// AppendAttributes appends a report as the JSON object of an attributes
// message. Values that JSON or the platform has no place for (NaN, infinities,
// nothing) are left out, and are null inside a list; integers beyond ±2^53 are
// strings, times are ms since 1970 UTC, bytes are lower-case hexadecimal. A
// lateTS that is not empty names an attribute with the record's time in ms; it
// is left out where nothing else is left.
func AppendAttributes(dst []byte, r gateway.Record, lateTS string) []byte {
	dst = append(dst, '{')
	start := len(dst)
	for i := range r.Values {
		if sendable(r.Values[i].Value) {
			dst = appendKey(dst, len(dst) > start, r.Values[i].Name)
			dst = appendValue(dst, r.Values[i].Value)
		}
	}
	if lateTS != "" && len(dst) > start {
		dst = appendKey(dst, true, lateTS)
		dst = strconv.AppendInt(dst, r.Time.UnixMilli(), 10)
	}
	return append(dst, '}')
}

// keys are the names of what messages carry beside values; "" for what they
// don't.
type keys struct{ lateTS, eventID string }

func keysOf(c gateway.Cloud) (k keys) {
	if c.LateTS != "none" {
		k.lateTS = c.LateTS
	}
	if c.EventID != "none" {
		k.eventID = orDefault(c.EventID, "event_id")
	}
	return k
}

// payloads are the messages of a record; timed says that it carries its time.
func (k keys) payloads(r *gateway.Record, timed bool) ([][]byte, error) {
	switch r.Kind {
	case gateway.EventRecord:
		return appendEvent(nil, r, k.eventID, timed && k.lateTS != "")
	case gateway.HistoryRecord:
		return appendHistory(nil, r.Rows, r.Number)
	case gateway.StreamRecord:
		return appendStream(nil, r)
	}
	if !timed {
		k.lateTS = ""
	}
	return appendReport(nil, *r, k.lateTS)
}

// topicOf is where a record of a user goes.
func topicOf(user string, r *gateway.Record) string {
	switch r.Kind {
	case gateway.EventRecord:
		return EventReport.Topic(user)
	case gateway.HistoryRecord, gateway.StreamRecord:
		return Data.Stream(user, r.Name)
	}
	return Attributes.Topic(user)
}

// Show gives the topic and the payload of a record of a user, for people to
// look at: without the time that it gets when it is sent late.
func Show(c gateway.Cloud, user string, r *gateway.Record) (topic string, payload []byte) {
	list, err := keysOf(c).payloads(r, false)
	switch {
	case err == nil && len(list) == 1:
		payload = list[0]
	case r.Kind == gateway.StreamRecord: // too large, which may be why it was refused
		payload = r.Body
	default:
		payload = AppendAttributes(nil, *r, "")
	}
	return topicOf(user, r), payload
}

// appendReport appends the messages of a report to list: none where nothing of
// it can be sent, and more than one where it is over MaxMessage.
func appendReport(list [][]byte, r gateway.Record, lateTS string) ([][]byte, error) {
	size := 32
	for i := range r.Values {
		size += len(r.Values[i].Name) + 16 + len(r.Values[i].Value.Text()) // enough for most numbers; else it grows
	}
	payload := AppendAttributes(make([]byte, 0, size), r, lateTS)
	switch {
	case len(payload) == len("{}"):
		return list, nil
	case len(payload) <= MaxMessage:
		return append(list, payload), nil
	case len(r.Values) == 1:
		return nil, &gateway.Refusal{Reason: fmt.Sprintf("%s takes %d bytes, a message holds %d", r.Values[0].Name, len(payload), MaxMessage)}
	}
	first, second := r, r
	half := len(r.Values) / 2
	first.Values, second.Values = r.Values[:half], r.Values[half:]
	list, err := appendReport(list, first, lateTS)
	if err != nil {
		return nil, err
	}
	return appendReport(list, second, lateTS)
}

// appendEvent appends the message of an event to list. Its id and, if late, the
// time at which it happened go with its params, before any of the same name.
func appendEvent(list [][]byte, r *gateway.Record, idKey string, late bool) ([][]byte, error) {
	payload := append(make([]byte, 0, 32*len(r.Values)+128), `{"method":`...)
	payload = append(appendString(payload, r.Name), `,"params":{`...)
	start := len(payload)
	if idKey != "" && r.ID != "" {
		payload = appendKey(payload, false, idKey)
		payload = appendString(payload, r.ID)
	}
	if late {
		payload = appendKey(payload, len(payload) > start, eventTime)
		payload = strconv.AppendInt(payload, r.Time.UnixMilli(), 10)
	}
	for _, a := range r.Values {
		if sendable(a.Value) && (a.Name != idKey || r.ID == "") && (a.Name != eventTime || !late) {
			payload = appendKey(payload, len(payload) > start, a.Name)
			payload = appendValue(payload, a.Value)
		}
	}
	payload = append(payload, "}}"...)
	if len(payload) > MaxMessage {
		return nil, &gateway.Refusal{Reason: fmt.Sprintf("event %s takes %d bytes, a message holds %d", r.Name, len(payload), MaxMessage)}
	}
	return append(list, payload), nil
}

// eventTime is the param with the time (ms) of an event that is late.
const eventTime = "ts"

// appendStream appends the message of a stream to list: its body as it is.
func appendStream(list [][]byte, r *gateway.Record) ([][]byte, error) {
	if len(r.Body) > MaxMessage {
		return nil, &gateway.Refusal{Reason: fmt.Sprintf("stream %s has %d bytes, a message holds %d", r.Name, len(r.Body), MaxMessage)}
	}
	return append(list, r.Body), nil
}

// appendHistory appends the messages of a history to list: one, where MaxMessage
// allows.
func appendHistory(list [][]byte, rows []gateway.Record, number uint64) ([][]byte, error) {
	payload := strconv.AppendUint(append(make([]byte, 0, 4096), `{"batch":`...), number, 10)
	payload = append(payload, `,"rows":[`...)
	for i := range rows {
		if i > 0 {
			payload = append(payload, ',')
		}
		payload = append(payload, `{"ts":`...)
		if !rows[i].Known() {
			payload = append(payload, "null"...)
		} else {
			payload = strconv.AppendInt(payload, rows[i].Time.UnixMilli(), 10)
		}
		if body, ok := bytes.CutPrefix(rows[i].Body, []byte("{")); ok { // of a stream: an object with keys
			payload = append(append(payload, ','), body...)
			continue
		}
		payload = append(AppendAttributes(append(payload, `,"attributes":`...), rows[i], ""), '}')
	}
	payload = append(payload, "]}"...)
	if len(payload) <= MaxMessage {
		return append(list, payload), nil
	}
	if len(rows) == 1 {
		return nil, &gateway.Refusal{Reason: fmt.Sprintf("a report of the history takes %d bytes, a message holds %d", len(payload), MaxMessage)}
	}
	half := len(rows) / 2
	list, err := appendHistory(list, rows[:half], number)
	if err != nil {
		return nil, err
	}
	return appendHistory(list, rows[half:], number+uint64(half))
}

// appendKeys appends the payload of attributes_get.
func appendKeys(dst []byte, names []string) []byte {
	dst = append(dst, `{"keys":[`...)
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, name)
	}
	return append(dst, "]}"...)
}

func sendable(v gateway.Value) bool {
	switch v.Kind() {
	case gateway.None:
		return false
	case gateway.Single, gateway.Double:
		return !math.IsNaN(v.Float()) && !math.IsInf(v.Float(), 0)
	}
	return true
}

func appendKey(dst []byte, comma bool, name string) []byte {
	if comma {
		dst = append(dst, ',')
	}
	return append(appendString(dst, name), ':')
}

func appendValue(dst []byte, v gateway.Value) []byte { return v.AppendJSON(dst) }

func appendString(dst []byte, s string) []byte { return gateway.AppendJSONString(dst, s) }
