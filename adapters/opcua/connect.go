package opcua

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uasc"

	"sluice/gateway"
)

const (
	connectTime = 10 * time.Second // for all that Open does before it looks for nodes
	libraryTime = time.Minute      // for a Publish request; others have the bus's timeout
	closeTime   = time.Second
)

// connect finds out how the server wants to be spoken to, and opens channel and
// session.
func (a *Adapter) connect(ctx context.Context) (*session, error) {
	client, err := a.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", a.bus.Endpoint, err)
	}
	s := newSession(a, client)
	if a.watch != nil {
		s.resumed = a.watch.session != nil && a.watch.session == client.Session()
		a.watch.session = nil
	}
	return s, nil
}

// dial opens a connection in a goroutine of its own: the library can't be
// cancelled everywhere. It keeps deadlines, so that only a caller who gives up
// leaves something behind, which is closed by itself.
func (a *Adapter) dial(ctx context.Context) (*opcua.Client, error) {
	limited, cancel := context.WithTimeout(ctx, connectTime)
	type outcome struct {
		client *opcua.Client
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		client, err := a.enter(limited)
		done <- outcome{client, err}
	}()
	select {
	case o := <-done:
		cancel()
		return o.client, o.err
	case <-ctx.Done():
		go func() {
			if o := <-done; o.client != nil {
				closeClient(o.client, true)
			}
			cancel()
		}()
		return nil, ctx.Err()
	}
}

// enter asks for the server's endpoints, chooses one, and opens a session.
func (a *Adapter) enter(ctx context.Context) (*opcua.Client, error) {
	a.entering.Lock() // a caller who gave up may have left one that has not ended yet
	defer a.entering.Unlock()
	a.server.Store(nil)
	client, err := a.newClient(ctx, opcua.SecurityMode(ua.MessageSecurityModeNone))
	if err != nil {
		return nil, err
	}
	answer, err := client.GetEndpoints(ctx)
	if err != nil {
		closeClient(client, false)
		return nil, fmt.Errorf("ask for its endpoints: %w", words(err))
	}
	d, err := a.choose(answer.Endpoints)
	if err == nil && !d.open() {
		closeClient(client, false)
		client, err = a.secureClient(ctx, d)
	}
	if err == nil {
		err = a.openSession(ctx, client, d)
	}
	if err != nil {
		if client != nil {
			closeClient(client, false)
		}
		return nil, err
	}
	return client, nil
}

// newClient opens a channel.
func (a *Adapter) newClient(ctx context.Context, security ...opcua.Option) (*opcua.Client, error) {
	options := append(security, opcua.AutoReconnect(false), opcua.RequestTimeout(libraryTime), opcua.DialTimeout(connectTime))
	client, err := opcua.NewClient(a.bus.Endpoint, options...)
	if err != nil {
		return nil, err
	}
	if err := client.Dial(ctx); err != nil {
		closeClient(client, false)
		return nil, words(err)
	}
	return client, nil
}

// secureClient opens a channel to the certificate of an endpoint, once that is
// known to be the server's.
func (a *Adapter) secureClient(ctx context.Context, d *door) (*opcua.Client, error) {
	cert, err := a.checkServer(d.endpoint.ServerCertificate, time.Now())
	if err != nil {
		return nil, err
	}
	own, err := a.identities.get(a.env.Log, time.Now())
	if err != nil {
		return nil, err
	}
	options := []opcua.Option{opcua.SecurityFromEndpoint(d.endpoint, ua.UserTokenTypeAnonymous), opcua.Certificate(own.cert.Raw), opcua.PrivateKey(own.key)}
	if a.bus.Login.Cert != "" {
		_, key, err := a.userCertificate()
		if err != nil {
			return nil, err
		}
		options = append(options, opcua.AuthPrivateKey(key))
	}
	client, err := a.newClient(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("open a channel with %s: %w; where the server does not know the gateway, let it trust %s (%s)",
			securityName(d.endpoint), err, a.identities.path(), fingerprint(own.cert.Raw))
	}
	if err := a.keep(cert); err != nil {
		closeClient(client, false)
		return nil, err
	}
	a.server.Store(cert)
	return client, nil
}

// openSession makes a session on a channel and says who we are. The session of
// the last connection goes first: what its subscription gathered is in it.
func (a *Adapter) openSession(ctx context.Context, client *opcua.Client, d *door) error {
	if a.watch != nil && a.watch.session != nil {
		err := client.ActivateSession(ctx, a.watch.session)
		if err == nil && client.Session() != nil {
			return nil
		}
		a.env.Log.Debug("the server has forgotten the session", "error", err)
	}
	config, err := a.sessionConfig(d)
	if err != nil {
		return err
	}
	s, err := client.CreateSession(ctx, config)
	if err != nil {
		return fmt.Errorf("create a session: %w", words(err))
	}
	if s == nil {
		return errors.New("create a session: the server's signature is wrong")
	}
	if err := client.ActivateSession(ctx, s); err != nil {
		return fmt.Errorf("log in as %s: %w", a.who(), words(err))
	}
	if client.Session() != s {
		return errors.New("log in: the session could not be signed")
	}
	return nil
}

func (a *Adapter) who() string {
	switch {
	case a.bus.Login.User != "":
		return a.bus.Login.User
	case a.bus.Login.Cert != "":
		return a.bus.Login.Cert
	}
	return "anonymous"
}

// sessionConfig is what a session is asked for with.
func (a *Adapter) sessionConfig(d *door) (*uasc.SessionConfig, error) {
	config := opcua.DefaultSessionConfig()
	config.SessionTimeout = a.sessionTimeout()
	config.SessionName = "sluice " + a.bus.Name
	config.LocaleIDs = nil
	config.ClientDescription.ApplicationName = ua.NewLocalizedText("sluice")
	config.ClientDescription.ApplicationURI, config.ClientDescription.ProductURI = "urn:sluice", "urn:sluice"
	if !d.open() {
		own, err := a.identities.get(a.env.Log, time.Now())
		if err != nil {
			return nil, err
		}
		config.ClientDescription.ApplicationURI = own.uri()
	}
	config.AuthPolicyURI = tokenPolicy(d.endpoint, d.token)
	switch login := a.bus.Login; tokenType(login) {
	case ua.UserTokenTypeUserName:
		config.UserIdentityToken = &ua.UserNameIdentityToken{PolicyID: d.token.PolicyID, UserName: login.User}
		config.AuthPassword = string(login.Password)
	case ua.UserTokenTypeCertificate:
		cert, _, err := a.userCertificate()
		if err != nil {
			return nil, err
		}
		config.UserIdentityToken = &ua.X509IdentityToken{PolicyID: d.token.PolicyID, CertificateData: cert.Raw}
	default:
		config.UserIdentityToken = &ua.AnonymousIdentityToken{PolicyID: d.token.PolicyID}
	}
	return config, nil
}

// userCertificate reads the certificate that the user logs in with.
func (a *Adapter) userCertificate() (*x509.Certificate, *rsa.PrivateKey, error) {
	content, err := gateway.ReadPEM(a.bus.Login.Cert)
	if err != nil {
		return nil, nil, fmt.Errorf("read login.cert: %w", err)
	}
	cert, err := parseCertificate(content)
	if err != nil {
		return nil, nil, fmt.Errorf("read login.cert %s: %w", a.bus.Login.Cert, err)
	}
	if content, err = gateway.ReadPEM(string(a.bus.Login.Key)); err != nil {
		return nil, nil, fmt.Errorf("read login.key: %w", err)
	}
	key, err := parseKey(content)
	if err != nil {
		return nil, nil, fmt.Errorf("read login.key: %w", err)
	}
	return cert, key, nil
}

const defaultSessionTimeout = time.Minute

func (a *Adapter) sessionTimeout() time.Duration {
	if a.bus.SessionTimeout > 0 {
		return a.bus.SessionTimeout
	}
	return defaultSessionTimeout
}

// closeClient closes a connection; goodbye tells the server that the session
// is over, else it is left to the next connection.
func closeClient(client *opcua.Client, goodbye bool) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if !goodbye {
		_, _ = client.DetachSession(ctx)
	}
	_ = client.Close(ctx)
}
