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
		"unknown":         {pairs: []any{"nothing", 1}, event: "write_refused point=nothing value=*** reason=there is no attribute nothing"},
		"all or nothing":  {pairs: []any{"req", true, "setpoint", 62}, event: "write_refused point=setpoint value=62 reason=setpoint 62 is above max 50 Hz", report: "setpoint=30 | req=false"},
		"one is unknown":  {pairs: []any{"req", true, "nothing", 1}, event: "write_refused point=nothing value=*** reason=there is no attribute nothing", report: "req=false"},
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
				p.stop()
				if log := p.log.String(); strings.Count(log, "result=refused") != len(c.pairs)/2 {
					t.Errorf("log: %s", log)
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

// TestAFloodOfBadPushesIsCounted: its events would displace all others on the
// disk. The real value is reported all the same.
func TestAFloodOfBadPushesIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		for range 1000 {
			p.push("setpoint", 62)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
		p.push("setpoint", 63)
		time.Sleep(time.Second)
		events := p.events()
		if n := strings.Count(events, "write_refused"); n != 31 || !strings.HasSuffix(events, "value=63 reason=setpoint 63 is above max 50 Hz held_back=970") {
			t.Errorf("%d events: %s", n, events)
		}
		if reports := p.wire.take(&p.wire.reports); !strings.Contains(reports, "setpoint=30") {
			t.Errorf("reports: %s", reports)
		}
		if lines := p.lines(); len(lines) > 70 {
			t.Errorf("%d lines in the audit", len(lines))
		}
	})
}

// TestAnArrayIsWrittenByOneRequest, pushed or as a parameter of a recipe.
func TestAnArrayIsWrittenByOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, func(s *Site) {
			d := s.Devices[0]
			d.Points = append(d.Points, &Point{Definition: &Definition{ID: "curve", Type: Uint16, Count: 3, Scale: decimal("0.1"), Min: decimal("0"), Max: decimal("100"), Access: "rw", Poll: time.Second}, Device: d, Name: "curve"})
			d.Commands = append(d.Commands, &Command{ID: "recipe", Params: []*Param{{ID: "curve"}}, Steps: []*Step{{Write: &Assignments{Params: true}}}})
		})
		defer p.stop()
		list := func(values ...float64) []Asked {
			var all []Value
			for _, v := range values {
				all = append(all, FloatValue(v))
			}
			return []Asked{{Name: "curve", Value: ListValue(all), Raw: ListValue(all).String()}}
		}
		p.wire.down <- Downlink{Kind: PushDownlink, Arrived: time.Now(), Values: list(1, 2.04, 3)}
		time.Sleep(time.Second)
		p.wire.down <- Downlink{Kind: CommandDownlink, Arrived: time.Now(), ID: "1", Method: "recipe", Values: list(4, 5, 6)}
		want(t, "reply", p.replies(time.Second), "1 recipe ok curve=[4, 5, 6]")
		p.wire.down <- Downlink{Kind: CommandDownlink, Arrived: time.Now(), ID: "2", Method: "recipe", Values: list(4, 5)}
		want(t, "too short", p.replies(time.Second), "2 recipe: curve [4, 5] is not a list of 3 values")
		p.wire.down <- Downlink{Kind: CommandDownlink, Arrived: time.Now(), ID: "3", Method: "recipe", Values: list(4, 5, 101)}
		want(t, "out of range", p.replies(time.Second), "3 recipe: [2]: curve 101 is above max 100")
		want(t, "writes", p.machine.writes(), "curve=[1, 2, 3] curve=[4, 5, 6]")
	})
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
