package configs_test

import (
	"context"
	"io"
	"log"
	"log/slog"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	library "github.com/simonvetter/modbus"

	"sluice/adapters/modbus"
	"sluice/adapters/opcua"
	"sluice/adapters/sim"
	"sluice/gateway"
)

// read reads the points of a bus once, as the daemon does.
func read(t *testing.T, bus *gateway.Bus, devices []*gateway.Device) []gateway.Sample {
	t.Helper()
	devices = slices.DeleteFunc(slices.Clone(devices), func(d *gateway.Device) bool { return d.Bus != bus || d.Disabled })
	make := map[string]gateway.NewAdapter{"modbus": modbus.New, "opcua": opcua.New}[bus.Protocol()]
	adapter, err := make(gateway.Env{Log: slog.New(slog.DiscardHandler), Dir: t.TempDir()}, bus, devices)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	session, err := adapter.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	var points []*gateway.Point
	for _, d := range devices {
		for _, p := range d.Points {
			if p.Access != "w" {
				points = append(points, p)
			}
		}
	}
	var samples []gateway.Sample
	for _, group := range session.Plan(points) {
		some, err := session.Read(ctx, group)
		if err != nil {
			t.Fatal(err)
		}
		samples = append(samples, some...)
	}
	if len(samples) != len(points) {
		t.Fatalf("%d samples of %d points", len(samples), len(points))
	}
	return samples
}

// simulate starts the devices of a site, whose unlisted registers read as 0.
func simulate(t *testing.T, loaded *gateway.Site) (*sim.Sim, *gateway.Site) {
	t.Helper()
	devices, there, err := sim.Start(loaded, sim.Options{Holes: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := devices.Close(); err != nil {
			t.Error(err)
		}
	})
	return devices, there
}

func TestEveryProfileIsReadBackFromASimulatedDevice(t *testing.T) {
	for _, path := range glob(t, "profiles/*.yaml") {
		t.Run(stem(path), func(t *testing.T) {
			devices, there := simulate(t, loadProfile(t, stem(path)))
			want := map[string]gateway.Value{}
			for _, p := range there.Devices[0].Points {
				v, err := devices.Get("device", p.ID)
				if err == nil {
					err = devices.Set("device", p.ID, v) // holds it
				}
				if err != nil {
					t.Fatal(err)
				}
				want[p.ID] = v
			}
			for _, s := range read(t, there.Buses[0], there.Devices) {
				if s.Quality != gateway.Good || !s.Value.Equal(want[s.Point.ID]) {
					t.Errorf("%s is %s (%s %s), want %s", s.Point.ID, s.Value, s.Quality, s.Reason, want[s.Point.ID])
				}
			}
		})
	}
}

func TestExamplesAreReadFromSimulatedDevices(t *testing.T) {
	for _, path := range []string{"demo.yaml", "energy-meter.yaml", "moulding-machine.yaml", "pump-drive.yaml"} {
		t.Run(stem(path), func(t *testing.T) {
			loaded, _ := load(t, path)
			_, there := simulate(t, loaded)
			for _, bus := range there.Buses {
				for _, s := range read(t, bus, there.Devices) {
					if s.Quality != gateway.Good {
						t.Errorf("%s of %s is %s: %s %s", s.Point.ID, s.Point.Device.Name, s.Value, s.Quality, s.Reason)
					}
				}
			}
		})
	}
}

// registers are a device that knows no profile: what stands at which address
// on the wire is written out here, from the makers' tables.
type registers struct {
	input, holding map[uint16]uint16
	longest        uint16 // registers in a request
}

func (r registers) HandleCoils(*library.CoilsRequest) ([]bool, error) {
	return nil, library.ErrIllegalFunction
}

func (r registers) HandleDiscreteInputs(*library.DiscreteInputsRequest) ([]bool, error) {
	return nil, library.ErrIllegalFunction
}

func (r registers) HandleInputRegisters(q *library.InputRegistersRequest) ([]uint16, error) {
	return r.answer(r.input, q.Addr, q.Quantity)
}

func (r registers) HandleHoldingRegisters(q *library.HoldingRegistersRequest) ([]uint16, error) {
	if q.IsWrite {
		return nil, library.ErrIllegalFunction
	}
	return r.answer(r.holding, q.Addr, q.Quantity)
}

// answer reads registers that do not exist as 0, as these devices do.
func (r registers) answer(table map[uint16]uint16, first, count uint16) ([]uint16, error) {
	if table == nil || count > r.longest {
		return nil, library.ErrIllegalDataAddress
	}
	words := make([]uint16, count)
	for i := range words {
		words[i] = table[first+uint16(i)]
	}
	return words, nil
}

// serve starts the device and leads the site's bus to it.
func (r registers) serve(t *testing.T, bus *gateway.Bus) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	server, err := library.NewServer(&library.ServerConfiguration{URL: "tcp://" + address, Timeout: time.Minute, MaxClients: 2, Logger: log.New(io.Discard, "", 0)}, r)
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	if bus.Host, bus.Port, err = net.SplitHostPort(address); err != nil {
		t.Fatal(err)
	}
}

// expect reads the device of a profile and compares every point: its value, or
// "bad: reason". more are further keys of the device.
func (r registers) expect(t *testing.T, profile string, want map[string]string, more ...string) {
	t.Helper()
	loaded := loadProfile(t, profile, more...)
	r.serve(t, loaded.Buses[0])
	for _, s := range read(t, loaded.Buses[0], loaded.Devices) {
		got := s.Value.String()
		if s.Quality != gateway.Good {
			got = s.Quality.String() + ": " + s.Reason
		}
		if got != want[s.Point.ID] {
			t.Errorf("%s is %s, want %s", s.Point.ID, got, want[s.Point.ID])
		}
		delete(want, s.Point.ID)
	}
	for id := range want {
		t.Errorf("there is no point %s", id)
	}
}

// measured is a value of a meter of float32 values: where it stands, what
// stands there, and what is reported.
type measured struct {
	id      string
	address uint16
	value   float32
	want    string
}

func meter(longest uint16, values []measured) (registers, map[string]string) {
	r, want := registers{input: map[uint16]uint16{}, longest: longest}, map[string]string{}
	for _, m := range values {
		bits := math.Float32bits(m.value)
		r.input[m.address], r.input[m.address+1] = uint16(bits>>16), uint16(bits)
		want[m.id] = m.want
	}
	return r, want
}

func TestSDM630MeansWhatTheMeterSays(t *testing.T) {
	r, want := meter(80, []measured{
		{"voltage_l1", 0x0000, 230.14, "230.1"}, {"voltage_l2", 0x0002, 231.26, "231.3"}, {"voltage_l3", 0x0004, 229.97, "230"},
		{"current_l1", 0x0006, 12.345, "12.35"}, {"current_l2", 0x0008, 11.2, "11.2"}, {"current_l3", 0x000A, 0.004, "0"},
		{"power_l1", 0x000C, 2801.6, "2802"}, {"power_l2", 0x000E, 2500.2, "2500"}, {"power_l3", 0x0010, -40.4, "-40"},
		{"apparent_power_l1", 0x0012, 2841, "2841"}, {"apparent_power_l2", 0x0014, 2590, "2590"}, {"apparent_power_l3", 0x0016, 41, "41"},
		{"reactive_power_l1", 0x0018, 470, "470"}, {"reactive_power_l2", 0x001A, 676, "676"}, {"reactive_power_l3", 0x001C, -7, "-7"},
		{"power_factor_l1", 0x001E, 0.9861, "0.986"}, {"power_factor_l2", 0x0020, 0.965, "0.965"}, {"power_factor_l3", 0x0022, -0.98, "-0.98"},
		{"power", 0x0034, 5261.4, "5261"}, {"apparent_power", 0x0038, 5472, "5472"}, {"reactive_power", 0x003C, 1139, "1139"},
		{"power_factor", 0x003E, 0.9614, "0.961"}, {"phase_angle", 0x0042, 15.94, "15.9"}, {"frequency", 0x0046, 49.987, "49.99"},
		{"energy_in", 0x0048, 12345.678, "12345.68"}, {"energy_out", 0x004A, 1.5, "1.5"}, {"reactive_energy_in", 0x004C, 2000.25, "2000.25"}, {"reactive_energy_out", 0x004E, 3, "3"},
		{"thd_voltage_l1", 0x00EA, 2.1, "2.1"}, {"thd_voltage_l2", 0x00EC, 2.2, "2.2"}, {"thd_voltage_l3", 0x00EE, 2.3, "2.3"}, {"thd_voltage", 0x00F8, 2.25, "2.25"},
		{"energy", 0x0156, 12347.18, "12347.18"}, {"reactive_energy", 0x0158, 2003.25, "2003.25"},
		{"energy_in_l1", 0x015A, 6000.5, "6000.5"}, {"energy_in_l2", 0x015C, 5000.5, "5000.5"}, {"energy_in_l3", 0x015E, 1344.75, "1344.75"},
		{"energy_out_l1", 0x0160, 0.25, "0.25"}, {"energy_out_l2", 0x0162, 0.5, "0.5"}, {"energy_out_l3", 0x0164, 0.75, "0.75"},
		{"energy_l1", 0x0166, 6000.75, "6000.75"}, {"energy_l2", 0x0168, 5001, "5001"}, {"energy_l3", 0x016A, 1345.5, "1345.5"},
		{"reactive_energy_in_l1", 0x016C, 700, "700"}, {"reactive_energy_in_l2", 0x016E, 701, "701"}, {"reactive_energy_in_l3", 0x0170, 702, "702"},
		{"reactive_energy_out_l1", 0x0172, 4, "4"}, {"reactive_energy_out_l2", 0x0174, 5, "5"}, {"reactive_energy_out_l3", 0x0176, 6, "6"},
		{"reactive_energy_l1", 0x0178, 704, "704"}, {"reactive_energy_l2", 0x017A, 706, "706"}, {"reactive_energy_l3", 0x017C, 708, "708"},
	})
	r.expect(t, "eastron-sdm630", want)
}

func TestSDM120MeansWhatTheMeterSays(t *testing.T) {
	r, want := meter(60, []measured{
		{"voltage", 0x0000, 230.14, "230.1"}, {"current", 0x0006, 4.321, "4.32"}, {"power", 0x000C, -950.7, "-951"},
		{"apparent_power", 0x0012, 994, "994"}, {"reactive_power", 0x0018, 290, "290"}, {"power_factor", 0x001E, -0.9564, "-0.956"},
		{"frequency", 0x0046, 50.013, "50.01"}, {"energy_in", 0x0048, 812.34, "812.34"}, {"energy_out", 0x004A, 95.1, "95.1"},
		{"reactive_energy_in", 0x004C, 20.5, "20.5"}, {"reactive_energy_out", 0x004E, 30.5, "30.5"},
		{"energy", 0x0156, 907.44, "907.44"}, {"reactive_energy", 0x0158, 51, "51"},
	})
	r.expect(t, "eastron-sdm120", want)
}

// inverter is a SunSpec map at an address: the marker, the common model with
// that many registers, and the given model, with values that are not
// implemented here and there.
func inverter(model, base, common uint16) registers {
	words := []uint16{0x5375, 0x6E53, 1, common} // "SunS", model 1
	text := func(s string, registers int) {
		padded := make([]byte, 2*registers)
		copy(padded, s)
		for i := 0; i < len(padded); i += 2 {
			words = append(words, uint16(padded[i])<<8|uint16(padded[i+1]))
		}
	}
	text("Example Solar", 16)
	text("EX-20K", 16)
	text("", 8)
	text("1.2.3", 8)
	text("SN0815", 16)
	words = append(words, 1, 0x8000)[:4+common] // device address, pad
	words = append(words, model, 50,
		2345, 781, 782, 783, 0xFFFE, // A: 23.45, 7.81, 7.82, 7.83
		4005, 4003, 4007, 2312, 2311, 2314, 0xFFFF, // V: 400.5, 400.3, 400.7, 231.2, 231.1, 231.4
		1620, 1, // W: 16200
		5001, 0xFFFE, // Hz: 50.01
		1625, 1, // VA: 16250
		0xFF88, 1, // VAr: -1200
		997, 0xFFFF, // PF: 99.7
		0x0001, 0xE240, 1, // WH: 1234560
		0xFFFF, 0x8000, // DCA: not implemented
		6305, 0xFFFF, // DCV: 630.5
		1665, 1, // DCW: 16650
		415, 0x8000, 0xFFF6, 0x8000, 0xFFFF, // temperatures: 41.5, not, -1, not
		4, 0xFFFF, // St: MPPT; StVnd: not implemented
		0x0000, 0x0801, 0, 0, // Evt1: GROUND_FAULT and AC_UNDER_VOLT
		0x0000, 0x0005, 0xFFFF, 0xFFFF, 0x8000, 0x0000, 0x7FFF, 0xFFFF, // EvtVnd1 to 4
	)
	r := registers{holding: map[uint16]uint16{}, longest: 125}
	for i, w := range words {
		r.holding[base+uint16(i)] = w
	}
	return r
}

// sunspec is what an inverter of a model reports.
func sunspec(model uint16) map[string]string {
	want := map[string]string{
		"model_id": strconv.Itoa(int(model)),
		"current":  "23.45", "current_l1": "7.81", "current_sf": "-2", "voltage_l1": "231.2", "voltage_sf": "-1",
		"power": "16200", "power_sf": "1", "frequency": "50.01", "frequency_sf": "-2", "apparent_power": "16250", "apparent_power_sf": "1",
		"reactive_power": "-1200", "reactive_power_sf": "1", "power_factor": "99.7", "power_factor_sf": "-1", "energy": "1.23456e+06", "energy_sf": "1",
		"dc_current": "bad: scale factor dc_current_sf: invalid", "dc_current_sf": "bad: invalid", "dc_voltage": "630.5", "dc_voltage_sf": "-1", "dc_power": "16650", "dc_power_sf": "1",
		"temperature_cabinet": "41.5", "temperature_sink": "bad: invalid", "temperature_transformer": "-1", "temperature_other": "bad: invalid", "temperature_sf": "-1",
		"state": "mppt", "vendor_state": "bad: invalid", "events": "ground_fault,ac_under_volt",
		"vendor_events_1": "5", "vendor_events_2": "bad: invalid", "vendor_events_3": "bad: invalid", "vendor_events_4": "2147483647",
		"sunspec": "SunS", "manufacturer": "Example Solar", "model": "EX-20K", "options": "", "version": "1.2.3", "serial_number": "SN0815",
	}
	if model > 101 {
		maps.Copy(want, map[string]string{"current_l2": "7.82", "voltage_l1_l2": "400.5", "voltage_l2": "231.1"})
	}
	if model > 102 {
		maps.Copy(want, map[string]string{"current_l3": "7.83", "voltage_l2_l3": "400.3", "voltage_l3_l1": "400.7", "voltage_l3": "231.4"})
	}
	return want
}

func TestSunSpecMeansWhatTheInverterSays(t *testing.T) {
	inverter(101, 40000, 66).expect(t, "sunspec-inverter-101", sunspec(101))
	inverter(102, 40000, 66).expect(t, "sunspec-inverter-102", sunspec(102))
	inverter(103, 40000, 66).expect(t, "sunspec-inverter-103", sunspec(103))
}

// The profiles say how to move them to where an inverter has its map.
func TestSunSpecMapMayBeElsewhere(t *testing.T) {
	inverter(103, 0, 66).expect(t, "sunspec-inverter-103", sunspec(103), "shift: -40000")
	inverter(103, 50000, 66).expect(t, "sunspec-inverter-103", sunspec(103), "shift: 10000")
	short := sunspec(103)
	for _, id := range []string{"sunspec", "manufacturer", "model", "options", "version", "serial_number"} {
		delete(short, id)
	}
	inverter(103, 40000, 65).expect(t, "sunspec-inverter-103", short, "shift: -1", "drop: [sunspec, manufacturer, model, options, version, serial_number]")
}

// A profile of another model than the inverter's says so.
func TestSunSpecModelIsChecked(t *testing.T) {
	loaded := loadProfile(t, "sunspec-inverter-103")
	inverter(101, 40000, 66).serve(t, loaded.Buses[0])
	for _, s := range read(t, loaded.Buses[0], loaded.Devices) {
		if s.Point.ID == "model_id" && (s.Quality != gateway.Uncertain || s.Reason != "implausible") {
			t.Errorf("model_id is %s %s, want uncertain, implausible", s.Quality, s.Reason)
		}
	}
}
