package gateway

import (
	"errors"
	"fmt"
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
		defer p.stop()
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
		if strings.Contains(all, "471") || !strings.Contains(all, "*** does not fit") {
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

// TestAFloodOfCommandsLeavesThePollsAlone is scoreboard C3 on a bus that polls
// without a pause. Negative control: without its share the polls starve.
func TestAFloodOfCommandsLeavesThePollsAlone(t *testing.T) {
	flood := func(t *testing.T, commands bool) (polls, written int) {
		synctest.Test(t, func(t *testing.T) {
			p := newHall(t, func(s *Site) {
				for _, pt := range s.Devices[0].Points {
					pt.Poll = 5 * time.Millisecond
				}
			})
			defer p.stop()
			p.machine.fail(func() { p.machine.polls = 0 })
			for i := range 10_000 {
				if commands {
					p.command(fmt.Sprint(i), "key", "code", i%10_000)
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
			if !commands {
				return
			}
			if replies := p.replies(time.Second); !strings.Contains(replies, "busy: the bus has no time left for writes") {
				t.Error("nobody is told that the bus is busy")
			}
		})
		return polls, written
	}
	before, _ := flood(t, false)
	polls, written := flood(t, true)
	t.Logf("10 s: %d polls, with 1,000 commands a second %d (%.1f %%), %d of them written", before, polls, 100*float64(polls)/float64(before), written)
	if float64(polls) < 0.9*float64(before) || written < 10 {
		t.Errorf("%d of %d polls are left, %d commands carried out", polls, before, written)
	}
}
