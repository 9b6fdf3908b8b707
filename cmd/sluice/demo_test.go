package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
)

// TestOracleSeesEveryFault: the demo's count is worth something only if it can
// come out wrong.
func TestOracleSeesEveryFault(t *testing.T) {
	tests := []struct {
		name     string
		measured string // reports "a=1,b=2" separated by spaces
		arrived  string
		waiting  int
		merged   int // as the gateway says
		want     tally
	}{
		{"all is well", "a=1 a=2 a=3", "a=1 a=2 a=3", 0, 0, tally{measured: 3, delivered: 3}},
		{"merged", "a=1,b=1 a=2 b=3", "a=2,b=1 b=3", 0, 1, tally{measured: 3, delivered: 3, merged: 1}},
		{"doubled", "a=1 a=2", "a=1 a=1 a=2", 0, 0, tally{measured: 2, delivered: 2, doubled: 1}},
		{"lost in the middle", "a=1 a=2 a=3", "a=1 a=3", 0, 0, tally{measured: 3, delivered: 2, lost: 1}},
		{"lost at the end", "a=1 a=2 a=3", "a=1 a=2", 0, 0, tally{measured: 3, delivered: 2, lost: 1}},
		{"still waiting", "a=1 a=2 a=3", "a=1", 2, 0, tally{measured: 3, delivered: 1}},
		{"out of order", "a=1 a=2 a=3", "a=1 a=3 a=2", 0, 0, tally{measured: 3, delivered: 2, lost: 1, foreign: 1}},
		{"a wrong value", "a=1 a=2", "a=1 a=9 a=2", 0, 0, tally{measured: 2, delivered: 2, foreign: 1}},
		{"late, with its time", "a=1 a=2", "a=1,sample_ts=17 a=2", 0, 0, tally{measured: 2, delivered: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOracle("sample_ts")
			for _, report := range strings.Fields(tt.measured) {
				r := gateway.Record{Kind: gateway.ReportRecord, Time: time.Now()}
				for _, pair := range strings.Split(report, ",") {
					name, value, _ := strings.Cut(pair, "=")
					r.Values = append(r.Values, gateway.Attribute{Name: name, Value: gateway.IntValue(int64(value[0] - '0'))})
				}
				o.reported("u", r)
			}
			for _, message := range strings.Fields(tt.arrived) {
				o.arrived("u", []byte(`{"`+strings.NewReplacer("=", `":`, ",", `,"`).Replace(message)+`}`))
			}
			if got := o.total(func(string) int { return tt.waiting }, tt.merged); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestDemo runs the whole demo: real Modbus, a real broker, a real buffer
// file, and an outage.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	t.Parallel()
	var out bytes.Buffer
	root := rootCommand()
	root.SetArgs([]string{"demo", "--for", "20s"})
	root.SetOut(&out)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	// The broker may have taken one message of each of three users when it goes.
	for _, want := range []string{"the broker goes away for 10s", "the broker is back", "lost +0\n", "doubled +[0-3]\n"} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("the demo never says %q:\n%s", want, out.String())
		}
	}
}

func TestDemoRefusesAnOutageThatCannotEnd(t *testing.T) {
	root := rootCommand()
	root.SetArgs([]string{"demo", "--for", "5s"})
	if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "at least 20s") {
		t.Errorf("got %v", fmt.Sprint(err))
	}
}
