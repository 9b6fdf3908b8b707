package opcua

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

// errSilent is that the server did not answer a request in time.
var errSilent = errors.New("no answer")

// ask sends a request and waits for the answer, as long as the bus says. The
// error is errSilent, a ua.StatusCode of the server, the context's, or that of
// a connection that is lost.
func ask[T any](ctx context.Context, s *session, request ua.Request) (*T, error) {
	gateway.Turn(ctx)
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	s.used.Store(time.Now().UnixNano())
	answer, err := send[T](limited, s, request)
	switch {
	case err == nil:
		return answer, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case limited.Err() != nil || errors.Is(err, ua.StatusBadTimeout):
		return nil, errSilent
	}
	return nil, err
}

// send sends a request and waits until ctx ends.
func send[T any](ctx context.Context, s *session, request ua.Request) (*T, error) {
	return sendTo[T](ctx, s.channel, s.ticket.token, request)
}

// sendTo sends a request outside of a session that is in use.
func sendTo[T any](ctx context.Context, c *channel, token *ua.NodeID, request ua.Request) (*T, error) {
	r, err := c.send(ctx, token, request)
	if err != nil {
		return nil, err
	}
	answer, ok := any(r).(*T)
	if !ok {
		return nil, fmt.Errorf("%w: %T for %T", errUnreadable, r, request)
	}
	return answer, nil
}

// ended are the codes of a server that mean that channel or session are gone.
var ended = map[ua.StatusCode]bool{
	ua.StatusBadSessionIDInvalid: true, ua.StatusBadSessionClosed: true, ua.StatusBadSessionNotActivated: true,
	ua.StatusBadSecureChannelIDInvalid: true, ua.StatusBadSecureChannelClosed: true, ua.StatusBadSecurityChecksFailed: true,
	ua.StatusBadServerNotConnected: true, ua.StatusBadConnectionClosed: true, ua.StatusBadServerHalted: true, ua.StatusBadShutdown: true,
	ua.StatusBadCommunicationError: true, ua.StatusBadTCPSecureChannelUnknown: true, ua.StatusBadSecureChannelTokenUnknown: true,
}

// refused tells whether an error is the server's word about one request, and
// channel and session are fine.
func refused(err error) bool {
	var code ua.StatusCode
	if errors.As(err, &code) {
		return !ended[code]
	}
	return errors.Is(err, errUnreadable) || errors.Is(err, errTooLarge)
}

// tooMuch tells whether a request was refused, or its answer lost, because of
// its size, or of what is in it.
func tooMuch(err error) bool {
	for _, code := range []ua.StatusCode{ua.StatusBadTooManyOperations, ua.StatusBadRequestTooLarge, ua.StatusBadResponseTooLarge,
		ua.StatusBadEncodingLimitsExceeded, ua.StatusBadTCPMessageTooLarge} {
		if errors.Is(err, code) {
			return true
		}
	}
	return errors.Is(err, errUnreadable) || errors.Is(err, errTooLarge)
}

// words puts an error of the library into words.
func words(err error) error {
	var code ua.StatusCode
	switch {
	case errors.Is(err, errUnreadable):
		return err
	case errors.As(err, &code):
		return errors.New(statusName(code))
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the server closed the connection")
	}
	return err
}

// statusName is the name of a status code, without its flags.
func statusName(code ua.StatusCode) string {
	if d, ok := ua.StatusCodes[code&0xFFFF0000]; ok && code>>16 != 0 {
		return strings.TrimPrefix(d.Name, "Status")
	}
	return fmt.Sprintf("status 0x%08X", uint32(code))
}
