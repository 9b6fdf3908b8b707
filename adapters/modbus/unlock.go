package modbus

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// unlock writes what a device wants to see before a write: once, in the order
// of the profile. No error tells a secret, nor bytes that it could be in.
func (s *session) unlock(ctx context.Context, d *gateway.Device) error {
	rule := d.Profile.Unlock
	if rule == nil {
		return errors.New("the point needs unlock, and the profile does not say how")
	}
	for _, def := range d.Profile.Points {
		if secret := rule.Write[def.ID]; secret != nil {
			if err := s.writeSecret(ctx, d, def.ID, *secret); wire.Broken(err) {
				return err
			} else if err != nil {
				return &gateway.WriteError{Err: fmt.Errorf("unlock by %s: %w", def.ID, err)}
			}
		}
	}
	return nil
}

func (s *session) writeSecret(ctx context.Context, d *gateway.Device, id string, secret gateway.Secret) error {
	at, err := s.atlas.find(d, id)
	if err != nil {
		return err
	}
	if _, err := writeTarget(at); err != nil {
		return err
	}
	value, err := secretValue(at.point.Type, string(secret))
	if err != nil {
		return err
	}
	var pdu []byte
	change, err := s.patchOf(ctx, at, value)
	if err == nil {
		pdu, err = s.writeRequest(ctx, change)
	}
	switch {
	case wire.Broken(err) || ctx.Err() != nil:
		return err
	case err != nil:
		return errSecret
	}
	if err = s.put(ctx, d, pdu); errors.Is(err, wire.ErrTimeout) {
		return errors.New("no valid answer")
	}
	return err
}

var errSecret = errors.New("the secret does not fit the point")

// secretValue is the value that a secret's text means for a point.
func secretValue(typ gateway.Type, text string) (gateway.Value, error) {
	switch typ {
	case gateway.String:
		return gateway.TextValue(text), nil
	case gateway.Bytes:
		if b, err := hex.DecodeString(text); err == nil {
			return gateway.BlobValue(b), nil
		}
		return gateway.Value{}, errSecret
	case gateway.Bool:
		if text == "true" || text == "false" {
			return gateway.BoolValue(text == "true"), nil
		}
		return gateway.Value{}, errSecret
	}
	if n, err := gateway.ParseInt(text); err == nil {
		return gateway.IntValue(n), nil
	}
	var d gateway.Decimal
	if d.UnmarshalText([]byte(text)) != nil {
		return gateway.Value{}, errSecret
	}
	return gateway.FloatValue(d.Float), nil
}
