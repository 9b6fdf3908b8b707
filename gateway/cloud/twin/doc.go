// Package twin is the platform's stand-in for the demo and for tests: an MQTT
// broker on loopback, in this process, that answers as the platform does.
//
// It checks user names and passwords, lets a user use only topics of his own,
// stores attributes and answers on attributes_response, event_response and
// attributes_get_response. Like the platform it acknowledges a PUBLISH that its
// rules deny and drops it, and answers reports that come too fast with an error
// and does not store them.
//
// It keeps what it received, in order, and can be told to fail: to go away and
// come back on the same address, to turn into a black hole, to leave answers
// out, to give them late, to refuse an attribute or a subscription. It writes
// no log.
package twin
