package opcua

import (
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"

	"sluice/gateway"
)

// DecodeAnswer is what every message of a server goes through.
var DecodeAnswer = decodeAnswer

// RenewKeys makes the keys of an adapter's channels last that long.
func RenewKeys(a gateway.Adapter, lifetime time.Duration) { a.(*Adapter).lifetime = lifetime }

// Seal and Unseal protect the chunks of a server of the tests.
func Seal(a *uapolicy.EncryptionAlgorithm, encrypts bool, head, rest []byte) ([]byte, error) {
	return protection{a, true, encrypts}.seal(head, rest)
}

func Unseal(a *uapolicy.EncryptionAlgorithm, encrypts bool, chunk []byte, head int) ([]byte, error) {
	return protection{a, true, encrypts}.unseal(chunk, head)
}

// TakeWithKeys takes a chunk of channel 1 without security, where the keys 1
// are good until then.
func TakeWithKeys(until time.Time, chunk []byte) error {
	c := &channel{id: 1, mode: ua.MessageSecurityModeNone, tokens: []*token{{id: 1, until: until}}}
	return c.take(chunk)
}

// Choose tells which of the endpoints that are offered an adapter takes.
func Choose(a gateway.Adapter, offered ...string) (string, error) {
	var endpoints []*ua.EndpointDescription
	modes := map[string]ua.MessageSecurityMode{"": ua.MessageSecurityModeNone, "Sign": ua.MessageSecurityModeSign, "SignAndEncrypt": ua.MessageSecurityModeSignAndEncrypt}
	for _, o := range offered {
		policy, mode, _ := strings.Cut(o, "/")
		endpoints = append(endpoints, &ua.EndpointDescription{
			SecurityPolicyURI: ua.FormatSecurityPolicyURI(policy), SecurityMode: modes[mode],
			UserIdentityTokens: []*ua.UserTokenPolicy{{PolicyID: "a", TokenType: ua.UserTokenTypeAnonymous}}})
	}
	d, err := a.(*Adapter).choose(endpoints)
	if err != nil {
		return "", err
	}
	return d.String(), nil
}

// Timed is the time of a point's value that is heard now.
func Timed(a gateway.Adapter, p *gateway.Point, source, server, now time.Time, late bool) time.Time {
	s := &session{Adapter: a.(*Adapter)}
	return s.timeOf(&node{place: s.places[p]}, &ua.DataValue{SourceTimestamp: source, ServerTimestamp: server}, time.Time{}, now, late)
}
