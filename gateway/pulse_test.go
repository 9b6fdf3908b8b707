package gateway

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAPulseHasTwoHalves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.command("1", "pulse")
		want(t, "reply", p.replies(time.Second), "1 pulse ok req=false")
		want(t, "writes", p.machine.writes(), "req=true req=false")
		if p.stored(pulsesBucket) != 0 {
			t.Error("a pulse is left on disk")
		}
	})
}

// TestAPulseEndsWhenTheDeviceHasSeenIt: the handshake of a recipe. Polls go on
// meanwhile.
func TestAPulseEndsWhenTheDeviceHasSeenIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, func(s *Site) {
			for _, pt := range s.Devices[0].Points {
				pt.Poll = time.Second
			}
		})
		defer p.stop()
		p.machine.fail(func() { p.machine.polls = 0 })
		time.AfterFunc(5500*time.Millisecond, func() { p.machine.set("fault_code", IntValue(7)) })
		p.command("1", "hold")
		want(t, "reply", p.replies(5400*time.Millisecond), "")
		p.machine.mu.Lock()
		if p.machine.polls < 5 {
			t.Errorf("%d polls in 5 s", p.machine.polls)
		}
		p.machine.mu.Unlock()
		want(t, "reply", p.replies(time.Second), "1 hold ok req=false")
		want(t, "writes", p.machine.writes(), "req=true req=false")
	})
}

// stored counts the values of a bucket of the state.
func (p *hall) stored(bucket string) (n int) {
	if err := p.store.Scan(bucket, "", func(string, []byte) bool { n++; return true }); err != nil {
		p.t.Error(err)
	}
	return n
}

// crash ends the gateway as a power cut does: what it would still write on its
// way out does not reach the field.
func (p *hall) crash() {
	p.machine.fail(func() { p.machine.lost = errors.New("power cut") })
	p.stop()
	p.machine.fail(func() { p.machine.lost = nil })
}

func TestAPulseIsReleasedAfterARestart(t *testing.T) {
	for name, c := range map[string]struct {
		command, point string
		change         func(*hall)
		down           time.Duration
		writes         string
		stuck          bool
	}{
		"still the pulse":        {command: "hold", point: "req", writes: "req=true req=false"},
		"long after":             {command: "hold", point: "req", down: time.Hour, writes: "req=true req=false"},
		"somebody else was here": {command: "hold", point: "req", change: func(p *hall) { p.machine.set("req", BoolValue(false)) }, writes: "req=true"},
		"blind, soon":            {command: "blink", point: "blind", down: time.Second, writes: "blind=true blind=false"},
		"blind, late":            {command: "blink", point: "blind", down: 20 * time.Second, writes: "blind=true", stuck: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newHall(t, nil)
				p.command("1", c.command)
				for p.machine.writes() == "" {
					time.Sleep(time.Millisecond)
				}
				p.crash()
				if c.change != nil {
					c.change(p)
				}
				time.Sleep(c.down)
				p.begin()
				defer func() { p.stop() }()
				time.Sleep(12 * time.Second)
				want(t, "writes", p.machine.writes(), c.writes)
				if got := strings.Contains(p.events(), "pulse_stuck point="+c.point); got != c.stuck {
					t.Errorf("pulse_stuck: %v", got)
				}
				if p.stored(pulsesBucket) != 0 {
					t.Error("a pulse is left on disk")
				}
			})
		})
	}
}

// TestANewerPulseTakesThePlaceOfAnOlder: what is done with the older one leaves
// the newer on disk, and one that is not written gives the place back.
func TestANewerPulseTakesThePlaceOfAnOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		r, o := p.office().pulses, p.office().byDevice["pump"]
		pulse := func() *release {
			return &release{operator: o, point: o.device.point("req"), on: BoolValue(true), off: BoolValue(false), due: time.Now()}
		}
		older, newer := pulse(), pulse()
		_, _ = r.arm(older)
		if was, err := r.arm(newer); was != older || err != nil {
			t.Errorf("%v, %v", was, err)
		}
		if v := older.write(t.Context()); v.err != errNewPulse {
			t.Errorf("the older one is written: %v", v.err)
		}
		r.disarm(older)
		if p.stored(pulsesBucket) != 1 || !r.current(newer) {
			t.Error("the newer pulse is not on disk")
		}
		r.disarm(newer)
		if p.stored(pulsesBucket) != 0 {
			t.Error("a pulse is left on disk")
		}
		want(t, "writes", p.machine.writes(), "")
	})
}

// TestAPulseThatIsRefusedLeavesTheOlderOne, which is still to be released.
func TestAPulseThatIsRefusedLeavesTheOlderOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.machine.fail(func() {
			p.machine.onWrite = func(_ *Point, v Value) error {
				if !v.Bool() || strings.Count(strings.Join(p.machine.wrote, " "), "true") == 2 {
					return &WriteError{Err: errIllegal}
				}
				return errDone
			}
		})
		for _, id := range []string{"1", "2"} { // the second is not even begun
			p.command(id, "pulse")
			p.replies(900 * time.Millisecond)
		}
		if p.stored(pulsesBucket) != 1 {
			t.Error("the pulse is forgotten")
		}
		p.machine.fail(func() { p.machine.onWrite = nil })
		time.Sleep(3 * time.Second)
		if p.stored(pulsesBucket) != 0 || p.machine.get("req").Bool() {
			t.Errorf("the pulse stands: %s", p.machine.writes())
		}
	})
}

func TestAPulseIsReleasedWhenTheUnitIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.command("1", "hold")
		time.Sleep(time.Second)
		p.machine.fail(func() { p.machine.lost = errors.New("no route to host") })
		reply := p.replies(2 * time.Minute)
		if !strings.HasPrefix(reply, "1 hold: ") || !strings.Contains(reply, "release of req") {
			t.Errorf("reply %s", reply)
		}
		want(t, "while it is gone", p.machine.writes(), "req=true")
		p.machine.fail(func() { p.machine.lost = nil })
		time.Sleep(time.Minute)
		want(t, "afterwards", p.machine.writes(), "req=true req=false")
	})
}

// TestNoLateWrites is scoreboard C2: a field that is gone while a command runs.
func TestNoLateWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		defer p.stop()
		p.command("1", "slow") // waits 3 s, then writes
		time.Sleep(time.Second)
		p.machine.fail(func() { p.machine.lost = errors.New("no route to host") })
		reply := p.replies(31 * time.Second)
		if !strings.HasPrefix(reply, "1 slow: ") {
			t.Errorf("reply %q", reply)
		}
		begin := time.Now()
		p.command("2", "start")
		if reply := p.replies(10 * time.Millisecond); !strings.HasPrefix(reply, "2 start: the bus is down") || time.Since(begin) > 20*time.Millisecond {
			t.Errorf("where the bus is known to be down: %q", reply)
		}
		p.machine.fail(func() { p.machine.lost = nil })
		time.Sleep(2 * time.Minute)
		want(t, "late writes", p.machine.writes(), "")
	})
}

func TestAHeartbeatBeatsAndStopsWhenLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, func(s *Site) {
			s.Devices[0].Heartbeat = &Heartbeat{Point: "again", Every: time.Second, Values: []string{"0", "1"}}
		})
		defer p.stop()
		time.Sleep(3500 * time.Millisecond)
		want(t, "writes", p.machine.writes(), "again=0 again=1 again=0 again=1")
		if err := p.Lock(ByCommandLine, "pump", "cabinet open"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		want(t, "locked", p.machine.writes(), "again=0 again=1 again=0 again=1")
		p.command("1", "stop")
		want(t, "a command", p.replies(time.Second), "1 stop: pump is locked since 2000-01-01 00:00:04 UTC by command line: cabinet open")
		if err := p.Unlock(ByCommandLine, "pump"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if got := strings.Count(p.machine.writes(), "again"); got != 6 {
			t.Errorf("%d beats", got)
		}
		if lines := p.lines(); len(lines) != 5 { // lock, stops, refused, unlock, beats
			t.Errorf("audit: %q", lines)
		}
	})
}

// TestAHeartbeatHonoursTheLocksOfTheSiteFile.
func TestAHeartbeatHonoursTheLocksOfTheSiteFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, func(s *Site) {
			s.Devices[0].Heartbeat = &Heartbeat{Point: "fixed", Every: time.Second, Values: []string{"false", "true"}}
		})
		defer p.stop()
		time.Sleep(2500 * time.Millisecond)
		want(t, "writes", p.machine.writes(), "")
		want(t, "audit", strings.Join(p.lines(), "\n"), "gateway fixed heartbeat → failed fixed is locked on pump by the site file")
	})
}

func TestOnConnectApplyWritesOnlyWhatMayBeRestored(t *testing.T) {
	for _, policy := range []string{"apply", "report"} {
		synctest.Test(t, func(t *testing.T) {
			p := newHall(t, func(s *Site) { s.Cloud.OnConnect = policy })
			defer p.stop()
			p.wire.down <- Downlink{Kind: StateDownlink, Arrived: time.Now(), Values: asked("setpoint", 45, "req", true, "lamp", false, "again", 1, "ramp", 1, "fixed", false, "batch", 1, "weight", 100, "nothing", 1, "fault_code", 9)}
			time.Sleep(time.Second)
			writes, reports := "setpoint=45", "req=false | setpoint=45"
			if policy == "report" {
				writes, reports = "", "setpoint=30 | req=false"
			}
			want(t, policy, p.machine.writes(), writes)
			got := p.wire.take(&p.wire.reports)
			if got != reports && got != "setpoint=45 | req=false" {
				t.Errorf("%s reports %s, want %s", policy, got, reports)
			}
			p.wire.down <- Downlink{Kind: StateDownlink, Arrived: time.Now(), Values: asked("setpoint", 62)}
			time.Sleep(time.Second)
			want(t, "out of range", p.machine.writes(), writes)
		})
	}
}

// TestACommandOfACrashIsUnknown: it was begun, and nobody knows how far it came.
// Its parameters are in the verdict, but for secrets: those are not on disk.
func TestACommandOfACrashIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, nil)
		p.machine.fail(func() { p.machine.takes = 2 * time.Second })
		p.command("9", "login", "pin", 4711)
		time.Sleep(time.Second)
		// The file as it is in the middle of the command.
		p.wire.mu.Lock()
		p.wire.offline = true
		p.wire.mu.Unlock()
		if err := p.store.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		copyOf := copyFile(t, p.path)
		if content, err := os.ReadFile(copyOf); err != nil || bytes.Contains(content, []byte("4711")) || !bytes.Contains(content, []byte("login")) {
			t.Errorf("the file holds the secret, or no command; %v", err)
		}
		p.stop()
		p.path = copyOf
		p.machine.fail(func() { p.machine.takes, p.machine.wrote = 0, nil })
		p.wire.mu.Lock()
		p.wire.offline = false
		p.wire.mu.Unlock()
		p.begin()
		defer func() { p.stop() }()
		verdict := "9 login: unknown outcome: the gateway was restarted while the command was under way pin=***"
		want(t, "verdict", p.replies(time.Second), verdict)
		p.command("9", "login", "pin", 4711)
		want(t, "again", p.replies(5*time.Second), verdict)
		want(t, "writes", p.machine.writes(), "")
	})
}
