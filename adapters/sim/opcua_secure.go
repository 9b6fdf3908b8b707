//go:build !lean

package sim

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	library "github.com/awcullen/opcua/server"
	"github.com/awcullen/opcua/ua"
)

// identity is the key of all OPC UA certificates of a simulation: to make one
// takes longer than anything else that Start does.
type identity struct {
	key    *rsa.PrivateKey
	file   string
	serial int64
}

// certify makes a certificate for an application and gives its file and that of
// its key.
func (s *Sim) certify(name string) (cert, key string, err error) {
	if err := s.makeDir(); err != nil {
		return "", "", err
	}
	if s.identity == nil {
		made, err := rsa.GenerateKey(rand.Reader, 2048)
		// The library takes the length of the private exponent for that of the
		// modulus: with one key in forty it can't decrypt a password.
		for err == nil && len(made.D.Bytes()) < made.Size() {
			made, err = rsa.GenerateKey(rand.Reader, 2048)
		}
		if err != nil {
			return "", "", err
		}
		s.identity = &identity{key: made, file: filepath.Join(s.dir, "opcua-key.pem")}
		if err := writePEM(s.identity.file, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(made)); err != nil {
			return "", "", err
		}
	}
	s.identity.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(s.identity.serial), Subject: pkix.Name{CommonName: name, Organization: []string{"sluice sim"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certified),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{{Scheme: "urn", Opaque: "sluice:sim:" + name}}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.ParseIP(loopback)},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &s.identity.key.PublicKey, s.identity.key)
	cert = filepath.Join(s.dir, "opcua-"+name+".pem")
	return cert, s.identity.file, cmp.Or(err, writePEM(cert, "CERTIFICATE", der))
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// admitCertificate lets users in that show the certificate of a file.
func (v *server) admitCertificate(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(content)
	v.options = append(v.options, library.WithAuthenticateX509IdentityFunc(func(who ua.X509Identity, _, _ string) error {
		if string(who.Certificate) != string(block.Bytes) {
			return ua.BadUserAccessDenied
		}
		return nil
	}))
	return nil
}
