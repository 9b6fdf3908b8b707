package opcua

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"

	"sluice/gateway"
)

const (
	connectTime = 10 * time.Second // for all that Open does before it looks for nodes
	publishTime = time.Minute      // for a Publish request; others have the bus's timeout
	closeTime   = time.Second
)

// ticket is what a server gave for a session, which can be shown again on
// another channel.
type ticket struct {
	door        *door
	token       *ua.NodeID
	certificate []byte        // the server's
	nonce       []byte        // the server's last
	timeout     time.Duration // without a request, until the server ends the session
	unanswered  bool          // shown once, without any answer
}

// connect finds out how the server wants to be spoken to, and opens channel and
// session.
func (a *Adapter) connect(ctx context.Context) (*session, error) {
	limited, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	s, err := a.enter(limited)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", a.bus.Endpoint, cmp.Or(ctx.Err(), err))
	}
	return s, nil
}

// enter asks for the server's endpoints, chooses one, and opens a session.
func (a *Adapter) enter(ctx context.Context) (*session, error) {
	a.server.Store(nil)
	c, err := openChannel(ctx, a.bus.Endpoint, &channel{policy: ua.SecurityPolicyURINone, mode: ua.MessageSecurityModeNone, lifetime: a.lifetime})
	if err != nil {
		return nil, words(err)
	}
	d, err := a.ask(ctx, c)
	if err == nil && !d.open() {
		c.close()
		if c, err = a.secureChannel(ctx, d); err != nil {
			return nil, err
		}
	}
	var s *session
	if err == nil {
		s, err = a.openSession(ctx, c, d)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return s, nil
}

// ask asks for the server's endpoints and chooses one.
func (a *Adapter) ask(ctx context.Context, c *channel) (*door, error) {
	answer, err := sendTo[ua.GetEndpointsResponse](ctx, c, nil, &ua.GetEndpointsRequest{EndpointURL: a.bus.Endpoint})
	if err != nil {
		return nil, fmt.Errorf("ask for its endpoints: %w", words(err))
	}
	return a.choose(answer.Endpoints)
}

// secureChannel opens a channel to the certificate of an endpoint, once that is
// known to be the server's.
func (a *Adapter) secureChannel(ctx context.Context, d *door) (*channel, error) {
	cert, err := a.checkServer(d.endpoint.ServerCertificate, time.Now())
	if err != nil {
		return nil, err
	}
	own, err := a.identities.get(a.env.Log, time.Now())
	if err != nil {
		return nil, err
	}
	a.warnOfEnd("the gateway", own.cert, time.Now())
	c, err := openChannel(ctx, a.bus.Endpoint, &channel{policy: d.endpoint.SecurityPolicyURI, mode: d.endpoint.SecurityMode, own: own, server: cert, lifetime: a.lifetime})
	if err != nil {
		return nil, fmt.Errorf("open a channel with %s: %w; where the server does not know the gateway, let it trust %s (%s)",
			securityName(d.endpoint), words(err), a.identities.path(), fingerprint(own.cert.Raw))
	}
	if err := a.keep(cert); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// openSession makes a session on a channel and says who we are. The session of
// the last connection goes first: what its subscription gathered is in it.
func (a *Adapter) openSession(ctx context.Context, c *channel, d *door) (*session, error) {
	if a.watch != nil && a.watch.ticket != nil && sameSecurity(a.watch.ticket.door, d) {
		t := a.watch.ticket
		t.door = d
		err := a.activate(ctx, c, t)
		var code ua.StatusCode
		if err != nil && !errors.As(err, &code) && !t.unanswered {
			t.unanswered = true
			return nil, fmt.Errorf("go on with the session: %w", words(err))
		}
		a.watch.ticket, t.unanswered = nil, false
		if err == nil {
			s := newSession(a, c, t)
			s.resumed = true
			return s, nil
		}
		a.env.Log.Debug("the server has forgotten the session", "error", words(err))
	}
	t, err := a.createSession(ctx, c, d)
	if err != nil {
		return nil, fmt.Errorf("create a session: %w", words(err))
	}
	if err := a.activate(ctx, c, t); err != nil {
		return nil, fmt.Errorf("log in as %s: %w", a.who(), words(err))
	}
	return newSession(a, c, t), nil
}

// createSession asks for a session. On a secured channel the server signs its
// answer.
func (a *Adapter) createSession(ctx context.Context, c *channel, d *door) (*ticket, error) {
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	request := &ua.CreateSessionRequest{
		ClientDescription: &ua.ApplicationDescription{ApplicationURI: "urn:sluice", ProductURI: "urn:sluice", ApplicationName: ua.NewLocalizedText("sluice"), ApplicationType: ua.ApplicationTypeClient},
		EndpointURL:       a.bus.Endpoint, SessionName: "sluice " + a.bus.Name, ClientNonce: nonce, RequestedSessionTimeout: milliseconds(a.sessionTimeout()),
	}
	if c.secured() {
		request.ClientDescription.ApplicationURI, request.ClientCertificate = c.own.uri(), c.own.cert.Raw
	}
	answer, err := sendTo[ua.CreateSessionResponse](ctx, c, nil, request)
	if err != nil {
		return nil, err
	}
	if c.secured() {
		asymmetric, err := c.asymmetric()
		if err != nil {
			return nil, err
		}
		if asymmetric.algorithm.VerifySignature(slices.Concat(c.own.cert.Raw, nonce), answer.ServerSignature.Signature) != nil {
			return nil, errors.New("the server's signature is wrong")
		}
		if best, _ := a.best(answer.ServerEndpoints); best != nil && a.isStronger(best, d) {
			return nil, fmt.Errorf("the server offers %s, and said unsigned that it does not: somebody may stand in between", best)
		}
	}
	timeout := a.sessionTimeout()
	if revised := answer.RevisedSessionTimeout; revised > 0 && revised < milliseconds(timeout) {
		timeout = max(time.Duration(revised)*time.Millisecond, shortestTimeout)
	}
	return &ticket{door: d, token: answer.AuthenticationToken, certificate: answer.ServerCertificate, nonce: answer.ServerNonce, timeout: timeout}, nil
}

// activate shows a ticket on a channel, and who the user is.
func (a *Adapter) activate(ctx context.Context, c *channel, t *ticket) error {
	request := &ua.ActivateSessionRequest{ClientSignature: &ua.SignatureData{}, UserTokenSignature: &ua.SignatureData{}}
	if c.secured() {
		asymmetric, err := c.asymmetric()
		if err == nil {
			request.ClientSignature, err = sign(asymmetric.algorithm, t)
		}
		if err != nil {
			return err
		}
	}
	cert, err := a.identify(c, t, request)
	if err != nil {
		return err
	}
	answer, err := sendTo[ua.ActivateSessionResponse](ctx, c, t.token, request)
	if err != nil {
		return err
	}
	t.nonce = answer.ServerNonce
	if cert == nil {
		return nil
	}
	return a.keep(cert) // it took a login that was meant for its owner
}

func sign(algorithm *uapolicy.EncryptionAlgorithm, t *ticket) (*ua.SignatureData, error) {
	signature, err := algorithm.Signature(slices.Concat(t.certificate, t.nonce))
	return &ua.SignatureData{Algorithm: algorithm.SignatureURI(), Signature: signature}, err
}

// identify puts into a request who the user is. Where that is hidden or signed
// for the server, its certificate has to be the trusted one, also on a channel
// without security: then it is given.
func (a *Adapter) identify(c *channel, t *ticket, request *ua.ActivateSessionRequest) (shown *x509.Certificate, err error) {
	login, id, policy := a.bus.Login, t.door.token.PolicyID, tokenPolicy(t.door.endpoint, t.door.token)
	server := c.server
	if server == nil && policy != ua.SecurityPolicyURINone && tokenType(login) != ua.UserTokenTypeAnonymous {
		if shown, err = a.checkServer(t.certificate, time.Now()); err != nil {
			return nil, err
		}
		server = shown
	}
	switch tokenType(login) {
	case ua.UserTokenTypeUserName:
		token := &ua.UserNameIdentityToken{PolicyID: id, UserName: login.User, Password: []byte(login.Password)}
		if policy != ua.SecurityPolicyURINone {
			algorithm, err := asymmetric(policy, nil, server)
			if err != nil {
				return nil, err
			}
			secret := binary.LittleEndian.AppendUint32(nil, uint32(len(login.Password)+len(t.nonce)))
			if token.Password, err = algorithm.Encrypt(slices.Concat(secret, []byte(login.Password), t.nonce)); err != nil {
				return nil, err
			}
			token.EncryptionAlgorithm = algorithm.EncryptionURI()
		}
		request.UserIdentityToken = ua.NewExtensionObject(token)
	case ua.UserTokenTypeCertificate:
		cert, key, err := a.userCertificate()
		if err != nil {
			return nil, err
		}
		algorithm, err := asymmetric(policy, key, server)
		if err != nil {
			return nil, err
		}
		if request.UserTokenSignature, err = sign(algorithm, t); err != nil {
			return nil, err
		}
		request.UserIdentityToken = ua.NewExtensionObject(&ua.X509IdentityToken{PolicyID: id, CertificateData: cert.Raw})
	default:
		request.UserIdentityToken = ua.NewExtensionObject(&ua.AnonymousIdentityToken{PolicyID: id})
	}
	return shown, nil
}

// asymmetric is how a policy signs with a key and encrypts for a server.
func asymmetric(policy string, key *rsa.PrivateKey, server *x509.Certificate) (*uapolicy.EncryptionAlgorithm, error) {
	public, ok := server.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("the server's certificate has no RSA key")
	}
	return uapolicy.Asymmetric(policy, key, public)
}

// leave tells the server that the session is over.
func (s *session) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_, _ = send[ua.CloseSessionResponse](ctx, s, &ua.CloseSessionRequest{DeleteSubscriptions: true})
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

const (
	defaultSessionTimeout = time.Minute
	shortestTimeout       = time.Second // however short a server makes it
)

func (a *Adapter) sessionTimeout() time.Duration {
	if a.bus.SessionTimeout > 0 {
		return a.bus.SessionTimeout
	}
	return defaultSessionTimeout
}
