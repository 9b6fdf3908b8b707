package opcua_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"sluice/adapters/opcua"
	"sluice/gateway"
)

// le is a number as OPC UA encodes it.
func le(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }

// message is the body of an answer.
func message(t testing.TB, r ua.Response) []byte {
	t.Helper()
	b := ua.NewBuffer(nil)
	b.WriteStruct(ua.NewFourByteExpandedNodeID(0, ua.ServiceTypeID(r)))
	b.WriteStruct(r)
	if b.Error() != nil {
		t.Fatal(b.Error())
	}
	return b.Bytes()
}

func header() *ua.ResponseHeader {
	return &ua.ResponseHeader{Timestamp: time.Now(), ServiceDiagnostics: &ua.DiagnosticInfo{}, StringTable: []string{}, AdditionalHeader: ua.NewExtensionObject(nil)}
}

// readHead is the beginning of the answer to a Read request, up to the number
// of results.
func readHead(t testing.TB) []byte {
	b := message(t, &ua.ReadResponse{ResponseHeader: header(), Results: []*ua.DataValue{}, DiagnosticInfos: []*ua.DiagnosticInfo{}})
	return b[:len(b)-8]
}

// hostileAnswers are answers that the library's decoder would not survive, or
// only with much memory.
func hostileAnswers(t testing.TB) map[string][]byte {
	head := readHead(t)
	diagnosed := message(t, &ua.ServiceFault{ResponseHeader: header()})
	diagnosed = diagnosed[:len(diagnosed)-8] // up to the diagnostics: mask, string table, additional header of 3 bytes
	with := func(parts ...[]byte) []byte { return append(bytes.Clone(head), bytes.Join(parts, nil)...) }
	value := func(parts ...[]byte) []byte { return with(le(1), []byte{1}, bytes.Join(parts, nil), le(0)) }
	object := []byte{0}
	for range 2000 { // an EventFieldList in an ExtensionObject in an EventFieldList …
		object = bytes.Join([][]byte{{1, 0}, binary.LittleEndian.AppendUint16(nil, id.EventFieldList_Encoding_DefaultBinary), {1}, le(uint32(len(object) + 9)), le(1), le(1), {22}, object}, nil)
	}
	return map[string][]byte{
		"nothing":                     nil,
		"no service":                  {1, 0, 0xFF, 0xFF},
		"a request":                   append([]byte{1, 0, 0x77, 0x02}, make([]byte, 100)...),
		"2^31-1 results":              with(le(1<<31-1), make([]byte, 100)),
		"2^32-2 results":              with(le(1<<32-2), make([]byte, 100)),
		"8 million results of a byte": with(le(8_000_000), make([]byte, 8_000_000), le(0)),
		"an array of 2^31-1":          value([]byte{0x80 | 6}, le(1<<31-1), make([]byte, 100)),
		"an array of -2":              value([]byte{0x80 | 6}, le(1<<32-2)),
		"an array without its end":    value([]byte{0x80 | 12}, le(100), make([]byte, 100)),
		"dimensions that overflow":    value([]byte{0xC0 | 6}, le(0), le(2), le(1<<16), le(1<<16)),
		"2^31-1 dimensions":           value([]byte{0xC0 | 6}, le(1), le(7), le(1<<31-1), make([]byte, 100)),
		"a thousand dimensions":       value([]byte{0xC0 | 1}, le(1), []byte{1}, le(1000), bytes.Repeat(le(1), 1000)),
		"an array of no type":         value([]byte{0x80 | 30}, le(1), make([]byte, 10)),
		"a text of 2^31-1":            value([]byte{12}, le(1<<31-1), make([]byte, 100)),
		"a million nested variants":   value(bytes.Repeat([]byte{24}, 1_000_000)),
		"a million nested values":     value([]byte{23}, bytes.Repeat([]byte{1, 23}, 1_000_000)),
		"nested arrays of variants":   value(bytes.Repeat(append([]byte{0x80 | 24}, le(1)...), 100_000)),
		"a million nested reasons":    append(bytes.Clone(diagnosed), bytes.Repeat([]byte{ua.DiagnosticInfoInnerDiagnosticInfo}, 1_000_000)...),
		"2^31-1 texts in a header":    append(bytes.Clone(diagnosed), append([]byte{0}, le(1<<31-1)...)...),
		"nested structures":           value([]byte{22}, object),
	}
}

// A hostile answer is refused before it takes memory or the stack.
func TestAHostileAnswerIsRefused(t *testing.T) {
	for name, body := range hostileAnswers(t) {
		t.Run(name, func(t *testing.T) {
			before := allocated()
			response, err := opcua.DecodeAnswer(body)
			if err == nil || strings.Contains(err.Error(), "stumbled") {
				t.Errorf("%T, %v", response, err)
			}
			if took := allocated() - before; took > 4<<20 {
				t.Errorf("it took %d MiB to say: %v", took>>20, err)
			}
		})
	}
}

// allocated is how many bytes were ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// FuzzAnswers: no message makes the library's decoder stumble, or takes more
// memory than it may.
func FuzzAnswers(f *testing.F) {
	for _, body := range hostileAnswers(f) {
		if len(body) < 10000 {
			f.Add(body)
		}
	}
	for _, v := range []any{true, "text", []string{"a", "b"}, [][]int32{{1, 2}, {3, 4}}, ua.NewLocalizedText("a"), ua.NewStringNodeID(2, "a"), time.Now(), ua.NewExtensionObject(&ua.Argument{
		Name: "a", DataType: ua.NewNumericNodeID(0, 1), ArrayDimensions: []uint32{1}, Description: ua.NewLocalizedText("")})} {
		value := &ua.DataValue{Value: ua.MustVariant(v), SourceTimestamp: time.Now(), Status: ua.StatusUncertain}
		value.UpdateMask()
		f.Add(message(f, &ua.ReadResponse{ResponseHeader: header(), Results: []*ua.DataValue{value}, DiagnosticInfos: []*ua.DiagnosticInfo{}}))
		f.Add(message(f, &ua.PublishResponse{ResponseHeader: header(), NotificationMessage: &ua.NotificationMessage{NotificationData: []*ua.ExtensionObject{
			ua.NewExtensionObject(&ua.DataChangeNotification{MonitoredItems: []*ua.MonitoredItemNotification{{ClientHandle: 1, Value: value}}})}}}))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := allocated()
		if _, err := opcua.DecodeAnswer(body); err != nil && strings.Contains(err.Error(), "stumbled") {
			t.Fatal(err)
		}
		if took := allocated() - before; took > 100<<20 {
			t.Fatalf("it took %d MiB", took>>20)
		}
	})
}

// hostileServer is a server that answers as it should, until a test has it do
// otherwise: answer gets the service that is asked for and may write what it
// likes. It says then that it has.
func hostileServer(t *testing.T, answer func(c net.Conn, request uint32, service any) bool) string {
	t.Helper()
	return serveEach(t, func(c net.Conn) { serveHostile(t, c, answer) })
}

// serveEach serves each connection, until it returns, and gives the endpoint.
func serveEach(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return "opc.tcp://" + l.Addr().String()
}

// takeChunk reads a whole chunk; nil at the end of the connection.
func takeChunk(c net.Conn) []byte {
	head := make([]byte, 8)
	if _, err := io.ReadFull(c, head); err != nil {
		return nil
	}
	chunk := append(head, make([]byte, max(8, binary.LittleEndian.Uint32(head[4:]))-8)...)
	if _, err := io.ReadFull(c, chunk[8:]); err != nil {
		return nil
	}
	return chunk
}

// chunkOf is a chunk of a message without security.
func chunkOf(kind string, request uint32, body []byte) []byte {
	head := le(1) // channel
	switch kind[:3] {
	case "OPN":
		head = append(head, bytes.Join([][]byte{le(uint32(len(ua.SecurityPolicyURINone))), []byte(ua.SecurityPolicyURINone), le(1<<32 - 1), le(1<<32 - 1)}, nil)...)
	default:
		head = append(head, le(1)...) // token
	}
	rest := bytes.Join([][]byte{head, le(1), le(request), body}, nil)
	return bytes.Join([][]byte{[]byte(kind), le(uint32(8 + len(rest))), rest}, nil)
}

func serveHostile(t *testing.T, c net.Conn, answer func(net.Conn, uint32, any) bool) {
	for chunk := takeChunk(c); chunk != nil; chunk = takeChunk(c) {
		rest := chunk[8:]
		var request uint32
		var service any = "hello"
		switch string(chunk[:3]) {
		case "MSG":
			request = binary.LittleEndian.Uint32(rest[12:])
			_, service, _ = ua.DecodeService(rest[16:])
		case "OPN":
			at := 4 + 4 + len(ua.SecurityPolicyURINone) + 8
			request = binary.LittleEndian.Uint32(rest[at+4:])
			_, service, _ = ua.DecodeService(rest[at+8:])
		}
		if answer(c, request, service) {
			continue
		}
		switch s := service.(type) {
		case string:
			c.Write(bytes.Join([][]byte{[]byte("ACKF"), le(28), le(0), le(65535), le(65535), le(0), le(0)}, nil))
		case *ua.OpenSecureChannelRequest:
			c.Write(chunkOf("OPNF", request, message(t, &ua.OpenSecureChannelResponse{ResponseHeader: header(), SecurityToken: &ua.ChannelSecurityToken{ChannelID: 1, TokenID: 1, RevisedLifetime: 3600000}})))
		default:
			if r := usualAnswer(s); r != nil {
				c.Write(chunkOf("MSGF", request, message(t, r)))
			}
		}
	}
}

// usualAnswer is what an honest server says to get a client into a session.
func usualAnswer(service any) ua.Response {
	switch s := service.(type) {
	case *ua.GetEndpointsRequest:
		return &ua.GetEndpointsResponse{ResponseHeader: header(), Endpoints: []*ua.EndpointDescription{{
			EndpointURL: s.EndpointURL, Server: &ua.ApplicationDescription{ApplicationName: ua.NewLocalizedText("")}, SecurityMode: ua.MessageSecurityModeNone, SecurityPolicyURI: ua.SecurityPolicyURINone,
			UserIdentityTokens: []*ua.UserTokenPolicy{{PolicyID: "a", TokenType: ua.UserTokenTypeAnonymous}},
		}}}
	case *ua.CreateSessionRequest:
		return &ua.CreateSessionResponse{ResponseHeader: header(), SessionID: ua.NewNumericNodeID(1, 1), AuthenticationToken: ua.NewNumericNodeID(1, 1), ServerSignature: &ua.SignatureData{}}
	case *ua.ActivateSessionRequest:
		return &ua.ActivateSessionResponse{ResponseHeader: header()}
	case *ua.CloseSessionRequest:
		return &ua.CloseSessionResponse{ResponseHeader: header()}
	case *ua.ReadRequest:
		r := &ua.ReadResponse{ResponseHeader: header(), DiagnosticInfos: []*ua.DiagnosticInfo{}}
		for range s.NodesToRead {
			v := &ua.DataValue{Value: ua.MustVariant(int32(1)), SourceTimestamp: time.Now()}
			v.UpdateMask()
			r.Results = append(r.Results, v)
		}
		return r
	}
	return nil
}

// wants tells whether a request reads our point, and not what the server is.
func wants(service any) bool {
	r, ok := service.(*ua.ReadRequest)
	return ok && len(r.NodesToRead) == 1 && r.NodesToRead[0].NodeID.String() == "i=7777" && r.NodesToRead[0].AttributeID == ua.AttributeIDValue
}

// TestAHostileServer: whatever a server sends, the gateway goes on, with little
// memory.
func TestAHostileServer(t *testing.T) {
	write := func(parts ...[]byte) func(net.Conn, uint32, any) bool {
		return func(c net.Conn, request uint32, service any) bool {
			if wants(service) {
				c.Write(bytes.Join(parts, nil))
			}
			return wants(service)
		}
	}
	at := func(first string, what []byte) func(net.Conn, uint32, any) bool {
		return func(c net.Conn, _ uint32, service any) bool {
			if _, opens := service.(*ua.OpenSecureChannelRequest); first == "OPN" && opens || first == "HEL" && service == "hello" {
				c.Write(what)
				return true
			}
			return false
		}
	}
	tests := map[string]func(net.Conn, uint32, any) bool{
		"a greeting of no type":       at("HEL", append([]byte("XYZF"), append(le(28), make([]byte, 20)...)...)),
		"a greeting without end":      at("HEL", append([]byte("ACKF"), le(1<<31)...)),
		"chunks of no size":           at("HEL", bytes.Join([][]byte{[]byte("ACKF"), le(28), make([]byte, 20)}, nil)),
		"keys in an empty chunk":      at("OPN", append([]byte("OPNF"), le(8)...)),
		"keys behind a long name":     at("OPN", bytes.Join([][]byte{[]byte("OPNF"), le(40), le(1), le(1 << 31), make([]byte, 24)}, nil)),
		"keys with a hostile header":  at("OPN", chunkOf("OPNF", 1, hostileAnswers(t)["a million nested reasons"][:60000])),
		"an empty chunk":              write([]byte("MSGF"), le(8)),
		"a chunk without its request": write([]byte("MSGF"), le(18), make([]byte, 10)),
		"a chunk larger than agreed":  write([]byte("MSGF"), le(1<<20), make([]byte, 1<<20)),
		"a chunk of another channel":  write([]byte("MSGF"), le(24), make([]byte, 16)),
		"endless chunks": func(c net.Conn, request uint32, service any) bool {
			if wants(service) {
				part := chunkOf("MSGC", request, make([]byte, 65000))
				for range 3000 { // 195 MB
					if _, err := c.Write(part); err != nil {
						break
					}
				}
			}
			return wants(service)
		},
		"chunks that nobody waits for": func(c net.Conn, _ uint32, service any) bool {
			if wants(service) {
				part := chunkOf("MSGC", 100000, make([]byte, 60000))
				for range 3000 {
					c.Write(part)
				}
			}
			return wants(service)
		},
	}
	for name, body := range hostileAnswers(t) {
		tests[name] = func(c net.Conn, request uint32, service any) bool {
			rest := body
			for ; wants(service) && len(rest) > 60000; rest = rest[60000:] {
				c.Write(chunkOf("MSGC", request, rest[:60000]))
			}
			if wants(service) {
				c.Write(chunkOf("MSGF", request, rest))
			}
			return wants(service)
		}
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) {
			before := allocated()
			g := &gate{bus: gateway.Bus{Name: "plc", Type: "opcua", Endpoint: hostileServer(t, answer), Security: "None", Timeout: time.Second}, node: "ns=0;i=7777"}
			begin := time.Now()
			err := g.open(t)
			t.Log(err)
			if err == nil || strings.Contains(err.Error(), "stumbled") {
				t.Errorf("it was read: %v", err)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("noticed after %s", took)
			}
			if took := allocated() - before; took > 100<<20 {
				t.Errorf("it took %d MiB", took>>20)
			}
		})
	}
}

// A certificate without an RSA key is no reason to stumble.
func TestACertificateWithAnotherKey(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := hostileServer(t, func(c net.Conn, request uint32, service any) bool {
		r, ok := usualAnswer(service).(*ua.GetEndpointsResponse)
		if ok {
			e := r.Endpoints[0]
			e.SecurityMode, e.SecurityPolicyURI, e.ServerCertificate = ua.MessageSecurityModeSign, ua.SecurityPolicyURIBasic256Sha256, der
			c.Write(chunkOf("MSGF", request, message(t, r)))
		}
		return ok
	})
	g := &gate{bus: gateway.Bus{Name: "plc", Type: "opcua", Endpoint: endpoint, Trust: "first-use", Timeout: 15 * time.Second}, dir: t.TempDir()}
	g.refused(t, "no RSA key")
}

// What changed is decoded as the library decodes it.
func TestPublishedIsWhatTheLibraryReads(t *testing.T) {
	var changes []*ua.MonitoredItemNotification
	for i, v := range []any{true, int64(-1), "text", []float32{1.5, 2.5}, ua.NewLocalizedText("a"), ua.NewExtensionObject(nil)} {
		value := &ua.DataValue{Value: ua.MustVariant(v), SourceTimestamp: time.Now().UTC().Truncate(time.Microsecond), Status: ua.StatusUncertain}
		value.UpdateMask()
		changes = append(changes, &ua.MonitoredItemNotification{ClientHandle: uint32(i), Value: value})
	}
	body := message(t, &ua.PublishResponse{
		ResponseHeader: header(), SubscriptionID: 7, AvailableSequenceNumbers: []uint32{1, 2}, MoreNotifications: true, Results: []ua.StatusCode{ua.StatusBad},
		NotificationMessage: &ua.NotificationMessage{SequenceNumber: 3, PublishTime: time.Now(), NotificationData: []*ua.ExtensionObject{
			ua.NewExtensionObject(&ua.EventNotificationList{Events: []*ua.EventFieldList{{ClientHandle: 1, EventFields: []*ua.Variant{ua.MustVariant("a")}}}}),
			ua.NewExtensionObject(&ua.DataChangeNotification{MonitoredItems: changes}),
			ua.NewExtensionObject(&ua.StatusChangeNotification{Status: ua.StatusBad, DiagnosticInfo: &ua.DiagnosticInfo{}}),
			ua.NewExtensionObject(nil),
			ua.NewExtensionObject(&ua.DataChangeNotification{}),
		}}})
	_, want, err := ua.DecodeService(body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := opcua.DecodeAnswer(body)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v: %v", got, want, err)
	}
}
