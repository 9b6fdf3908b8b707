package modbus_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"sluice/adapters/adaptertest"
	"sluice/adapters/modbus"
	"sluice/adapters/sim"
	"sluice/gateway"
	"sluice/gateway/site"
)

// plant has every kind of table and point on one bus with two units.
const plant = `version: 1
site: { name: plant, writes: enabled }
cloud: { url: mqtt://127.0.0.1:1883, login: { user: gw, password: file:gw }, backlog: replay }
local: { http: none }
buses:
  field: { TYPE, retries: 1 }
profiles:
  drive:
    protocol: modbus
    addressing: protocol
    table: holding
    order: CDAB
    points:
      speed:    { at: 0, type: uint16, scale: 0.1, unit: Hz, access: rw, min: 0, max: 60 }
      torque:   { at: 1, type: int16, unit: Nm }
      ramp:     { at: 2, type: float32, unit: s, access: rw, min: 0, max: 100 }
      limit:    { at: 4, type: int32, unit: W, access: rw, min: 0, max: 30000 }
      total:    { at: 6, type: uint64, unit: Wh, kind: counter }
      mode:     { at: 10, type: uint16, access: rw, enum: { 0: manual, 1: auto } }
      remote:   { at: 11, bit: 3, type: bool }
      local:    { at: 11, bit: 0, type: bool, access: rw, write: { mask: fc22 } }
      stage:    { at: 11, bits: 4..5, type: uint8, enum: { 0: off_line, 1: idle, 2: busy, 3: done } }
      name:     { at: 20, type: string, length: 8, access: rw }
      fixed:    { at: 30, type: float64, unit: bar, access: rw, min: 0, max: 10 }
      exponent: { at: 40, type: int16 }
      scaled:   { at: 41, type: uint16, unit: A, scale_from: exponent }
      curve:    { at: 50, type: int16, count: 4, scale: 0.01, unit: mm }
      enable:   { at: coil:3, type: bool, access: rw }
      door:     { at: discrete:7, type: bool }
      water:    { at: input:100, type: float32, unit: °C }
      power:    { at: input:102, type: bcd32, unit: W }
devices:
  - { name: one, profile: drive, bus: field, unit: 1 }
  - { name: two, profile: drive, bus: field, unit: 2, shift: 1000 }
`

func TestConformance(t *testing.T) {
	for _, kind := range []struct {
		bus     string
		window  int
		shuffle bool
	}{
		{bus: "type: modbus-tcp, host: 127.0.0.1"},
		{bus: "type: modbus-tcp, host: 127.0.0.1, pipeline: 4", window: 4, shuffle: true},
		{bus: "type: modbus-tcp, host: 127.0.0.1, connections: 2", window: 2},
		{bus: "type: modbus-tcp, host: 127.0.0.1, connections: 2, pipeline: 4", window: 8, shuffle: true},
		{bus: "type: modbus-tls, host: plant.example, tls: { server_name: plc.example }"},
		{bus: "type: modbus-udp, host: 127.0.0.1"},
		{bus: "type: modbus-rtu-over-tcp, host: 127.0.0.1, port: 4001"},
		{bus: "type: modbus-rtu, port: /dev/serial/by-id/adapter, line: 19200 8N1"},
	} {
		t.Run(strings.TrimPrefix(kind.bus, "type: "), func(t *testing.T) {
			adaptertest.Run(t, adaptertest.Harness{
				New:    modbus.New,
				Window: kind.window,
				Start: func(t *testing.T, timeout time.Duration) adaptertest.Field {
					return startField(t, strings.Replace(plant, "TYPE", kind.bus, 1), timeout, kind.shuffle)
				},
			})
		})
	}
}

// startField simulates a site with one bus, whose answers may overtake one
// another.
func startField(t *testing.T, text string, timeout time.Duration, shuffle bool) adaptertest.Field {
	t.Helper()
	devices, plant, err := sim.Start(parse(t, text), sim.Options{Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { devices.Close() })
	bus := plant.Buses[0]
	bus.Timeout = timeout
	for _, d := range plant.Devices {
		d.Timeout = timeout
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(devices.Shuffle(bus.Name, shuffle))
	return adaptertest.Field{
		Bus:     bus,
		Devices: plant.Devices,
		Set:     func(p *gateway.Point, v gateway.Value) { must(devices.Set(p.Device.Name, p.ID, v)) },
		Get: func(p *gateway.Point) gateway.Value {
			v, err := devices.Get(p.Device.Name, p.ID)
			must(err)
			return v
		},
		Fail: func(p *gateway.Point, fails bool) {
			code := uint32(0)
			if fails {
				code = 4
			}
			must(devices.Fail(p.Device.Name, p.ID, code))
		},
		Silence: func(d *gateway.Device, silent bool) { must(devices.Silent(bus.Name, d.Unit, silent)) },
		Cut:     func() { must(devices.StopBus(bus.Name)) },
		Restore: func() { must(devices.StartBus(bus.Name)) },
		Requests: func() int {
			n, err := devices.Requests(bus.Name)
			must(err)
			return n
		},
	}
}

// parse loads a site as the program does.
func parse(t *testing.T, text string) *gateway.Site {
	t.Helper()
	plant, diagnostics := site.Parse("plant.yaml", []byte(text), site.Options{})
	if plant == nil {
		var b bytes.Buffer
		diagnostics.Print(&b)
		t.Fatalf("load the site:\n%s", b.String())
	}
	return plant
}
