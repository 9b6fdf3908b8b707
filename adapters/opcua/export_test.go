package opcua

import (
	"time"

	"sluice/gateway"
)

// DecodeAnswer is what every message of a server goes through.
var DecodeAnswer = decodeAnswer

// RenewKeys makes the keys of an adapter's channels last that long.
func RenewKeys(a gateway.Adapter, lifetime time.Duration) { a.(*Adapter).lifetime = lifetime }
