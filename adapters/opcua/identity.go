package opcua

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sluice/gateway"
)

// The gateway's own certificate is good for five years, and renewed a month
// before it ends.
const (
	ownYears  = 5
	renewTime = 30 * 24 * time.Hour
)

// identities makes the gateway's own application certificate when it is first
// needed, one for all servers.
type identities struct {
	dir   string // "" keeps it in memory
	mutex sync.Mutex
	own   *identity
}

// identity is an application certificate and its key.
type identity struct {
	cert *x509.Certificate
	key  *rsa.PrivateKey
}

// uri is the name of the application, which its certificate confirms.
func (i *identity) uri() string { return i.cert.URIs[0].String() }

type sharedIdentities struct{} // key in gateway.Env.Shared

// identitiesOf are those that all buses of a gateway have in common.
func identitiesOf(env gateway.Env) *identities {
	if shared, ok := env.Shared[sharedIdentities{}].(*identities); ok {
		return shared
	}
	made := &identities{dir: env.Dir}
	if env.Shared != nil {
		env.Shared[sharedIdentities{}] = made
	}
	return made
}

// path is where the certificate lies, for the trust lists of servers.
func (i *identities) path() string { return filepath.Join(i.dir, "opcua", "gateway.der") }

func (i *identities) keyPath() string { return filepath.Join(i.dir, "opcua", "gateway.key") }

// errApart is that power was lost while a pair was written, or that somebody
// put only one of the two there.
var errApart = errors.New("key and certificate do not belong together")

// get gives the certificate; made anew where there is none, or where it ends
// soon, unless somebody else has issued it. A pair that does not belong
// together is put aside.
func (i *identities) get(log *slog.Logger, now time.Time) (*identity, error) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	if i.own == nil && i.dir != "" {
		own, err := i.load()
		if errors.Is(err, errApart) {
			log.Warn("the gateway's own OPC UA key and certificate do not belong together: both are put aside, and others made", "files", i.path()+".old, "+i.keyPath()+".old")
			err = errors.Join(os.Rename(i.path(), i.path()+".old"), os.Rename(i.keyPath(), i.keyPath()+".old"))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the gateway's own certificate: %w", err)
		}
		i.own = own
	}
	if i.own != nil && (i.own.cert.NotAfter.Sub(now) > renewTime || !bytes.Equal(i.own.cert.RawIssuer, i.own.cert.RawSubject)) {
		return i.own, nil
	}
	made, err := makeIdentity(now)
	if err != nil {
		return nil, fmt.Errorf("make the gateway's own certificate: %w", err)
	}
	if i.dir != "" {
		if err := i.save(made); err != nil {
			return nil, fmt.Errorf("keep the gateway's own certificate: %w", err)
		}
	}
	about := []any{"file", i.path(), "fingerprint", fingerprint(made.cert.Raw), "valid", validity(made.cert)}
	if i.own == nil {
		log.Warn("made the gateway's own OPC UA certificate: servers must trust it", about...)
	} else {
		log.Warn("made a new OPC UA certificate, since the old one ends soon: servers must trust it", about...)
	}
	i.own = made
	return made, nil
}

func (i *identities) load() (*identity, error) {
	content, err := os.ReadFile(i.path())
	if err != nil {
		return nil, err
	}
	cert, err := parseCertificate(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.path(), err)
	}
	if len(cert.URIs) == 0 {
		return nil, fmt.Errorf("%s names no application", i.path())
	}
	content, err = os.ReadFile(i.keyPath())
	if err != nil {
		return nil, err
	}
	key, err := parseKey(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.keyPath(), err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errApart
	}
	return &identity{cert: cert, key: key}, nil
}

// save writes the key first: a certificate is never there without it.
func (i *identities) save(own *identity) error {
	der, err := x509.MarshalPKCS8PrivateKey(own.key)
	if err != nil {
		return err
	}
	if err := writeFile(i.keyPath(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
		return err
	}
	return writeFile(i.path(), own.cert.Raw)
}

// parseKey reads an RSA key, PEM or DER, PKCS #8 or #1.
func parseKey(content []byte) (*rsa.PrivateKey, error) {
	if block, _ := pem.Decode(content); block != nil {
		content = block.Bytes
	}
	if key, err := x509.ParsePKCS1PrivateKey(content); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(content)
	if err != nil {
		return nil, err
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("OPC UA takes RSA keys only")
	}
	return private, nil
}

// makeIdentity makes a key and a certificate that it signs itself, as Part 6 of
// OPC UA wants it.
func makeIdentity(now time.Time) (*identity, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "sluice", Organization: []string{"sluice"}}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(ownYears, 0, 0),
		URIs: []*url.URL{{Scheme: "urn", Opaque: url.PathEscape(host) + ":sluice"}}, DNSNames: []string{host},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &identity{cert: cert, key: key}, err
}
