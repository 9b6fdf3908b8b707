package opcua

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gopcua/opcua/ua"

	"sluice/gateway"
)

// policies are the security policies that we use, the best first.
var policies = []string{ua.SecurityPolicyURIAes256Sha256RsaPss, ua.SecurityPolicyURIAes128Sha256RsaOaep, ua.SecurityPolicyURIBasic256Sha256}

// door is how a session is secured and who its user is.
type door struct {
	endpoint *ua.EndpointDescription
	token    *ua.UserTokenPolicy
}

// String is how it is written in the site file.
func (d *door) String() string { return securityName(d.endpoint) }

// sameSecurity tells whether a session of one door may go on at another one.
func sameSecurity(a, b *door) bool {
	return securityName(a.endpoint) == securityName(b.endpoint) && tokenPolicy(a.endpoint, a.token) == tokenPolicy(b.endpoint, b.token)
}

// isStronger tells whether a door is better secured than another one.
func (a *Adapter) isStronger(best, d *door) bool {
	return cmp.Or(cmp.Compare(a.rank(best.endpoint), a.rank(d.endpoint)), cmp.Compare(tokenRank(best.endpoint, best.token), tokenRank(d.endpoint, d.token))) > 0
}

func (d *door) open() bool { return d.endpoint.SecurityMode == ua.MessageSecurityModeNone }

// tokenTypes are the ways in which a login is shown to a server.
func tokenType(l gateway.BusLogin) ua.UserTokenType {
	switch {
	case l.User != "":
		return ua.UserTokenTypeUserName
	case l.Cert != "":
		return ua.UserTokenTypeCertificate
	}
	return ua.UserTokenTypeAnonymous
}

// choose takes the endpoint that the site file asks for; auto is the strongest
// that there is. What a server offers comes unsigned: auto takes None only
// where nothing was trusted before and no password would travel.
func (a *Adapter) choose(offered []*ua.EndpointDescription) (*door, error) {
	best, why := a.best(offered)
	switch {
	case best == nil && why != "":
		return nil, errors.New(why)
	case best == nil:
		return nil, fmt.Errorf("the server does not offer security %s, but %s", a.security(), offers(offered))
	case best.open() && a.security() == "auto":
		if err := a.mayBeOpen(); err != nil {
			return nil, err
		}
	}
	return best, nil
}

// best is the strongest door of those that the site file allows, or why the
// login fits none.
func (a *Adapter) best(offered []*ua.EndpointDescription) (best *door, why string) {
	bestRank := 0
	for _, e := range offered {
		rank := a.rank(e)
		if rank == 0 {
			continue
		}
		token, reason := a.tokenFor(e)
		if token == nil {
			why = cmp.Or(why, reason)
		} else if rank > bestRank {
			best, bestRank = &door{endpoint: e, token: token}, rank
		}
	}
	return best, why
}

func (a *Adapter) security() string {
	if a.bus.Security == "" {
		return "auto"
	}
	return a.bus.Security
}

// mayBeOpen tells whether auto may go on without security where a server offers
// nothing else.
func (a *Adapter) mayBeOpen() error {
	const instead = "the server offers no security now, only None"
	pinned, err := a.pinned()
	switch {
	case a.bus.Login.User != "":
		return errors.New(instead + ", and the password would be sent over it: write security: None where that is meant")
	case err != nil:
		return err
	case pinned != nil:
		return errors.New(instead + ", though it has a certificate that is trusted: somebody may stand in between")
	}
	a.env.Log.Warn("the server offers no security: anybody on the network can read and change what is sent")
	return nil
}

// rank is how good an endpoint is; 0 where it is not what the site file asks
// for.
func (a *Adapter) rank(e *ua.EndpointDescription) int {
	if e.TransportProfileURI != "" && !strings.HasSuffix(e.TransportProfileURI, "/uatcp-uasc-uabinary") {
		return 0
	}
	if a.security() != "auto" && a.security() != securityName(e) {
		return 0
	}
	i := slices.Index(policies, e.SecurityPolicyURI)
	switch {
	case e.SecurityMode == ua.MessageSecurityModeNone && e.SecurityPolicyURI == ua.SecurityPolicyURINone:
		return 1
	case i < 0:
		return 0
	case e.SecurityMode == ua.MessageSecurityModeSign:
		return 10 - i
	case e.SecurityMode == ua.MessageSecurityModeSignAndEncrypt:
		return 20 - i
	}
	return 0
}

// securityName is an endpoint's security as the site file writes it.
func securityName(e *ua.EndpointDescription) string {
	name := e.SecurityPolicyURI[strings.LastIndex(e.SecurityPolicyURI, "#")+1:]
	switch e.SecurityMode {
	case ua.MessageSecurityModeSign:
		return name + "/Sign"
	case ua.MessageSecurityModeSignAndEncrypt:
		return name + "/SignAndEncrypt"
	}
	return name
}

func offers(offered []*ua.EndpointDescription) string {
	var names []string
	for _, e := range offered {
		if name := securityName(e); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}

// tokenFor finds how the bus's login is shown on an endpoint, the best way of
// several, or why it can't be. Only where the site file says None does a
// password go out in clear; a certificate has to sign something.
func (a *Adapter) tokenFor(e *ua.EndpointDescription) (*ua.UserTokenPolicy, string) {
	want := tokenType(a.bus.Login)
	var best *ua.UserTokenPolicy
	var kinds []string
	why := ""
	for _, t := range e.UserIdentityTokens {
		if kind := loginName(t.TokenType); !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
		policy := tokenPolicy(e, t)
		known := slices.Contains(policies, policy)
		switch {
		case t.TokenType != want:
		case want == ua.UserTokenTypeCertificate && !known:
			why = "the server lets nobody sign a login by certificate in a way that is still secure"
		case want == ua.UserTokenTypeUserName && policy == ua.SecurityPolicyURINone && e.SecurityMode != ua.MessageSecurityModeSignAndEncrypt && a.security() != "None":
			why = "the server would take the password in clear only: write security: None where that is meant"
		case want == ua.UserTokenTypeUserName && !known && policy != ua.SecurityPolicyURINone:
			why = "the server takes the password in a way only that is no longer secure: " + policy
		case best == nil || tokenRank(e, t) > tokenRank(e, best):
			best = t
		}
	}
	switch {
	case best != nil:
		return best, ""
	case len(kinds) == 0:
		why = "the server lets nobody in with security " + securityName(e)
	case why == "":
		why = fmt.Sprintf("the server does not let %s in with security %s, but %s", loginName(want), securityName(e), strings.Join(kinds, ", "))
	}
	return nil, why
}

// tokenRank is how good a way to show a login is.
func tokenRank(e *ua.EndpointDescription, t *ua.UserTokenPolicy) int {
	if i := slices.Index(policies, tokenPolicy(e, t)); i >= 0 {
		return len(policies) - i
	}
	return 0
}

func loginName(t ua.UserTokenType) string {
	switch t {
	case ua.UserTokenTypeAnonymous:
		return "anonymous"
	case ua.UserTokenTypeUserName:
		return "user and password"
	case ua.UserTokenTypeCertificate:
		return "a certificate"
	}
	return "an issued token"
}

// tokenPolicy is the security policy of what a token hides or signs.
func tokenPolicy(e *ua.EndpointDescription, t *ua.UserTokenPolicy) string {
	if t.SecurityPolicyURI != "" {
		return t.SecurityPolicyURI
	}
	return e.SecurityPolicyURI
}
