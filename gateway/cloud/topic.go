package cloud

import "strings"

// Kind is the first word of a topic: what its messages are about.
type Kind string

// The eleven topics of the protocol. Up is from us to the platform.
const (
	Attributes            Kind = "attributes"              // up
	AttributesResponse    Kind = "attributes_response"     // down
	AttributesGet         Kind = "attributes_get"          // up
	AttributesGetResponse Kind = "attributes_get_response" // down
	AttributesPush        Kind = "attributes_push"         // down
	EventReport           Kind = "event_report"            // up
	EventResponse         Kind = "event_response"          // down
	CommandSend           Kind = "command_send"            // down
	CommandReply          Kind = "command_reply"           // up
	Data                  Kind = "data"                    // up, per stream
	DataSet               Kind = "data_set"                // down, per stream
)

// Topic is the topic of a user; Data and DataSet need Stream.
func (k Kind) Topic(user string) string { return string(k) + "/" + user }

// Stream is the topic of a user's custom stream.
func (k Kind) Stream(user, identifier string) string {
	return string(k) + "/" + user + "/" + identifier
}

// Down tells whether the platform publishes on this topic and we subscribe.
func (k Kind) Down() bool {
	switch k {
	case AttributesResponse, AttributesGetResponse, AttributesPush, EventResponse, CommandSend, DataSet:
		return true
	}
	return false
}

// Up tells whether we publish on this topic.
func (k Kind) Up() bool {
	switch k {
	case Attributes, AttributesGet, EventReport, CommandReply, Data:
		return true
	}
	return false
}

// SplitTopic is the inverse of Topic and Stream; ok is false for any topic that
// is not one of the protocol's.
func SplitTopic(topic string) (kind Kind, user, stream string, ok bool) {
	first, rest, _ := strings.Cut(topic, "/")
	kind = Kind(first)
	user, stream, hasStream := strings.Cut(rest, "/")
	perStream := kind == Data || kind == DataSet
	ok = (kind.Up() || kind.Down()) && user != "" && hasStream == perStream &&
		(stream != "") == perStream && !strings.Contains(stream, "/")
	return kind, user, stream, ok
}
