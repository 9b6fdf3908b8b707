package opcua_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sluice/adapters/opcua"
	"sluice/adapters/sim"
	"sluice/gateway"
	"sluice/gateway/site"
)

// machine is a site whose server is browsed: what comes out has to say what
// went in.
const machine = `version: 1
site: { name: hall, writes: enabled }
cloud: { url: mqtt://127.0.0.1:1883, login: { user: gw, password: file:gw }, backlog: replay }
local: { http: none }
buses:
  plc: { type: opcua, endpoint: "opc.tcp://192.0.2.1:4840", security: None }
profiles:
  press:
    protocol: opcua
    %s
devices:
  - { name: m1, profile: press, bus: plc }
`

// points are as browse writes them: the namespace first.
const points = `namespace: urn:maker:press
points:
  mode: { node: 's="DB"."Mode"', type: uint8, enum: { 0: off, 1: "semi auto", 2: auto } }   # writable
  state: { node: 's="DB"."State"', type: int32, enum: { 0: idle, 10: running } }
  pressure: { node: 's="DB"."Cycle"."Pressure"', type: float32, unit: bar, plausible: 0..250.5 }
  cycle_time: { node: 's="DB"."Cycle"."CycleTime"', type: float64, unit: s }
  zones: { node: 's="DB"."Zones"', type: float32, count: 5, unit: °C }
  load: { node: 's="DB"."Load"', type: int16, unit: "%%" }
  name: { node: 's="DB"."Name"', type: string }   # writable
  on: { node: 's="DB"."On"', type: bool }
  started: { node: 's="DB"."Started"', type: time }
  axis_mode: { node: 's="Axis"."Mode"', type: uint64 }
`

// asSite makes a profile of points.
func asSite(t *testing.T, points string) *gateway.Site {
	t.Helper()
	points = strings.ReplaceAll(strings.ReplaceAll(points, " }   # writable", ", access: rw }"), "\n", "\n    ")
	s, diagnostics := site.Parse("hall.yaml", fmt.Appendf(nil, machine, points), site.Options{Checks: map[string]site.Check{"opcua": opcua.Check}})
	if s == nil || diagnostics.Errors() > 0 {
		var b bytes.Buffer
		diagnostics.Print(&b)
		t.Fatal(b.String())
	}
	return s
}

func browse(t *testing.T, bus *gateway.Bus, o opcua.BrowseOptions) *opcua.Tree {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tree, err := opcua.Browse(ctx, gateway.Env{Log: slog.New(slog.DiscardHandler), Dir: t.TempDir()}, bus, o)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestBrowseWritesThePointsOfASite: what a server was made of is what browse
// writes about it.
func TestBrowseWritesThePointsOfASite(t *testing.T) {
	t.Parallel()
	written := strings.ReplaceAll(points, "%%", "%")
	devices, s, err := sim.Start(asSite(t, written), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer devices.Close()
	var got bytes.Buffer
	if err := browse(t, s.Buses[0], opcua.BrowseOptions{Depth: 8, Most: 1000}).WritePoints(&got); err != nil {
		t.Fatal(err)
	}
	want, lines := strings.Split(written, "\n"), strings.Split(got.String(), "\n")
	for _, line := range want {
		if !strings.Contains(got.String(), line+"\n") && line != "" {
			t.Errorf("missing: %s", line)
		}
	}
	if len(lines) != len(want) {
		t.Errorf("%d lines, want %d:\n%s", len(lines), len(want), got.String())
	}
	asSite(t, got.String())
}

func TestBrowseShowsATree(t *testing.T) {
	t.Parallel()
	devices, s, err := sim.Start(asSite(t, strings.ReplaceAll(points, "%%", "%")), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer devices.Close()
	if err := devices.Set("m1", "mode", gateway.TextValue("auto")); err != nil {
		t.Fatal(err)
	}
	bus := s.Buses[0]
	find := func(tree *opcua.Tree, path string) *opcua.Node {
		n := tree.Root
	next:
		for step := range strings.SplitSeq(path, "/") {
			for _, c := range n.Children {
				if c.Name == step {
					n = c
					continue next
				}
			}
			t.Fatalf("no %s in %s", step, path)
		}
		return n
	}
	all := browse(t, bus, opcua.BrowseOptions{Depth: 8, Most: 1000})
	if n := find(all, "DB/Mode"); n.Value != "2 auto" || n.Access != "rw" || n.Type != "Byte" || n.URI != "urn:maker:press" || n.Path != "/Objects/DB/Mode" {
		t.Errorf("mode is %+v", n)
	}
	if n := find(all, "DB/Zones"); n.Count != 5 || n.Access != "r" || !strings.HasPrefix(n.Value, "[") {
		t.Errorf("zones is %+v", n)
	}
	if n := find(all, "Server"); !n.Closed || len(n.Children) > 0 {
		t.Errorf("the server's own object was opened: %d nodes", len(n.Children))
	}
	for _, from := range []string{"/Objects/DB/Cycle", `nsu=urn:maker:press;s="DB"."Cycle"`} {
		if part := browse(t, bus, opcua.BrowseOptions{From: from, Depth: 1, Most: 1000}); part.Nodes != 3 || part.Cut {
			t.Errorf("%s: %d nodes", from, part.Nodes)
		}
	}
	if part := browse(t, bus, opcua.BrowseOptions{Depth: 1, Most: 1000}); !find(part, "DB").Closed {
		t.Error("it is not said that there is more below DB")
	}
	if part := browse(t, bus, opcua.BrowseOptions{Depth: 8, Most: 5}); part.Nodes != 5 || !part.Cut {
		t.Errorf("%d nodes of 5, cut %v", part.Nodes, part.Cut)
	}
	for _, from := range []string{"/Objects/None", "i=999999", "nonsense"} {
		if _, err := opcua.Browse(t.Context(), gateway.Env{Log: slog.New(slog.DiscardHandler)}, bus, opcua.BrowseOptions{From: from}); err == nil {
			t.Errorf("%s was found", from)
		}
	}
}

// TestBrowseAForeignServer: node-opcua's conformance space has every type, and
// limits of 10 make every request a small one.
func TestBrowseAForeignServer(t *testing.T) {
	t.Parallel()
	p := startPeer(t, "--conformance", "--limits", "10")
	bus := &gateway.Bus{Name: "peer", Type: "opcua", Endpoint: p.endpoint, Security: "None", Timeout: time.Minute}
	tree := browse(t, bus, opcua.BrowseOptions{From: "/Objects/Simulation/Static", Depth: 8, Most: 5000})
	var text bytes.Buffer
	if err := tree.WritePoints(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"namespace: urn://node-opcua-simulator",
		"{ node: 's=Static_Scalar_Boolean', type: bool }", "{ node: 's=Static_Scalar_Int64', type: int64 }",
		"{ node: 's=Static_Array_UInt16', type: uint16, count: 10 }", "{ node: 's=Static_Scalar_LocalizedText', type: string }",
		"{ node: 's=Static_Scalar_ByteString', type: bytes }", "{ node: 's=Static_Scalar_Duration', type: float64 }",
		"{ node: 's=Static_Scalar_UInteger', type: uint64 }", "{ node: 's=Static_Scalar_DateTime', type: time }",
	} {
		if !strings.Contains(strings.ReplaceAll(text.String(), "   # writable", ""), want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
	if t.Failed() {
		t.Log(text.String()[:min(text.Len(), 10000)])
	}
	s := asSite(t, strings.ReplaceAll(text.String(), "   # writable", ""))
	if len(s.Devices[0].Points) < 100 {
		t.Errorf("%d points of %d nodes", len(s.Devices[0].Points), tree.Nodes)
	}
	readWell(t, s, p.endpoint)
}

// readWell reads all points of a site: every type of the conformance space. Its
// times hold none, and some of its numbers are out of the ranges it gives them.
func readWell(t *testing.T, s *gateway.Site, endpoint string) {
	t.Helper()
	s.Buses[0].Endpoint, s.Buses[0].Timeout = endpoint, time.Minute
	adapter, err := opcua.New(gateway.Env{Log: slog.New(slog.DiscardHandler)}, s.Buses[0], s.Devices)
	if err != nil {
		t.Fatal(err)
	}
	session, err := adapter.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	for id, sample := range readPoints(t, session, s.Devices[0].Points) {
		none := sample.Point.Type == gateway.Time && strings.HasPrefix(sample.Reason, "no value")
		beyond := sample.Point.Plausible != nil && strings.HasPrefix(sample.Reason, "implausible")
		if sample.Quality != gateway.Good && !none && !beyond {
			t.Errorf("%s (%s %s): %v: %s", id, sample.Point.Node, sample.Point.Type, sample.Quality, sample.Reason)
		}
	}
}
