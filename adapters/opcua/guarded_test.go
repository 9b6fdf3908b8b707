package opcua_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"

	"sluice/adapters/opcua"
	"sluice/gateway"
)

// guarded is a server with a secured endpoint, made of the library's ciphers,
// which a test can have do wrong.
type guarded struct {
	t        *testing.T
	policy   string // name of one
	mode     ua.MessageSecurityMode
	cert     *serverCert
	shows    *serverCert                                           // with its keys; nil: cert
	lifetime time.Duration                                         // of keys
	number   uint32                                                // of the first chunk
	parts    int                                                   // chunks of an answer
	change   func(request any, answer ua.Response)                 // of a secured channel; before it is encoded
	send     func(g *guard, request any, chunks [][]byte) [][]byte // what goes out on it
	keys     atomic.Int64                                          // that were asked for on it
}

// guard is one connection to a guarded server.
type guard struct {
	*guarded
	conn    net.Conn
	client  *x509.Certificate // nil without security
	keys    *uapolicy.EncryptionAlgorithm
	token   uint32
	stays   bool // at the keys that it has
	number  uint32
	request uint32
}

func (g *guarded) uri() string { return ua.FormatSecurityPolicyURI(g.policy) }

// start gives the endpoint.
func (g *guarded) start(t *testing.T) string {
	t.Helper()
	g.t = t
	if g.cert == nil {
		g.cert = usualCert(t)
	}
	if g.policy == "" {
		g.policy = "Basic256Sha256"
	}
	if g.mode == 0 {
		g.mode = ua.MessageSecurityModeSign
	}
	return serveEach(t, func(c net.Conn) {
		x := &guard{guarded: g, conn: c, number: g.number}
		for x.serve() {
		}
	})
}

// serve takes one chunk.
func (g *guard) serve() bool {
	chunk := takeChunk(g.conn)
	if chunk == nil {
		return false
	}
	switch string(chunk[:3]) {
	case "HEL":
		g.conn.Write(bytes.Join([][]byte{[]byte("ACKF"), le(28), le(0), le(65535), le(65535), le(0), le(0)}, nil))
	case "OPN":
		return g.open(chunk)
	case "MSG":
		return g.answer(chunk)
	}
	return true
}

// open agrees on keys.
func (g *guard) open(chunk []byte) bool {
	b := ua.NewBuffer(chunk[12:])
	policy, certificate := b.ReadString(), b.ReadBytes()
	b.ReadBytes()
	at := len(chunk) - b.Len()
	rest := chunk[at:]
	var asymmetric *uapolicy.EncryptionAlgorithm
	if policy != ua.SecurityPolicyURINone {
		var err error
		if g.client, err = x509.ParseCertificate(certificate); err != nil {
			return false
		}
		if asymmetric, err = uapolicy.Asymmetric(g.uri(), g.cert.key, g.client.PublicKey.(*rsa.PublicKey)); err != nil {
			return false
		}
		if rest, err = opcua.Unseal(asymmetric, true, chunk, at); err != nil {
			return false
		}
		g.guarded.keys.Add(1)
	}
	_, request, err := ua.DecodeService(rest[8:])
	asked, ok := request.(*ua.OpenSecureChannelRequest)
	if err != nil || !ok {
		return false
	}
	g.request = binary.LittleEndian.Uint32(rest[4:])
	r := &ua.OpenSecureChannelResponse{ResponseHeader: header(), SecurityToken: &ua.ChannelSecurityToken{ChannelID: 1, TokenID: g.token + 1, RevisedLifetime: 3600000}}
	if g.client != nil {
		r.ServerNonce, _ = asymmetric.MakeNonce()
		if g.lifetime > 0 {
			r.SecurityToken.RevisedLifetime = uint32(g.lifetime.Milliseconds())
		}
	}
	if !g.write(request, g.chunks("OPN", request, r)) {
		return false
	}
	if g.client != nil && !g.stays {
		g.token++
		g.keys, err = uapolicy.Symmetric(g.uri(), r.ServerNonce, asked.ClientNonce)
	}
	return err == nil
}

// answer answers a request.
func (g *guard) answer(chunk []byte) bool {
	rest := chunk[16:]
	if g.client != nil {
		var err error
		if rest, err = opcua.Unseal(g.keys, g.mode == ua.MessageSecurityModeSignAndEncrypt, chunk, 16); err != nil {
			return false
		}
	}
	g.request = binary.LittleEndian.Uint32(rest[4:])
	_, request, err := ua.DecodeService(rest[8:])
	if err != nil {
		return false
	}
	r := usualAnswer(request)
	switch s := r.(type) {
	case *ua.GetEndpointsResponse:
		s.Endpoints = []*ua.EndpointDescription{g.endpoint(g.policy, g.mode)}
	case *ua.CreateSessionResponse:
		asked := request.(*ua.CreateSessionRequest)
		asymmetric, err := uapolicy.Asymmetric(g.uri(), g.cert.key, g.client.PublicKey.(*rsa.PublicKey))
		if err != nil {
			return false
		}
		s.ServerCertificate, s.ServerNonce = g.cert.der, make([]byte, 32)
		s.ServerEndpoints = []*ua.EndpointDescription{g.endpoint(g.policy, g.mode)}
		s.ServerSignature.Algorithm = asymmetric.SignatureURI()
		s.ServerSignature.Signature, _ = asymmetric.Signature(slices.Concat(asked.ClientCertificate, asked.ClientNonce))
	}
	return r == nil || g.write(request, g.chunks("MSG", request, r))
}

func (g *guarded) endpoint(policy string, mode ua.MessageSecurityMode) *ua.EndpointDescription {
	return &ua.EndpointDescription{
		Server: &ua.ApplicationDescription{ApplicationName: ua.NewLocalizedText("")}, ServerCertificate: g.cert.der, SecurityMode: mode, SecurityPolicyURI: ua.FormatSecurityPolicyURI(policy),
		UserIdentityTokens: []*ua.UserTokenPolicy{{PolicyID: "a", TokenType: ua.UserTokenTypeAnonymous}},
	}
}

// chunks makes the chunks of an answer.
func (g *guard) chunks(kind string, request any, r ua.Response) [][]byte {
	if g.client != nil && g.change != nil {
		g.change(request, r)
	}
	body, parts := message(g.t, r), 1
	if kind == "MSG" {
		parts = max(g.parts, 1)
	}
	var chunks [][]byte
	for size := (len(body) + parts - 1) / parts; len(body) > 0; {
		part := body[:min(size, len(body))]
		body = body[len(part):]
		final := "F"
		if len(body) > 0 {
			final = "C"
		}
		chunks = append(chunks, g.chunk(kind+final, part))
	}
	return chunks
}

// chunk makes one chunk.
func (g *guard) chunk(kind string, part []byte) []byte {
	if g.number++; g.number == math.MaxUint32 {
		g.number = 1
	}
	rest := bytes.Join([][]byte{le(g.number), le(g.request), part}, nil)
	head := append(append([]byte(kind), le(0)...), le(1)...)
	var chunk []byte
	var err error
	switch {
	case g.client == nil:
		return chunkOf(kind, g.request, part)
	case strings.HasPrefix(kind, "OPN"):
		shown := g.cert
		if g.shows != nil {
			shown = g.shows
		}
		b := ua.NewBuffer(nil)
		b.WriteString(g.uri())
		b.WriteByteString(shown.der)
		b.WriteByteString(uapolicy.Thumbprint(g.client.Raw))
		asymmetric, _ := uapolicy.Asymmetric(g.uri(), g.cert.key, g.client.PublicKey.(*rsa.PublicKey))
		chunk, err = opcua.Seal(asymmetric, true, append(head, b.Bytes()...), rest)
	default:
		chunk, err = opcua.Seal(g.keys, g.mode == ua.MessageSecurityModeSignAndEncrypt, append(head, le(g.token)...), rest)
	}
	if err != nil {
		g.t.Error(err)
	}
	return chunk
}

func (g *guard) write(request any, chunks [][]byte) bool {
	if g.client != nil && g.send != nil {
		chunks = g.send(g, request, chunks)
	}
	_, err := g.conn.Write(bytes.Join(chunks, nil))
	return err == nil
}

// at has a test meddle with the answer to one kind of request.
func at[T any](meddle func([][]byte) [][]byte) func(*guard, any, [][]byte) [][]byte {
	return func(_ *guard, request any, chunks [][]byte) [][]byte {
		if _, ok := request.(T); ok {
			return meddle(chunks)
		}
		return chunks
	}
}

// Whoever stands in between and changes, repeats, leaves out or exchanges what
// the server sends on a secured channel ends the channel.
func TestWhatIsTamperedWithIsRefused(t *testing.T) {
	t.Parallel()
	flipped := func(i int) func([][]byte) [][]byte {
		return func(chunks [][]byte) [][]byte {
			chunks[0][i] ^= 1
			return chunks
		}
	}
	dir := t.TempDir()       // one certificate of ours for all
	const stamp = 16 + 8 + 4 // the time of an answer: behind head, numbers and type
	stronger := func(policy string, mode ua.MessageSecurityMode) func(any, ua.Response) {
		return func(_ any, r ua.Response) {
			if s, ok := r.(*ua.CreateSessionResponse); ok {
				e := *s.ServerEndpoints[0]
				e.SecurityPolicyURI, e.SecurityMode = ua.FormatSecurityPolicyURI(policy), mode
				s.ServerEndpoints = append(s.ServerEndpoints, &e)
			}
		}
	}
	for name, tt := range map[string]struct {
		server *guarded
		want   string // "" where nothing is wrong
	}{
		"nothing":               {&guarded{}, ""},
		"nothing, encrypted":    {&guarded{mode: ua.MessageSecurityModeSignAndEncrypt, parts: 3}, ""},
		"numbers begin again":   {&guarded{number: math.MaxUint32 - 2}, ""},
		"a bit":                 {&guarded{send: at[*ua.CreateSessionRequest](flipped(stamp))}, "not signed by the server"},
		"a bit, encrypted":      {&guarded{mode: ua.MessageSecurityModeSignAndEncrypt, send: at[*ua.CreateSessionRequest](flipped(stamp))}, "not signed by the server"},
		"a bit of the keys":     {&guarded{send: at[*ua.OpenSecureChannelRequest](func(c [][]byte) [][]byte { c[0][len(c[0])-1] ^= 1; return c })}, "not signed by the server"},
		"what makes it a whole": {&guarded{parts: 2, send: at[*ua.CreateSessionRequest](flipped(3))}, "not signed by the server"},
		"an answer twice":       {&guarded{send: at[*ua.CreateSessionRequest](func(c [][]byte) [][]byte { return append(c, c...) })}, "came again"},
		"a chunk left out":      {&guarded{parts: 3, send: at[*ua.CreateSessionRequest](func(c [][]byte) [][]byte { return append(c[:1], c[2]) })}, "is missing"},
		"chunks exchanged":      {&guarded{parts: 3, send: at[*ua.CreateSessionRequest](func(c [][]byte) [][]byte { return [][]byte{c[1], c[0], c[2]} })}, "is missing"},
		"another certificate":   {&guarded{shows: makeCert(t, time.Now().AddDate(1, 0, 0))}, "not signed by the server"},
		"a signature of the session": {&guarded{change: func(_ any, r ua.Response) {
			if s, ok := r.(*ua.CreateSessionResponse); ok {
				s.ServerSignature.Signature[7] ^= 1
			}
		}}, "the server's signature is wrong"},
		"a better policy kept back": {&guarded{change: stronger("Aes256_Sha256_RsaPss", ua.MessageSecurityModeSign)}, "offers Aes256_Sha256_RsaPss/Sign, and said unsigned that it does not"},
		"a better mode kept back":   {&guarded{change: stronger("Basic256Sha256", ua.MessageSecurityModeSignAndEncrypt)}, "offers Basic256Sha256/SignAndEncrypt, and said unsigned that it does not"},
		"a weaker mode kept back":   {&guarded{mode: ua.MessageSecurityModeSignAndEncrypt, change: stronger("Basic256Sha256", ua.MessageSecurityModeSign)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := &gate{bus: gateway.Bus{Name: "plc", Type: "opcua", Endpoint: tt.server.start(t), Trust: "first-use", Timeout: 5 * time.Second}, node: "ns=0;i=7777", any: true, dir: dir}
			if tt.want != "" {
				g.refused(t, tt.want)
			} else if err := g.open(t); err != nil {
				t.Error(err)
			}
		})
	}
}

// openGuarded opens a session with a guarded server.
func openGuarded(t *testing.T, server *guarded, lifetime time.Duration) (gateway.Session, []*gateway.Point, *lockedLog) {
	t.Helper()
	bus, d := oneText(server.start(t))
	bus.Security, bus.Trust = "", "first-use"
	d.Points[0].Type = gateway.Int32
	log := &lockedLog{}
	a, err := opcua.New(gateway.Env{Log: slog.New(slog.NewTextHandler(log, nil)), Dir: ownCertificate(t)}, bus, []*gateway.Device{d})
	if err != nil {
		t.Fatal(err)
	}
	if lifetime > 0 {
		opcua.RenewKeys(a, lifetime)
	}
	s, err := a.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, d.Points, log
}

// New keys come in a message that the server signs with its certificate's key:
// no other one can take its place, and none comes unasked.
func TestKeysComeInTheirOwnMessageOnly(t *testing.T) {
	t.Parallel()
	keys := &ua.OpenSecureChannelResponse{ResponseHeader: header(), ServerNonce: make([]byte, 32), SecurityToken: &ua.ChannelSecurityToken{ChannelID: 1, TokenID: 1, RevisedLifetime: 1000}}
	for name, send := range map[string]func(*guard, any, [][]byte) [][]byte{
		"an answer instead of keys": func(g *guard, request any, chunks [][]byte) [][]byte {
			if asked, ok := request.(*ua.OpenSecureChannelRequest); ok && asked.RequestType == ua.SecurityTokenRequestTypeRenew {
				g.number--
				g.stays = true
				return g.chunks("MSG", request, keys)
			}
			return chunks
		},
		"keys instead of an answer": func(g *guard, request any, chunks [][]byte) [][]byte {
			if wants(request) {
				g.number--
				return g.chunks("OPN", request, keys)
			}
			return chunks
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, points, _ := openGuarded(t, &guarded{send: send}, time.Second)
			var err error
			for begin := time.Now(); err == nil && time.Since(begin) < 3*time.Second; time.Sleep(50 * time.Millisecond) {
				_, err = s.Read(t.Context(), points)
			}
			if err == nil || !strings.Contains(err.Error(), "not signed by the server") {
				t.Errorf("the channel goes on: %v", err)
			}
		})
	}
}

// A server whose keys are good for a millisecond does not have them renewed
// without end.
func TestKeysAreNotRenewedWithoutEnd(t *testing.T) {
	t.Parallel()
	server := &guarded{lifetime: time.Millisecond}
	s, points, _ := openGuarded(t, server, 0)
	begin := time.Now()
	time.Sleep(1200 * time.Millisecond)
	if _, err := s.Read(t.Context(), points); err != nil {
		t.Error(err)
	}
	if n, most := server.keys.Load(), int64(time.Since(begin)/(500*time.Millisecond))+1; n < 2 || n > most {
		t.Errorf("keys were made %d times, at most %d are due", n, most)
	}
}

// While a server takes its time to give new keys, a request waits as long as
// it is given, and no longer.
func TestARequestDoesNotWaitForKeysForEver(t *testing.T) {
	t.Parallel()
	asked := make(chan bool)
	s, points, _ := openGuarded(t, &guarded{send: func(_ *guard, request any, chunks [][]byte) [][]byte {
		if r, ok := request.(*ua.OpenSecureChannelRequest); ok && r.RequestType == ua.SecurityTokenRequestTypeRenew {
			close(asked)
			return nil
		}
		return chunks
	}}, time.Second)
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := s.Read(ctx, points); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
}

// Keys are not taken after their time.
func TestOldKeysAreRefused(t *testing.T) {
	chunk := chunkOf("MSGF", 1, nil)
	if err := opcua.TakeWithKeys(time.Now().Add(time.Minute), chunk); err != nil {
		t.Error(err)
	}
	if err := opcua.TakeWithKeys(time.Now().Add(-time.Second), chunk); err == nil {
		t.Error("keys were taken after their time")
	}
}

// The server says how long it keeps a session that asks for nothing.
func TestASessionIsKeptWithinTheServersTime(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	openGuarded(t, &guarded{change: func(request any, answer ua.Response) {
		if r, ok := answer.(*ua.CreateSessionResponse); ok {
			r.RevisedSessionTimeout = 1200
		}
		if r, ok := request.(*ua.ReadRequest); ok && len(r.NodesToRead) == 1 && r.NodesToRead[0].NodeID.IntID() == id.Server_ServerStatus_CurrentTime {
			asked.Add(1)
		}
	}}, 0)
	if !eventually(func() bool { return asked.Load() >= 2 }) {
		t.Error("the session is not kept")
	}
}
