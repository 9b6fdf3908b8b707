// Package configs_test proves what the folder promises: every example loads
// and passes its checks, the examples show every key of the language, and what
// a profile says about a device is what the device means.
package configs_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/adapters/modbus"
	"sluice/adapters/opcua"
	"sluice/configs"
	"sluice/gateway"
	"sluice/gateway/site"
)

func options(t *testing.T) site.Options {
	t.Helper()
	builtin, err := fs.Sub(configs.FS, "profiles")
	if err != nil {
		t.Fatal(err)
	}
	return site.Options{Checks: map[string]site.Check{"modbus": modbus.Check, "opcua": opcua.Check}, Builtin: builtin}
}

// load loads a site that has to be without errors.
func load(t *testing.T, path string) (*gateway.Site, site.Diagnostics) {
	t.Helper()
	loaded, diagnostics := site.Load(path, options(t))
	if loaded == nil || diagnostics.Errors() > 0 {
		var b strings.Builder
		diagnostics.Print(&b)
		t.Fatal("\n" + b.String())
	}
	return loaded, diagnostics
}

// loadProfile loads a small site with one device of a built-in profile, named
// device, on a Modbus TCP bus; more are further keys of the device.
func loadProfile(t *testing.T, profile string, more ...string) *gateway.Site {
	t.Helper()
	path := filepath.Join(t.TempDir(), "site.yaml")
	text := fmt.Sprintf(`version: 1
site: { name: test }
cloud: { url: "mqtt://127.0.0.1:1883", login: { user: test, password: secret:test }, confirm: puback, backlog: replay }
local: { http: none }
buses: { bus: { type: modbus-tcp, host: 127.0.0.1 } }
profiles: { model: "builtin:%s" }
devices: [ { name: device, profile: model, bus: bus, unit: 1%s } ]
`, profile, strings.Join(append([]string{""}, more...), ", "))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, diagnostics := load(t, path)
	for _, d := range diagnostics {
		t.Errorf("warning: %s", d)
	}
	return loaded
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %v, %v", pattern, paths, err)
	}
	return paths
}

// stem is a file's name without folder and extension.
func stem(path string) string { return strings.TrimSuffix(filepath.Base(path), ".yaml") }

func TestEveryExampleLoadsWithoutErrors(t *testing.T) {
	for _, path := range glob(t, "*.yaml") {
		t.Run(stem(path), func(t *testing.T) { load(t, path) })
	}
}

// Newcomers copy from these: they are without warnings too.
func TestExamplesToCopyFromHaveNoWarnings(t *testing.T) {
	for _, path := range []string{"energy-meter.yaml", "moulding-machine.yaml", "pump-drive.yaml"} {
		_, diagnostics := load(t, path)
		for _, d := range diagnostics {
			t.Errorf("%s", d)
		}
	}
}

// A copy of a profile may be handed out alone, so it names source and licence
// itself, and the licence lies beside it.
func TestEveryProfileNamesItsSourceAndLicence(t *testing.T) {
	for _, path := range glob(t, "profiles/*.yaml") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, file, ok := strings.Cut(string(text), "LICENSES/")
		file, _, _ = strings.Cut(file, ".txt")
		if _, err := os.Stat("profiles/LICENSES/" + file + ".txt"); !ok || err != nil {
			t.Errorf("%s names no licence that is there: %v", path, err)
		}
		for _, word := range []string{"# Source:", "# Checked:"} {
			if !strings.Contains(string(text), word) {
				t.Errorf("%s has no line %s", path, word)
			}
		}
	}
}
