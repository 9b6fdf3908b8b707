package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"sluice/gateway/cloud/twin"
)

// oven is a site with an alarm of an OPC UA server.
const oven = `version: 1
site: { name: bakery }
cloud: { url: %s, login: { user: gate, password: secret:gate }, min_interval: 0s, backlog: replay }
buffer: { path: buffer.db, max_size: 8MB, min_free_disk: 1MB, flush: 200ms }
local: { http: none }
buses:
  oven: { type: opcua, endpoint: "%s", security: None }
devices:
  - name: oven
    bus: oven
    protocol: opcua
    poll: 100ms
    points: { heat: { browse: /Objects/oven/heat, type: float64, unit: °C } }
    events: { hot: { opcua: { source: i=2253, severity: 1 }, params: [heat], severity: alarm } }
`

// TestAnAlarmOfAForeignServerReachesTheCloud: from node-opcua to the broker, one
// that was on before the gateway came too.
func TestAnAlarmOfAForeignServerReachesTheCloud(t *testing.T) {
	t.Parallel()
	home, _ := os.UserHomeDir()
	modules := cmp.Or(os.Getenv("SLUICE_NODE_MODULES"), filepath.Join(home, ".cache", "sluice", "node_modules"))
	if _, err := os.Stat(filepath.Join(modules, "node-opcua-server")); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("node-opcua is missing: %v", err)
		}
		t.Skipf("node-opcua is missing: %v", err)
	}
	node := exec.CommandContext(t.Context(), "node", "../../adapters/opcua/testdata/node-opcua/server.js", "--pki", t.TempDir(), "--alarm")
	node.Env = append(os.Environ(), "NODE_PATH="+modules)
	commands, err := node.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { commands.Close(); _ = node.Wait() })
	answers := json.NewDecoder(out)
	do := func(command string) (answer struct{ Endpoint, Error string }) {
		t.Helper()
		if _, err := io.WriteString(commands, command); err != nil {
			t.Fatal(err)
		}
		if err := answers.Decode(&answer); err != nil || answer.Error != "" {
			t.Fatalf("%s: %v %s", command, err, answer.Error)
		}
		return answer
	}
	endpoint := do("").Endpoint
	platform, err := twin.Start(twin.Options{Users: map[string]string{"gate": "g"}, Respond: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(platform.Stop)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "secrets", "gate"), "g")
	p := &plant{twin: platform, path: filepath.Join(dir, "site.yaml")}
	write(t, p.path, fmt.Sprintf(oven, platform.URL(), endpoint))

	do("heat 200\n")
	run := sluice(t, "run", "--site", p.path)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = run.Process.Signal(syscall.SIGTERM)
		_ = run.Wait()
	}()
	first := p.waitEvents(t, "gate", "oven_hot")[0].Params
	if first["active"] != true || first["source"] != "1:oven" || first["message"] == "" || first["severity"] == nil || first["event_id"] == nil {
		t.Errorf("the first event has %v", first)
	}
	do("heat 20\n")
	if last := p.waitEvents(t, "gate", "oven_hot oven_hot")[1].Params; last["active"] != false {
		t.Errorf("the last event has %v", last)
	}
}
