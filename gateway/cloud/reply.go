package cloud

import (
	"context"

	"sluice/gateway"
)

// EncodeReply gives the payload of command_reply: the parameters as they came,
// then what was read back, then result and error. Where that would be too much
// for a message the parameters are left out.
func (s *Session) EncodeReply(r *gateway.Reply) []byte {
	payload := appendReply(nil, r)
	if len(payload) > MaxMessage {
		short := *r
		short.Params, short.Values = nil, nil
		payload = appendReply(nil, &short)
	}
	return payload
}

func appendReply(dst []byte, r *gateway.Reply) []byte {
	dst = append(appendString(append(dst, `{"method":`...), r.Method), `,"params":{`...)
	taken := map[string]bool{"result": true, "error": true}
	for i := range r.Values {
		taken[r.Values[i].Name] = true
	}
	comma := false
	for i := range r.Params {
		if p := &r.Params[i]; !taken[p.Name] && p.Raw != "" {
			dst = append(appendKey(dst, comma, p.Name), p.Raw...)
			comma = true
		}
	}
	for i := range r.Values {
		if v := &r.Values[i]; sendable(v.Value) && v.Name != "result" && v.Name != "error" {
			dst = appendValue(appendKey(dst, comma, v.Name), v.Value)
			comma = true
		}
	}
	dst = appendValue(appendKey(dst, comma, "result"), gateway.BoolValue(r.Err == nil))
	if r.Err != nil {
		dst = appendString(appendKey(dst, true, "error"), r.Err.Error())
	}
	dst = append(dst, '}')
	if r.ID != "" {
		dst = append(appendKey(dst, true, "id"), r.ID...)
	}
	return append(dst, '}')
}

// SendReply publishes a reply and waits for its PUBACK.
func (s *Session) SendReply(ctx context.Context, payload []byte) error {
	l, err := s.connection(ctx)
	if err != nil {
		return err
	}
	m := &message{topic: CommandReply.Topic(s.user), payload: payload, link: l, sent: make(chan struct{})}
	if err := l.hand(ctx, m); err != nil {
		return err
	}
	return l.acked(ctx, m)
}
