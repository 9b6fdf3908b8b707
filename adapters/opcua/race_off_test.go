//go:build !race

package opcua_test

import (
	"strings"
	"testing"
)

// withoutRaces runs a test that has the server of awcullen tell what changes.
// Its name begins with TestInProcess: .ci/run runs those once more, without the
// race detector.
func withoutRaces(t *testing.T) {
	if !strings.HasPrefix(t.Name(), "TestInProcess") {
		t.Fatal("its name does not begin with TestInProcess")
	}
}
