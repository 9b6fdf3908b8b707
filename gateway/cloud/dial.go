package cloud

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"sluice/gateway"
)

// address reads the broker's URL and fills in the port of its scheme.
func address(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("cloud address: %w", err)
	}
	port := ""
	switch u.Scheme {
	case "mqtt":
		port = "1883"
	case "mqtts":
		port = "8883"
	case "ws", "wss":
	default:
		return nil, fmt.Errorf("cloud address %s: the scheme is none of mqtt, mqtts, ws and wss", u.Redacted())
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("cloud address %s names no host", u.Redacted())
	}
	if u.Port() == "" && port != "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

func secure(u *url.URL) bool { return u.Scheme == "mqtts" || u.Scheme == "wss" }

// dial opens the connection, including its TLS handshake, within ctx.
func dial(ctx context.Context, u *url.URL, files *gateway.TLS, within time.Duration) (net.Conn, error) {
	var config *tls.Config
	if secure(u) {
		var err error
		if config, err = tlsConfig(files, u.Hostname()); err != nil {
			return nil, err
		}
	}
	var d net.Dialer
	switch u.Scheme {
	case "mqtts":
		return (&tls.Dialer{NetDialer: &d, Config: config}).DialContext(ctx, "tcp", u.Host)
	case "ws", "wss":
		return mqtt.NewWebsocket(u.String(), config, within, nil, nil)
	}
	return d.DialContext(ctx, "tcp", u.Host)
}

// tlsConfig reads the files for each connection anew, so that a renewed
// certificate needs no restart.
func tlsConfig(files *gateway.TLS, host string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if files == nil {
		return config, nil
	}
	if files.ServerName != "" {
		config.ServerName = files.ServerName
	}
	if files.CA != "" {
		ca, err := pem(files.CA)
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
	cert, err := pem(files.Cert)
	if err != nil {
		return nil, fmt.Errorf("read cert: %w", err)
	}
	key, err := pem(string(files.Key))
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

// pem is the text itself where it is PEM, else the content of the file.
func pem(text string) ([]byte, error) {
	if strings.Contains(text, "-----BEGIN ") {
		return []byte(text), nil
	}
	return os.ReadFile(strings.TrimPrefix(text, "file:"))
}
