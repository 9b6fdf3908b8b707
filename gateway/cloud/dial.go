package cloud

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
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
		if config, err = files.Config(u.Hostname()); err != nil {
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
