package wire

import (
	"errors"
	"fmt"
)

// An Exception is a unit's refusal of a request; the request was received and understood.
type Exception byte

// The exceptions of the Modbus application protocol, section 7.
const (
	IllegalFunction         Exception = 1
	IllegalDataAddress      Exception = 2
	IllegalDataValue        Exception = 3
	ServerDeviceFailure     Exception = 4
	Acknowledge             Exception = 5
	ServerDeviceBusy        Exception = 6
	MemoryParityError       Exception = 8
	GatewayPathUnavailable  Exception = 10
	GatewayTargetNoResponse Exception = 11
)

var exceptionNames = map[Exception]string{
	IllegalFunction:         "illegal function",
	IllegalDataAddress:      "illegal data address",
	IllegalDataValue:        "illegal data value",
	ServerDeviceFailure:     "server device failure",
	Acknowledge:             "acknowledge",
	ServerDeviceBusy:        "server device busy",
	MemoryParityError:       "memory parity error",
	GatewayPathUnavailable:  "gateway path unavailable",
	GatewayTargetNoResponse: "gateway target device failed to respond",
}

func (e Exception) Error() string {
	name, ok := exceptionNames[e]
	if !ok {
		name = "unknown code"
	}
	return fmt.Sprintf("exception %d: %s", byte(e), name)
}

// ErrTimeout says that no complete, valid answer came in time. The connection can still be used.
// A FrameError is an ErrTimeout too for errors.Is.
var ErrTimeout = errors.New("no answer in time")

// A FrameError says that bytes came in answer to a request, but no valid answer, and what was wrong with them.
// The connection can still be used.
type FrameError struct {
	Unit   byte
	Reason string
}

func (e *FrameError) Error() string {
	return fmt.Sprintf("no valid answer of unit %d: %s", e.Unit, e.Reason)
}

// Is makes a FrameError count as ErrTimeout.
func (e *FrameError) Is(target error) bool { return target == ErrTimeout }

// A ConnError says that the connection is broken and has to be closed.
type ConnError struct {
	Sent bool // the request, or a part of it, may have reached the unit
	Err  error
}

func (e *ConnError) Error() string { return "connection broken: " + e.Err.Error() }

func (e *ConnError) Unwrap() error { return e.Err }

// Broken says whether an error of Do means that the connection must be closed.
func Broken(err error) bool {
	var broken *ConnError
	return errors.As(err, &broken)
}

func timeoutOf(r Request) error {
	return fmt.Errorf("unit %d: %w (%v)", r.Unit, ErrTimeout, r.Timeout)
}
