package opcua_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/awcullen/opcua/server"
	"github.com/awcullen/opcua/ua"

	"sluice/adapters/opcua"
	"sluice/gateway"
)

// users lets one user in, and no one else.
func users(name, password string) []server.Option {
	return []server.Option{
		server.WithAuthenticateUserNameIdentityFunc(func(user ua.UserNameIdentity, _, _ string) error {
			if user.UserName != name || user.Password != password {
				return ua.BadUserAccessDenied
			}
			return nil
		}),
		server.WithAuthenticateX509IdentityFunc(func(ua.X509Identity, string, string) error { return nil }),
	}
}

// gate is a bus with one point, and its adapter's log and folder.
type gate struct {
	bus  gateway.Bus
	node string // default s=a
	any  bool   // value
	dir  string
	log  lockedLog
}

// open opens the bus with a new adapter and reads its point.
func (g *gate) open(t *testing.T) error {
	t.Helper()
	adapter, points := g.adapter(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	session, err := adapter.Open(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	return g.read(t, session, points)
}

// adapter makes a new one.
func (g *gate) adapter(t *testing.T) (gateway.Adapter, []*gateway.Point) {
	t.Helper()
	d := &gateway.Device{Name: "line", Profile: &gateway.Profile{Protocol: "opcua", Namespace: plantURI, Mode: "poll"}, Bus: &g.bus}
	d.Points = []*gateway.Point{{Definition: &gateway.Definition{ID: "a", Node: cmp.Or(g.node, "s=a"), Type: gateway.Int32, Access: "r", Poll: time.Second}, Device: d}}
	adapter, err := opcua.New(gateway.Env{Log: slog.New(slog.NewTextHandler(&g.log, nil)), Dir: g.dir}, &g.bus, []*gateway.Device{d})
	if err != nil {
		t.Fatal(err)
	}
	return adapter, d.Points
}

// read reads the point.
func (g *gate) read(t *testing.T, session gateway.Session, points []*gateway.Point) error {
	t.Helper()
	samples, err := session.Read(t.Context(), points)
	if err == nil && samples[0].Reason != "" {
		return errors.New(samples[0].Reason)
	}
	if err == nil && (samples[0].Quality != gateway.Good || samples[0].Value.Int() != 42 && !g.any) {
		t.Errorf("read %v: %s", samples[0].Value, samples[0].Reason)
	}
	return err
}

func newGate(t *testing.T, s *plantServer, security string) *gate {
	t.Helper()
	return &gate{bus: gateway.Bus{Name: "plc", Type: "opcua", Endpoint: "opc.tcp://" + s.address(), Security: security, Trust: "first-use", Timeout: 5 * time.Second}, dir: t.TempDir()}
}

// refused checks that a bus is not opened, and why.
func (g *gate) refused(t *testing.T, words ...string) {
	t.Helper()
	err := g.open(t)
	if err == nil {
		t.Fatalf("opened, though %s", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
}

// startVault starts a server with one variable.
func startVault(t *testing.T, o serverOptions) *plantServer {
	t.Helper()
	s := startServer(t, o)
	s.variable(t, ua.ObjectIDObjectsFolder, "a", "a", int32(42), ua.DataTypeIDInt32)
	return s
}

// usualVault is a vault for all tests, with the usual certificate and a user: a
// server takes its time to start.
var usualVault = func() func(*testing.T) *plantServer {
	var once sync.Once
	var s *plantServer
	return func(t *testing.T) *plantServer {
		t.Helper()
		once.Do(func() { s = startVault(t, serverOptions{stays: true, options: users("me", "s3cret")}) })
		return s
	}
}()

func sum(der []byte) string {
	hash := sha256.Sum256(der)
	return strings.ToUpper(hex.EncodeToString(hash[:]))
}

func TestEveryPolicyModeAndLogin(t *testing.T) {
	t.Parallel()
	s := usualVault(t)
	user := makeCert(t, time.Now().AddDate(1, 0, 0))
	cert, key := user.files(t)
	shared := t.TempDir()
	for _, security := range []string{
		"auto", "Basic256Sha256/Sign", "Basic256Sha256/SignAndEncrypt", "Aes128_Sha256_RsaOaep/Sign", "Aes128_Sha256_RsaOaep/SignAndEncrypt",
		"Aes256_Sha256_RsaPss/Sign", "Aes256_Sha256_RsaPss/SignAndEncrypt", "None",
	} {
		for name, login := range map[string]gateway.BusLogin{
			"anonymous": {}, "user": {User: "me", Password: "s3cret"}, "certificate": {Cert: cert, Key: gateway.Secret("file:" + key)},
		} {
			t.Run(security+" "+name, func(t *testing.T) {
				g := newGate(t, s, security)
				g.dir, g.bus.Login = shared, login
				if security == "None" {
					g.bus.Trust = ""
				}
				if err := g.open(t); err != nil {
					t.Error(err)
				}
			})
		}
	}
	t.Run("a wrong password", func(t *testing.T) {
		g := newGate(t, s, "auto")
		g.bus.Login = gateway.BusLogin{User: "me", Password: "guess"}
		g.refused(t, "log in as me") // BadUserAccessDenied, unless the library sees first that the server has hung up
	})
}

func TestTheFirstCertificateIsKeptAndAChangedOneRefused(t *testing.T) {
	t.Parallel()
	first, second := usualCert(t), makeCert(t, time.Now().AddDate(1, 0, 0))
	s := usualVault(t)
	g := newGate(t, s, "auto")
	if err := g.open(t); err != nil {
		t.Fatal(err)
	}
	if log := g.log.String(); !strings.Contains(log, "trusted from now on") || !strings.Contains(log, sum(first.der)) {
		t.Errorf("first use is not said: %s", log)
	}
	said := len(g.log.String())
	if err := g.open(t); err != nil || len(g.log.String()) > said {
		t.Errorf("the second time: %v, %s", err, g.log.String()[said:])
	}
	other := startVault(t, serverOptions{cert: second})
	g.bus.Endpoint = "opc.tcp://" + other.address()
	kept := filepath.Join(g.dir, "opcua", "plc.der")
	g.refused(t, "another certificate", sum(first.der), sum(second.der), "remove "+kept)
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	if err := g.open(t); err != nil {
		t.Errorf("after its removal: %v", err)
	}
}

func TestATrustedFile(t *testing.T) {
	t.Parallel()
	s := usualVault(t)
	g := newGate(t, s, "auto")
	file := filepath.Join(g.dir, "plc.pem")
	g.bus.Trust = "file:" + file
	g.refused(t, "read the server's trusted certificate")
	write := func(der []byte) {
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(makeCert(t, time.Now().AddDate(1, 0, 0)).der)
	g.refused(t, "another certificate")
	write(usualCert(t).der)
	if err := g.open(t); err != nil {
		t.Error(err)
	}
}

func TestCertificatesThatEnd(t *testing.T) {
	t.Parallel()
	past := time.Now().AddDate(0, 0, -3)
	s := startVault(t, serverOptions{cert: makeCert(t, past)})
	newGate(t, s, "auto").refused(t, "ended on "+past.UTC().Format(time.DateOnly))
	for days, want := range map[int]string{29: "days=28", 6: "days=5", 40: ""} {
		s := startVault(t, serverOptions{cert: makeCert(t, time.Now().AddDate(0, 0, days))})
		g := newGate(t, s, "auto")
		if err := g.open(t); err != nil {
			t.Fatal(err)
		}
		if log := g.log.String(); strings.Contains(log, "ends soon") != (want != "") || !strings.Contains(log, want) {
			t.Errorf("%d days before: %s", days, log)
		}
	}
}

// A session goes on while the server's certificate ends, and that is said; the
// next one is refused, and so is another certificate, until it is trusted.
func TestACertificateThatEndsOrChangesWhileASessionIsUp(t *testing.T) {
	t.Parallel()
	ends := time.Now().Add(3 * time.Second).Truncate(time.Second)
	ending, changed := makeCert(t, ends), makeCert(t, time.Now().AddDate(1, 0, 0))
	address := func(cert *serverCert) string {
		return strings.TrimPrefix((&guarded{cert: cert}).start(t), "opc.tcp://")
	}
	p := startProxy(t, address(ending))
	g := &gate{bus: gateway.Bus{Name: "plc", Type: "opcua", Endpoint: p.endpoint(), Trust: "first-use", Timeout: 5 * time.Second, SessionTimeout: 1500 * time.Millisecond}, node: "ns=0;i=7777", any: true, dir: ownCertificate(t)}
	adapter, points := g.adapter(t)
	session, err := adapter.Open(t.Context())
	for ; err != nil && strings.Contains(err.Error(), "ended on"); session, err = adapter.Open(t.Context()) { // a busy machine
		ends = time.Now().Add(20 * time.Second).Truncate(time.Second)
		ending = makeCert(t, ends)
		p.to(address(ending))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if session != nil {
			session.Close()
		}
	})
	if !eventually(func() bool { return strings.Contains(g.log.String(), "a certificate has ended") }) {
		t.Errorf("the end is not said: %s", g.log.String())
	}
	if err := g.read(t, session, points); err != nil || time.Now().Before(ends) {
		t.Errorf("after the end: %v", err)
	}
	again := func() (err error) {
		t.Helper()
		p.cut()
		if err := g.read(t, session, points); err == nil {
			t.Error("the cut is not noticed")
		}
		session.Close()
		p.restore()
		session, err = adapter.Open(t.Context())
		return err
	}
	if err := again(); err == nil || !strings.Contains(err.Error(), "ended on "+ends.UTC().Format(time.DateOnly)) {
		t.Fatalf("a certificate that has ended: %v", err)
	}
	p.to(address(changed))
	if session, err = adapter.Open(t.Context()); err == nil || !strings.Contains(err.Error(), sum(ending.der)) || !strings.Contains(err.Error(), sum(changed.der)) {
		t.Fatalf("another certificate: %v", err)
	}
	_ = os.Remove(filepath.Join(g.dir, "opcua", "plc.der"))
	if session, err = adapter.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.read(t, session, points); err != nil {
		t.Error(err)
	}
}

// auto takes the best policy and mode that are offered, and the best of several
// ways to show a login.
func TestAutoTakesTheStrongest(t *testing.T) {
	t.Parallel()
	g := &gate{bus: gateway.Bus{Name: "plc", Type: "opcua", Trust: "first-use"}}
	adapter, _ := g.adapter(t)
	for _, tt := range []struct {
		offered []string
		want    string
	}{
		{[]string{"None", "Basic256Sha256/Sign"}, "Basic256Sha256/Sign"},
		{[]string{"Aes256_Sha256_RsaPss/Sign", "Basic256Sha256/SignAndEncrypt", "None"}, "Basic256Sha256/SignAndEncrypt"},
		{[]string{"Basic256Sha256/SignAndEncrypt", "Aes128_Sha256_RsaOaep/SignAndEncrypt", "Aes256_Sha256_RsaPss/Sign"}, "Aes128_Sha256_RsaOaep/SignAndEncrypt"},
		{[]string{"Aes128_Sha256_RsaOaep/SignAndEncrypt", "Aes256_Sha256_RsaPss/SignAndEncrypt", "Basic256Sha256/SignAndEncrypt"}, "Aes256_Sha256_RsaPss/SignAndEncrypt"},
		{[]string{"Basic256/SignAndEncrypt", "Basic128Rsa15/SignAndEncrypt", "Basic256Sha256/Sign"}, "Basic256Sha256/Sign"}, // the others are no longer secure
		{[]string{"Basic256Sha256/Sign", "Aes256_Sha256_RsaPss/Sign", "Aes128_Sha256_RsaOaep/Sign"}, "Aes256_Sha256_RsaPss/Sign"},
		{[]string{"None"}, "None"},
		{[]string{"Basic256/SignAndEncrypt"}, ""},
	} {
		if got, err := opcua.Choose(adapter, tt.offered...); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("of %s it takes %q: %v", tt.offered, got, err)
		}
	}
	s := usualVault(t)
	p := startProxy(t, s.address())
	var policies lockedLog
	p.spy = func(frame []byte) {
		if string(frame[:3]) == "OPN" {
			policies.Write(frame[12:80])
		}
	}
	g = newGate(t, s, "auto")
	g.bus.Endpoint = p.endpoint()
	if err := g.open(t); err != nil || !strings.Contains(policies.String(), "#Aes256_Sha256_RsaPss") {
		t.Errorf("of all policies it takes %q: %v", policies.String(), err)
	}
}

// A server that offers None only may be another one in between.
func TestAutoNeverFallsToNone(t *testing.T) {
	t.Parallel()
	s := usualVault(t)
	p := startProxy(t, s.address())
	p.onlyNone = true
	g := newGate(t, s, "auto")
	g.bus.Endpoint = p.endpoint()
	if err := g.open(t); err != nil || !strings.Contains(g.log.String(), "offers no security") {
		t.Errorf("nothing is trusted and nobody logs in: %v, %s", err, g.log.String())
	}
	g.bus.Login = gateway.BusLogin{User: "me", Password: "s3cret"}
	g.refused(t, "password would be sent")
	g.bus.Login = gateway.BusLogin{}
	g.bus.Endpoint = "opc.tcp://" + s.address()
	if err := g.open(t); err != nil {
		t.Fatal(err)
	}
	g.bus.Endpoint = p.endpoint()
	g.refused(t, "somebody may stand in between")
	g.bus.Security = "Basic256Sha256/Sign"
	g.refused(t, "does not offer security Basic256Sha256/Sign")
}

// An endpoint is not signed: who puts the trusted certificate into it can't
// answer all the same, for want of its key.
func TestAStolenCertificateOpensNoChannel(t *testing.T) {
	t.Parallel()
	s := usualVault(t)
	g := newGate(t, s, "auto")
	if err := g.open(t); err != nil {
		t.Fatal(err)
	}
	thief := startVault(t, serverOptions{cert: certOf(t, newKey(), time.Now().AddDate(1, 0, 0))})
	p := startProxy(t, thief.address())
	p.swap = [2][]byte{thief.LocalCertificate(), s.LocalCertificate()}
	g.bus.Endpoint = p.endpoint()
	g.refused(t, "open a channel with")
}

func TestOwnCertificateIsKeptAndRenewed(t *testing.T) {
	t.Parallel()
	s := usualVault(t)
	g := newGate(t, s, "auto")
	if err := g.open(t); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(g.dir, "opcua", "gateway.der")
	der, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	if log := g.log.String(); !strings.Contains(log, "made the gateway's own OPC UA certificate") || !strings.Contains(log, sum(der)) {
		t.Errorf("the new certificate is not said: %s", log)
	}
	if info, err := os.Stat(filepath.Join(g.dir, "opcua", "gateway.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key: %v %v", info.Mode(), err)
	}
	if err := g.open(t); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(own); string(again) != string(der) {
		t.Error("another certificate at the second start")
	}
	ending := makeCert(t, time.Now().AddDate(0, 0, 20))
	certFile, keyFile := ending.files(t)
	content, _ := os.ReadFile(certFile)
	block, _ := pem.Decode(content)
	key, _ := os.ReadFile(keyFile)
	if err := os.WriteFile(own, block.Bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(g.dir, "opcua", "gateway.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.open(t); err != nil {
		t.Fatal(err)
	}
	if renewed, _ := os.ReadFile(own); string(renewed) == string(block.Bytes) || !strings.Contains(g.log.String(), "the old one ends soon") {
		t.Errorf("a certificate that ends in 20 days was not renewed: %s", g.log.String())
	}
}

// Keys of a channel are renewed while values flow, by a server of another maker.
func TestKeysAreRenewed(t *testing.T) {
	t.Parallel()
	server := startPeer(t, "--counters", "2", "--every", "400", "--security", "Aes256_Sha256_RsaPss", "--modes", "SignAndEncrypt")
	p := startProxy(t, strings.TrimPrefix(server.endpoint, "opc.tcp://"))
	w := prepareSite(t, strings.Replace(faultSite(2), "security: None", "trust: first-use", 1), p.endpoint())
	w.period = 400 * time.Millisecond
	opcua.RenewKeys(w.adapter, time.Second)
	w.start(t)
	w.until(t, "first value", "c0", time.Minute, isGood)
	before := p.keys.Load()
	if !eventually(func() bool { return p.keys.Load() >= before+4 }) {
		t.Error("no keys were renewed")
	}
	if missing, backwards := w.missed(t, "c0"); missing+backwards > 0 || w.lost() > 0 {
		t.Errorf("%d missed, %d backwards, %d losses", missing, backwards, w.lost())
	}
}

// ownCertificate is a folder with a certificate of ours, which takes its time to
// make.
func ownCertificate(t *testing.T) string {
	t.Helper()
	g := &gate{dir: t.TempDir()}
	cert := makeCert(t, time.Now().AddDate(1, 0, 0))
	if err := os.MkdirAll(filepath.Join(g.dir, "opcua"), 0o700); err != nil {
		t.Fatal(err)
	}
	g.replace(t, "gateway.der", cert.der)
	g.replace(t, "gateway.key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(cert.key)}))
	return g.dir
}

// replace puts another file in the place of one of the gateway's own.
func (g *gate) replace(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, "opcua", name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Power that is lost between a new key and its certificate leaves a pair that
// does not belong together: the gateway heals that, says so, and keeps the two
// aside, for they may be somebody's.
func TestAPairThatWasTornIsMadeAnew(t *testing.T) {
	t.Parallel()
	s := usualVault(t)
	g := newGate(t, s, "auto")
	g.dir = ownCertificate(t)
	path := filepath.Join(g.dir, "opcua", "gateway.der")
	before, _ := os.ReadFile(path)
	key := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(newKey())})
	g.replace(t, "gateway.key", key)
	if err := g.open(t); err != nil {
		t.Fatal(err)
	}
	after, _ := os.ReadFile(path)
	oldKey, _ := os.ReadFile(filepath.Join(g.dir, "opcua", "gateway.key.old"))
	if old, _ := os.ReadFile(path + ".old"); !bytes.Equal(old, before) || !bytes.Equal(oldKey, key) || bytes.Equal(after, before) {
		t.Error("the old pair is not kept aside")
	}
	if log := g.log.String(); !strings.Contains(log, "do not belong together") || !strings.Contains(log, sum(after)) {
		t.Errorf("it is not said: %s", log)
	}
	if err := g.open(t); err != nil {
		t.Errorf("the next time: %v", err)
	}
}

// A certificate that somebody issued for the gateway is theirs to renew: its end
// is said, and it stays.
func TestAnIssuedCertificateIsNotReplaced(t *testing.T) {
	t.Parallel()
	s := usualVault(t)
	g := newGate(t, s, "auto")
	issuer := makeCert(t, time.Now().AddDate(1, 0, 0))
	authority, err := x509.ParseCertificate(issuer.der)
	if err != nil {
		t.Fatal(err)
	}
	template := *authority
	template.RawSubject, template.Subject.CommonName, template.NotAfter = nil, "gateway of hall 3", time.Now().AddDate(0, 0, 20)
	der, err := x509.CreateCertificate(rand.Reader, &template, authority, &usualKey().PublicKey, issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	g.dir = ownCertificate(t) // of the same key
	g.replace(t, "gateway.der", der)
	if err := g.open(t); err != nil {
		t.Fatal(err)
	}
	if now, _ := os.ReadFile(filepath.Join(g.dir, "opcua", "gateway.der")); !bytes.Equal(now, der) || !strings.Contains(g.log.String(), `"a certificate ends soon" of="the gateway"`) {
		t.Errorf("it was replaced: %s", g.log.String())
	}
}
