package site

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sluice/gateway"
)

// plantWith is the plant of load_test.go with some text replaced.
func plantWith(t *testing.T, edits ...string) string {
	t.Helper()
	text := plant
	for i := 0; i+1 < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			t.Fatalf("no %q", edits[i])
		}
		text = strings.Replace(text, edits[i], edits[i+1], 1)
	}
	return text
}

func loadQuietly(t *testing.T, text string) *gateway.Site {
	t.Helper()
	site, diagnostics := Parse("plant.yaml", []byte(text), Options{})
	if site == nil || len(diagnostics) > 0 {
		t.Fatalf("%v", diagnostics)
	}
	return site
}

const meterProfile = `# a meter
protocol: modbus
addressing: one-based
table: input
order: CDAB
points:
  energy: { at: 73, type: float32, unit: kWh }
`

func TestProfileComesFromAFileOrIsBuiltIn(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "meter.yaml"), []byte(meterProfile), 0o600); err != nil {
		t.Fatal(err)
	}
	text := plantWith(t, "devices:\n", "  meter: meter.yaml\n  spare: builtin:spare-meter\ndevices:\n  - { name: m1, profile: meter, bus: pump-skid, unit: 7 }\n  - { name: m2, profile: spare, bus: pump-skid, unit: 8 }\n")
	o := Options{Builtin: fstest.MapFS{"spare-meter.yaml": {Data: []byte(meterProfile)}}}
	site, diagnostics := Parse(filepath.Join(dir, "plant.yaml"), []byte(text), o)
	if len(diagnostics) > 0 {
		t.Fatal(diagnostics)
	}
	for i, name := range []string{"meter", "spare"} {
		if d := site.Devices[i]; d.Profile.Name != name || d.Points[0].Order != gateway.CDAB || d.Points[0].ID != "energy" {
			t.Errorf("%+v", d)
		}
	}
}

func TestMistakeInAProfileFileIsMarkedThere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "meter.yaml")
	broken := strings.Replace(meterProfile, "unit: kWh", "access: rw", 1)
	if err := os.WriteFile(file, []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	text := plantWith(t, "devices:\n", "  meter: meter.yaml\ndevices:\n  - { name: m1, profile: meter, bus: pump-skid, unit: 7 }\n")
	_, diagnostics := Parse(filepath.Join(dir, "plant.yaml"), []byte(text), Options{})
	want := file + `:7:3: error: "energy" can be written without limits
      energy: { at: 73, type: float32, access: rw }
      ^^^^^^
    write min: and max:, in engineering units, or unbounded: true
`
	if len(diagnostics) != 1 || diagnostics[0].String() != want {
		t.Errorf("got\n%s\nwant\n%s", diagnostics, want)
	}
}

func TestProfileLoadsAlone(t *testing.T) {
	o := Options{Builtin: fstest.MapFS{"spare-meter.yaml": {Data: []byte(meterProfile)}, "bad.yaml": {Data: []byte("protocol: modbus\npoints: {}\n")}}}
	p, diagnostics := LoadProfile("builtin:spare-meter", o)
	if p == nil || len(diagnostics) > 0 || p.Name != "spare-meter" || len(p.Points) != 1 {
		t.Errorf("%+v, %v", p, diagnostics)
	}
	for reference, says := range map[string]string{"builtin:bad": "addressing is missing", "builtin:spare-metre": "no built-in profile", "nowhere.yaml": "no such file"} {
		if p, diagnostics := LoadProfile(reference, o); p != nil || !strings.Contains(diagnostics[0].Text, says) {
			t.Errorf("%s: %v", reference, diagnostics)
		}
	}
}

func TestInstancesAddToWhatStandsBesideThem(t *testing.T) {
	site := loadQuietly(t, plantWith(t, "    drop: [frequency]\n", "    drop: [frequency]\n    lock: [power]\n    shift: 100\n    override: { power: { scale: 2, offset: 1 } }\n",
		"unit: 3,", "unit: 3, drop: [voltage_l1], shift: 200, override: { power: { offset: 7 } },"))
	press3, press4 := site.Devices[1], site.Devices[2]
	if len(press3.Points) != 1 || !press3.Points[0].Locked || press3.Shift != 200 || press3.Points[0].Scale.Float != 2 || press3.Points[0].Offset.Float != 7 {
		t.Errorf("press3: %+v %+v", press3, press3.Points[0].Definition)
	}
	if len(press4.Points) != 2 || !press4.Points[1].Locked || press4.Shift != 100 || press4.Points[1].Scale.Float != 0.001 || press4.Points[1].Offset.Float != 1 {
		t.Errorf("press4: %+v %+v", press4, press4.Points[1].Definition)
	}
}

func TestDeviceMayHoldItsOwnProfile(t *testing.T) {
	site := loadQuietly(t, plantWith(t, "devices:\n", "devices:\n  - { name: io, label: I/O card, bus: pump-skid, unit: 9, timeout: 2s, protocol: modbus, addressing: protocol, table: coil, poll: 3s, points: { door: { at: 0, type: bool } } }\n"))
	io := site.Devices[0]
	if io.Label != "I/O card" || io.Profile.Name != "io" || io.Timeout != 2*time.Second || io.Points[0].Poll != 3*time.Second || io.Points[0].Name != "io_door" {
		t.Errorf("%+v %+v", io, io.Points[0])
	}
}

func TestVariablesFillNodes(t *testing.T) {
	text := plantWith(t, "profiles:\n", "  plc: { type: opcua, endpoint: 'opc.tcp://h:4840' }\nprofiles:\n  press: { protocol: opcua, points: { t: { node: 's=\"{db}\".\"T\"', type: float32, label: 'T of {db}' } } }\n",
		"devices:\n", "devices:\n  - { profile: press, bus: plc, vars: { db: X }, instances: [ { name: p1, vars: { db: P1 } }, { name: p2 } ] }\n")
	site := loadQuietly(t, text)
	if a, b := site.Devices[0].Points[0], site.Devices[1].Points[0]; a.Node != `s="P1"."T"` || b.Node != `s="X"."T"` || a.Label != "T of P1" {
		t.Errorf("%q %q %q", a.Node, b.Node, a.Label)
	}
	_, diagnostics := Parse("plant.yaml", []byte(strings.Replace(text, "vars: { db: X }, ", "", 1)), Options{})
	if diagnostics.Errors() != 1 || !strings.Contains(diagnostics[0].Text, "has {db}, and vars does not") {
		t.Errorf("%v", diagnostics)
	}
	_, diagnostics = Parse("plant.yaml", []byte(strings.Replace(text, "{db}", "{dv}", 1)), Options{})
	if diagnostics.Errors() == 0 || !strings.Contains(diagnostics[0].Text, "has {dv}, and vars does not") {
		t.Errorf("%v", diagnostics)
	}
}

func TestDroppedPointTakesAwayWhatNeedsIt(t *testing.T) {
	text := plantWith(t, "    order: ABCD\n    poll: 5s\n", `    order: ABCD
    poll: 5s
    computed:
      double: { value: frequency * 2 }
    events:
      low: { when: frequency < 49 }
      high: { when: voltage_l1 > 250 }
`)
	site, diagnostics := Parse("plant.yaml", []byte(text), Options{})
	d := site.Devices[1]
	if len(d.Computed) != 0 || len(d.Events) != 1 || d.Events[0].ID != "high" || len(d.Profile.Events) != 2 {
		t.Errorf("%+v", d)
	}
	if len(diagnostics) != 2 || !strings.Contains(diagnostics[0].Text, "frequency") {
		t.Errorf("%v", diagnostics)
	}
	loadQuietly(t, strings.Replace(text, "drop: [frequency]", "drop: [frequency, low, double]", 1))
}

func TestLanguageIsRead(t *testing.T) {
	site := loadQuietly(t, plantWith(t, "      hz: { at: 0x2103", `      run: { at: "coil:1", type: bool, access: w }
      set: { at: 0x2001, type: uint16, scale: 0.01, access: rw, min: 20, max: 50, step: 0.5, guard: value < 40 or state == "running", verify: { within: 2s }, write: { at_most: 1/1s } }
      hz: { at: 0x2103`, "devices:\n", `    computed:
      half: { value: hz / 2, decimals: 1 }
    events:
      slow: { when: hz < 20, clear: hz > 22, for: { raise: 3s, clear: 5 samples }, params: [hz, half], severity: alarm, at_most: 10/min, repeat: 1h, clear_event: slow_over }
      moved: { each: changed(state) and hz > 1 }
    commands:
      start:
        params: { speed: { type: float, min: 20, max: 50, default: 35 }, quick: { type: bool, default: false } }
        guard: state == "stopped" and not quick
        steps:
          - write: { set: $speed }
          - pulse: { point: run, value: true, back_to: false, for: 300ms }
          - { expect: 'state == "running" and hz > speed - 1', within: 5s }
        on_fail: [ { write: { run: false } } ]
        reply: [state, half]
      preset: { params: [set], steps: [ { write: params } ] }
    streams:
      trend: { every: 10s, body: { f: hz, running: 'state == "running"' } }
      line: { format: text, each: slow, body: "f={hz}" }
devices:
`, "unit: 1, login", "unit: 1, lock: [start], heartbeat: { point: run, every: 1s, values: [true, false] }, login"))
	d := site.Devices[0]
	slow, start := d.Events[0], d.Commands[0]
	if slow.For.Raise.Time != 3*time.Second || slow.For.Clear.Samples != 5 || slow.AtMost.Count != 10 || slow.Severity != "alarm" || d.Events[1].Severity != "info" {
		t.Errorf("event %+v", slow)
	}
	if len(start.Steps) != 3 || start.Steps[0].Write.Values[0] != (gateway.Assignment{Point: "set", Value: "$speed"}) || start.Steps[1].Pulse.For != 300*time.Millisecond || start.Timeout != 30*time.Second {
		t.Errorf("command %+v", start)
	}
	if set := d.Points[2]; !set.Verify.Readback || set.Write.AtMost.Per != time.Second || set.Write.Function != "auto" || set.Guard.Text == "" {
		t.Errorf("point %+v", set.Definition)
	}
	if !d.Commands[1].Steps[0].Write.Params || d.LockedCommands[0] != "start" || d.Streams[0].Body.Fields[1].Key != "running" || d.Heartbeat.While != "gateway" {
		t.Errorf("device %+v", d)
	}
}

func TestManyWarningsRefuseNothing(t *testing.T) {
	text := plantWith(t, "      voltage_l1:", strings.Repeat(" ", 6)+strings.Join(wordy(700), "\n      ")+"\n      voltage_l1:")
	site, diagnostics := Parse("plant.yaml", []byte(text), Options{})
	if site == nil || len(diagnostics) != maxDiagnostics+1 {
		t.Errorf("%d diagnostics, site %v", len(diagnostics), site != nil)
	}
}

// wordy is points with a warning each.
func wordy(n int) []string {
	points := make([]string, n)
	for i := range points {
		points[i] = fmt.Sprintf("p%d: { at: 30001, type: float32, min: 0, max: 1 }", i)
	}
	return points
}
