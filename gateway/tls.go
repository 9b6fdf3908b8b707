package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
)

// Config reads the files; done for each connection anew, a renewed certificate
// needs no restart. What the other side shows is checked against ca, or the
// system's authorities, and its name; there is no way around that. A nil TLS
// has no files.
func (files *TLS) Config(host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if files == nil {
		return config, nil
	}
	if files.ServerName != "" {
		config.ServerName = files.ServerName
	}
	if files.CA != "" {
		ca, err := ReadPEM(files.CA)
		if err != nil {
			return nil, fmt.Errorf("read ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("ca %s holds no certificate", files.CA)
		}
	}
	if files.Cert == "" {
		return config, nil
	}
	cert, err := ReadPEM(files.Cert)
	if err != nil {
		return nil, fmt.Errorf("read cert: %w", err)
	}
	key, err := ReadPEM(string(files.Key))
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("cert %s and its key: %w", files.Cert, err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}

// ReadPEM is the text itself where it is PEM, else the content of the file.
func ReadPEM(text string) ([]byte, error) {
	if strings.Contains(text, "-----BEGIN ") {
		return []byte(text), nil
	}
	return os.ReadFile(strings.TrimPrefix(text, "file:"))
}
