package opcua_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/awcullen/opcua/ua"

	"sluice/adapters/adaptertest"
	"sluice/adapters/opcua"
	"sluice/gateway"
	"sluice/gateway/site"
)

// plant has many kinds of points on two devices of one server.
const plant = `version: 1
site: { name: plant, writes: enabled }
cloud: { url: mqtt://127.0.0.1:1883, login: { user: gw, password: file:gw }, backlog: replay }
local: { http: none }
buses:
  field: { type: opcua, endpoint: "opc.tcp://127.0.0.1:4840", security: None }
profiles:
  press:
    protocol: opcua
    namespace: http://sluice.test/plant
    mode: poll
    points:
      speed:   { node: 's={db}.speed', type: float64, unit: Hz, access: rw, min: 0, max: 60 }
      torque:  { node: 's={db}.torque', type: float32, unit: Nm }
      level:   { node: 's={db}.level', type: int16, scale: 0.1, unit: mm, access: rw, min: 0, max: 100 }
      limit:   { node: 's={db}.limit', type: uint32, unit: W, access: rw, min: 0, max: 30000 }
      total:   { node: 's={db}.total', type: uint64, unit: Wh, kind: counter }
      deep:    { node: 's={db}.deep', type: int64 }
      mode:    { node: 's={db}.mode', type: int32, access: rw, enum: { 0: manual, 1: auto } }
      on:      { node: 's={db}.on', type: bool, access: rw }
      alarm:   { node: 's={db}.word', type: bool, bit: 3 }
      name:    { node: 's={db}.name', type: string, access: rw }
      curve:   { node: 's={db}.curve', type: float32, count: 3, unit: mm }
      second:  { node: "s={db}.curve[1]", type: float32, unit: mm }
      started: { node: 's={db}.started', type: time }
      temp:    { browse: "/Objects/{db}/temp", type: float32, unit: °C }
devices:
  - { name: one, profile: press, bus: field, vars: { db: one } }
  - { name: two, profile: press, bus: field, vars: { db: two } }
`

// values are what the variables of a device hold at first.
var values = []struct {
	id       string
	value    any
	dataType ua.NodeID
}{
	{"speed", 12.5, ua.DataTypeIDDouble}, {"torque", float32(230.1), ua.DataTypeIDFloat}, {"level", int16(421), ua.DataTypeIDInt16},
	{"limit", uint32(1500), ua.DataTypeIDUInt32}, {"total", uint64(1<<63 + 1), ua.DataTypeIDUInt64}, {"deep", int64(-1<<62 - 1), ua.DataTypeIDInt64},
	{"mode", int32(1), ua.DataTypeIDInt32}, {"on", true, ua.DataTypeIDBoolean}, {"word", uint16(1 << 3), ua.DataTypeIDUInt16}, {"name", "press", ua.DataTypeIDString},
	{"curve", []float32{0.5, 1.5, 2.5}, ua.DataTypeIDFloat}, {"started", time.Date(2026, 11, 26, 6, 0, 0, 0, time.UTC), ua.DataTypeIDDateTime}, {"temp", float32(21.5), ua.DataTypeIDFloat},
}

func TestConformance(t *testing.T) {
	// One server for all, that takes ten operations a request: it takes its time to start.
	s := startServer(t, serverOptions{limit: 10})
	for _, device := range []string{"one", "two"} {
		folder := s.folder(t, ua.ObjectIDObjectsFolder, device)
		for _, v := range values {
			s.variable(t, folder, device+"."+v.id, v.id, v.value, v.dataType)
		}
	}
	adaptertest.Run(t, adaptertest.Harness{New: opcua.New, Start: func(t *testing.T, timeout time.Duration) adaptertest.Field { return startField(t, s, timeout) }})
}

// startField makes a server as it was at first.
func startField(t *testing.T, s *plantServer, timeout time.Duration) adaptertest.Field {
	t.Helper()
	s.mutex.Lock()
	clear(s.slow)
	s.mutex.Unlock()
	for _, device := range []string{"one", "two"} {
		for _, v := range values {
			s.fail(t, device+"."+v.id, ua.Good)
			s.set(t, device+"."+v.id, v.value)
		}
	}
	p := startProxy(t, s.address())
	loaded := parse(t, plant)
	bus := loaded.Buses[0]
	bus.Endpoint, bus.Timeout = p.endpoint(), timeout
	for i, d := range loaded.Devices {
		d.Unit = i + 1 // a server has no units; here they are what falls silent together
	}
	f := &variables{server: s}
	return adaptertest.Field{
		Bus: bus, Devices: loaded.Devices,
		Set: func(p *gateway.Point, v gateway.Value) { f.set(t, p, v) },
		Get: func(p *gateway.Point) gateway.Value { return f.get(t, p) },
		Fail: func(p *gateway.Point, fails bool) {
			status := ua.Good
			if fails {
				status = ua.BadDeviceFailure
			}
			s.fail(t, f.id(p), status)
		},
		// A server waits for its device, and says then that it is silent.
		Silence: func(d *gateway.Device, silent bool) {
			for _, v := range values {
				status, slow := ua.Good, time.Duration(0)
				if silent {
					status, slow = ua.BadNoCommunication, timeout*8/10
				}
				s.fail(t, d.Name+"."+v.id, status)
				s.mutex.Lock()
				s.slow[d.Name+"."+v.id] = slow
				s.mutex.Unlock()
			}
		},
		Cut:      p.cut,
		Restore:  p.restore,
		Requests: func() int { return int(p.requests.Load()) },
	}
}

// parse loads a site as the program does.
func parse(t testing.TB, text string) *gateway.Site {
	t.Helper()
	loaded, diagnostics := site.Parse("plant.yaml", []byte(text), site.Options{Checks: map[string]site.Check{"opcua": opcua.Check}})
	if loaded == nil {
		var b bytes.Buffer
		diagnostics.Print(&b)
		t.Fatalf("load the site:\n%s", b.String())
	}
	return loaded
}
