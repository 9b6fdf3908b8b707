package opcua_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/gateway"
)

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

// On a channel without security a login is hidden or signed all the same, for
// the trusted server alone.
func TestPeerLoginsOnAnOpenChannel(t *testing.T) {
	t.Parallel()
	server := startPeer(t, "--counters", "1", "--user", "me:s3cret", "--security", "None,Basic256Sha256", "--modes", "None,SignAndEncrypt")
	p := startProxy(t, strings.TrimPrefix(server.endpoint, "opc.tcp://"))
	var clear atomic.Bool
	p.spy = func(frame []byte) { clear.CompareAndSwap(false, bytes.Contains(frame, []byte("s3cret"))) }
	cert, key := makeCert(t, time.Now().AddDate(1, 0, 0)).files(t)
	for name, login := range map[string]gateway.BusLogin{"password": {User: "me", Password: "s3cret"}, "certificate": {Cert: cert, Key: gateway.Secret("file:" + key)}} {
		t.Run(name, func(t *testing.T) {
			g := &gate{dir: t.TempDir(), node: "ns=1;s=counter0", any: true}
			g.bus = gateway.Bus{Name: "plc", Type: "opcua", Endpoint: p.endpoint(), Security: "None", Trust: "first-use", Timeout: 10 * time.Second, Login: login}
			if err := g.open(t); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(g.log.String(), "trusted from now on") {
				t.Errorf("the server's certificate is not kept: %s", g.log.String())
			}
			if name == "password" {
				g.bus.Login.Password = "guess"
				g.refused(t, "log in as me")
				g.bus.Login.Password = "s3cret"
			}
			other := makeCert(t, time.Now().AddDate(1, 0, 0))
			if err := os.WriteFile(filepath.Join(g.dir, "opcua", "plc.der"), other.der, 0o600); err != nil {
				t.Fatal(err)
			}
			g.refused(t, "another certificate", sum(other.der))
		})
	}
	if clear.Load() {
		t.Error("the password was sent in clear")
	}
}
