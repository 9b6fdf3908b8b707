package gateway

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestPointsOfABlockShareARequest: pushed or written in one step of a command,
// with a line in the audit for each, and the others in their own requests.
func TestPointsOfABlockShareARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.push("weight", 200, "req", true, "batch", 7)
		time.Sleep(time.Second)
		want(t, "a push", p.machine.writes(), "req=true batch=7+weight=200")
		want(t, "its reports", p.wire.take(&p.wire.reports), "req=true | batch=7 | weight=200")
		p.push("weight", 200, "batch", 7)
		time.Sleep(time.Second)
		want(t, "the same again", p.machine.writes(), "req=true batch=7+weight=200")
		p.push("weight", 201)
		time.Sleep(time.Second)
		want(t, "one alone", p.machine.writes(), "req=true batch=7+weight=200 weight=201")
		p.machine.fail(func() { p.machine.wrote = nil })
		p.command("1", "load", "batch", 8, "weight", 201)
		want(t, "reply", p.replies(time.Second), "1 load ok batch=8 weight=201 lamp=true")
		want(t, "a command", p.machine.writes(), "batch=8+weight=201+enter=true lamp=true")
		want(t, "audit", strings.Join(p.lines(), "\n"), `cloud:u req true false→true done
cloud:u batch 7 1→7 done
cloud:u weight 200 100→200 done
cloud:u batch 7 7→7 done
cloud:u weight 200 200→200 done
cloud:u weight 201 200→201 done
cloud:u load batch 8 7→8 done
cloud:u load weight 201 201→201 done
cloud:u load enter true → done
cloud:u load lamp true false→true done
cloud:u load → done`)
	})
}

// TestFaultsOfABlock: what is wrong with one point of a request is wrong with
// all of it.
func TestFaultsOfABlock(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*machine)
		method string // load instead of a push
		weight int
		writes string
		audit  string // of batch and of weight
	}{
		"a guard of one": {change: func(m *machine) { m.memory["remote"] = BoolValue(false) }, weight: 450,
			audit: `batch 7 → refused guard "value < 400 or remote" does not hold: value is 450, remote is false; weight 450 → refused guard "value < 400 or remote" does not hold: value is 450, remote is false`},
		"one shows something else": {change: onWriteOf("weight", func(m *machine) error { m.memory["weight"] = IntValue(1); return nil }), weight: 2, writes: "batch=7+weight=2",
			audit: "batch 7 1→7 failed weight reads back as 1, not 2; weight 2 100→1 failed weight reads back as 1, not 2"},
		"answer lost, written": {change: onWriteOf("weight", func(m *machine) error {
			m.memory["weight"] = IntValue(2)
			return &WriteError{Err: errors.New("no answer within 500ms"), Unknown: true}
		}), weight: 2, writes: "batch=7+weight=2", audit: "batch 7 1→7 done; weight 2 100→2 done"},
		"answer lost, half of it can be seen": {change: onWriteOf("enter", func(*machine) error {
			return &WriteError{Err: errors.New("no answer within 500ms"), Unknown: true}
		}), method: "load", weight: 2, writes: "batch=7+weight=2+enter=true",
			audit: "load batch 7 1→7 unknown no answer within 500ms; load weight 2 100→2 unknown no answer within 500ms; load enter true → unknown no answer within 500ms; load → unknown unknown outcome: no answer within 500ms"},
		"one can't be read back": {change: onWriteOf("weight", func(m *machine) error { m.onRead = badAt("weight", "invalid"); return errDone }), weight: 2, writes: "batch=7+weight=2",
			audit: "batch 7 1→7 unknown weight was written and can't be read back: invalid; weight 2 100→ unknown weight was written and can't be read back: invalid"},
		"refused": {change: onWriteOf("weight", func(m *machine) error {
			m.memory["batch"] = IntValue(1)
			return &WriteError{Err: errIllegal}
		}), weight: 2, writes: "batch=7+weight=2",
			audit: "batch 7 1→ refused exception 3: illegal data value; weight 2 100→ refused exception 3: illegal data value"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newHall(t, nil)
				defer p.stop()
				p.machine.fail(func() { c.change(p.machine) })
				if c.method != "" {
					p.command("1", c.method, "batch", 7, "weight", c.weight)
				} else {
					p.push("batch", 7, "weight", c.weight)
				}
				time.Sleep(4 * time.Second)
				want(t, "writes", p.machine.writes(), c.writes)
				want(t, "audit", strings.Join(p.lines(), "; "), "cloud:u "+strings.ReplaceAll(c.audit, "; ", "; cloud:u "))
			})
		})
	}
}

// TestABlockIsNotWrittenTooOften: of a request that one point has no writes left
// for, no point uses up one.
func TestABlockIsNotWrittenTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		for i := range 4 {
			p.push("batch", 10+i, "weight", 10+i)
		}
		time.Sleep(time.Second)
		want(t, "writes", p.machine.writes(), "batch=10+weight=10 batch=11+weight=11 batch=12+weight=12")
		want(t, "events", p.events(), "write_refused point=batch value=13 reason=batch is written too often: at most 3 in 1m0s | write_refused point=weight value=13 reason=batch is written too often: at most 3 in 1m0s")
		want(t, "last reports", p.wire.take(&p.wire.reports), "batch=10 | weight=10 | batch=11 | weight=11 | batch=12 | weight=12 | batch=12 | weight=12")
	})
}

func onWriteOf(point string, fault func(*machine) error) func(*machine) {
	return func(m *machine) {
		m.onWrite = func(p *Point, _ Value) error {
			if p.ID != point {
				return errDone
			}
			return fault(m)
		}
	}
}
