package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tracedSite has an alarm, a computed point and a counter.
var tracedSite = strings.Replace(oneMeter, "      serial:    { at: \"holding:64513\", type: uint32, poll: 1h }\n", `      state:     { at: "holding:1", type: uint16, poll: 1s, enum: { 0: stopped, 1: running } }
      energy:    { at: "holding:2", type: uint32, kind: counter, wraps_at: 1000, poll: 1s }
    computed:
      kilowatts: { value: "round(power / 1000, 1)" }
    events:
      low:   { when: voltage < 207 and state == "running", clear: voltage > 212, for: { raise: 3s, clear: 1 samples }, params: [voltage], clear_event: low_over, severity: alarm }
      pulse: { each: increase(energy) }
    streams:
      s: { format: text, each: pulse, body: "{energy}" }
`, 1)

// trace runs check --trace over a recording.
func trace(t *testing.T, csv string, more ...string) (out, errs string, err error) {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "site.yaml"), strings.Replace(tracedSite, "{ name: one }", "{ name: one, timezone: Europe/Berlin }", 1))
	write(t, filepath.Join(dir, "values.csv"), csv)
	return execute(t, append([]string{"check", "--trace", filepath.Join(dir, "values.csv"), filepath.Join(dir, "site.yaml")}, more...)...)
}

// TestTraceSaysWhatWouldHaveBeenReported: the three layouts of a recording give
// the same events at the same times.
func TestTraceSaysWhatWouldHaveBeenReported(t *testing.T) {
	const want = `2026-03-02 08:00:00.000  value   meter  meter_kilowatts=1.5
2026-03-02 08:00:05.500  event   meter  meter_low  alarm  voltage=205
2026-03-02 08:01:00.000  event   meter  meter_low_over  alarm  voltage=230
2026-03-02 08:01:00.000  event   meter  meter_pulse  info  by=15
2026-03-02 08:01:00.000  value   meter  meter_kilowatts=2
`
	long := `time,device,point,value
2026-03-02T07:00:00Z,meter,voltage,230
2026-03-02T07:00:00Z,meter,power,1500
2026-03-02T07:00:00Z,meter,state,running
2026-03-02T07:00:00Z,meter,energy,990
2026-03-02T07:00:02Z,meter,voltage,205
2026-03-02T07:01:00Z,meter,voltage,230
2026-03-02T07:01:00Z,meter,power,2000
2026-03-02T07:01:00Z,meter,energy,5
`
	wide := "Zeit;meter_voltage;power;meter.state;energy\n2026-03-02 08:00:00;230,0;1500;1;990\n2026-03-02 08:00:02;205;;;\n2026-03-02 08:01:00;230;2000,00;;5\n"
	for name, csv := range map[string]string{
		"long": long, "named": strings.NewReplacer("device,point", "point", "meter,", "meter.").Replace(long),
		"wide": wide, "milliseconds": strings.NewReplacer("2026-03-02T07:00:00Z", "1772434800000", "2026-03-02T07:00:02Z", "1772434802", "2026-03-02T07:01:00Z", "1772434860.0").Replace(long),
	} {
		out, errs, err := trace(t, csv)
		body, summary, _ := strings.Cut(out, "8 values from")
		if err != nil || body != want || !strings.Contains(summary, "3 events, 2 values of computed points, 1 stream messages") {
			t.Errorf("%s: %v %s\n%s", name, err, errs, out)
		}
	}
	out, _, err := trace(t, long, "--json", "-v")
	if err != nil || !strings.Contains(out, `"event":"meter_low","severity":"alarm","values":{"voltage":205}}`) || !strings.Contains(out, `"stream":"meter_s","body":"5"`) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestTraceKnowsTheHourThatComesTwice: in local times the end of summer time is
// no step back.
func TestTraceKnowsTheHourThatComesTwice(t *testing.T) {
	out, errs, err := trace(t, "time;power\n25.10.2026 02:30:00;1000\n25.10.2026 02:50;2000\n25.10.2026 02:10;3000\n25.10.2026 02:40:00;4000\n25.10.2026 03:10:00;5000\n")
	if err != nil || !strings.Contains(out, "5 values from 2026-10-25 02:30:00 to 2026-10-25 03:10:00: 0 events, 5 values") {
		t.Errorf("%v %s\n%s", err, errs, out)
	}
	if _, errs, err := trace(t, "time;power\n25.10.2026 03:30;1\n25.10.2026 03:10;2\n"); err != errFound || !strings.Contains(errs, "time goes backwards") {
		t.Errorf("%v %s", err, errs)
	}
}

// TestTraceOfALongRecordingSaysHowFarItIs, and keeps none of it.
func TestTraceOfALongRecordingSaysHowFarItIs(t *testing.T) {
	defer func(every time.Duration) { traceTells = every }(traceTells)
	traceTells = 0
	var csv strings.Builder
	csv.WriteString("time,power\n")
	for i := range 30_000 {
		fmt.Fprintf(&csv, "%d,1000\n", 1_772_434_800+i)
	}
	_, errs, err := trace(t, csv.String())
	if err != nil || !strings.Contains(errs, "values.csv: 33 %\n") || !strings.Contains(errs, "values.csv: 100 %\n") {
		t.Errorf("%v %s", err, errs)
	}
}

// TestTraceHoldsNotForEver: where the recording has a hole, the points are bad
// in it, and nothing is raised from old values.
func TestTraceHoldsNotForEver(t *testing.T) {
	csv := "time,voltage,state\n2026-03-02 08:00:00,205,running\n2026-03-02 09:00:00,205,running\n"
	out, _, err := trace(t, csv, "--hold", "2s")
	// Two samples an hour apart, both low, and none contrary between: an alarm at the second.
	if err != nil || strings.Count(out, "meter_low") != 1 || !strings.Contains(out, "2026-03-02 09:00:00.000  event   meter  meter_low") {
		t.Errorf("held for two seconds: %v\n%s", err, out)
	}
	if out, _, _ := trace(t, csv); !strings.Contains(out, "08:00:03.500  event   meter  meter_low") {
		t.Errorf("held for ten minutes:\n%s", out)
	}
}

func TestTraceSaysWhatItCannotRead(t *testing.T) {
	for csv, want := range map[string]string{
		"time,device,point,value\n2026-03-02T07:00:00Z,meter,volts,230\n":   `values.csv:2: the site has no point "meter.volts"`,
		"time,volts\n2026-03-02T07:00:00Z,230\n":                            `values.csv:1: the site has no point "volts"`,
		"time,voltage\nyesterday,230\n":                                     `values.csv:2: "yesterday" is no time`,
		"time,voltage\n2026-03-02T07:00:00Z,high\n":                         `values.csv:2: voltage: "high" is no number`,
		"time,state\n2026-03-02T07:00:00Z,runing\n":                         `values.csv:2: state: "runing" is no label of state`,
		"time,voltage\n2026-03-02T07:00:01Z,1\n2026-03-02T07:00:00Z,2\n":    `values.csv:3: time goes backwards`,
		"time,voltage\n2026-03-02T07:00:00Z,1,2\n":                          `values.csv:2: the line has 3 fields, the first line names 2 columns`,
		"time,power\n45000.5,1\n":                                           `values.csv:2: "45000.5" is no time`,
		"time,voltage\n1.3.2026,1\n":                                        `values.csv:2: "1.3.2026" is no time`,
		"\x00\xff,\xfe\n1,2\n":                                              `values.csv:1: the site has no point "…"`,
		"time,meter.volt\n":                                                 `it has meter.voltage, meter.power,`,
		"time,voltage\n":                                                    `there are no values in it`,
		"":                                                                  `there are no values in it`,
		"time,device,point,value\n2026-03-02T07:00:00Z,meter,voltage,Inf\n": `"Inf" is no number`,
	} {
		if _, errs, err := trace(t, csv); err != errFound || !strings.Contains(errs, want) {
			t.Errorf("%q: %v, %s", csv, err, errs)
		}
	}
}
