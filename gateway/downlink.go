package gateway

import (
	"context"
	"time"
)

// DownlinkKind tells what a message of the cloud is about.
type DownlinkKind uint8

// The kinds of messages that come down. State is the cloud's own view of the
// attributes, as it answers attributes_get.
const (
	PushDownlink DownlinkKind = iota + 1
	CommandDownlink
	StreamDownlink
	StateDownlink
)

// Asked is a value that somebody wants written, as it came: a number may be a
// text, true may be 1. None stands for what can't be a value of any point; Raw
// tells what it was.
type Asked struct {
	Name  string
	Value Value
	Raw   string // JSON
}

// Downlink is one message of the cloud to the field, read but not judged.
type Downlink struct {
	Kind    DownlinkKind
	Arrived time.Time
	Stalled bool    // it may have been held back on the line for long
	Err     error   // why it can't be read; the rest holds what could
	Values  []Asked // of a push or a state, or the parameters of a command; each name once

	Method string // of a command
	ID     string // of a command: a JSON token, to be echoed as it came; "" for none
	Stream string // the identifier of a stream
	Body   []byte // of a stream, or of a message that can't be read
}

// Reply is what a command came to.
type Reply struct {
	Method string
	ID     string // as in the Downlink
	Params []Asked
	Values []Attribute // read back; one with the name of a parameter takes its place
	Err    error       // nil: carried out
}

// Downlinker is an Uplink that brings messages down, and takes replies up.
type Downlinker interface {
	// Receive waits for the next message. It has one caller at a time.
	Receive(ctx context.Context) (Downlink, error)
	// ParseParams reads an object of names and values.
	ParseParams(payload []byte) ([]Asked, error)
	// EncodeReply gives a reply as it is sent.
	EncodeReply(r *Reply) []byte
	// SendReply sends an encoded reply and waits until the broker has it.
	// While there is no connection it waits for one.
	SendReply(ctx context.Context, payload []byte) error
}
