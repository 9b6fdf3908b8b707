package sim_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"sluice/adapters/modbus"
	"sluice/adapters/modbus/wire"
	"sluice/adapters/sim"
	"sluice/gateway"
	"sluice/gateway/site"
)

// plant has a bus of each type, with the same unit.
const plant = `version: 1
site: { name: plant, writes: enabled }
cloud: { url: mqtt://127.0.0.1:1883, login: { user: gw, password: file:gw }, backlog: replay }
local: { http: none }
buses:
  tcp: { type: modbus-tcp, host: 192.0.2.1 }
  box: { type: modbus-rtu-over-tcp, host: 192.0.2.2, port: 4001 }
  line: { type: modbus-rtu, port: /dev/serial/by-id/none, line: 19200 8N1 }
  dgram: { type: modbus-udp, host: 192.0.2.3 }
  safe: { type: modbus-tls, host: 192.0.2.4, tls: { server_name: plc.example } }
profiles:
  thing:
    protocol: modbus
    addressing: protocol
    table: holding
    order: ABCD
    points:
      voltage:  { at: input:0, type: float32, unit: V, plausible: 180..260 }
      current:  { at: input:4, type: uint16, scale: 0.1, unit: A }
      energy:   { at: input:10, type: uint32, scale: 0.1, unit: kWh, kind: counter }
      pieces:   { at: input:12, type: uint16, kind: counter, wraps_at: 10000 }
      setpoint: { at: 0, type: float32, access: rw, min: 20, max: 50, unit: Hz }
      mode:     { at: 2, type: uint16, access: rw, enum: { 1: manual, 2: auto } }
      state:    { at: 3, bits: 4..6, type: uint8, enum: { 0: stopped, 3: running, 5: blocked } }
      remote:   { at: 3, bit: 0, type: bool }
      fault:    { at: 3, bits: 8..15, type: uint8 }
      shown:    { at: 5, type: uint16, scale: 0.01, unit: Hz, access: rw, min: 0, max: 50, write: { at: 9 } }
      serial:   { at: 20, type: string, length: 10 }
      alarms:   { at: 25, type: flags, length: 4, flags: { 3: low, 17: high } }
      clock:    { at: 27, type: time, format: bcd6, zone: utc }
      exponent: { at: 40, type: int16 }
      power:    { at: 41, type: int16, unit: W, scale_from: exponent }
      level:    { at: 42, type: uint16, map: { raw: [4000, 20000], to: [0, 16] }, unit: m, invalid: [0..3599] }
      curve:    { at: 43, type: int16, count: 3, scale: 0.1, unit: °C }
      pump:     { at: coil:3, type: bool, access: rw }
      doors:    { at: discrete:5, type: bool, count: 3 }
devices:
  - { name: t1, profile: thing, bus: tcp, unit: 1 }
  - { name: t2, profile: thing, bus: tcp, unit: 2, shift: 100 }
  - { name: b1, profile: thing, bus: box, unit: 1 }
  - { name: l1, profile: thing, bus: line, unit: 1 }
  - { name: u1, profile: thing, bus: dgram, unit: 1 }
  - { name: s1, profile: thing, bus: safe, unit: 1 }
  - { name: off, profile: thing, bus: tcp, unit: 9, disabled: true }
`

func load(t *testing.T) *gateway.Site {
	t.Helper()
	s, diagnostics := site.Parse("plant.yaml", []byte(plant), site.Options{})
	if s == nil {
		var b bytes.Buffer
		diagnostics.Print(&b)
		t.Fatal(b.String())
	}
	return s
}

// start simulates the plant until the end of the test.
func start(t *testing.T, o sim.Options) (*sim.Sim, *gateway.Site) {
	t.Helper()
	devices, s, err := sim.Start(load(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := devices.Close(); err != nil {
			t.Error(err)
		}
	})
	return devices, s
}

// bus is a bus of the site by its name.
func bus(t *testing.T, s *gateway.Site, name string) *gateway.Bus {
	t.Helper()
	for _, b := range s.Buses {
		if b.Name == name {
			return b
		}
	}
	t.Fatalf("no bus %s", name)
	return nil
}

// dial is a raw Modbus client of one of the two TCP buses.
func dial(t *testing.T, b *gateway.Bus) *wire.Client {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort(b.Host, b.Port))
	if err != nil {
		t.Fatal(err)
	}
	c := wire.NewTCP(conn, wire.Options{Timeout: 5 * time.Second})
	if b.Type == "modbus-rtu-over-tcp" {
		c = wire.NewRTU(conn, wire.Options{Timeout: time.Second})
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// readAll reads all points of a bus through the adapter.
func readAll(t *testing.T, s *gateway.Site, b *gateway.Bus) map[string]gateway.Sample {
	t.Helper()
	var devices []*gateway.Device
	var points []*gateway.Point
	for _, d := range s.Devices {
		if d.Bus == b && !d.Disabled {
			devices, points = append(devices, d), append(points, d.Points...)
		}
	}
	adapter, err := modbus.New(gateway.Env{}, b, devices)
	if err != nil {
		t.Fatal(err)
	}
	session, err := adapter.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	all := make(map[string]gateway.Sample)
	for _, group := range session.Plan(points) {
		samples, err := session.Read(t.Context(), group)
		if err != nil {
			t.Fatal(err)
		}
		for _, sample := range samples {
			all[sample.Point.Device.Name+"."+sample.Point.ID] = sample
		}
	}
	return all
}

func TestEveryPointHasAPlausibleValue(t *testing.T) {
	_, s := start(t, sim.Options{Seed: 1, Holes: true})
	for _, b := range s.Buses {
		samples := readAll(t, s, b)
		if len(samples) < 19 {
			t.Errorf("%s: %d samples", b.Name, len(samples))
		}
		for name, sample := range samples {
			if sample.Quality != gateway.Good {
				t.Errorf("%s is %s %s: %s", name, sample.Value, sample.Quality, sample.Reason)
			}
			_, point, _ := strings.Cut(name, ".")
			if r, ok := map[string][2]float64{"voltage": {224, 236}, "current": {8, 16}, "power": {1000, 2500}, "level": {0, 16}, "fault": {0, 0}, "shown": {0, 50}, "setpoint": {20, 50}}[point]; ok {
				if v := sample.Value.Float(); v < r[0] || v > r[1] {
					t.Errorf("%s is %s, want %v to %v", name, sample.Value, r[0], r[1])
				}
			}
		}
	}
}

func TestTheOriginalSiteStaysAsItIs(t *testing.T) {
	original := load(t)
	devices, s, err := sim.Start(original, sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer devices.Close()
	if b := original.Buses[0]; b.Host != "192.0.2.1" || b.Port == s.Buses[0].Port {
		t.Errorf("the original leads to %s:%s now", b.Host, b.Port)
	}
	for i, d := range s.Devices {
		if d == original.Devices[i] || d.Bus != bus(t, s, original.Devices[i].Bus.Name) {
			t.Errorf("device %s is on the original's bus", d.Name)
		}
		for j, p := range d.Points {
			if p.Device != d || p.Definition != original.Devices[i].Points[j].Definition {
				t.Errorf("point %s of %s has another device or definition", p.ID, d.Name)
			}
		}
	}
}

func TestOnlyListedRegistersExist(t *testing.T) {
	for _, holes := range []bool{false, true} {
		_, s := start(t, sim.Options{Holes: holes})
		c := dial(t, bus(t, s, "tcp"))
		for _, x := range []struct {
			function    byte
			addr, count uint16
			want        error // without holes
			always      bool
		}{
			{wire.FuncReadInputRegisters, 0, 2, nil, false},
			{wire.FuncReadInputRegisters, 0, 3, wire.IllegalDataAddress, false},
			{wire.FuncReadInputRegisters, 0, 13, wire.IllegalDataAddress, false},
			{wire.FuncReadInputRegisters, 13, 1, wire.IllegalDataAddress, true},
			{wire.FuncReadHoldingRegisters, 4, 1, wire.IllegalDataAddress, false},
			{wire.FuncReadHoldingRegisters, 9, 1, nil, false},
			{wire.FuncReadCoils, 3, 1, nil, false},
			{wire.FuncReadCoils, 2, 1, wire.IllegalDataAddress, true},
			{wire.FuncReadDiscreteInputs, 5, 3, nil, false},
		} {
			want := x.want
			if holes && !x.always {
				want = nil
			}
			if _, err := c.Read(t.Context(), 1, x.function, x.addr, x.count, 0); !errors.Is(err, want) {
				t.Errorf("holes %v: function %d, %d from %d: %v, want %v", holes, x.function, x.count, x.addr, err, want)
			}
		}
	}
}

func TestUnknownUnits(t *testing.T) {
	_, s := start(t, sim.Options{})
	for _, unit := range []byte{3, 9} {
		if _, err := dial(t, bus(t, s, "tcp")).ReadInputRegisters(t.Context(), unit, 0, 2); err != wire.GatewayTargetNoResponse {
			t.Errorf("unit %d on TCP: %v, want exception 11", unit, err)
		}
		if _, err := dial(t, bus(t, s, "box")).ReadInputRegisters(t.Context(), unit, 0, 2); !errors.Is(err, wire.ErrTimeout) {
			t.Errorf("unit %d on RTU: %v, want silence", unit, err)
		}
	}
}

func TestWritesStay(t *testing.T) {
	devices, s := start(t, sim.Options{})
	for name, device := range map[string]string{"tcp": "t1", "box": "b1"} {
		c, ctx := dial(t, bus(t, s, name)), t.Context()
		holds := func(point, want string) {
			t.Helper()
			if v, err := devices.Get(device, point); err != nil || v.String() != want {
				t.Errorf("%s of %s is %s (%v), want %s", point, device, v, err, want)
			}
		}
		for _, err := range []error{
			c.WriteMultipleRegisters(ctx, 1, 0, []byte{0x42, 0x04, 0, 0}), // 33.0
			c.WriteSingleRegister(ctx, 1, 2, 2),
			c.WriteSingleRegister(ctx, 1, 3, 0x0031),
			c.WriteSingleRegister(ctx, 1, 9, 1234),
			c.WriteSingleCoil(ctx, 1, 3, true),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		time.Sleep(50 * time.Millisecond)
		for point, want := range map[string]string{"setpoint": "33", "mode": "auto", "state": "running", "remote": "true", "fault": "0", "shown": "12.34", "pump": "true"} {
			holds(point, want)
		}
		if err := c.MaskWriteRegister(ctx, 1, 3, 0xFF8F, 0x0050); err != nil {
			t.Error(err)
		}
		holds("state", "blocked")
		holds("remote", "true")
		if err := c.MaskWriteRegister(ctx, 1, 99, 0, 0); err != wire.IllegalDataAddress {
			t.Errorf("mask write of a register that is not there: %v", err)
		}
	}
}

func TestSetStays(t *testing.T) {
	devices, s := start(t, sim.Options{Holes: true})
	if err := devices.Set("t1", "voltage", gateway.FloatValue(205.5)); err != nil {
		t.Fatal(err)
	}
	if err := devices.Set("t1", "state", gateway.TextValue("blocked")); err != nil {
		t.Fatal(err)
	}
	if err := devices.Set("t1", "mode", gateway.TextValue("nonsense")); err == nil {
		t.Error("a label that does not exist was set")
	}
	time.Sleep(50 * time.Millisecond)
	samples := readAll(t, s, bus(t, s, "tcp"))
	if v := samples["t1.voltage"].Value.String(); v != "205.5" {
		t.Errorf("voltage is %s", v)
	}
	if v := samples["t1.state"].Value.String(); v != "blocked" {
		t.Errorf("state is %s", v)
	}
	if samples["t2.voltage"].Value.String() == "205.5" {
		t.Error("the other device was set too")
	}
}

func TestCloseEndsEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		devices, s, err := sim.Start(load(t), sim.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range s.Buses {
			readAll(t, s, b)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(s.Buses[0].Host, s.Buses[0].Port))
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if err := devices.Close(); err != nil {
			t.Error(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a connection outlives Close")
		}
		conn.Close()
	}
	for begin := time.Now(); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
		}
	}
}

func TestUnknownBusTypesAreRefused(t *testing.T) {
	s := load(t)
	s.Buses[2].Type = "s7"
	if _, _, err := sim.Start(s, sim.Options{}); err == nil || !strings.Contains(err.Error(), "type s7 is not simulated") {
		t.Errorf("error %v", err)
	}
}
