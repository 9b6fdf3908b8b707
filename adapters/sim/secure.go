package sim

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"sluice/gateway"
)

// certified is how long certificates are good: longer than a simulation runs.
const certified = 10 * 365 * 24 * time.Hour

// authority signs the certificates of a simulation, and of nothing else: its
// key is never written down.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
	client gateway.TLS // files of the other side
}

// secure makes a bus speak TLS, and its settings trust it.
func (s *Sim) secure(b *bus, settings *gateway.Bus) error {
	if err := s.makeDir(); err != nil {
		return err
	}
	if s.authority == nil {
		a, err := newAuthority(s.dir)
		if err != nil {
			return err
		}
		s.authority = a
	}
	files := s.authority.client
	names := []string{loopback, "localhost"}
	if settings.TLS != nil && settings.TLS.ServerName != "" {
		files.ServerName = settings.TLS.ServerName
		names = append(names, files.ServerName)
	}
	settings.TLS = &files
	own, err := s.authority.issue(b.name, names...)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(s.authority.cert)
	b.secure = &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}
	return nil
}

// newAuthority puts its certificate, and one for clients with its key, into a
// directory.
func newAuthority(dir string) (*authority, error) {
	a := &authority{}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	template := a.template("simulated authority")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	a.cert = template
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	client, err := a.issue("client")
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		return nil, err
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		err = cmp.Or(err, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	a.client.CA = write("ca.pem", "CERTIFICATE", der)
	a.client.Cert = write("client.pem", "CERTIFICATE", client.Certificate[0])
	a.client.Key = gateway.Secret("file:" + write("client-key.pem", "PRIVATE KEY", key))
	return a, err
}

// issue makes a certificate for either side of a connection, for names and IP
// addresses.
func (a *authority) issue(subject string, names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := a.template(subject)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate of %s: %w", subject, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

func (a *authority) template(subject string) *x509.Certificate {
	a.serial++
	return &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: subject},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certified),
	}
}
