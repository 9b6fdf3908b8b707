//go:build !race

package opcua_test

import "testing"

// withoutRaces runs a test that has the server of awcullen tell what changes.
func withoutRaces(*testing.T) {}
