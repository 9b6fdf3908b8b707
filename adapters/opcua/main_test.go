package opcua_test

import (
	"flag"
	"os"
	"testing"
)

// Most tests wait for a server to notice something: more of them run at once
// than there are processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.parallel").Value.String() == flag.Lookup("test.parallel").DefValue {
		_ = flag.Set("test.parallel", "4")
	}
	os.Exit(m.Run())
}

// inCI skips what takes long, except in CI.
func inCI(t *testing.T) {
	t.Helper()
	if os.Getenv("CI") == "" {
		t.Skip("it takes long: set CI=true")
	}
}
