package opcua

import (
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

// Choose tells which endpoint an adapter takes of those that are offered.
func Choose(a gateway.Adapter, offered []*ua.EndpointDescription) (string, error) {
	d, err := a.(*Adapter).choose(offered)
	if err != nil {
		return "", err
	}
	return d.String(), nil
}
