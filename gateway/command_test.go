package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

func TestACommandRunsItsStepsAndAnswersOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.command("7", "start", "hz", "42.5")
		want(t, "reply", p.replies(time.Second), "7 start ok setpoint=42.5 drive_state=running")
		want(t, "writes", p.machine.writes(), "setpoint=42.5 run_word=run_forward")
		want(t, "audit", strings.Join(p.lines(), "\n"), `cloud:u start setpoint 42.5 30→42.5 done
cloud:u start run_word run_forward →run_forward done
cloud:u start → done`)
		want(t, "reports", p.wire.take(&p.wire.reports), "setpoint=42.5 | word_seen=run_forward | drive_state=running")
		p.command("", "start")
		want(t, "reply without an id", p.replies(time.Second), " start ok setpoint=35 drive_state=running")
	})
}

// TestRefusedCommands is the table of commands that write nothing.
func TestRefusedCommands(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*hall)
		method string
		pairs  []any
		reply  string
	}{
		"unknown method":    {method: "dance", reply: "there is no command dance"},
		"unknown parameter": {method: "start", pairs: []any{"speed", 1}, reply: "start has no parameter speed"},
		"out of range":      {method: "start", pairs: []any{"hz", 62}, reply: "hz 62 is above max 50"},
		"wrong type":        {method: "start", pairs: []any{"hz", true}, reply: "hz true is no number"},
		"missing parameter": {method: "key", reply: "parameter code is missing"},
		"locked command":    {method: "closed", reply: "closed is locked on pump by the site file"},
		"site locked":       {change: func(p *hall) { p.site.Writes = "locked" }, method: "start", reply: "site.writes is locked: nothing that the cloud sends is written"},
		"guard false":       {change: func(p *hall) { p.machine.set("fault_code", IntValue(3)) }, method: "start", reply: `guard "remote and fault_code == 0" does not hold: remote is true, fault_code is 3`},
		"guard bad":         {change: func(p *hall) { p.machine.onRead = badAt("fault_code", "invalid") }, method: "start", reply: `guard "remote and fault_code == 0" does not hold: fault_code: invalid`},
		"unit silent":       {change: func(p *hall) { p.machine.onRead = func(*Point) string { return "no answer within 500ms" } }, method: "key", pairs: []any{"code", 1}, reply: "pump gives no answer: no answer within 500ms"},
		"bus down": {change: func(p *hall) {
			p.machine.fail(func() { p.machine.lost = errors.New("no route to host") })
			time.Sleep(30 * time.Second)
		}, method: "start", reply: "the bus is down: no route to host"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newHall(t, nil)
				defer p.stop()
				if c.change != nil {
					c.change(p)
				}
				p.command("1", c.method, c.pairs...)
				reply := p.replies(100 * time.Millisecond)
				if !strings.HasPrefix(reply, "1 "+c.method+": "+c.reply) {
					t.Errorf("reply is %q, want %q", reply, c.reply)
				}
				want(t, "writes", p.machine.writes(), "")
				if lines := p.lines(); len(lines) == 0 || !strings.Contains(lines[0], c.reply) || strings.Contains(fmt.Sprint(lines), "done") {
					t.Errorf("audit: %q", lines)
				}
			})
		})
	}
}

func TestWhatCannotBeUnderstoodIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.wire.down <- Downlink{Kind: CommandDownlink, Arrived: time.Now(), ID: "4", Method: "start", Err: errors.New(`"hz" stands there twice`)}
		want(t, "reply", p.replies(time.Second), `4 start: not understood: "hz" stands there twice`)
		p.wire.down <- Downlink{Kind: CommandDownlink, Arrived: time.Now(), Err: errors.New("the JSON ends early"), Body: []byte("{")}
		want(t, "no reply", p.replies(time.Second), "")
		p.wire.down <- Downlink{Kind: CommandDownlink, Arrived: time.Now(), ID: "5", Method: "start", Stalled: true}
		want(t, "stalled", p.replies(time.Second), "5 start: line was stalled")
		p.wire.down <- Downlink{Kind: CommandDownlink, Arrived: time.Now().Add(-31 * time.Second), ID: "6", Method: "start"}
		want(t, "old", p.replies(time.Second), "6 start: expired: it arrived 31s ago")
		p.wire.down <- Downlink{Kind: PushDownlink, Arrived: time.Now(), Stalled: true, Values: asked("req", true)}
		time.Sleep(time.Second)
		want(t, "stalled push", p.events(), "write_refused point=req value=true reason=line was stalled")
		want(t, "writes", p.machine.writes(), "")
		want(t, "reports", p.wire.take(&p.wire.reports), "req=false")
	})
}

func TestAFailedStepRunsOnFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.machine.fail(func() {
			p.machine.onWrite = func(pt *Point, v Value) error { // takes the word, and never runs
				if pt.ID == "run_word" {
					p.machine.memory["word_seen"] = v
				}
				return errDone
			}
		})
		p.command("1", "start")
		want(t, "reply", p.replies(7*time.Second), `1 start: expect "drive_state == \"running\"" did not come true within 5s: drive_state is stopped setpoint=35 drive_state=stopped`)
		want(t, "writes", p.machine.writes(), "setpoint=35 run_word=run_forward run_word=stop")
	})
}

// TestTheEndOfTheGatewayRunsOnFail within its bounds: it is not what a stop is.
func TestTheEndOfTheGatewayRunsOnFail(t *testing.T) {
	for name, c := range map[string]struct {
		after  time.Duration // the end comes
		busy   bool          // on_fail can't be written
		reply  string
		writes string
		most   time.Duration
	}{
		"in a step":             {after: time.Second, reply: "1 start: the gateway stops, or loads its site file anew setpoint=35 drive_state=stopped", writes: "setpoint=35 run_word=run_forward run_word=stop", most: 500 * time.Millisecond},
		"in on_fail":            {after: 5050 * time.Millisecond, reply: `1 start: expect "drive_state == \"running\"" did not come true within 5s: drive_state is stopped setpoint=35 drive_state=stopped`, writes: "setpoint=35 run_word=run_forward run_word=stop", most: 500 * time.Millisecond},
		"on_fail finds it busy": {after: time.Second, busy: true, reply: "1 start: the gateway stops, or loads its site file anew; on_fail: the gateway stops, or loads its site file anew: exception 6: busy setpoint=35 drive_state=stopped", most: endingFor + 2*time.Second},
		"nothing was written":   {reply: "", most: 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newHall(t, nil)
				p.machine.fail(func() {
					p.machine.onWrite = func(pt *Point, v Value) error { // takes the word, and never runs
						if pt.ID == "run_word" {
							if c.busy && v.Text() == "stop" {
								return &WriteError{Err: errors.New("exception 6: busy"), Busy: true}
							}
							p.machine.memory["word_seen"] = v
						}
						return errDone
					}
				})
				if c.after > 0 {
					p.command("1", "start")
				}
				time.Sleep(c.after)
				begin := time.Now()
				p.stop()
				if took := time.Since(begin); took > c.most {
					t.Errorf("the end took %v", took)
				}
				if _, err := p.Write(t.Context(), ByPage, "pump", "req", BoolValue(true)); err != errEnding {
					t.Errorf("the page writes afterwards: %v", err)
				}
				if !c.busy {
					want(t, "writes", p.machine.writes(), c.writes)
				}
				p.begin()
				defer func() { p.stop() }()
				want(t, "reply", p.replies(time.Second), c.reply)
			})
		})
	}
}

// TestAStopEndsOnFail: the command replies that it was stopped.
func TestAStopEndsOnFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.machine.fail(func() {
			p.machine.onWrite = func(pt *Point, v Value) error {
				switch {
				case v.Text() == "run_forward":
					return &WriteError{Err: errIllegal}
				case pt.ID == "run_word" && len(p.machine.wrote) < 30:
					return &WriteError{Err: errors.New("exception 6: busy"), Busy: true}
				}
				return p.machine.follow(pt, v)
			}
		})
		p.command("1", "start")
		time.Sleep(time.Second)
		p.command("2", "stop")
		replies := p.replies(4 * time.Second)
		if !strings.Contains(replies, "1 start: stopped by stop setpoint=35") || !strings.Contains(replies, "2 stop ok") {
			t.Error(replies)
		}
	})
}

// TestCallsOfMethods: a call is a write. The guard holds directly before it, it
// goes out once, and what fails behind it runs on_fail.
func TestCallsOfMethods(t *testing.T) {
	for name, c := range map[string]struct {
		change        func(*machine)
		reply, writes string
		audit         string
	}{
		"done":         {change: func(m *machine) { m.memory["fault_code"] = IntValue(7) }, reply: "1 home ok", writes: "Home()", audit: "call Home → done"},
		"expect fails": {reply: `1 home: expect "fault_code == 7" did not come true within 1s: fault_code is 0`, writes: "Home() run_word=stop", audit: "call Home → done"},
		"refused": {change: func(m *machine) {
			m.onCall = func() error { return &WriteError{Err: errors.New("BadUserAccessDenied")} }
		}, reply: "1 home: BadUserAccessDenied", writes: "Home() run_word=stop", audit: "call Home → failed BadUserAccessDenied"},
		"answer lost": {change: func(m *machine) {
			m.onCall = func() error { return &WriteError{Err: errors.New("no answer"), Unknown: true} }
		}, reply: "1 home: unknown outcome: no answer", writes: "Home() run_word=stop", audit: "call Home → unknown no answer"},
		"line lost":     {change: func(m *machine) { m.onCall = func() error { return errors.New("EOF") } }, reply: "1 home: unknown outcome: EOF", writes: "Home() run_word=stop", audit: "call Home → unknown EOF"},
		"guard by then": {change: func(m *machine) { time.AfterFunc(500*time.Millisecond, func() { m.set("remote", BoolValue(false)) }) }, reply: `1 home: call Home: guard "remote" does not hold: remote is false`, audit: `call Home → refused guard "remote" does not hold: remote is false`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newHall(t, nil)
				defer p.stop()
				if c.change != nil {
					p.machine.fail(func() { c.change(p.machine) })
				}
				p.command("1", "home")
				want(t, "reply", p.replies(5*time.Second), c.reply)
				want(t, "writes", p.machine.writes(), c.writes)
				if lines := p.lines(); len(lines) == 0 || lines[0] != "cloud:u home "+c.audit {
					t.Errorf("audit: %q, want first %s", lines, c.audit)
				}
			})
		})
	}
}

func TestAMismatchEndsACommandBeforeItsNextStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.machine.fail(func() {
			p.machine.onWrite = func(pt *Point, v Value) error {
				if pt.ID == "setpoint" {
					p.machine.memory["setpoint"] = FloatValue(21)
					return nil
				}
				return p.machine.follow(pt, v)
			}
		})
		p.command("1", "start")
		want(t, "reply", p.replies(time.Second), "1 start: setpoint reads back as 21, not 35 setpoint=21 drive_state=stopped")
		want(t, "writes", p.machine.writes(), "setpoint=35 run_word=stop")
	})
}

func TestTheGuardHoldsBeforeEachWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.machine.fail(func() {
			p.machine.onWrite = func(pt *Point, v Value) error {
				if pt.ID == "setpoint" {
					p.machine.memory["fault_code"] = IntValue(9)
				}
				return p.machine.follow(pt, v)
			}
		})
		p.command("1", "start")
		want(t, "reply", p.replies(time.Second), `1 start: guard "remote and fault_code == 0" does not hold: remote is true, fault_code is 9 setpoint=35 drive_state=stopped`)
		want(t, "writes", p.machine.writes(), "setpoint=35 run_word=stop")
	})
}

// TestTheGuardWaitsWhileTheUnitRests, as after a write: that is no refusal.
func TestTheGuardWaitsWhileTheUnitRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, func(s *Site) {
			for _, c := range s.Devices[0].Commands {
				if c.ID == "pulse" {
					c.Guard = text("remote")
				}
			}
		})
		defer p.stop()
		p.machine.fail(func() { p.machine.rests = time.Now().Add(200 * time.Millisecond) })
		p.command("1", "pulse")
		want(t, "reply", p.replies(time.Second), "1 pulse ok req=false")
		p.machine.fail(func() { p.machine.rests = time.Now().Add(time.Minute) })
		p.command("2", "pulse")
		want(t, "reply", p.replies(31*time.Second), "2 pulse: timeout of 30s")
		want(t, "writes", p.machine.writes(), "req=true req=false")
	})
}

func TestASecondCommandIsBusyAndAPreemptingOneStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.command("1", "slow")
		time.Sleep(time.Second)
		p.command("2", "start")
		want(t, "second", p.replies(100*time.Millisecond), "2 start: busy: slow is under way")
		p.push("req", true)
		time.Sleep(time.Second)
		want(t, "a push waits", p.machine.writes(), "")
		p.command("3", "stop")
		want(t, "stop", p.replies(100*time.Millisecond), "1 slow: stopped by stop | 3 stop ok")
		time.Sleep(5 * time.Second)
		want(t, "writes", p.machine.writes(), "run_word=stop")
		want(t, "the push", p.events(), "write_refused point=req value=true reason=not written: stop came first")
	})
}

// TestAStopHasTheLastWord: a push that waits for a busy device is not written
// after it, and one that comes after it is. Nor does it matter in a flood that a
// stop has just begun, once something else was done.
func TestAStopHasTheLastWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.machine.fail(func() {
			p.machine.onWrite = failAt("setpoint", &WriteError{Err: errors.New("exception 6: busy"), Busy: true})
		})
		p.push("setpoint", 45)
		time.Sleep(300 * time.Millisecond)
		p.machine.fail(func() { p.machine.onWrite, p.machine.wrote = p.machine.follow, nil })
		p.command("1", "stop")
		want(t, "reply", p.replies(2*time.Second), "1 stop ok")
		want(t, "writes", p.machine.writes(), "run_word=stop")
		want(t, "event", p.events(), "write_refused point=setpoint value=45 reason=not written: stop came first")
		want(t, "report", p.wire.take(&p.wire.reports), "setpoint=30 | word_seen=stop")
		if got := strings.Join(p.lines(), "\n"); !strings.Contains(got, "cloud:u setpoint 45 30→ refused not written: stop came first") {
			t.Errorf("audit: %s", got)
		}
		p.push("setpoint", 40)
		time.Sleep(time.Second)
		want(t, "afterwards", p.machine.writes(), "run_word=stop setpoint=40")

		p.command("2", "stop")
		want(t, "another", p.replies(100*time.Millisecond), "2 stop ok")
		p.push("setpoint", 41)
		time.Sleep(100 * time.Millisecond)
		p.office().byDevice["pump"].bus.traffic.spend(time.Minute)
		for _, c := range [][2]string{{"3", "3 stop ok"}, {"4", "4 stop: busy: stop has just begun"}} {
			p.command(c[0], "stop")
			want(t, "in a flood", p.replies(100*time.Millisecond), c[1])
		}
		time.Sleep(1100 * time.Millisecond)
		p.command("5", "stop")
		want(t, "a second later", p.replies(100*time.Millisecond), "5 stop ok")
	})
}

func TestAStopReleasesPulsesAndSkipsOnFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.command("1", "hold")
		time.Sleep(time.Second)
		p.command("2", "stop")
		replies := p.replies(time.Second)
		if !strings.Contains(replies, "1 hold: stopped by stop req=false") || !strings.Contains(replies, "2 stop ok") {
			t.Error(replies)
		}
		if got := p.machine.writes(); got != "req=true req=false run_word=stop" && got != "req=true run_word=stop req=false" {
			t.Error(got)
		}
	})
}

func TestAStopIsTriedOnAUnitThatIsOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.machine.fail(func() { p.machine.onRead = func(*Point) string { return "no answer within 500ms" } })
		time.Sleep(2 * time.Minute)
		p.command("1", "stop")
		reply := p.replies(5 * time.Second)
		want(t, "writes", p.machine.writes(), "run_word=stop")
		if !strings.HasPrefix(reply, "1 stop: unknown outcome: run_word was written and can't be read back") {
			t.Error(reply)
		}
	})
}

func TestCommandsEndAtTheirTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		begin := time.Now()
		p.command("1", "hold")
		want(t, "reply", p.replies(9*time.Second), "1 hold: timeout of 8s req=false")
		want(t, "writes", p.machine.writes(), "req=true req=false")
		if took := time.Since(begin); took > 9*time.Second+100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

func TestARepeatedCommandGetsTheStoredReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.command("7", "slow")
		time.Sleep(time.Second)
		p.command("7", "slow") // while it runs: its one reply is to come
		want(t, "reply", p.replies(3*time.Second), "7 slow ok lamp=true")
		p.command("7", "slow")
		want(t, "again", p.replies(time.Second), "7 slow ok lamp=true")
		want(t, "writes", p.machine.writes(), "lamp=true")
		p.command("7", "start", "hz", 40) // the number has come round
		want(t, "another", p.replies(time.Second), "7 start ok setpoint=40 drive_state=running")
		time.Sleep(61 * time.Second)
		p.command("7", "slow")
		want(t, "after a minute", p.replies(4*time.Second), "7 slow ok lamp=true")
	})
}

func TestARepeatedCommandGetsTheStoredReplyAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		p.command("7", "start", "hz", 40)
		want(t, "reply", p.replies(time.Second), "7 start ok setpoint=40 drive_state=running")
		p.stop()
		p.begin()
		defer func() { p.stop() }()
		p.machine.fail(func() { p.machine.wrote = nil })
		p.command("7", "start", "hz", 40)
		want(t, "again", p.replies(time.Second), "7 start ok setpoint=40 drive_state=running")
		want(t, "writes", p.machine.writes(), "")
	})
}

// TestANumberThatComesRoundIsKept: forgetting what an id stood for a minute ago
// must not take what it stands for now from the disk.
func TestANumberThatComesRoundIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		for range 3 {
			p.command("7", "slow")
			want(t, "reply", p.replies(4*time.Second), "7 slow ok lamp=true")
			time.Sleep(61 * time.Second)
		}
		p.command("7", "slow")
		time.Sleep(time.Second)
		onDisk := 0
		if err := p.store.Scan(ledgerBucket, "", func(string, []byte) bool { onDisk++; return true }); err != nil || onDisk != 1 {
			t.Errorf("%d commands on disk, %v", onDisk, err)
		}
		p.stop()
	})
}

// TestAFloodDoesNotMakeTheLedgerForget what was carried out.
func TestAFloodDoesNotMakeTheLedgerForget(t *testing.T) {
	store, err := buffer.Open(filepath.Join(t.TempDir(), "b"), buffer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	l := newLedger(store, slog.New(slog.DiscardHandler))
	first := &Downlink{ID: "1", Method: "start"}
	e, _ := l.enter("u", first)
	if err := errors.Join(l.begin(e, "pump", nil), l.finish(e, []byte("done"), true)); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * ledgerMost {
		e, _ := l.enter("u", &Downlink{ID: fmt.Sprint(i), Method: "stop"})
		_ = l.finish(e, []byte("busy"), false)
	}
	if _, again := l.enter("u", first); !again || len(l.entries) > ledgerMost {
		t.Errorf("the first command is known: %v; of %d entries", again, len(l.entries))
	}
}

func TestAReplyIsKeptOverADisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		offline := func(on bool) { p.wire.mu.Lock(); p.wire.offline = on; p.wire.mu.Unlock() }
		offline(true)
		p.command("1", "start")
		want(t, "while offline", p.replies(30*time.Second), "")
		offline(false)
		want(t, "reply", p.replies(time.Second), "1 start ok setpoint=35 drive_state=running")
		offline(true)
		p.command("2", "stop")
		want(t, "while offline", p.replies(62*time.Second), "")
		offline(false)
		want(t, "too late", p.replies(10*time.Second), "")
	})
}

func TestAFloodIsAnsweredBusyAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.command("0", "slow")
		time.Sleep(100 * time.Millisecond)
		for i := range 500 {
			p.command(fmt.Sprint(i+1), "slow")
		}
		time.Sleep(100 * time.Millisecond)
		if got := strings.Count(p.replies(0), "busy"); got != 10 {
			t.Errorf("%d replies say busy, want 10", got)
		}
		time.Sleep(5 * time.Second)
		lines := p.lines()
		if len(lines) > 25 || !strings.Contains(strings.Join(lines, "\n"), "480 more were refused within a second") {
			t.Errorf("%d lines in the audit: %q", len(lines), lines)
		}
	})
}

// TestARepeatedIDIsNoWayRoundTheLimit of replies that say busy.
func TestARepeatedIDIsNoWayRoundTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.command("0", "slow")
		time.Sleep(100 * time.Millisecond)
		for range 500 {
			p.command("1", "slow")
		}
		if got := strings.Count(p.replies(500*time.Millisecond), "busy"); got != 10 {
			t.Errorf("%d replies say busy, want 10", got)
		}
	})
}

func TestACommandIsNotCalledTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.command("1", "rare")
		p.replies(time.Second)
		p.command("2", "rare")
		want(t, "second", p.replies(time.Second), "2 rare: rare is called too often: at most 1 in 1h0m0s")
	})
}

func TestALockEndsCommandsAndRefusesEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		p.command("1", "hold")
		time.Sleep(time.Second)
		if err := p.Lock(ByCommandLine, "", ""); err != nil {
			t.Fatal(err)
		}
		want(t, "the command", p.replies(time.Second), "1 hold: stopped by lock req=false")
		want(t, "reports", p.wire.take(&p.wire.reports), "req=true | writes_locked=true | req=false")
		p.stop()
		p.begin() // a lock outlives the program
		defer func() { p.stop() }()
		since := "the gateway is locked since 2000-01-01 00:00:02 UTC by command line"
		p.command("2", "stop")
		want(t, "a command", p.replies(time.Second), "2 stop: "+since)
		p.push("req", true)
		time.Sleep(time.Second)
		want(t, "a push", p.events(), "write_refused point=req value=true reason="+since)
		if _, err := p.Write(t.Context(), ByPage, "pump", "req", BoolValue(true)); err == nil || err.Error() != since {
			t.Errorf("the page: %v", err)
		}
		if err := p.Unlock(ByPage, ""); err != nil {
			t.Fatal(err)
		}
		w, err := p.Write(t.Context(), ByPage, "pump", "req", TextValue("on"))
		if err != nil || w.Result != "done" || w.New.String() != "true" {
			t.Errorf("after unlock: %+v, %v", w, err)
		}
	})
}

// TestTheLockIsReportedAtEachStart: it may have been changed while the gateway
// was away.
func TestTheLockIsReportedAtEachStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		if err := p.Lock(ByCommandLine, "", ""); err != nil {
			t.Fatal(err)
		}
		p.stop()
		for _, locked := range []bool{false, true} {
			store, err := buffer.Open(p.path, buffer.Options{MaxSize: 8 << 20})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(StoreLock(store, Lock{Who: "x"}, locked), store.Close()); err != nil {
				t.Fatal(err)
			}
			p.begin()
			if wanted := fmt.Sprintf("writes_locked=%v", locked); !strings.Contains(p.first, wanted) {
				t.Errorf("reported at the start: %s, want %s", p.first, wanted)
			}
			p.stop()
		}
	})
}

// TestTheAuditIsTrimmedAtTheStart, too: a gateway may never run for an hour.
func TestTheAuditIsTrimmedAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		p.command("1", "stop")
		p.replies(time.Second)
		p.stop()
		time.Sleep(auditFor + time.Minute)
		p.begin()
		defer func() { p.stop() }()
		if lines := p.lines(); len(lines) != 0 {
			t.Errorf("%q", lines)
		}
	})
}

// TestTheAuditIsBounded between two hours, too: a flood must not take the file.
func TestTheAuditIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		size := func() (n int64) {
			_ = p.store.Scan(auditBucket, "", func(name string, value []byte) bool { n += int64(len(name) + len(value)); return true })
			return n
		}
		most := p.office().audit.most()
		for range 40 {
			for i := range 100 {
				p.office().audit.add(Audit{Who: "somebody", Asked: fmt.Sprint(i), Result: "done", Reason: strings.Repeat("r", 100)})
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if now := size(); now > most*5/4+100*300 {
				t.Fatalf("%d bytes, the share is %d", now, most)
			}
		}
		if now := size(); now < most/2 {
			t.Errorf("%d bytes are left, the share is %d", now, most)
		}
	})
}

// TestTheAuditIsFlushedByManyAtOnce: the page asks for it while it is written.
func TestTheAuditIsFlushedByManyAtOnce(t *testing.T) {
	store, err := buffer.Open(filepath.Join(t.TempDir(), "b"), buffer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	a := newAudit(store, slog.New(slog.DiscardHandler))
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 10 {
				a.add(Audit{Who: "x", Result: "done"})
				a.flush()
			}
		})
	}
	wait.Wait()
	n := 0
	if err := ReadAudit(store, time.Time{}, func(Audit) bool { n++; return true }); err != nil || n != 80 {
		t.Errorf("%d lines, %v", n, err)
	}
}
