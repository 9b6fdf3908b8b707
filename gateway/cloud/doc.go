// Package cloud is the north window: the topics and payloads of the cloud
// protocol, and one MQTT 3.1.1 session per username.
//
// What it guarantees: a record counts as confirmed only when the PUBACK of its
// last message came (confirm: puback), or when the platform's answer said that
// it is stored (confirm: response); a connection that dies in between confirms
// nothing. Records of one lane go out in order, and what is confirmed is always
// a prefix of them. Every payload is strict JSON in UTF-8, without NaN and below
// 64 KB.
//
// What it cannot promise: MQTT 3.1.1 has no way to refuse a PUBLISH, so a broker
// whose rules deny a topic sends a PUBACK all the same and drops the message.
// Only the platform's answers show it. These carry no id: each lane has one
// message in flight while it waits for one, and after a silence it holds off
// until no answer can be on its way any more. So it does after the start of a
// process that follows one that was killed: what went out first goes out again.
//
// The session never uses the library's own reconnect, which reports messages as
// delivered that no broker has acknowledged: each connection is a new client.
package cloud
