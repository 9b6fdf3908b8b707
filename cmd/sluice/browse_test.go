package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/adapters/opcua"
	"sluice/adapters/sim"
	"sluice/gateway/site"
)

// TestBrowse browses a simulated server by a site file.
func TestBrowse(t *testing.T) {
	t.Parallel()
	const text = `version: 1
site: { name: hall }
cloud: { url: "mqtt://127.0.0.1:1883", login: { user: gw, password: secret:not-here }, confirm: puback, backlog: replay }
buffer: { path: buffer.db, max_size: 8MB }
local: { http: none }
buses:
  plc: { type: opcua, endpoint: "opc.tcp://127.0.0.1:4840", security: None }
  rtu: { type: modbus-tcp, host: 127.0.0.1 }
profiles:
  oven: { protocol: opcua, namespace: urn:oven, points: { temp: { node: 's="Oven"."Temp"', type: float32, unit: °C } } }
devices:
  - { name: oven, profile: oven, bus: plc }
`
	s, found := site.Parse("site.yaml", []byte(text), siteOptions())
	if s == nil {
		t.Fatal(found)
	}
	devices, s, err := sim.Start(s, sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer devices.Close()
	path := filepath.Join(t.TempDir(), "site.yaml")
	if err := os.WriteFile(path, []byte(strings.Replace(text, "opc.tcp://127.0.0.1:4840", s.Buses[0].Endpoint, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		root := rootCommand()
		root.SetArgs(append([]string{"browse", "--site", path}, args...))
		root.SetOut(&out)
		root.SetErr(&out)
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	tree, err := run("plc")
	if err != nil || !strings.Contains(tree, "namespace 2: urn:oven\n") || !strings.Contains(tree, `ns=2;s="Oven"."Temp"`) || !strings.Contains(tree, "  Float ") {
		t.Errorf("%v\n%s", err, tree)
	}
	points, err := run("plc", "/Objects/Oven", "--yaml")
	if want := "namespace: urn:oven\npoints:\n  temp: { node: 's=\"Oven\".\"Temp\"', type: float32, unit: °C }\n"; err != nil || points != want {
		t.Errorf("%v\n%s", err, points)
	}
	var decoded opcua.Tree
	if answer, err := run("plc", "--json", "--depth", "2"); err != nil || json.Unmarshal([]byte(answer), &decoded) != nil || decoded.Nodes < 3 {
		t.Errorf("%v\n%s", err, answer)
	}
	for args, want := range map[string]string{"none": "it has plc, rtu", "rtu": "only OPC UA servers", "plc /Objects/None": "there is no None"} {
		if _, err := run(strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}
