package twin

import (
	"encoding/json"
	"fmt"
	"time"

	"sluice/gateway/cloud"
)

// The error codes of the stand-in; the platform's own are not published, apart
// from the -1 of reports that come too fast.
const (
	codeTooFast = -1
	codeRefused = 400
)

// account is one user's device on the platform.
type account struct {
	received   []Message
	attributes map[string]json.RawMessage
	stored     map[cloud.Kind]time.Time // when the last one was
}

func newAccount() *account {
	return &account{attributes: map[string]json.RawMessage{}, stored: map[cloud.Kind]time.Time{}}
}

// reply is a downlink that answers a message.
type reply struct {
	topic   string
	payload []byte
	delay   time.Duration
}

// receive does what the platform does with a message, and gives its answer, if
// there is one. The payload is the twin's own. The caller holds the lock.
func (t *Twin) receive(user string, kind cloud.Kind, topic string, payload []byte) *reply {
	a, now := t.users[user], time.Now()
	var r *reply
	code, text := 0, "OK"
	switch kind {
	case cloud.Attributes:
		if code, text = t.store(a, payload, now); code == 0 {
			a.stored[kind] = now
		}
		r = t.answer(cloud.AttributesResponse.Topic(user), code, text, now)
	case cloud.EventReport:
		r = t.answer(cloud.EventResponse.Topic(user), code, text, now)
	case cloud.AttributesGet:
		r = &reply{topic: cloud.AttributesGetResponse.Topic(user), payload: a.get(payload, now)}
	}
	if len(a.received) >= 2*t.options.Keep {
		a.received = append(a.received[:0], a.received[t.options.Keep:]...)
	}
	a.received = append(a.received, Message{Topic: topic, Payload: payload, Time: now, Code: code})
	if r == nil || t.faults.DropAnswers {
		return nil
	}
	r.delay = t.options.Delay + t.faults.AnswerDelay
	return r
}

// store takes a report, or tells why not.
func (t *Twin) store(a *account, payload []byte, now time.Time) (code int, text string) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(payload, &values); err != nil {
		return codeRefused, "invalid JSON"
	}
	if now.Sub(a.stored[cloud.Attributes]) < t.options.MinInterval {
		return codeTooFast, "Device message frequency too fast, please wait for a moment"
	}
	if _, ok := values[t.faults.Refuse]; ok && t.faults.Refuse != "" {
		return codeRefused, fmt.Sprintf("attribute %s does not exist", t.faults.Refuse)
	}
	for name, value := range values {
		a.attributes[name] = value
	}
	return 0, "OK"
}

func (t *Twin) answer(topic string, code int, text string, now time.Time) *reply {
	if !t.options.Respond {
		return nil
	}
	payload, _ := json.Marshal(struct {
		Code int    `json:"error_code"`
		Text string `json:"error_msg"`
		TS   int64  `json:"ts"`
	}{code, text, now.UnixMilli()})
	return &reply{topic: topic, payload: payload}
}

// get answers attributes_get: no keys are all keys.
func (a *account) get(payload []byte, now time.Time) []byte {
	var request struct {
		Keys []string `json:"keys"`
	}
	answer := struct {
		Code       int                        `json:"error_code"`
		Text       string                     `json:"error_msg"`
		Attributes map[string]json.RawMessage `json:"attributes"`
		TS         int64                      `json:"ts"`
	}{Attributes: map[string]json.RawMessage{}, TS: now.UnixMilli()}
	if json.Unmarshal(payload, &request) != nil {
		answer.Code, answer.Text = codeRefused, "invalid JSON"
	}
	for name, value := range a.attributes {
		if len(request.Keys) == 0 {
			answer.Attributes[name] = value
		}
	}
	for _, name := range request.Keys {
		if value, ok := a.attributes[name]; ok {
			answer.Attributes[name] = value
		}
	}
	text, _ := json.Marshal(answer)
	return text
}
