package modbus

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
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	own := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "plant authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	a := &authority{cert: own}
	pair := a.sign(t, own)
	var err error
	if a.cert, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		t.Fatal(err)
	}
	a.key = pair.PrivateKey.(*ecdsa.PrivateKey)
	a.file = writePEM(t, "CERTIFICATE", pair.Certificate[0])
	return a
}

// issue makes a certificate for a name, good until a time from now.
func (a *authority) issue(t *testing.T, name string, good time.Duration) tls.Certificate {
	t.Helper()
	return a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(good),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) sign(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func keyDER(t *testing.T, c tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// tlsUnit is a server where every register is 123. It counts the bytes that it
// gets.
func tlsUnit(t *testing.T, config *tls.Config) (port string, got *atomic.Int64) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	got = new(atomic.Int64)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				b := make([]byte, 12)
				for {
					n, err := io.ReadFull(conn, b)
					if got.Add(int64(n)); err != nil {
						return
					}
					_, _ = conn.Write(append(b[:4:4], 0, 5, b[6], wire.FuncReadHoldingRegisters, 2, 0, 123))
				}
			}()
		}
	}()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port), got
}

// overTLS opens a session and reads a point.
func overTLS(t *testing.T, port string, files *gateway.TLS) (string, error) {
	t.Helper()
	bus := &gateway.Bus{Name: "safe", Type: "modbus-tls", Host: "127.0.0.1", Port: port, TLS: files, Timeout: 5 * time.Second}
	d := device(bus, drive(), "d", 1)
	a, err := New(gateway.Env{}, bus, []*gateway.Device{d})
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Open(t.Context())
	if err != nil {
		return "", err
	}
	defer s.Close()
	samples, err := s.Read(t.Context(), []*gateway.Point{point(t, d, "speed")})
	if err != nil {
		return "", err
	}
	return samples[0].Value.String(), nil
}

func TestTLSWithOwnAuthorityAndClientCertificate(t *testing.T) {
	ca := newAuthority(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	port, _ := tlsUnit(t, &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "plc.example", time.Hour)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})
	client := ca.issue(t, "gateway", time.Hour)
	files := gateway.TLS{CA: ca.file, ServerName: "plc.example", Cert: writePEM(t, "CERTIFICATE", client.Certificate[0])}
	path := writePEM(t, "PRIVATE KEY", keyDER(t, client))
	clear, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]string{"a file": "file:" + path, "a path": path, "the resolved text": string(clear)} {
		files.Key = gateway.Secret(key)
		if v, err := overTLS(t, port, &files); err != nil || v != "12.3" {
			t.Errorf("key in %s: %s, %v", name, v, err)
		}
	}
	files.Cert, files.Key = "", ""
	if v, err := overTLS(t, port, &files); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %s, %v", v, err)
	}
}

func TestCertificatesThatProveNothingAreRefused(t *testing.T) {
	ca, foreign := newAuthority(t), newAuthority(t)
	selfSigned := (&authority{cert: &x509.Certificate{Subject: pkix.Name{CommonName: "plc.example"}}}).issue(t, "plc.example", time.Hour)
	with := func(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }
	good := with(ca.issue(t, "plc.example", time.Hour))
	old := with(good.Certificates[0])
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	trusting := &gateway.TLS{CA: ca.file, ServerName: "plc.example"}
	for _, c := range []struct {
		name   string
		server *tls.Config
		files  *gateway.TLS
		want   string
	}{
		{"wrong CA", good, &gateway.TLS{CA: foreign.file, ServerName: "plc.example"}, "certificate signed by unknown authority"},
		{"the system's CAs", good, &gateway.TLS{ServerName: "plc.example"}, "certificate signed by unknown authority"},
		{"no files at all", good, nil, "cannot validate certificate for 127.0.0.1"},
		{"wrong name", good, &gateway.TLS{CA: ca.file, ServerName: "other.example"}, "certificate is valid for plc.example, not other.example"},
		{"the host as name", good, &gateway.TLS{CA: ca.file}, "cannot validate certificate for 127.0.0.1"},
		{"expired", with(ca.issue(t, "plc.example", -time.Hour)), trusting, "certificate has expired"},
		{"self-signed", with(selfSigned), trusting, "certificate signed by unknown authority"},
		{"TLS 1.1", old, trusting, "protocol version"},
		{"no such file", good, &gateway.TLS{CA: "nowhere.pem"}, "read ca: open nowhere.pem"},
		{"an empty file", good, &gateway.TLS{CA: os.DevNull}, "ca /dev/null holds no certificate"},
		{"no key", good, &gateway.TLS{Cert: ca.file, Key: "nowhere.pem"}, "read key: open nowhere.pem"},
	} {
		port, got := tlsUnit(t, c.server)
		if v, err := overTLS(t, port, c.files); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v; want %s", c.name, v, err, c.want)
		}
		if got.Load() != 0 {
			t.Errorf("%s: %d bytes were sent", c.name, got.Load())
		}
	}
	port, _ := tlsUnit(t, good)
	if v, err := overTLS(t, port, trusting); err != nil || v != "12.3" {
		t.Errorf("what is good: %q, %v", v, err)
	}
}
