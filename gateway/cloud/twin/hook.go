package twin

import (
	"bytes"
	"crypto/subtle"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"sluice/gateway/cloud"
)

// The broker brings the cases of its own tests along: 0.3 MB, in each gateway.
func init() { packets.TPacketData = nil }

// hook is how the twin sees what its broker does.
type hook struct {
	mqtt.HookBase
	twin *Twin

	mu      sync.Mutex
	replies map[*mqtt.Client]*reply // to the message that a client's goroutine is at
}

func newHook(t *Twin) *hook { return &hook{twin: t, replies: map[*mqtt.Client]*reply{}} }

// ID names the hook.
func (h *hook) ID() string { return "platform" }

// Provides tells the broker what to call.
func (h *hook) Provides(b byte) bool {
	switch b {
	case mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnPublish, mqtt.OnPublished, mqtt.OnDisconnect:
		return true
	}
	return false
}

// OnConnectAuthenticate checks name and password.
func (h *hook) OnConnectAuthenticate(_ *mqtt.Client, pk packets.Packet) bool {
	password, known := h.twin.options.Users[string(pk.Connect.Username)]
	return known && subtle.ConstantTimeCompare([]byte(password), pk.Connect.Password) == 1
}

// OnACLCheck lets a user subscribe to the downlinks that are his. What he may
// publish is decided in OnPublish, since a denial here would close the connection.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	if write {
		return true
	}
	kind, user, _, ok := cloud.SplitTopic(topic)
	h.twin.mu.Lock()
	defer h.twin.mu.Unlock()
	return ok && kind.Down() && user == string(cl.Properties.Username) && topic != h.twin.faults.DenySubscribe
}

// OnPublish takes a message, before its PUBACK.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if cl.Net.Inline {
		return pk, nil
	}
	t, user := h.twin, string(cl.Properties.Username)
	kind, owner, _, ok := cloud.SplitTopic(pk.TopicName)
	t.mu.Lock()
	if !ok || !kind.Up() || owner != user {
		t.denied++
		t.mu.Unlock()
		return pk, packets.CodeSuccessIgnore
	}
	payload := bytes.Clone(pk.Payload)
	r := t.receive(user, kind, pk.TopicName, payload)
	silent := t.faults.NoPuback
	t.mu.Unlock()
	if t.options.OnMessage != nil {
		t.options.OnMessage(user, pk.TopicName, payload)
	}
	if silent {
		return pk, packets.ErrRejectPacket
	}
	if r != nil {
		h.mu.Lock()
		h.replies[cl] = r
		h.mu.Unlock()
	}
	return pk, nil
}

// OnPublished answers a message, after its PUBACK.
func (h *hook) OnPublished(cl *mqtt.Client, _ packets.Packet) {
	switch r := h.take(cl); {
	case r == nil:
	case r.delay == 0:
		_ = h.twin.Send(r.topic, r.payload)
	default:
		time.AfterFunc(r.delay, func() { _ = h.twin.Send(r.topic, r.payload) })
	}
}

// OnDisconnect drops the answer to a message whose PUBACK could not be sent.
func (h *hook) OnDisconnect(cl *mqtt.Client, _ error, _ bool) { h.take(cl) }

func (h *hook) take(cl *mqtt.Client) *reply {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.replies[cl]
	delete(h.replies, cl)
	return r
}
