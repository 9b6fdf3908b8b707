package site

import (
	"strings"
	"testing"
	"time"

	"sluice/gateway"
)

const plant = `# yaml-language-server: $schema=site.schema.json
version: 1
site: { name: plant-1, timezone: Europe/Berlin }
cloud:
  url: mqtt://127.0.0.1:1883
  login: { user: gw, password: secret:gw }
  confirm: puback
  backlog: replay
local: { http: none }
buses:
  rs485-1: { type: modbus-rtu-over-tcp, host: 127.0.0.1, port: 8899, line: 9600 8N1 }
  pump-skid: { type: modbus-tcp, host: 10.0.0.5 }
profiles:
  eastron-sdm630:
    protocol: modbus
    addressing: modicon
    points:
      voltage_l1:  { at: 30001, type: float32, unit: V,  deadband: 0.5 }
      power:       { at: 30053, type: float32, unit: W,  deadband: 2%, decimals: 0, poll: 1s }
      frequency:   { at: 030071, type: float32, unit: Hz, deadband: 0.02, plausible: 45..65 }
    order: ABCD
    poll: 5s
  pump:
    protocol: modbus
    addressing: protocol
    table: holding
    order: ABCD
    points:
      state:  { at: 0x2101, bits: 0..1, type: uint8, enum: { 0: stopped, 3: running } }
      hz: { at: 0x2103, type: uint16, scale: 0.01, unit: Hz, deadband: 0.1, as: out-hz }
devices:
  - { name: cooling-pump-1, profile: pump, bus: pump-skid, unit: 1, login: { user: pump1, password: "secret:pump1" } }
  - profile: eastron-sdm630
    bus: rs485-1
    drop: [frequency]
    instances:
      - { name: em-press3, unit: 3, label: Feeder press 3 }
      - { name: em-press4, unit: 0004, override: { power: { poll: 2s, scale: 0.001 } } }
`

func load(t *testing.T, text string) *gateway.Site {
	t.Helper()
	site, diagnostics := Parse("plant.yaml", []byte(text), Options{})
	if site == nil || len(diagnostics) > 0 {
		var b strings.Builder
		diagnostics.Print(&b)
		t.Fatalf("site %v, diagnostics:\n%s", site != nil, b.String())
	}
	return site
}

func TestSiteIsResolved(t *testing.T) {
	site := load(t, plant)
	if len(site.Buses) != 2 || site.Buses[0].Name != "rs485-1" || site.Buses[1].Port != "502" || site.Buses[0].Timeout != 3*time.Second || site.Buses[1].Timeout != 500*time.Millisecond {
		t.Errorf("buses: %+v %+v", site.Buses[0], site.Buses[1])
	}
	if len(site.Devices) != 3 {
		t.Fatalf("%d devices", len(site.Devices))
	}
	pump, press3, press4 := site.Devices[0], site.Devices[1], site.Devices[2]
	if pump.User != "pump1" || pump.Prefix != "" || pump.Points[1].Name != "out-hz" || pump.Bus != site.Buses[1] || pump.Profile.Name != "pump" {
		t.Errorf("pump: %+v", pump)
	}
	if press3.User != "gw" || press3.Label != "Feeder press 3" || press3.Unit != 3 || press4.Unit != 4 || press3.Timeout != 3*time.Second {
		t.Errorf("press3: %+v", press3)
	}
	if len(press3.Points) != 2 || press3.Points[1].Name != "em-press3_power" || press3.Points[0].Poll != 5*time.Second || press3.Points[0].Order != gateway.ABCD {
		t.Errorf("points of press3: %+v", press3.Points)
	}
	if press3.Points[0].Definition != press4.Points[0].Definition {
		t.Error("devices of one profile do not share what the profile says")
	}
	if p := press4.Points[1]; p.Poll != 2*time.Second || p.Scale.Float != 0.001 || *p.Decimals != 0 || press3.Points[1].Poll != time.Second || press3.Points[1].Scale != nil {
		t.Errorf("override: %+v", p)
	}
	if site.Cloud.BacklogInterval != time.Second || site.Buffer.MaxSize != 512e6 || site.Log["level"] != "info" || site.Writes != "locked" {
		t.Errorf("defaults: %+v", site)
	}
}

func TestUnknownKeyIsMarked(t *testing.T) {
	_, diagnostics := Parse("plant.yaml", []byte(strings.Replace(plant, "deadband: 0.5", "deadbnd: 0.5", 1)), Options{})
	want := `plant.yaml:18:58: error: unknown key "deadbnd" in voltage_l1
          voltage_l1:  { at: 30001, type: float32, unit: V,  deadbnd: 0.5 }
                                                             ^^^^^^^
    did you mean deadband?
`
	if len(diagnostics) != 1 || diagnostics[0].String() != want {
		t.Errorf("got\n%s\nwant\n%s", diagnostics, want)
	}
}
