package sim_test

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	client "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"sluice/adapters/sim"
	"sluice/configs"
	"sluice/gateway"
	"sluice/gateway/site"
)

// hall has two machines on one OPC UA server, and one of each kind of address
// and type.
const hall = `version: 1
site: { name: hall, writes: enabled }
cloud: { url: mqtt://127.0.0.1:1883, login: { user: gw, password: file:gw }, backlog: replay }
local: { http: none }
buses:
  plc: { type: opcua, endpoint: "opc.tcp://192.0.2.1:4840" }
profiles:
  press:
    protocol: opcua
    namespace: urn:maker:press
    points:
      on:       { node: 's="{db}"."On"', type: bool }
      i8:       { node: 's="{db}"."Numbers"."I8"', type: int8 }
      u8:       { node: 's="{db}"."Numbers"."U8"', type: uint8 }
      i16:      { node: 's="{db}"."Numbers"."I16"', type: int16 }
      u16:      { node: 's="{db}"."Numbers"."U16"', type: uint16 }
      i32:      { node: 's="{db}"."Numbers"."I32"', type: int32, access: rw, unbounded: true }
      u32:      { node: 's="{db}"."Numbers"."U32"', type: uint32 }
      i64:      { node: 's="{db}"."Numbers"."I64"', type: int64, access: rw, unbounded: true }
      u64:      { node: 's="{db}"."Numbers"."U64"', type: uint64, access: rw, unbounded: true }
      f32:      { node: 's="{db}"."Numbers"."F32"', type: float32, unit: bar, plausible: 0..10 }
      f64:      { node: 's="{db}"."Numbers"."F64"', type: float64, unit: A }
      name:     { node: 's="{db}"."Name"', type: string, length: 20, access: rw }
      blob:     { node: 's="{db}"."Blob"', type: bytes, length: 4 }
      clock:    { node: 's="{db}"."Clock"', type: time }
      alarms:   { node: 's="{db}"."Alarms"', type: flags, length: 4, flags: { 3: low, 17: high } }
      mode:     { node: 's="{db}"."Mode"', type: uint8, access: rw, enum: { 0: off, 1: manual, 2: auto } }
      state:    { node: 's="{db}"."State"', type: int32, enum: { 0: idle, 10: running } }
      ready:    { node: 's="{db}"."Word"', type: uint16, bit: 0, enum: { 0: busy, 1: ready } }
      stage:    { node: 's="{db}"."Word"', type: uint16, bits: 4..7, access: rw, min: 0, max: 15 }
      zones:    { node: 's="{db}"."Zones"', type: float32, count: 5, unit: °C }
      zone2:    { node: 's="{db}"."Zones"[2]', type: float32, unit: °C }
      recipe:   { node: 's="{db}"."Recipe"', type: int16, count: 3, access: rw, unbounded: true }
      scaled:   { node: 's="{db}"."Scaled"', type: int16, scale: 0.1, unit: °C, access: rw, min: 0, max: 100, verify: { from: in_force } }
      in_force: { node: 's="{db}"."InForce"', type: int16, scale: 0.1, unit: °C }
      plain:    { node: 's={db}Plain', type: float64 }
      kepware:  { node: 's=Channel1.{db}.Tag', type: float64 }
      number:   { node: 'i={db}17', type: uint32 }
      guid:     { node: 'g=09087e75-8e5e-499b-954f-f2a9603db28{n}', type: uint32 }
      opaque:   { node: 'b=M{n}Rb', type: uint32 }
      other:    { node: 'nsu=urn:other;s={db}Other', type: uint32 }
      walked:   { browse: '/Objects/Hall/{db}/Temp', type: float32, unit: °C }
      status:   { browse: /Objects/Server/ServerStatus/State, type: int32 }
      now:      { node: ns=0;i=2258, type: time }
    commands:
      ack:
        params: { code: { type: int, min: 1, max: 999 } }
        steps: [ { call: { object: 's="{db}"', method: 's="{db}"."Ack"', args: [$code, 2.5, true, stage] } } ]
devices:
  - { name: m1, profile: press, bus: plc, vars: { db: "3", n: "1" } }
  - { name: m2, profile: press, bus: plc, vars: { db: "4", n: "2" } }
`

func loadHall(t *testing.T, change ...string) *gateway.Site {
	t.Helper()
	s, diagnostics := site.Parse("hall.yaml", []byte(strings.NewReplacer(change...).Replace(hall)), site.Options{})
	if s == nil {
		var b bytes.Buffer
		diagnostics.Print(&b)
		t.Fatal(b.String())
	}
	return s
}

func startHall(t *testing.T, s *gateway.Site) (*sim.Sim, *gateway.Bus) {
	t.Helper()
	devices, s, err := sim.Start(s, sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := devices.Close(); err != nil {
			t.Error(err)
		}
	})
	return devices, s.Buses[0]
}

// connect is another maker's client.
func connect(t *testing.T, b *gateway.Bus, options ...client.Option) *client.Client {
	t.Helper()
	c, err := client.NewClient(b.Endpoint, append([]client.Option{client.SecurityMode(ua.MessageSecurityModeNone), client.AutoReconnect(false)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.WithoutCancel(t.Context())) })
	return c
}

// nodes of the hall, in the namespaces that the server says it has.
type nodes struct {
	t *testing.T
	*client.Client
	press, other uint16
}

func open(t *testing.T, b *gateway.Bus) nodes {
	t.Helper()
	n := nodes{t: t, Client: connect(t, b)}
	for uri, index := range map[string]*uint16{"urn:maker:press": &n.press, "urn:other": &n.other} {
		found, err := n.FindNamespace(t.Context(), uri)
		if err != nil {
			t.Fatal(err)
		}
		*index = found
	}
	return n
}

func (n nodes) id(text string) *ua.NodeID {
	return ua.MustParseNodeID(fmt.Sprintf("ns=%d;%s", n.press, text))
}

// read reads the value attribute, or some elements.
func (n nodes) read(id *ua.NodeID, elements string) *ua.DataValue {
	n.t.Helper()
	r, err := n.Read(n.t.Context(), &ua.ReadRequest{
		TimestampsToReturn: ua.TimestampsToReturnBoth,
		NodesToRead:        []*ua.ReadValueID{{NodeID: id, AttributeID: ua.AttributeIDValue, IndexRange: elements}},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return r.Results[0]
}

func (n nodes) write(id *ua.NodeID, elements string, v any) ua.StatusCode {
	n.t.Helper()
	r, err := n.Write(n.t.Context(), &ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{
		NodeID: id, AttributeID: ua.AttributeIDValue, IndexRange: elements,
		Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(v)},
	}}})
	if err != nil {
		n.t.Fatal(err)
	}
	return r.Results[0]
}

func TestEveryTypeIsServed(t *testing.T) {
	t.Parallel()
	devices, b := startHall(t, loadHall(t))
	n := open(t, b)
	for _, x := range []struct {
		point, node string
		want        any // of its type
	}{
		{"on", `s="3"."On"`, true}, {"i8", `s="3"."Numbers"."I8"`, int8(0)}, {"u8", `s="3"."Numbers"."U8"`, byte(0)},
		{"i16", `s="3"."Numbers"."I16"`, int16(0)}, {"u16", `s="3"."Numbers"."U16"`, uint16(0)}, {"i32", `s="3"."Numbers"."I32"`, int32(0)},
		{"u32", `s="3"."Numbers"."U32"`, uint32(0)}, {"i64", `s="3"."Numbers"."I64"`, int64(0)}, {"u64", `s="3"."Numbers"."U64"`, uint64(0)},
		{"f32", `s="3"."Numbers"."F32"`, float32(0)}, {"f64", `s="3"."Numbers"."F64"`, float64(0)}, {"name", `s="3"."Name"`, ""},
		{"blob", `s="3"."Blob"`, []byte{}}, {"clock", `s="3"."Clock"`, time.Time{}}, {"alarms", `s="3"."Alarms"`, uint32(0)},
		{"mode", `s="3"."Mode"`, byte(0)}, {"state", `s="3"."State"`, int32(0)}, {"ready", `s="3"."Word"`, uint16(0)},
		{"zones", `s="3"."Zones"`, []float32{}}, {"recipe", `s="3"."Recipe"`, []int16{}},
		{"plain", `s=3Plain`, float64(0)}, {"kepware", `s=Channel1.3.Tag`, float64(0)}, {"number", `i=317`, uint32(0)},
		{"guid", `g=09087e75-8e5e-499b-954f-f2a9603db281`, uint32(0)}, {"opaque", `b=M1Rb`, uint32(0)}, {"walked", `s=/Objects/Hall/3/Temp`, float32(0)},
	} {
		got := n.read(n.id(x.node), "")
		if got.Status != ua.StatusOK || reflect.TypeOf(got.Value.Value()) != reflect.TypeOf(x.want) {
			t.Errorf("%s: %v (%T), want %T", x.point, got.Status, got.Value.Value(), x.want)
			continue
		}
		if time.Since(got.SourceTimestamp) > time.Minute || time.Since(got.ServerTimestamp) > time.Minute {
			t.Errorf("%s: source %v, server %v", x.point, got.SourceTimestamp, got.ServerTimestamp)
		}
		if _, err := devices.Get("m1", x.point); err != nil {
			t.Error(err)
		}
	}
	if got := n.read(ua.MustParseNodeID(fmt.Sprintf("ns=%d;s=3Other", n.other)), ""); got.Status != ua.StatusOK {
		t.Errorf("other: %v", got.Status)
	}
	if got := n.read(n.id(`s="3"."None"`), ""); got.Status != ua.StatusBadNodeIDUnknown {
		t.Errorf("a node that no point names: %v", got.Status)
	}
}

func TestValuesAreThoseOfTheSite(t *testing.T) {
	t.Parallel()
	devices, b := startHall(t, loadHall(t))
	n := open(t, b)
	for _, x := range []struct {
		point, node, elements string
		set                   gateway.Value
		want                  any
	}{
		{"i64", `s="3"."Numbers"."I64"`, "", gateway.IntValue(-9007199254740993), int64(-9007199254740993)},
		{"u64", `s="3"."Numbers"."U64"`, "", gateway.UintValue(18446744073709551615), uint64(18446744073709551615)},
		{"mode", `s="3"."Mode"`, "", gateway.TextValue("auto"), byte(2)},
		{"state", `s="3"."State"`, "", gateway.TextValue("running"), int32(10)},
		{"alarms", `s="3"."Alarms"`, "", gateway.TextValue("low,high"), uint32(1<<3 | 1<<17)},
		{"scaled", `s="3"."Scaled"`, "", gateway.FloatValue(12.3), int16(123)},
		{"scaled", `s="3"."InForce"`, "", gateway.FloatValue(12.4), int16(124)},
		{"stage", `s="3"."Word"`, "", gateway.IntValue(9), uint16(0x90)},
		{"ready", `s="3"."Word"`, "", gateway.TextValue("ready"), uint16(0x91)},
		{"zone2", `s="3"."Zones"`, "2", gateway.FloatValue(55.5), []float32{55.5}},
		{"recipe", `s="3"."Recipe"`, "1:2", gateway.ListValue([]gateway.Value{gateway.IntValue(7), gateway.IntValue(8), gateway.IntValue(9)}), []int16{8, 9}},
		{"name", `s="3"."Name"`, "", gateway.TextValue("Bär"), "Bär"},
		{"blob", `s="3"."Blob"`, "", gateway.BlobValue([]byte{1, 2}), []byte{1, 2}},
	} {
		if x.point == "ready" {
			do(t, devices.Set("m1", "ready", gateway.TextValue("busy")))
		}
		if x.point == "stage" {
			do(t, devices.Set("m1", "ready", gateway.TextValue("busy")))
		}
		do(t, devices.Set("m1", x.point, x.set))
		if got := n.read(n.id(x.node), x.elements).Value.Value(); !reflect.DeepEqual(got, x.want) {
			t.Errorf("%s is %v, want %v", x.point, got, x.want)
		}
		if got, err := devices.Get("m1", x.point); err != nil || got.String() != x.set.String() {
			t.Errorf("%s is %v (%v), want %v", x.point, got, err, x.set)
		}
	}
	if devices.Set("m1", "recipe", gateway.ListValue([]gateway.Value{gateway.IntValue(1)})) == nil || devices.Set("m1", "mode", gateway.TextValue("nonsense")) == nil || devices.Set("m1", "i8", gateway.IntValue(300)) == nil {
		t.Error("what does not fit was set")
	}
	if v, _ := devices.Get("m2", "mode"); v.String() == "auto" {
		t.Error("the other device was set too")
	}
}

func TestClientsWrite(t *testing.T) {
	t.Parallel()
	devices, b := startHall(t, loadHall(t))
	n := open(t, b)
	for _, x := range []struct {
		point, node, elements string
		write                 any
		want                  string
	}{
		{"i32", `s="3"."Numbers"."I32"`, "", int32(-5), "-5"},
		{"mode", `s="3"."Mode"`, "", byte(1), "manual"},
		{"name", `s="3"."Name"`, "", "order 7", "order 7"},
		{"recipe", `s="3"."Recipe"`, "", []int16{1, 2, 3}, "[1, 2, 3]"},
		{"recipe", `s="3"."Recipe"`, "1", []int16{20}, "[1, 20, 3]"},
		{"scaled", `s="3"."Scaled"`, "", int16(255), "25.5"},
		{"in_force", `s="3"."Scaled"`, "", int16(256), "25.6"},
		{"stage", `s="3"."Word"`, "", uint16(0x30), "3"},
	} {
		if status := n.write(n.id(x.node), x.elements, x.write); status != ua.StatusOK {
			t.Errorf("%s: %v", x.point, status)
		}
		time.Sleep(20 * time.Millisecond)
		if v, err := devices.Get("m1", x.point); err != nil || v.String() != x.want {
			t.Errorf("%s is %v (%v), want %s", x.point, v, err, x.want)
		}
	}
	for _, x := range []struct {
		node, elements string
		write          any
		want           ua.StatusCode
	}{
		{`s="3"."On"`, "", true, ua.StatusBadNotWritable},
		{`s="3"."Mode"`, "", int32(1), ua.StatusBadTypeMismatch},
		{`s="3"."Recipe"`, "", []int16{1}, ua.StatusBadTypeMismatch},
		{`s="3"."Recipe"`, "9", []int16{1}, ua.StatusBadIndexRangeNoData},
	} {
		if status := n.write(n.id(x.node), x.elements, x.write); status != x.want {
			t.Errorf("%s: %v, want %v", x.node, status, x.want)
		}
	}
}

func TestMethodsOfCommands(t *testing.T) {
	t.Parallel()
	devices, b := startHall(t, loadHall(t))
	n := open(t, b)
	call := func(arguments ...any) ua.StatusCode {
		t.Helper()
		r := &ua.CallMethodRequest{ObjectID: n.id(`s="3"`), MethodID: n.id(`s="3"."Ack"`)}
		for _, a := range arguments {
			r.InputArguments = append(r.InputArguments, ua.MustVariant(a))
		}
		result, err := n.Call(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return result.StatusCode
	}
	for want, arguments := range map[ua.StatusCode][]any{
		ua.StatusOK:                  {int32(7), 2.5, true, "stage"},
		ua.StatusBadArgumentsMissing: {int32(7)},
		ua.StatusBadTooManyArguments: {int32(7), 2.5, true, "stage", 1.0},
		ua.StatusBadInvalidArgument:  {"seven", 2.5, true, "stage"},
	} {
		if got := call(arguments...); got != want {
			t.Errorf("%v: %v, want %v", arguments, got, want)
		}
	}
	if calls := fmt.Sprint(devices.Calls("m1", "ack")); calls != "[[7 2.5 true stage]]" {
		t.Errorf("calls %s", calls)
	}
	if inputs := n.read(ua.NewStringNodeID(1, fmt.Sprintf(`ns=%d;s="3"."Ack"/InputArguments`, n.press)), ""); inputs.Status != ua.StatusOK {
		t.Errorf("input arguments: %v", inputs.Status)
	}
}

// TestAddressSpaceLeadsToThePoints walks it as a person with a browser does.
func TestAddressSpaceLeadsToThePoints(t *testing.T) {
	t.Parallel()
	_, b := startHall(t, loadHall(t))
	n := open(t, b)
	for _, path := range []string{
		"Objects/3/Mode/EnumStrings", "Objects/3/State/EnumValues", "Objects/3/Numbers/F32/EngineeringUnits", "Objects/3/Numbers/F32/EURange",
		"Objects/3/Ack/InputArguments", "Objects/Channel1/3/Tag", "Objects/m1/3Plain", "Objects/m1/number", "Objects/Hall/3/Temp",
	} {
		at := ua.NewNumericNodeID(0, id.RootFolder)
	next:
		for step := range strings.SplitSeq(path, "/") {
			children, err := n.Node(at).ReferencedNodes(t.Context(), id.HierarchicalReferences, ua.BrowseDirectionForward, ua.NodeClassAll, true)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range children {
				if name, err := c.BrowseName(t.Context()); err == nil && name.Name == step {
					at = c.ID
					continue next
				}
			}
			t.Errorf("%s: no %s there", path, step)
			break
		}
	}
}

// TestMouldingMachine serves the example site: every point can be read.
func TestMouldingMachine(t *testing.T) {
	t.Parallel()
	content, err := configs.FS.ReadFile("moulding-machine.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s, _ := site.Parse("moulding-machine.yaml", content, site.Options{})
	if s == nil {
		t.Fatal("the example is wrong")
	}
	devices, s, err := sim.Start(s, sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer devices.Close()
	for _, d := range s.Devices {
		for _, p := range d.Points {
			if v, err := devices.Get(d.Name, p.ID); p.Browse == "" && err != nil {
				t.Errorf("%s.%s: %v, %v", d.Name, p.ID, v, err)
			}
		}
	}
	set := func(v float64) { do(t, devices.Set("press3", "mould_temp_set", gateway.FloatValue(v))) }
	for _, want := range []float64{65.5, 70} {
		set(want)
		if v, err := devices.Get("press3", "mould_temp_set_in_force"); err != nil || v.Float() != want {
			t.Errorf("in force is %v (%v), want %v", v, err, want)
		}
	}
}
