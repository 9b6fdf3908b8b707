package cloud_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/cloud/twin"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "plant CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	a := &authority{}
	a.cert, a.key = sign(t, template, template, nil)
	a.file = writePEM(t, "CERTIFICATE", a.cert.Raw)
	return a
}

func sign(t *testing.T, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// issue makes a certificate for a name, valid until a time from now.
func (a *authority) issue(t *testing.T, name string, valid time.Duration) tls.Certificate {
	t.Helper()
	cert, key := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(valid),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, a.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func keyPEM(t *testing.T, c tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func withTLS(files gateway.TLS) func(*cloud.Config) {
	return func(c *cloud.Config) { c.Cloud.TLS = &files }
}

func TestTLSWithOwnAuthorityAndClientCertificate(t *testing.T) {
	ca := newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	tw := startTwin(t, twin.Options{TLS: &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "cloud.example", time.Hour)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}})
	client := ca.issue(t, "gateway", time.Hour)
	for name, key := range map[string]gateway.Secret{
		"key in a file": gateway.Secret(writePEM(t, "PRIVATE KEY", func() []byte { b, _ := pem.Decode(keyPEM(t, client)); return b.Bytes }())),
		"key in clear":  gateway.Secret(keyPEM(t, client)),
	} {
		s, _ := run(t, settings(tw.URL(), "puback", withTLS(gateway.TLS{
			CA: ca.file, ServerName: "cloud.example", Cert: writePEM(t, "CERTIFICATE", client.Certificate[0]), Key: key,
		})), nil)
		if n, err := s.Publish(t.Context(), numbered(0, 1)); n != 1 || err != nil {
			t.Errorf("%s: %d confirmed, %v", name, n, err)
		}
	}
}

func TestCertificatesThatProveNothingAreRefused(t *testing.T) {
	ca, foreign := newAuthority(t), newAuthority(t)
	good := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "cloud.example", time.Hour)}}
	for _, c := range []struct {
		name   string
		server *tls.Config
		files  gateway.TLS
		want   string
	}{
		{"foreign authority", good, gateway.TLS{CA: foreign.file, ServerName: "cloud.example"}, "certificate signed by unknown authority"},
		{"the system's authorities", good, gateway.TLS{ServerName: "cloud.example"}, "certificate signed by unknown authority"},
		{"self-signed", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{foreign.cert.Raw}, PrivateKey: foreign.key}}}, gateway.TLS{CA: ca.file, ServerName: "cloud.example"}, "certificate"},
		{"another name", good, gateway.TLS{CA: ca.file, ServerName: "other.example"}, "certificate is valid for cloud.example, not other.example"},
		{"the host's name", good, gateway.TLS{CA: ca.file}, "cannot validate certificate for 127.0.0.1"},
		{"expired", &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "cloud.example", -time.Hour)}}, gateway.TLS{CA: ca.file, ServerName: "cloud.example"}, "certificate has expired"},
		{"TLS 1.1", &tls.Config{Certificates: good.Certificates, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, gateway.TLS{CA: ca.file, ServerName: "cloud.example"}, "protocol version"},
		{"no such file", good, gateway.TLS{CA: "nowhere.pem"}, "read ca: open nowhere.pem"},
		{"empty file", good, gateway.TLS{CA: os.DevNull}, "ca /dev/null holds no certificate"},
		{"no key", good, gateway.TLS{Cert: ca.file, Key: "nowhere.pem"}, "read key: open nowhere.pem"},
	} {
		tw := startTwin(t, twin.Options{TLS: c.server})
		s, book := run(t, settings(tw.URL(), "puback", withTLS(c.files)), nil)
		eventually(t, c.name+" is said", says(book, c.want))
		if strings.Contains(book.String(), "connected") || !s.Status().Connected.IsZero() || s.Status().Err == nil {
			t.Errorf("%s: it connected", c.name)
		}
	}
}

// bridge passes MQTT from websockets on to a broker.
func bridge(t *testing.T, broker string) http.Handler {
	upgrader := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := upgrader.Upgrade(w, r, nil)
		if err != nil || r.URL.Path != "/mqtt" || ws.Subprotocol() != "mqtt" {
			t.Errorf("upgrade of %s: %v", r.URL, err)
			return
		}
		defer ws.Close()
		tcp, err := net.Dial("tcp", broker)
		if err != nil {
			return
		}
		defer tcp.Close()
		go func() {
			defer ws.Close()
			buffer := make([]byte, 4096)
			for {
				n, err := tcp.Read(buffer)
				if err != nil || ws.WriteMessage(websocket.BinaryMessage, buffer[:n]) != nil {
					return
				}
			}
		}()
		for {
			_, reader, err := ws.NextReader()
			if err != nil {
				return
			}
			if _, err := io.Copy(tcp, reader); err != nil {
				return
			}
		}
	})
}

func TestWebsocketsPlainAndSecure(t *testing.T) {
	tw := startTwin(t, twin.Options{Respond: true})
	plain := httptest.NewServer(bridge(t, tw.Addr()))
	defer plain.Close()
	safe := httptest.NewTLSServer(bridge(t, tw.Addr()))
	defer safe.Close()
	files := withTLS(gateway.TLS{CA: writePEM(t, "CERTIFICATE", safe.Certificate().Raw), ServerName: "example.com"})
	for url, change := range map[string]func(*cloud.Config){plain.URL: nil, safe.URL: files} {
		t.Run(url[:5], func(t *testing.T) {
			s, _ := run(t, settings("ws"+strings.TrimPrefix(url, "http")+"/mqtt", "response", change), nil)
			if n, err := s.Publish(t.Context(), numbered(0, 10)); n != 10 || err != nil {
				t.Errorf("%d confirmed, %v", n, err)
			}
		})
	}
	s, book := run(t, settings("wss"+strings.TrimPrefix(safe.URL, "https")+"/mqtt", "puback", nil), nil)
	eventually(t, "the unknown authority is said", says(book, "certificate signed by unknown authority"))
	if !s.Status().Connected.IsZero() {
		t.Error("it connected")
	}
}
