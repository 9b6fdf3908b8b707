package opcua

import (
	"context"
	"errors"
	"fmt"

	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

// Write writes one value with the node's own type. Times and status are the
// server's: many refuse a write that brings its own.
func (s *session) Write(ctx context.Context, p *gateway.Point, value gateway.Value) error {
	if err := s.over(); err != nil {
		return err
	}
	n := s.node(p)
	if n.id == nil {
		return &gateway.WriteError{Err: fmt.Errorf("write %s: %s", p.ID, n.why)}
	}
	v, err := n.encode(value)
	if err != nil {
		return &gateway.WriteError{Err: fmt.Errorf("write %s: %w", p.ID, err)}
	}
	answer, err := ask[ua.WriteResponse](ctx, s, &ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{
		NodeID: n.id, AttributeID: ua.AttributeIDValue, IndexRange: n.address.Range, Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: v},
	}}})
	if err != nil {
		return s.failWrite(ctx, fmt.Sprintf("write %s", p.ID), err)
	}
	if len(answer.Results) != 1 {
		return &gateway.WriteError{Err: fmt.Errorf("write %s: the server gave %d results for one value", p.ID, len(answer.Results)), Unknown: true}
	}
	return refusal("write "+p.ID, answer.Results[0])
}

// failWrite is the error of a write or call that got no result.
func (s *session) failWrite(ctx context.Context, what string, err error) error {
	switch {
	case errors.Is(err, errSilent):
		if err := s.ping(ctx); err != nil {
			return s.losing(ctx, err)
		}
		return &gateway.WriteError{Err: fmt.Errorf("%s: no answer within %s", what, s.timeout), Unknown: true}
	case errors.Is(err, errTooLarge): // it was never sent
		return &gateway.WriteError{Err: fmt.Errorf("%s: %w", what, err)}
	case errors.Is(err, errUnreadable) || errors.Is(err, ua.StatusBadResponseTooLarge) || errors.Is(err, ua.StatusBadEncodingLimitsExceeded):
		return &gateway.WriteError{Err: fmt.Errorf("%s: %w", what, words(err)), Unknown: true}
	case refused(err):
		var code ua.StatusCode
		errors.As(err, &code)
		return refusal(what, code)
	}
	return s.losing(ctx, words(err))
}

const badServerTooBusy ua.StatusCode = 0x80EE0000 // the library does not know it

// busy are the codes of a server that took nothing and may be asked again.
var busy = map[ua.StatusCode]bool{badServerTooBusy: true, ua.StatusBadTooManyOperations: true, ua.StatusBadResourceUnavailable: true}

// refusal is the *gateway.WriteError of a status; nil for a good one.
func refusal(what string, code ua.StatusCode) error {
	if code>>30 < 2 {
		return nil
	}
	return &gateway.WriteError{Err: fmt.Errorf("%s: %s", what, statusName(code)), Busy: busy[code]}
}
