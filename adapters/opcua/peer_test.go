package opcua_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
)

// peerSite watches the counters of a node-opcua server.
const peerSite = `version: 1
site: { name: plant }
cloud: { url: mqtt://127.0.0.1:1883, login: { user: gw, password: file:gw }, backlog: replay }
local: { http: none }
buses:
  field: { type: opcua, endpoint: "opc.tcp://127.0.0.1:4840", security: None }
profiles:
  line:
    protocol: opcua
    poll: 10ms
    points:
POINTS
devices:
  - { name: line, profile: line, bus: field }
`

// counterSite is a site with the first n counters of a peer.
func counterSite(n int) string {
	var points strings.Builder
	for i := range n {
		fmt.Fprintf(&points, "      c%d: { node: \"ns=1;s=counter%d\", type: float64 }\n", i, i)
	}
	return strings.Replace(peerSite, "POINTS", points.String(), 1)
}

// watchPeer starts a server whose counters rise every 400 ms, behind a proxy,
// and watches 20 of them.
func watchPeer(t *testing.T, options ...string) (*peer, *proxy, *watcher) {
	t.Helper()
	server := startPeer(t, append([]string{"--counters", "20", "--every", "400"}, options...)...)
	p := startProxy(t, strings.TrimSuffix(strings.TrimPrefix(server.endpoint, "opc.tcp://"), "/"))
	w := watchSite(t, counterSite(20), p.endpoint())
	w.period = 400 * time.Millisecond
	w.until(t, "first value", "c0", 10*time.Second, isGood)
	time.Sleep(time.Second)
	return server, p, w
}

// complete checks that no value of any counter is missed.
func (w *watcher) complete(t *testing.T) {
	t.Helper()
	for i := range 20 {
		id := fmt.Sprintf("c%d", i)
		if missing, backwards := w.missed(t, id); missing+backwards > 0 {
			t.Errorf("%s: %d missed, %d backwards of %d", id, missing, backwards, len(w.of(id)))
		}
	}
}

func TestPeerACutNetworkLosesNothing(t *testing.T) {
	t.Parallel()
	_, p, w := watchPeer(t)
	p.cut()
	time.Sleep(3 * time.Second)
	p.restore()
	took := w.until(t, "values after the cut", "c0", recovered, isGood)
	time.Sleep(2 * time.Second)
	t.Logf("values %s after the cut was over", took)
	w.complete(t)
}

func TestPeerFiveCutsLoseNothing(t *testing.T) {
	t.Parallel()
	_, p, w := watchPeer(t)
	for range 5 {
		p.cut()
		p.restore()
		time.Sleep(700 * time.Millisecond)
	}
	w.until(t, "values after the cuts", "c0", recovered, isGood)
	time.Sleep(2 * time.Second)
	w.complete(t)
}

func TestPeerABlackHoleLosesNothing(t *testing.T) {
	t.Parallel()
	_, p, w := watchPeer(t)
	p.hole.Store(true)
	begin := time.Now()
	for w.lost() == 0 && time.Since(begin) < 15*time.Second {
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("noticed after %s", time.Since(begin))
	p.cut()
	p.hole.Store(false)
	p.restore()
	w.until(t, "values after the hole", "c0", recovered, isGood)
	time.Sleep(3 * time.Second)
	w.complete(t)
}

func TestPeerFaultsOfTheServer(t *testing.T) {
	t.Parallel()
	server, _, w := watchPeer(t, "--limits", "10")
	for _, fault := range []string{"drop", "unsubscribe", "restart"} {
		losses := w.lost()
		server.do(fault)
		took := w.until(t, "values after "+fault, "c0", 10*time.Second+recovered, func(s gateway.Sample) bool { return isGood(s) && w.lost() > losses })
		t.Logf("values %s after %s", took, fault)
	}
	server.do("remove s=counter3")
	took := w.becomes(t, "the removed node is bad", "c3", func(s gateway.Sample) bool { return strings.HasPrefix(s.Reason, "BadNodeID") })
	t.Logf("bad %s after its removal", took)
	server.do("add s=counter3")
	took = w.becomes(t, "the node is back", "c3", isGood)
	t.Logf("good %s after it was back", took)
}

// Every data type of node-opcua's address space for conformance testing, by a
// server that takes ten operations a request.
func TestPeerEveryDataType(t *testing.T) {
	t.Parallel()
	server := startPeer(t, "--conformance", "--limits", "10")
	const uri = "urn://node-opcua-simulator"
	types := map[string]gateway.Type{
		"Boolean": gateway.Bool, "SByte": gateway.Int8, "Byte": gateway.Uint8, "Int16": gateway.Int16, "UInt16": gateway.Uint16, "Int32": gateway.Int32, "UInt32": gateway.Uint32,
		"Int64": gateway.Int64, "UInt64": gateway.Uint64, "Float": gateway.Float32, "Double": gateway.Float64, "String": gateway.String, "Guid": gateway.String,
		"ByteString": gateway.Bytes, "LocalizedText": gateway.String, "QualifiedName": gateway.String, "NodeId": gateway.String, "Duration": gateway.Float64, "Number": gateway.Uint16,
	}
	var definitions []*gateway.Definition
	for name, typ := range types {
		definitions = append(definitions, &gateway.Definition{ID: name, Node: "nsu=" + uri + ";s=Static_Scalar_" + name, Type: typ, Access: "rw"})
	}
	definitions = append(definitions, &gateway.Definition{ID: "element", Node: "nsu=" + uri + ";s=Static_Array_Double[2]", Type: gateway.Float64})
	session, points := openEndpoint(t, server.endpoint, definitions...)
	for name, s := range readPoints(t, session, points) {
		if s.Quality != gateway.Good {
			t.Errorf("%s: %v: %s", name, s.Quality, s.Reason)
		}
	}
	written := map[string]gateway.Value{
		"Boolean": gateway.BoolValue(true), "SByte": gateway.IntValue(-128), "Byte": gateway.UintValue(255), "Int64": gateway.IntValue(-1 << 63), "UInt64": gateway.UintValue(1<<64 - 1),
		"Float": gateway.Float32Value(230.1), "Double": gateway.FloatValue(0.1), "String": gateway.TextValue("grüße"), "LocalizedText": gateway.TextValue("Öl"),
		"ByteString": gateway.BlobValue([]byte{0, 255}), "Guid": gateway.TextValue("09087e75-8e5e-499b-954f-f2a9603db28a"), "Duration": gateway.FloatValue(1.5),
	}
	for _, p := range points {
		if v, ok := written[p.ID]; ok {
			if err := session.Write(t.Context(), p, v); err != nil {
				t.Error(err)
			}
		}
	}
	all := readPoints(t, session, points)
	for name, v := range written {
		if !all[name].Value.Equal(v) {
			t.Errorf("%s: %v was written, %v is read", name, v, all[name].Value)
		}
	}
}

func TestPeerEveryPolicyAndMode(t *testing.T) {
	t.Parallel()
	server := startPeer(t, "--counters", "1", "--user", "me:s3cret", "--security", "Basic256Sha256,Aes128_Sha256_RsaOaep,Aes256_Sha256_RsaPss", "--modes", "Sign,SignAndEncrypt")
	dir := t.TempDir()
	for _, security := range []string{
		"auto", "Basic256Sha256/Sign", "Basic256Sha256/SignAndEncrypt", "Aes128_Sha256_RsaOaep/Sign", "Aes128_Sha256_RsaOaep/SignAndEncrypt", "Aes256_Sha256_RsaPss/Sign", "Aes256_Sha256_RsaPss/SignAndEncrypt",
	} {
		g := &gate{dir: dir, bus: gateway.Bus{Name: "plc", Type: "opcua", Endpoint: server.endpoint, Security: security, Trust: "first-use", Timeout: 10 * time.Second, Login: gateway.BusLogin{User: "me", Password: "s3cret"}}}
		g.node, g.any = "ns=1;s=counter0", true
		if err := g.open(t); err != nil {
			t.Errorf("%s: %v", security, err)
		}
	}
	g := &gate{dir: dir, bus: gateway.Bus{Name: "plc", Type: "opcua", Endpoint: server.endpoint, Trust: "first-use", Timeout: 10 * time.Second, Login: gateway.BusLogin{User: "me", Password: "guess"}}}
	g.refused(t, "log in as me")
}
