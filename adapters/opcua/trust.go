package opcua

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// pinned is the certificate that the server must show; nil where the first one
// that it shows will be kept.
func (a *Adapter) pinned() (*x509.Certificate, error) {
	path, isFile := strings.CutPrefix(a.bus.Trust, "file:")
	if !isFile {
		if a.env.Dir == "" {
			return a.pin, nil
		}
		path = a.pinPath()
	}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !isFile {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the server's trusted certificate: %w", err)
	}
	cert, err := parseCertificate(content)
	if err != nil {
		return nil, fmt.Errorf("read the server's trusted certificate %s: %w", path, err)
	}
	return cert, nil
}

// pinPath is where first-use keeps the certificate of a server.
func (a *Adapter) pinPath() string { return filepath.Join(a.env.Dir, "opcua", a.bus.Name+".der") }

// parseCertificate reads a certificate, PEM or DER, the first of a chain.
func parseCertificate(content []byte) (*x509.Certificate, error) {
	if block, _ := pem.Decode(content); block != nil {
		content = block.Bytes
	}
	chain, err := x509.ParseCertificates(content)
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 {
		return nil, errors.New("it holds no certificate")
	}
	return chain[0], nil
}

// checkServer tells whether the certificate of an endpoint is the server's. An
// endpoint's description is not signed; but the channel is then opened to this
// certificate, and only the owner of its key can answer.
func (a *Adapter) checkServer(shown []byte, now time.Time) (*x509.Certificate, error) {
	cert, err := parseCertificate(shown)
	if err != nil {
		return nil, fmt.Errorf("read the certificate that the server shows: %w", err)
	}
	want, err := a.pinned()
	switch {
	case err != nil:
		return nil, err
	case want != nil && !bytes.Equal(want.Raw, cert.Raw):
		return nil, fmt.Errorf("the server shows another certificate than the trusted one: it shows %s (%s), trusted is %s (%s)%s",
			fingerprint(cert.Raw), validity(cert), fingerprint(want.Raw), validity(want), a.howToTrust())
	case now.After(cert.NotAfter):
		return nil, fmt.Errorf("the server's certificate %s ended on %s: it needs a new one", fingerprint(cert.Raw), day(cert.NotAfter))
	case now.Before(cert.NotBefore):
		return nil, fmt.Errorf("the server's certificate %s is valid from %s: a clock is wrong", fingerprint(cert.Raw), day(cert.NotBefore))
	}
	return cert, nil
}

// howToTrust says how a changed certificate is accepted.
func (a *Adapter) howToTrust() string {
	if path, ok := strings.CutPrefix(a.bus.Trust, "file:"); ok {
		return "; where the change is meant, put the new one into " + path
	}
	return "; where the change is meant, remove " + a.pinPath()
}

func validity(c *x509.Certificate) string { return day(c.NotBefore) + " to " + day(c.NotAfter) }

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// fingerprint is the SHA-256 of a certificate, as tools show it.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return "SHA-256 " + strings.ToUpper(hex.EncodeToString(sum[:]))
}

// keep pins the first certificate that a server showed, once its channel is
// open: it has the key.
func (a *Adapter) keep(cert *x509.Certificate) error {
	a.server.Store(cert)
	a.warnOfEnd("the server", cert, time.Now())
	if a.bus.Trust != "first-use" {
		return nil
	}
	if was, err := a.pinned(); err != nil || was != nil {
		return err
	}
	where := "memory"
	if a.env.Dir != "" {
		where = a.pinPath()
		if err := writeFile(where, cert.Raw); err != nil {
			return fmt.Errorf("keep the server's certificate: %w", err)
		}
	}
	a.pin = cert
	a.env.Log.Warn("the server's certificate is trusted from now on, since it is the first one: compare the fingerprint with the server's",
		"subject", cert.Subject.String(), "fingerprint", fingerprint(cert.Raw), "valid", validity(cert), "kept_in", where)
	return nil
}

// writeFile writes a file that only we may read, whole or not at all.
func writeFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// warnings are how many days ahead the end of a certificate is said.
var warnings = []int{0, 1, 7, 30}

// warnOfEnd says that a certificate ends soon, once for each of the warnings.
func (a *Adapter) warnOfEnd(whose string, cert *x509.Certificate, now time.Time) {
	left := cert.NotAfter.Sub(now)
	for _, days := range warnings {
		if left > time.Duration(days)*24*time.Hour {
			continue
		}
		said := fmt.Sprintf("%s %s %d", whose, cert.NotAfter, days)
		a.warning.Lock()
		defer a.warning.Unlock()
		if a.warned == nil {
			a.warned = make(map[string]bool)
		}
		if !a.warned[said] {
			a.warned[said] = true
			about := []any{"of", whose, "ends", day(cert.NotAfter), "days", int(left.Hours() / 24), "fingerprint", fingerprint(cert.Raw)}
			if left > 0 {
				a.env.Log.Warn("a certificate ends soon", about...)
			} else {
				a.env.Log.Warn("a certificate has ended: the next connection is refused", about...)
			}
		}
		return
	}
}
