package gateway

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var errIllegal = errors.New("exception 3: illegal data value")

// TestFaultsOfAWrite is the table of what can go wrong once a write is on its
// way: what is sent, how often, and what it comes to.
func TestFaultsOfAWrite(t *testing.T) {
	times := func(n int, point string, fault func(m *machine, v Value) error) func(*machine) func(*Point, Value) error {
		return func(m *machine) func(*Point, Value) error {
			left := n
			return func(p *Point, v Value) error {
				if p.ID != point || left == 0 {
					return errDone
				}
				left--
				return fault(m, v)
			}
		}
	}
	silent := &WriteError{Err: errors.New("no answer within 500ms"), Unknown: true}
	for name, c := range map[string]struct {
		point  string
		fault  func(*machine) func(*Point, Value) error
		writes string
		audit  string // result and reason
		after  time.Duration
	}{
		"answer lost, written": {point: "again", fault: times(1, "again", func(m *machine, v Value) error { m.memory["again"] = v; return silent }),
			writes: "again=5", audit: "again 5 1→5 done"},
		"answer lost, not written": {point: "setpoint", fault: times(9, "setpoint", func(*machine, Value) error { return silent }),
			writes: "setpoint=5", audit: "setpoint 25 30→30 unknown no answer within 500ms"},
		"answer lost, again: true": {point: "again", fault: times(1, "again", func(*machine, Value) error { return silent }),
			writes: "again=5 again=5", audit: "again 5 1→5 done"},
		"acknowledged, again: true": {point: "again", fault: times(1, "again", func(*machine, Value) error {
			return &WriteError{Err: errors.New("exception 5: acknowledge"), Unknown: true, Once: true}
		}), writes: "again=5", audit: "again 5 1→1 unknown exception 5: acknowledge"},
		"busy for a while": {point: "setpoint", fault: times(3, "setpoint", func(*machine, Value) error {
			return &WriteError{Err: errors.New("exception 6: busy"), Busy: true}
		}), writes: "setpoint=5 setpoint=5 setpoint=5 setpoint=5", audit: "setpoint 25 30→25 done"},
		"busy for ever": {point: "setpoint", fault: times(1e6, "setpoint", func(*machine, Value) error {
			return &WriteError{Err: errors.New("exception 6: busy"), Busy: true}
		}), audit: "setpoint 25 30→ refused expired: it could not be done within its time: exception 6: busy", after: 31 * time.Second},
		"acknowledged, done later": {point: "setpoint", fault: times(1, "setpoint", func(m *machine, v Value) error {
			time.AfterFunc(500*time.Millisecond, func() { m.set("setpoint", v) })
			return &WriteError{Err: errors.New("exception 5: acknowledge"), Unknown: true}
		}), writes: "setpoint=5", audit: "setpoint 25 30→25 done"},
		"shows something else": {point: "setpoint", fault: times(1, "setpoint", func(m *machine, _ Value) error { m.memory["setpoint"] = FloatValue(31); return nil }),
			writes: "setpoint=5", audit: "setpoint 25 30→31 failed setpoint reads back as 31, not 25"},
		"within the tolerance": {point: "setpoint", fault: times(1, "setpoint", func(m *machine, _ Value) error { m.memory["setpoint"] = FloatValue(25.004); return nil }),
			writes: "setpoint=5", audit: "setpoint 25 30→25.004 done"},
		"slow, within": {point: "ramp", fault: times(1, "ramp", func(m *machine, v Value) error {
			time.AfterFunc(1500*time.Millisecond, func() { m.set("ramp", v) })
			return nil
		}),
			writes: "ramp=5", audit: "ramp 5 1→5 done"},
		"too slow": {point: "ramp", fault: times(1, "ramp", func(m *machine, v Value) error {
			time.AfterFunc(3*time.Second, func() { m.set("ramp", v) })
			return nil
		}),
			writes: "ramp=5", audit: "ramp 5 1→1 failed ramp reads back as 1, not 5"},
		"connection lost, written": {point: "setpoint", fault: times(1, "setpoint", func(m *machine, v Value) error { m.memory["setpoint"] = v; return errors.New("EOF") }),
			writes: "setpoint=5", audit: "setpoint 25 30→25 done"},
		"connection lost, not written": {point: "setpoint", fault: times(1, "setpoint", func(*machine, Value) error { return errors.New("EOF") }),
			writes: "setpoint=5", audit: "setpoint 25 30→30 unknown the connection was lost: EOF", after: 10 * time.Second},
		"read back is bad": {point: "setpoint", fault: times(1, "setpoint", func(m *machine, v Value) error { m.onRead = badAt("setpoint", "invalid"); return errDone }),
			writes: "setpoint=5", audit: "setpoint 25 30→ unknown setpoint was written and can't be read back: invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newHall(t, nil)
				defer p.stop()
				p.machine.fail(func() { p.machine.onWrite = c.fault(p.machine) })
				value := 5
				if c.point == "setpoint" {
					value = 25
				}
				p.push(c.point, value)
				time.Sleep(max(c.after, 4*time.Second))
				got := p.machine.writes()
				wanted := strings.ReplaceAll(c.writes, "setpoint=5", "setpoint=25")
				if c.writes != "" {
					want(t, "writes", got, wanted)
				}
				want(t, "audit", strings.Join(p.lines(), "\n"), "cloud:u "+c.audit)
				written := strings.Count(got, c.point)
				if c.writes == "" && (written < 10 || written > 700) {
					t.Errorf("%d writes", written)
				}
			})
		})
	}
}

func TestAnEqualValueIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.push("setpoint", 30)
		time.Sleep(time.Second)
		want(t, "writes", p.machine.writes(), "")
		want(t, "reports", p.wire.take(&p.wire.reports), "setpoint=30")
		want(t, "audit", strings.Join(p.lines(), "\n"), "cloud:u setpoint 30 30→30 done")
	})
}

// TestATolerantValueIsWritten: what a device may be off when it is read back is
// no reason to leave a write out, nor a proof that it was carried out.
func TestATolerantValueIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, func(s *Site) {
			s.Devices[0].point("setpoint").Verify = &Verify{Readback: true, Tolerance: decimal("0.5")}
		})
		defer p.stop()
		p.push("setpoint", 30.4)
		time.Sleep(time.Second)
		want(t, "writes", p.machine.writes(), "setpoint=30.4")
		p.machine.fail(func() {
			p.machine.onWrite = func(*Point, Value) error {
				return &WriteError{Err: errors.New("exception 4"), Unknown: true, Once: true}
			}
		})
		p.push("setpoint", 45)
		time.Sleep(3 * time.Second)
		want(t, "audit", strings.Join(p.lines(), "\n"), "cloud:u setpoint 30.4 30→30.4 done\ncloud:u setpoint 45 30.4→30.4 unknown exception 4")
	})
}

// TestWhatAValueIsComparedWith: before a write its raw value; after it half a
// raw step, whose size may be in the device.
func TestWhatAValueIsComparedWith(t *testing.T) {
	power := func(n int) *int { return &n }
	point := func(d Definition) *Point { d.ID = "p"; return &Point{Definition: &d, Device: &Device{}} }
	whole, scaled, single := point(Definition{Type: Uint16}), point(Definition{Type: Uint16, ScaleFrom: "sf"}), point(Definition{Type: Float32})
	tenth := point(Definition{Type: Uint16, Scale: decimal("0.1"), Verify: &Verify{Readback: true, Tolerance: decimal("5")}})
	list := func(all ...float64) Value {
		var values []Value
		for _, f := range all {
			values = append(values, FloatValue(f))
		}
		return ListValue(values)
	}
	for name, c := range map[string]struct {
		point         *Point
		power         *int
		shown, asked  Value
		holds, agrees bool
	}{
		"the same":                  {whole, power(0), UintValue(7), IntValue(7), true, true},
		"one off":                   {whole, power(0), UintValue(7), IntValue(8), false, false},
		"beyond 2^53":               {point(Definition{Type: Uint64}), power(0), UintValue(1<<63 + 1), UintValue(1 << 63), false, false},
		"tolerated":                 {tenth, power(0), FloatValue(30), FloatValue(34.9), false, true},
		"within half a step":        {tenth, power(0), FloatValue(30), FloatValue(30.04), true, true},
		"digits of a float32":       {single, power(0), Float32Value(1.1), FloatValue(1.1), true, true},
		"the next float32":          {single, power(0), Float32Value(1.1000001), FloatValue(1.1), false, true},
		"power: a step off":         {scaled, power(2), FloatValue(60_000), FloatValue(60_100), false, false},
		"power: rounded":            {scaled, power(2), FloatValue(60_000), FloatValue(60_050), true, true},
		"power: fine steps":         {scaled, power(-2), FloatValue(10), FloatValue(10.01), false, false},
		"power: in the middle":      {scaled, power(-2), FloatValue(1.26), FloatValue(1.255), false, true},
		"power: not known":          {scaled, nil, FloatValue(1000), FloatValue(1000), false, true},
		"power: not known, far off": {scaled, nil, FloatValue(1000), FloatValue(1010), false, false},
		"a list":                    {tenth, power(0), list(1, 2), list(1, 2.01), true, true},
		"a list, one off":           {tenth, power(0), list(1, 2), list(1, 2.2), false, true},
		"no value":                  {whole, power(0), Value{}, IntValue(7), false, false},
	} {
		if got := c.point.holds(c.shown, c.asked, c.power); got != c.holds {
			t.Errorf("%s: holds: %v", name, got)
		}
		if got := (&part{point: c.point, value: c.asked, power: c.power}).agrees(c.shown); got != c.agrees {
			t.Errorf("%s: agrees: %v", name, got)
		}
	}
}

// TestTheStepOfAScaleFromIsRead with the point: 1010 where steps of 100 are is
// 1000, and where steps of 1 are is not.
func TestTheStepOfAScaleFromIsRead(t *testing.T) {
	for exponent, audit := range map[int64]string{
		2: "cloud:u limit 1010 1000→1000 done",
		0: "cloud:u limit 1010 1000→1003 failed limit reads back as 1003, not 1010",
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newHall(t, func(s *Site) {
				d := s.Devices[0]
				for _, def := range []*Definition{{ID: "sf", Type: Int16, Access: "r", Poll: time.Second}, {ID: "limit", Type: Uint16, ScaleFrom: "sf", Access: "rw", Unbounded: true, Poll: time.Second}} {
					d.Points = append(d.Points, &Point{Definition: def, Device: d, Name: def.ID})
				}
			})
			defer p.stop()
			p.machine.set("limit", FloatValue(1000))
			p.machine.set("sf", IntValue(exponent))
			p.machine.fail(func() {
				p.machine.onWrite = func(*Point, Value) error { p.machine.memory["limit"] = FloatValue(1003); return nil }
			})
			p.push("limit", 1010)
			time.Sleep(2 * time.Second)
			want(t, "audit", strings.Join(p.lines(), "\n"), audit)
		})
	}
}

// TestAPushIsNotWrittenInPart: what one of its values is written too often for,
// is known before the first is written.
func TestAPushIsNotWrittenInPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.push("lamp", true)
		p.push("lamp", false)
		p.push("req", true, "lamp", true)
		time.Sleep(time.Second)
		want(t, "writes", p.machine.writes(), "lamp=true lamp=false")
		want(t, "events", p.events(), "write_refused point=req value=true reason=lamp is written too often: at most 2 in 1m0s | write_refused point=lamp value=true reason=lamp is written too often: at most 2 in 1m0s")
		p.push("req", true, "lamp", false) // lamp shows it already
		time.Sleep(time.Second)
		want(t, "writes", p.machine.writes(), "lamp=true lamp=false req=true")
	})
}

func TestAPointIsNotWrittenTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		for _, on := range []bool{true, false, true} {
			p.push("lamp", on)
		}
		time.Sleep(time.Second)
		want(t, "writes", p.machine.writes(), "lamp=true lamp=false")
		want(t, "events", p.events(), "write_refused point=lamp value=true reason=lamp is written too often: at most 2 in 1m0s")
		want(t, "reports", p.wire.take(&p.wire.reports), "lamp=true | lamp=false | lamp=false")
		time.Sleep(time.Minute)
		p.push("lamp", true)
		time.Sleep(time.Second)
		want(t, "writes later", p.machine.writes(), "lamp=true lamp=false lamp=true")
	})
}

func TestASecretIsNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		p.push("code", 4711)
		p.push("code", 47110)
		p.push("code", 9471)
		p.wire.down <- Downlink{Kind: PushDownlink, Arrived: time.Now(), Err: errors.New("this is no JSON"), Body: []byte(`{code:4711}`)}
		p.command("1", "key", "code", 4712)
		want(t, "reply", p.replies(time.Second), "1 key ok code=***")
		for id, c := range []struct{ pin, reply any }{
			{4710, "ok"}, {47100, ": pin *** is above max 9999"}, {"47 1", ": pin *** is no number"}, {471.5, ": pin *** is no whole number"},
			{8471, `: guard "pin < 8000" does not hold: pin is ***`},
		} {
			p.command(fmt.Sprint(id), "login", "pin", c.pin)
			if got := p.replies(time.Second); !strings.Contains(got, fmt.Sprint(c.reply)) || strings.Contains(got, "471") {
				t.Errorf("pin %v: %s", c.pin, got)
			}
		}
		want(t, "writes", p.machine.writes(), "code=4711 code=4712 code=4710")
		p.machine.fail(func() { p.machine.onWrite = failAt("code", &WriteError{Err: errors.New("4714 does not fit")}) })
		p.push("code", 4714)
		time.Sleep(time.Second)
		all := strings.Join(p.lines(), "\n") + p.events() + p.wire.take(&p.wire.reports)
		p.stop()
		log := regexp.MustCompile(`time=\S+`).ReplaceAllString(p.log.String(), "")
		if all += log; strings.Contains(all, "471") || !strings.Contains(all, "*** does not fit") || !strings.Contains(log, "point=code command=login asked=***") {
			t.Error(all)
		}
	})
}

// TestNothingIsWrittenAfterItsTime: the read before the write takes longer than
// the push is valid.
func TestNothingIsWrittenAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.machine.fail(func() { p.machine.takes = 31 * time.Second })
		p.push("req", true)
		time.Sleep(2 * time.Minute)
		want(t, "writes", p.machine.writes(), "")
		if lines := p.lines(); len(lines) != 1 || !strings.Contains(lines[0], " refused ") {
			t.Errorf("audit: %q", lines)
		}
	})
}

// TestACommandWaitsForOneRequest: the one that is under way, on a bus that polls
// without a pause.
func TestACommandWaitsForOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const request = 100 * time.Millisecond
		p := newHall(t, func(s *Site) {
			for _, pt := range s.Devices[0].Points {
				pt.Poll = 5 * time.Millisecond
			}
		})
		defer p.stop()
		var wrote time.Time
		p.machine.fail(func() {
			p.machine.takes = request
			p.machine.onWrite = func(pt *Point, v Value) error { wrote = time.Now(); return p.machine.follow(pt, v) }
		})
		for i := range 20 {
			time.Sleep(time.Second + time.Duration(i)*7*time.Millisecond)
			begin := time.Now()
			p.command(fmt.Sprint(i), "stop")
			if reply := p.replies(time.Second); !strings.Contains(reply, " ok") {
				t.Fatal(reply)
			}
			p.machine.mu.Lock()
			if took := wrote.Sub(begin); took > 2*request {
				t.Errorf("the register was written after %v, its own request included", took)
			}
			p.machine.mu.Unlock()
		}
	})
}

// TestAFloodOfCommandsLeavesThePollsAlone is scoreboard C3 on a bus that polls
// without a pause. Negative control: without its share the polls starve. Of
// commands that preempt, each is carried out at once after anything else.
func TestAFloodOfCommandsLeavesThePollsAlone(t *testing.T) {
	flood := func(t *testing.T, method string, pairs func(int) []any) (polls, written int, replies string) {
		synctest.Test(t, func(t *testing.T) {
			p := newHall(t, func(s *Site) {
				for _, pt := range s.Devices[0].Points {
					pt.Poll = 5 * time.Millisecond
				}
			})
			defer p.stop()
			p.machine.fail(func() { p.machine.polls = 0 })
			for i := range 10_000 {
				if method != "" {
					p.command(fmt.Sprint(i), method, pairs(i)...)
				}
				time.Sleep(time.Millisecond)
			}
			p.machine.mu.Lock()
			polls, written = p.machine.polls, len(p.machine.wrote)
			p.machine.mu.Unlock()
			l := p.office().ledger
			l.mu.Lock()
			n := len(l.entries)
			l.mu.Unlock()
			if n > ledgerMost {
				t.Errorf("the ledger holds %d commands", n)
			}
			replies = p.replies(time.Second)
		})
		return polls, written, replies
	}
	before, _, _ := flood(t, "", nil)
	for method, c := range map[string]struct {
		pairs func(int) []any
		busy  string
	}{
		"key":  {func(i int) []any { return []any{"code", i % 10_000} }, "busy: the bus has no time left for writes"},
		"stop": {func(int) []any { return nil }, "busy: stop has just begun"},
	} {
		polls, written, replies := flood(t, method, c.pairs)
		t.Logf("10 s: %d polls, with 1,000 %s a second %d (%.1f %%), %d of them written", before, method, polls, 100*float64(polls)/float64(before), written)
		if float64(polls) < 0.9*float64(before) || written < 10 {
			t.Errorf("%s: %d of %d polls are left, %d commands carried out", method, polls, before, written)
		}
		if !strings.Contains(replies, c.busy) {
			t.Errorf("%s: nobody is told that the bus is busy", method)
		}
	}
}
