package gateway

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAPushIsWrittenReadBackAndReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.push("setpoint", 35, "req", "ON")
		time.Sleep(time.Second)
		want(t, "writes", p.machine.writes(), "setpoint=35 req=true")
		want(t, "reports", p.wire.take(&p.wire.reports), "setpoint=35 | req=true")
		want(t, "audit", strings.Join(p.lines(), "\n"), "cloud:u setpoint 35 30→35 done\ncloud:u req true false→true done")
	})
}

// TestRefusedPushes is the table of what is refused before anything is written:
// the real value is reported, and an event says why.
func TestRefusedPushes(t *testing.T) {
	for name, c := range map[string]struct {
		change        func(*hall)
		pairs         []any
		event, report string
	}{
		"above max":       {pairs: []any{"setpoint", 62}, event: "write_refused point=setpoint value=62 reason=setpoint 62 is above max 50 Hz", report: "setpoint=30"},
		"below min":       {pairs: []any{"setpoint", "19.99"}, event: "write_refused point=setpoint value=19.99 reason=setpoint 19.99 is below min 20 Hz", report: "setpoint=30"},
		"no number":       {pairs: []any{"setpoint", "fast"}, event: "write_refused point=setpoint value=fast reason=setpoint fast is no number", report: "setpoint=30"},
		"NaN":             {pairs: []any{"setpoint", "NaN"}, event: "write_refused point=setpoint value=NaN reason=setpoint NaN is no number", report: "setpoint=30"},
		"null":            {pairs: []any{"setpoint", nil}, event: "write_refused point=setpoint value=<nil> reason=setpoint takes a value, not null, an object or a number that is none", report: "setpoint=30"},
		"no truth":        {pairs: []any{"req", 2}, event: "write_refused point=req value=2 reason=req 2 is neither true nor false", report: "req=false"},
		"read-only":       {pairs: []any{"fault_code", 1}, event: "write_refused point=fault_code value=1 reason=fault_code is only read", report: "fault_code=0"},
		"for commands":    {pairs: []any{"run_word", "stop"}, event: "write_refused point=run_word value=stop reason=run_word is written by commands only"},
		"locked point":    {pairs: []any{"fixed", true}, event: "write_refused point=fixed value=true reason=fixed is locked on pump by the site file", report: "fixed=false"},
		"unknown":         {pairs: []any{"nothing", 1}},
		"all or nothing":  {pairs: []any{"req", true, "setpoint", 62}, event: "write_refused point=setpoint value=62 reason=setpoint 62 is above max 50 Hz", report: "setpoint=30 | req=false"},
		"one is unknown":  {pairs: []any{"req", true, "nothing", 1}, report: "req=false"},
		"guard false":     {change: func(p *hall) { p.machine.set("remote", BoolValue(false)) }, pairs: []any{"setpoint", 35}, event: `write_refused point=setpoint value=35 reason=guard "remote" does not hold: remote is false`, report: "remote=false | setpoint=30"},
		"guard bad":       {change: func(p *hall) { p.machine.onRead = badAt("remote", "invalid") }, pairs: []any{"setpoint", 35}, event: `write_refused point=setpoint value=35 reason=guard "remote" does not hold: remote: invalid`, report: "setpoint=30"},
		"guard uncertain": {change: func(p *hall) { p.machine.onRead = badAt("remote", reasonUnlabelled) }, pairs: []any{"setpoint", 35}, event: `write_refused point=setpoint value=35 reason=guard "remote" does not hold: remote: unlabelled`, report: "setpoint=30"},
		"guard of value":  {change: func(p *hall) { p.machine.set("remote", BoolValue(false)) }, pairs: []any{"valve", true}, event: `write_refused point=valve value=true reason=guard "remote or value == false" does not hold: remote is false, value is true`, report: "remote=false"},
		"unit silent":     {change: func(p *hall) { p.machine.onRead = func(*Point) string { return "no answer within 500ms" } }, pairs: []any{"req", true}, event: "write_refused point=req value=true reason=pump gives no answer: no answer within 500ms"},
		"site locked":     {change: func(p *hall) { p.site.Writes = "locked" }, pairs: []any{"req", true}, event: "write_refused point=req value=true reason=site.writes is locked: nothing that the cloud sends is written", report: "req=false"},
		"refused by device": {change: func(p *hall) { p.machine.onWrite = failAt("req", &WriteError{Err: errIllegal}) }, pairs: []any{"req", true},
			event: "write_refused point=req value=true reason=exception 3: illegal data value", report: "req=false"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newHall(t, nil)
				defer p.stop()
				if c.change != nil {
					p.machine.fail(func() {})
					c.change(p)
				}
				before := p.machine.get("req")
				p.push(c.pairs...)
				time.Sleep(time.Second)
				want(t, "events", p.events(), c.event)
				want(t, "reports", inOrder(p.wire.take(&p.wire.reports)), inOrder(c.report))
				if name != "refused by device" {
					want(t, "writes", p.machine.writes(), "")
				}
				if got := p.machine.get("req"); !got.Equal(before) {
					t.Errorf("req is %s", got)
				}
				if lines := p.lines(); len(lines) != len(c.pairs)/2 || !strings.Contains(lines[len(lines)-1], "refused") {
					t.Errorf("audit: %q", lines)
				}
			})
		})
	}
}

// TestAPushOfTwoDevicesIsOne: what is refused for one of them is for both, also
// what is found only when it is its turn.
func TestAPushOfTwoDevicesIsOne(t *testing.T) {
	const often = "lamp is written too often: at most 2 in 1m0s"
	for name, c := range map[string]struct {
		before func(*hall)
		pairs  []any
		writes string // as the two buses have made them, sorted
		event  string // of the second device; "" for none
	}{
		"both":           {pairs: []any{"req", true, "b_req", true}, writes: "req=true req=true"},
		"out of range":   {pairs: []any{"req", true, "b_setpoint", 62}, event: "b_write_refused point=b_setpoint value=62 reason=setpoint 62 is above max 50 Hz"},
		"too often":      {before: func(p *hall) { p.push("b_lamp", true); p.push("b_lamp", false) }, pairs: []any{"req", true, "b_lamp", true}, writes: "lamp=false lamp=true", event: "b_write_refused point=b_lamp value=true reason=" + often},
		"too often, all": {before: func(p *hall) { p.push("lamp", true); p.push("lamp", false) }, pairs: []any{"lamp", true, "b_req", true}, writes: "lamp=false lamp=true", event: "b_write_refused point=b_req value=true reason=" + often},
		"a full queue": {before: func(p *hall) {
			p.command("1", "b_slow") // its pushes wait
			time.Sleep(100 * time.Millisecond)
			for range mostPushes + 1 {
				p.push("b_again", 1)
			}
		}, pairs: []any{"req", true, "b_req", true}, writes: "lamp=true", event: "b_write_refused point=b_req value=true reason=busy"},
		"stopped": {before: func(p *hall) {
			p.command("1", "b_slow")
			time.Sleep(100 * time.Millisecond)
			p.push("b_again", 2)
			time.AfterFunc(100*time.Millisecond, func() { p.command("2", "b_stop") })
		}, pairs: []any{"req", true, "b_req", true}, writes: "run_word=stop", event: "b_write_refused point=b_req value=true reason=not written: stop came first"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newHall(t, func(s *Site) {
					d := pump()
					d.Name, d.Prefix, d.Bus, d.LockedCommands = "second", "b_", &Bus{Name: "b2", Type: "test", Offline: s.Buses[0].Offline}, nil
					for _, pt := range d.Points {
						pt.Name = "b_" + pt.Name
					}
					s.Buses, s.Devices = append(s.Buses, d.Bus), append(s.Devices, d)
				})
				defer p.stop()
				if c.before != nil {
					c.before(p)
				}
				p.push(c.pairs...)
				time.Sleep(6 * time.Second)
				writes := strings.Fields(p.machine.writes())
				slices.Sort(writes)
				want(t, "writes", strings.Join(writes, " "), c.writes)
				if events := p.events(); c.event != "" && !strings.Contains(events, c.event) || c.event == "" && events != "" {
					t.Errorf("events: %s, want %s", events, c.event)
				}
			})
		})
	}
}

// inOrder sorts what was reported: which point of a push is read back first is
// nobody's business.
func inOrder(reports string) string {
	parts := strings.Split(reports, " | ")
	slices.Sort(parts)
	return strings.Join(parts, " | ")
}

func badAt(point, reason string) func(*Point) string {
	return func(p *Point) string {
		if p.ID == point {
			return reason
		}
		return ""
	}
}

func failAt(point string, err error) func(*Point, Value) error {
	return func(p *Point, _ Value) error {
		if p.ID == point {
			return err
		}
		return errDone
	}
}
