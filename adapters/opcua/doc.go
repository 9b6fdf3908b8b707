// Package opcua is the south window to OPC UA servers: addresses of nodes, the
// secure channel and the session, values and their types, and the checks of a
// site's OPC UA parts. The library github.com/gopcua/opcua gives codec, channel
// and session; it checks no certificate and reconnects badly, so both are done
// here and by the framework.
//
// What it guarantees: a value is what the server said about exactly that node,
// with the server's quality and reason; 64-bit integers are exact, and a value
// that the point's type can't hold is bad, never bent. A write goes out once,
// with the node's own type. A bad node makes its own point bad and no other.
// Nodes are found by the URI of their namespace when a session is opened, for
// the numbers change. Every request is as large as the server takes.
//
// A server that a trusted certificate is known of is spoken to with this
// certificate or not at all: what it offers comes unsigned, but only the owner
// of the key can answer on a channel that was opened to it. Beside the buffer
// file, in opcua/, lie gateway.der and gateway.key, the gateway's own
// certificate, and <bus>.der, what first-use keeps of a server.
package opcua
