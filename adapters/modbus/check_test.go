package modbus

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
)

// said writes findings as "severity path: text; suggestion".
func said(findings []gateway.Finding) (list []string) {
	for _, f := range findings {
		line := fmt.Sprintf("%s %s: %s", f.Severity, f.Path, f.Text)
		if f.Suggestion != "" {
			line += "; " + f.Suggestion
		}
		list = append(list, line)
	}
	return list
}

// checkOf checks one device on a bus, after change.
func checkOf(bus gateway.Bus, table string, change func(*gateway.Profile, *gateway.Device), defs ...gateway.Definition) []string {
	profile := &gateway.Profile{Name: "p", Addressing: "protocol", Table: table, Order: "ABCD"}
	for i := range defs {
		defs[i].Poll = time.Second
		if defs[i].ID == "" {
			defs[i].ID = string(rune('a' + i))
		}
		profile.Points = append(profile.Points, &defs[i])
	}
	d := device(&bus, profile, "d", 1)
	if change != nil {
		change(profile, d)
	}
	return said(Check(&bus, []*gateway.Device{d}))
}

func expect(t *testing.T, name string, got []string, want ...string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("%s:\n%s\nwant:\n%s", name, g, w)
	}
}

func TestCheckOfPoints(t *testing.T) {
	type def = gateway.Definition
	rule := func(r gateway.WriteRule) *gateway.WriteRule { return &r }
	tests := []struct {
		name   string
		table  string
		change func(*gateway.Profile, *gateway.Device)
		defs   []def
		want   []string
	}{
		{"all is well", "holding", nil, []def{
			{At: "0", Type: "float32"}, {At: "2", Type: "uint16", Access: "rw"}, {At: "3", Type: "bool", Bit: bit(3), Access: "rw", Write: rule(gateway.WriteRule{Mask: "fc22"})},
			{At: "3", Type: "bool", Bit: bit(4)}, {At: "coil:3", Type: "bool", Access: "rw"}, {At: "2", Type: "uint16"}, {At: "0x9C41", Type: "uint16"}, {At: "holding:40010", Type: "uint16"},
		}, nil},
		{"address", "holding", nil, []def{{At: "21FF", Type: "uint16"}},
			[]string{`error devices.d.points.a.at: address "21FF" is not a number; write 0x21FF for a hexadecimal number`}},
		{"address and type", "holding", nil, []def{{At: "x1", Type: "float"}},
			[]string{`error devices.d.points.a.at: address "x1" is not a number; write the number that the manual prints, such as 40001, 0x2101 or holding:12`,
				`error devices.d.points.a.type: type "float" is unknown; write bool, int8 … int64, uint8 … uint64, float32, float64, bcd16, bcd32, string, bytes, flags or time`}},
		{"no address", "holding", nil, []def{{Type: "uint16"}},
			[]string{`error devices.d.points.a.at: the point has no address; write at: with the address that the manual prints`}},
		{"no table", "", nil, []def{{At: "5", Type: "uint16"}},
			[]string{`error devices.d.points.a.at: address "5" does not say which table it is in; write holding:5, input:5, coil:5 or discrete:5, or give the profile a table`}},
		{"an OPC UA node", "holding", nil, []def{{Node: "i=2258", Type: "uint16"}},
			[]string{`error devices.d.points.a.node: node is for OPC UA, the bus is modbus-tcp; write at: with the address that the manual prints`}},
		{"past the table", "holding", nil, []def{{At: "0xFFFF", Type: "uint32"}},
			[]string{`error devices.d.points.a.at: holding registers 65535 to 65536 are outside of the table, which ends with 65535`}},
		{"shifted past the table", "holding", func(_ *gateway.Profile, d *gateway.Device) { d.Shift = -10 }, []def{{At: "5", Type: "uint16"}},
			[]string{`error devices.d.points.a.at: holding register -5 is outside of the table, which begins with 0 (the device's shift is -10)`}},
		{"no order", "holding", func(p *gateway.Profile, _ *gateway.Device) { p.Order = "" }, []def{{At: "0", Type: "float32"}, {At: "2", Type: "uint16"}},
			[]string{`error devices.d.points.a.order: no order for a value of two registers or more; write order: ABCD (most significant first), CDAB (words swapped), BADC (bytes swapped) or DCBA (all reversed), as the manual says`}},
		{"an order that does nothing", "holding", nil, []def{{At: "0", Type: "uint16", Order: "BADC"}},
			[]string{`warning devices.d.points.a.order: order is about values of two registers or more: a uint16 is one, its high byte comes first; remove it`}},
		{"no type", "holding", nil, []def{{At: "0"}}, []string{`error devices.d.points.a.type: the point has no type; write type: uint16, int16, float32 …, as the manual says`}},
		{"no type of a coil", "coil", nil, []def{{At: "0"}}, []string{`error devices.d.points.a.type: the point has no type; write type: bool`}},
		{"a number in a coil", "coil", nil, []def{{At: "0", Type: "uint16"}}, []string{`error devices.d.points.a.type: a coil is a bit, uint16 is not; write type: bool`}},
		{"a bit of a bit", "discrete", nil, []def{{At: "0", Type: "bool", Bit: bit(1)}}, []string{`error devices.d.points.a.bit: a discrete input is a bit already; remove bit`}},
		{"no length", "holding", nil, []def{{At: "0", Type: "string"}, {At: "2", Type: "flags"}}, []string{
			`error devices.d.points.a.length: type string needs a length; write length: and the number of bytes, two for each register`,
			`error devices.d.points.b.length: type flags needs a length; write length: and the number of bytes, two for each register`}},
		{"a time without format and zone", "holding", nil, []def{{At: "0", Type: "time"}, {At: "4", Type: "time", Format: "bcd6"}}, []string{
			`error devices.d.points.a.format: type time needs a format; write unix32, unix64ms, iec870, bcd6 or ymdhms`,
			`error devices.d.points.b.zone: time format bcd6 needs a zone; write utc, or the Area/City of the device's clock`}},
		{"partial overlap", "holding", nil, []def{{At: "0", Type: "float32"}, {At: "1", Type: "float32"}, {At: "3", Type: "bytes", Length: 20}},
			[]string{`error devices.d.points.b.at: b (holding:1 to holding:2) overlaps a part of a (holding:0 to holding:1); one of the two has a wrong address, type or count`}},
		{"overlap of different size", "holding", nil, []def{{At: "0", Type: "uint16"}, {At: "0", Type: "uint32"}},
			[]string{`error devices.d.points.b.at: b (holding:0 to holding:1) overlaps a part of a (holding:0); one of the two has a wrong address, type or count`}},
		{"modicon in a protocol profile", "holding", nil, []def{{At: "40001", Type: "uint16"}, {At: "40002", Type: "uint16"}},
			[]string{`warning devices.d.points.a.at: at 40001 looks like a modicon reference, but addressing is protocol: it reads holding 40001 (0x9C41); where 40001 is holding 0 (0x0000), write addressing: modicon; else holding:40001 says that it is meant`}},
		{"too long", "holding", nil, []def{{At: "0", Type: "uint16", Count: 126}, {At: "200", Type: "string", Length: 252}}, []string{
			`error devices.d.points.a.count: the point has 126 registers, one request reads 125; make several points of it`,
			`error devices.d.points.b.length: the point has 126 registers, one request reads 125; make several points of it`}},
		{"longer than max_registers", "holding", func(p *gateway.Profile, _ *gateway.Device) { p.MaxRegisters = 1 }, []def{{At: "0", Type: "float32"}},
			[]string{`error devices.d.points.a.type: the point has 2 registers, one request reads 1; make several points of it`}},
		{"bit outside", "holding", nil, []def{{At: "0", Type: "bool", Bit: bit(16)}},
			[]string{`error devices.d.points.a.bit: bit 16 is outside of the 16 bits of bool; write type: uint32 or uint64 for more registers`}},
		{"write to an input register", "input", nil, []def{{At: "0", Type: "uint16", Access: "rw"}, {At: "1", Type: "uint16", Access: "w", Write: rule(gateway.WriteRule{At: "holding:1"})}},
			[]string{`error devices.d.points.a.access: an input register can't be written; write access: r, or write: { at: … } with the holding register that takes the value`}},
		{"write elsewhere, wrongly", "holding", nil, []def{{At: "0", Type: "uint16", Access: "rw", Write: rule(gateway.WriteRule{At: "hold:1"})}, {At: "1", Type: "uint16", Access: "rw", Write: rule(gateway.WriteRule{At: "coil:1"})}}, []string{
			`error devices.d.points.a.write.at: address "hold:1": "hold" is not a table; write holding:, input:, coil: or discrete:`,
			`error devices.d.points.b.write.at: a holding register can't be written as a coil; write the address of a holding register`}},
		{"a float by single", "holding", nil, []def{{At: "0", Type: "float32", Access: "rw", Write: rule(gateway.WriteRule{Function: "single"})}},
			[]string{`error devices.d.points.a.write.function: a has 2 registers, a single write carries one; write function: multiple for this point: write: { function: multiple }`}},
		{"a float by the profile's single", "holding", func(p *gateway.Profile, _ *gateway.Device) { p.WriteFunction = "single" }, []def{{At: "0", Type: "float32", Access: "rw"}},
			[]string{`error devices.d.profile.write_function: a has 2 registers, a single write carries one; write function: multiple for this point: write: { function: multiple }`}},
		{"more than one write", "holding", func(p *gateway.Profile, _ *gateway.Device) { p.MaxWrite = 2 }, []def{{At: "0", Type: "float64", Access: "rw"}},
			[]string{`error devices.d.points.a.access: a has 4 registers, one write carries 2; make several points of it`}},
		{"a bit without mask", "holding", nil, []def{{At: "0", Type: "bool", Bit: bit(1), Access: "rw"}},
			[]string{`error devices.d.points.a.access: a is a bit of a register and does not say how it is written; write: { mask: fc22 } where the unit has mask write (function 22), else { mask: rmw }`}},
		{"rmw", "holding", nil, []def{{At: "0", Type: "bool", Bit: bit(1), Access: "rw", Write: rule(gateway.WriteRule{Mask: "rmw"})}},
			[]string{`warning devices.d.points.a.write.mask: rmw writes the whole register as it was read: a change that another master makes in between is lost; write mask: fc22 where the unit has mask write (function 22)`}},
		{"bits of two registers", "holding", nil, []def{{At: "0", Type: "uint32", Bits: &gateway.BitRange{Low: 12, High: 19}, Access: "rw", Write: rule(gateway.WriteRule{Mask: "fc22"})}},
			[]string{`error devices.d.points.a.write.mask: bits 12 to 19 are in two registers, a mask write changes one; write mask: rmw, or make two points of it`}},
		{"scale_from far away", "holding", nil, []def{{At: "0", Type: "int16", ScaleFrom: "b"}, {At: "200", Type: "int16"}, {At: "input:1", Type: "int16", ScaleFrom: "b"}, {At: "5", Type: "int16", ScaleFrom: "z"}}, []string{
			`error devices.d.points.a.scale_from: a and b span 201 registers, one request reads 125; write a scale where the factor does not change`,
			`error devices.d.points.c.scale_from: b is in the holding table, c in the input table: they can't come from one request; write a scale where the factor does not change`,
			`error devices.d.points.d.scale_from: there is no point z; write the name of the point that holds the exponent`}},
		{"blocks", "holding", nil, []def{{At: "0", Type: "int16", Block: "x"}, {At: "200", Type: "int16", Block: "x"}, {At: "1", Type: "int16", Block: "y"}, {At: "input:1", Type: "int16", Block: "y"}}, []string{
			`error devices.d.points.b.block: block x spans 201 registers, one request reads 125; make several blocks of it`,
			`error devices.d.points.d.block: block y: c is in the holding table, d in the input table; give them blocks of their own`}},
		{"what is read together over a forbidden register", "holding", func(p *gateway.Profile, d *gateway.Device) { p.Forbid, d.Shift = []string{"5", "40..50"}, 100 }, []def{
			{At: "0", Type: "int16", Block: "x"}, {At: "9", Type: "int16", Block: "x"}, {At: "3", Type: "int16", ScaleFrom: "b"},
			{At: "5", Type: "int16", Block: "y"}, {At: "6", Type: "int16", Block: "y"}}, []string{
			`error devices.d.points.c.scale_from: c and b come from one request, and forbid has holding 105 between them; write a scale where the factor does not change`,
			`error devices.d.points.a.block: block x is read by one request, and forbid has holding 105 in it; make several blocks of it`}},
		{"blocks that are written", "holding", func(p *gateway.Profile, d *gateway.Device) {
			p.MaxWrite = 2
			d.Commands = []*gateway.Command{{ID: "set", Steps: []*gateway.Step{writes("a", "b"), writes("a", "c", "b"), writes("d", "e")}, OnFail: []*gateway.Step{writes("b"), writes("b", "c")}}}
		}, []def{{At: "0", Type: "int16", Block: "x", Access: "w"}, {At: "2", Type: "int16", Block: "x", Access: "w"}, {At: "1", Type: "int16", Block: "x", Access: "w"}, {At: "8", Type: "int16", Block: "y", Access: "w"}, {At: "9", Type: "int16", Access: "w"}}, []string{
			`error devices.d.points.a.block: command set: a and b are not side by side, and can't be written by one request; write all points between them in the same step, or give them blocks of their own`,
			`error devices.d.points.a.block: command set: block x has 3 registers, one write carries 2; make several blocks of it`}},
		{"addressing", "holding", func(p *gateway.Profile, _ *gateway.Device) { p.Addressing = "" }, []def{{At: "0", Type: "uint16"}},
			[]string{`error devices.d.profile.addressing: the profile does not say how its manual counts registers; write addressing: modicon (40001 is the first holding register), one-based (1 is) or protocol (0 is)`}},
		{"limits and forbid", "holding", func(p *gateway.Profile, _ *gateway.Device) {
			p.MaxRegisters, p.MaxWrite, p.Forbid = 126, 124, []string{"1..2", "9..3"}
		}, []def{{At: "0", Type: "uint16"}}, []string{
			`error devices.d.profile.max_registers: max_registers 126 is not a number from 1 to 125; write max_registers: 125 or less`,
			`error devices.d.profile.max_write: max_write 124 is not a number from 1 to 123; write max_write: 123 or less`,
			`error devices.d.profile.forbid.1: range "9..3" does not run upwards within one table; write the smaller address first, both of one table`}},
	}
	for _, tt := range tests {
		expect(t, tt.name, checkOf(*tcp, tt.table, tt.change, tt.defs...), tt.want...)
	}
}

// writes is a step that writes points.
func writes(points ...string) *gateway.Step {
	s := &gateway.Step{Write: &gateway.Assignments{}}
	for _, p := range points {
		s.Write.Values = append(s.Write.Values, gateway.Assignment{Point: p, Value: "1"})
	}
	return s
}

func TestCheckOfBuses(t *testing.T) {
	ok := gateway.Definition{At: "0", Type: "uint16"}
	tests := []struct {
		name string
		bus  gateway.Bus
		want []string
	}{
		{"defaults", gateway.Bus{Name: "b", Type: "modbus-tcp", Host: "10.0.0.1", RS485: "driver", Echo: "none", Security: "auto", Connections: 1, Pipeline: 1, SessionTimeout: time.Minute}, nil},
		{"no host", gateway.Bus{Name: "b", Type: "modbus-tcp"}, []string{"error buses.b: bus b has no host; write host: and the address of the device or converter"}},
		{"a URL", gateway.Bus{Name: "b", Type: "modbus-tcp", Host: "tcp://10.0.0.1"}, []string{`error buses.b.host: host "tcp://10.0.0.1" is more than a host; write the name or IP address alone`}},
		{"a serial port on TCP", gateway.Bus{Name: "b", Type: "modbus-tcp", Host: "h", Port: "/dev/ttyS0"}, []string{`error buses.b.port: port "/dev/ttyS0" is not a number from 1 to 65535; write type: modbus-rtu for a serial line, or port: 502`}},
		{"line on TCP", gateway.Bus{Name: "b", Type: "modbus-rtu-over-tcp", Host: "h", Line: "9600 8N1"}, []string{"error buses.b.line: line does not belong to a bus of type modbus-rtu-over-tcp; remove it"}},
		{"pipeline on RTU over TCP", gateway.Bus{Name: "b", Type: "modbus-rtu-over-tcp", Host: "h", Pipeline: 4}, []string{"error buses.b.pipeline: pipeline does not belong to a bus of type modbus-rtu-over-tcp; remove it"}},
		{"too many", gateway.Bus{Name: "b", Type: "modbus-tcp", Host: "h", Connections: 65, Pipeline: 65}, []string{
			"error buses.b.connections: connections 65 is more than 64; write connections: 64 or less", "error buses.b.pipeline: pipeline 65 is more than 64; write pipeline: 64 or less"}},
		{"a certificate without its key", gateway.Bus{Name: "b", Type: "modbus-tls", Host: "h", TLS: &gateway.TLS{Cert: "c.pem"}}, []string{
			"error buses.b.tls: cert and key belong together; write both cert and key, or neither where the device wants no certificate"}},
		{"echo on TCP", gateway.Bus{Name: "b", Type: "modbus-tcp", Host: "h", Echo: "local", RS485: "rts"}, []string{
			"error buses.b.rs485: rs485 does not belong to a bus of type modbus-tcp; remove it", "error buses.b.echo: echo does not belong to a bus of type modbus-tcp; remove it"}},
		{"nothing on RTU", gateway.Bus{Name: "b", Type: "modbus-rtu"}, []string{"error buses.b: bus b has no port; write port: /dev/serial/by-id/… and line: 9600 8N1", "error buses.b: bus b has no line; write line: 9600 8N1, as the units are set"}},
		{"a TCP port on RTU", gateway.Bus{Name: "b", Type: "modbus-rtu", Port: "502", Line: "9600 8N1", Host: "h"}, []string{
			"error buses.b.port: port 502 is no serial device; write port: /dev/serial/by-id/…, or type: modbus-tcp with a host", "error buses.b.host: host does not belong to a bus of type modbus-rtu; remove it"}},
		{"ttyUSB0", gateway.Bus{Name: "b", Type: "modbus-rtu", Port: "/dev/ttyUSB0", Line: "9600 8N1"}, []string{
			"warning buses.b.port: /dev/ttyUSB0 is whichever adapter was plugged in first: after a restart it can be another one; ls -l /dev/serial/by-id shows the name that stays; write port: /dev/serial/by-id/…"}},
		{"line", gateway.Bus{Name: "b", Type: "modbus-rtu", Port: "/dev/serial/by-id/x", Line: "9600 7E1"}, []string{`error buses.b.line: line "9600 7E1": Modbus RTU has 8 data bits; write 9600 8E1`}},
		{"timeout", gateway.Bus{Name: "b", Type: "modbus-rtu", Port: "/dev/serial/by-id/x", Line: "1200 8N1", Timeout: 50 * time.Millisecond}, []string{
			"warning buses.b.timeout: timeout 50ms is shorter than the 125ms that the longest request (1 register of d) takes on a line of 1200 Bd; write timeout: 200ms or more, or a smaller max_registers"}},
	}
	for _, tt := range tests {
		expect(t, tt.name, checkOf(tt.bus, "holding", nil, ok), tt.want...)
	}
}

func TestCheckOfUnits(t *testing.T) {
	profile := profileOf("holding", [2]int{0, 1})
	check := func(bus *gateway.Bus, units ...int) []string {
		var devices []*gateway.Device
		for i, u := range units {
			devices = append(devices, device(bus, profile, fmt.Sprintf("d%d", i), u))
		}
		return said(Check(bus, devices))
	}
	line := &gateway.Bus{Name: "b", Type: "modbus-rtu", Port: "/dev/serial/by-id/x", Line: "115200 8N1"}
	expect(t, "units of TCP", check(tcp, 0, 1, 247, 255))
	expect(t, "twice", check(tcp, 1, 2, 1), "error devices.d2.unit: unit 1 on bus tcp is d0 already; give each its own unit, or write same_unit: true on both where they are parts of one unit")
	expect(t, "broadcast", check(line, 0), "error devices.d0.unit: unit 0 is the broadcast of a serial line: nobody answers to it; write the unit's own number, 1 to 247")
	expect(t, "no such unit", check(line, 248), "error devices.d0.unit: unit 248 does not exist; write a unit from 1 to 247")
	expect(t, "no such unit on TCP", check(tcp, 256), "error devices.d0.unit: unit 256 does not exist; write a unit from 1 to 255")
	profile.Points[0].Access = "rw"
	expect(t, "unit 0 written", check(tcp, 0), "error devices.d0.unit: unit 0 is written to (p0): behind a gateway that means all units; write the unit's own number, such as 1 or 255")

	one, two := device(tcp, profile, "one", 1), device(tcp, profile, "two", 1)
	one.SameUnit, two.SameUnit = true, true
	expect(t, "parts of one unit", said(Check(tcp, []*gateway.Device{one, two})))
	two.SameUnit, two.Disabled = false, true
	expect(t, "one of them disabled", said(Check(tcp, []*gateway.Device{one, two})))
}

func TestCheckSaysItOnce(t *testing.T) {
	profile := profileOf("holding", [2]int{0, 1})
	profile.Points[0].At = "x1"
	var devices []*gateway.Device
	for i := range 5 {
		devices = append(devices, device(tcp, profile, fmt.Sprintf("d%d", i), i+1))
	}
	if got := said(Check(tcp, devices)); len(got) != 1 || !strings.HasPrefix(got[0], "error devices.d0.points.p0.at") {
		t.Errorf("%v", got)
	}
}

func TestCheckOfABusThatCannotKeepUp(t *testing.T) {
	profile := profileOf("holding", [2]int{0, 100}, [2]int{200, 100})
	bus := &gateway.Bus{Name: "slow", Type: "modbus-rtu", Port: "/dev/serial/by-id/x", Line: "9600 8N1", Timeout: time.Second}
	var devices []*gateway.Device
	for i := range 3 {
		devices = append(devices, device(bus, profile, fmt.Sprintf("d%d", i), i+1))
	}
	// A request: 8+5+200 characters of 1.0417 ms, 3.5 of silence, 10 ms of turn-around = 235.5 ms.
	expect(t, "too much", said(Check(bus, devices)),
		"error buses.slow: bus slow can't keep up: its polls need 1.41 s of line time in each second (141 %); poll: 2s instead of 1s would use 71 %; a faster line or fewer points help too")
	expect(t, "it fits", said(Check(bus, devices[:2])))
	o, err := Describe(bus, devices[:2])
	if err != nil || len(o.Requests) != 4 || o.Cycle != time.Second || o.PerCycle.Round(time.Millisecond) != 942*time.Millisecond || o.Estimated {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestDescribe(t *testing.T) {
	profile := &gateway.Profile{Name: "p", Addressing: "modicon", Order: "CDAB"}
	profile.Points = []*gateway.Definition{
		{ID: "power", At: "30053", Type: "float32", Poll: time.Second},
		{ID: "state", At: "30060", Type: "uint16", Poll: 10 * time.Second},
		{ID: "run", At: "00017", Type: "bool", Access: "w", Poll: time.Second},
	}
	d := device(tcp, profile, "d", 3)
	d.Shift = 100
	o, err := Describe(tcp, []*gateway.Device{d, {Name: "off", Disabled: true}})
	if err != nil {
		t.Fatal(err)
	}
	want := `power 30053 30053 "input 152 (0x0098)" 2 float32 CDAB 1s
state 30060 30060 "input 159 (0x009F)" 1 uint16  10s
run 00017 00017 "coil 116 (0x0074)" 1 bool  0s
unit 3, input 152 to 153: 1 every 1s, ` + (roundTrip + 4*tcpByte).String() + `
unit 3, input 159 to 159: 1 every 10s, ` + (roundTrip + 2*tcpByte).String() + "\n"
	var got strings.Builder
	for _, p := range o.Points {
		fmt.Fprintf(&got, "%s %s %s %q %d %s %s %s\n", p.Point, p.Printed, p.Full, p.Wire, p.Size, p.Type, p.Order, p.Poll)
	}
	for _, r := range o.Requests {
		fmt.Fprintf(&got, "%s: %d every %s, %s\n", r.Reads, r.Points, r.Every, r.Takes)
	}
	expect(t, "overview", []string{got.String()}, want)
	if o.AutoGap != nil {
		t.Errorf("auto is the default of input registers, and saves %+v", o.AutoGap)
	}
	profile.MaxGap = &gateway.Gap{}
	profile.Points[1].Poll = time.Second
	if o, err = Describe(tcp, []*gateway.Device{d}); err != nil || o.AutoGap == nil || len(o.Requests) != 2 || o.AutoGap.Requests != 1 || o.AutoGap.Busy >= o.Busy {
		t.Errorf("with max_gap: 0: %+v saves %+v", o, o.AutoGap)
	}
	profile.MaxGap, profile.Points[1].Poll = nil, 10*time.Second
	o, _ = Describe(tcp, []*gateway.Device{d})
	if len(o.Requests) != 2 || !o.Estimated || o.Busy < 0.0011 || o.Busy > 0.0012 {
		t.Errorf("%+v", o)
	}
}

func TestParseLine(t *testing.T) {
	for text, want := range map[string]string{"9600 8N1": "9600 8N1 10", "19200 8e1": "19200 8E1 11", "115200  8O2": "115200 8O2 12"} {
		l, err := ParseLine(text)
		if got := fmt.Sprintf("%s %d", l, l.CharBits()); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "is not a baud rate and a format", "9600": "is not a baud rate and a format", "9600-8N1": "is not a baud rate and a format", "8N1 9600": "is not a baud rate and a format",
		"9k6 8N1": `"9k6" is no baud rate`, "0 8N1": "is no baud rate", "9600 7E1": "8 data bits; write 9600 8E1", "9600 8X1": `parity "X"`, "9600 8N3": `"3" is not 1 or 2 stop bits`,
	} {
		if _, err := ParseLine(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
