package gateway

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// values makes a report of numbers: "a=1 b=2".
func values(text string) Record {
	r := Record{Kind: ReportRecord, Time: time.Now()}
	for _, word := range strings.Fields(text) {
		name, number, _ := strings.Cut(word, "=")
		var n int64
		_, _ = fmt.Sscan(number, &n)
		r.Values = append(r.Values, Attribute{name, IntValue(n)})
	}
	return r
}

// when is how long after the start a message with a text arrived, the first or the last of them.
func (p *platform) when(text string, last bool) (at time.Duration) {
	for _, line := range p.got {
		if strings.Contains(line+" ", " "+text+" ") && (at == 0 || last) {
			at, _ = time.ParseDuration(strings.Fields(line)[0])
		}
	}
	return at
}

// The last word on a point is the newest one, whatever becomes of older ones.
func TestTheLastWordIsTheNewest(t *testing.T) {
	for name, c := range map[string]struct {
		cloud        Cloud
		online       func(elapsed time.Duration) bool
		refuse       func(elapsed time.Duration, r Record) error
		feed         func(r *rig)
		newest, old  string // the latter not after the former
		never, wants string // "" for nothing
	}{
		"what went ahead is refused": {
			cloud:  Cloud{Backlog: stream + ":past"},
			online: func(elapsed time.Duration) bool { return elapsed > time.Minute },
			refuse: func(_ time.Duration, r Record) error {
				for _, a := range r.Values {
					if a.Name == "poison" {
						time.Sleep(500 * time.Millisecond)
						return &Refusal{Code: 7, Reason: "no"}
					}
				}
				return nil
			},
			feed: func(r *rig) {
				r.storeFor("u", values("temp=1 other=3 poison=1"))
				time.Sleep(time.Minute + 300*time.Millisecond)
				r.storeFor("u", values("temp=2"))
			},
			newest: "temp=2", old: "temp=1", wants: "other=3",
		},
		"what goes out again was written since": {
			cloud:  Cloud{Backlog: replay},
			online: func(elapsed time.Duration) bool { return elapsed < time.Second || elapsed > 20*time.Second },
			refuse: func(elapsed time.Duration, _ Record) error {
				if elapsed < time.Second {
					return ErrLost
				}
				return nil
			},
			feed: func(r *rig) {
				time.Sleep(950 * time.Millisecond)
				r.storeFor("u", values("setpoint=10 temp=1"))
				time.Sleep(9 * time.Second)
				r.readBack(&Device{User: "u"}, values("setpoint=20"))
			},
			newest: "setpoint=20", never: "setpoint=10", wants: "temp=1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &platform{start: time.Now(), online: c.online, refuse: c.refuse}
				c.cloud.MinInterval, c.cloud.BacklogInterval = time.Second, time.Second
				r := newRig(t, newBuffer(t), c.cloud, p)
				defer r.close(t)
				r.play(t, 3*time.Minute, func() { c.feed(r) })
				if p.when(c.newest, true) == 0 || c.old != "" && p.when(c.old, true) > p.when(c.newest, true) ||
					c.never != "" && p.when(c.never, true) > 0 || p.when(c.wants, true) == 0 {
					t.Errorf("got:\n%s", strings.Join(p.got, "\n"))
				}
			})
		})
	}
}

// answering is a platform each of whose answers is waited for.
type answering struct{ *platform }

func (answering) Mode(RecordKind) string { return "response" }

// TestAReadBackWaitsForNoBacklog: neither for one that goes out as fast as it is
// confirmed, nor for what another kind of backlog has left.
func TestAReadBackWaitsForNoBacklog(t *testing.T) {
	for name, c := range map[string]struct {
		before, after Cloud
		answers       bool
	}{
		"as fast as confirmed": {before: Cloud{Backlog: replay, MinInterval: time.Second}, after: Cloud{Backlog: replay, MinInterval: time.Second}, answers: true},
		"of another kind": {
			before: Cloud{Backlog: stream + ":past", MinInterval: time.Second, BacklogInterval: time.Second},
			after:  Cloud{Backlog: replay, MinInterval: time.Second, BacklogInterval: time.Second},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := newBuffer(t)
				p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > 31*time.Minute }}
				p.refuse = func(time.Duration, Record) error { time.Sleep(200 * time.Millisecond); return nil }
				uplink := Uplink(p)
				if c.answers {
					uplink = answering{p}
				}
				r := newRig(t, path, c.before, uplink)
				r.play(t, 30*time.Minute, r.counted(1700))
				r.close(t)
				r = newRig(t, path, c.after, uplink)
				var written time.Duration
				r.play(t, 2*time.Minute, func() {
					time.Sleep(time.Minute + 5*time.Second)
					written = time.Since(p.start)
					r.readBack(&Device{User: "u"}, values("slow=-1"))
				})
				r.close(t)
				if len(p.got) == 0 || r.store.Len("u")+r.store.Len(historyLane("u")) == 0 {
					t.Fatal("the control failed: there is no backlog any more")
				}
				r = newRig(t, path, c.after, uplink) // a restart in the middle
				defer r.close(t)
				r.play(t, time.Hour, func() {})
				if at := p.when("slow=-1", false); at == 0 || at > written+5*time.Second {
					t.Errorf("written at %v, told at %v", written, at)
				}
				for _, line := range p.got {
					if at, _ := time.ParseDuration(strings.Fields(line)[0]); at > written+5*time.Second && strings.Contains(line, " slow=") && !strings.Contains(line, " slow=-1") {
						t.Fatalf("an older value comes after it was written at %v: %s", written, line)
					}
				}
			})
		})
	}
}

// TestASlotTakesAllThatIsInIt, however much that is: the lane doesn't grow.
func TestASlotTakesAllThatIsInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now()}
		r := newRig(t, newBuffer(t), Cloud{Backlog: replay, MinInterval: 30 * time.Second, BacklogInterval: 30 * time.Second}, p)
		defer r.close(t)
		r.play(t, 20*time.Minute, func() {
			for s := range 19 * 60 {
				for d := range 50 {
					r.storeFor("u", values(fmt.Sprintf("d%d=%d", d, s)))
				}
				time.Sleep(time.Second)
			}
			if n := r.store.Len("u"); n > 3*30*50 {
				t.Errorf("%d reports wait", n)
			}
		})
	})
}

// TestAnEmptyProbeProvesNothing: the platform is silent, and of the records behind
// the first one nothing is left to be sent.
func TestAnEmptyProbeProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now()}
		p.refuse = func(_ time.Duration, r Record) error {
			if len(r.Values) == 0 {
				return nil // as the session: there is nothing to wait for
			}
			return ErrUnanswered
		}
		r := newRig(t, newBuffer(t), Cloud{Backlog: replay, MinInterval: time.Second, BacklogInterval: time.Second}, p)
		defer r.close(t)
		r.play(t, 10*time.Minute, func() {
			r.storeFor("u", values("temp=1"))
			time.Sleep(30 * time.Second)
			r.storeFor("u", values("setpoint=10"))
			r.readBack(&Device{User: "u"}, values("setpoint=20"))
		})
		if n := r.Stats.Quarantined.Load(); n > 0 {
			t.Errorf("%d are put aside", n)
		}
	})
}

// TestPaceAfterARestart: a message that comes too soon after one of the process
// before costs one rejection, and not the pace of hours.
func TestPaceAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 5 * time.Second
		path := newBuffer(t)
		var last time.Time
		refused := 0
		p := &platform{start: time.Now()}
		p.refuse = func(time.Duration, Record) error {
			if !last.IsZero() && time.Since(last) < limit {
				refused++
				return ErrTooFast
			}
			last = time.Now()
			return nil
		}
		cloud := Cloud{Backlog: replay, MinInterval: limit, BacklogInterval: limit}
		r := newRig(t, path, cloud, p)
		r.play(t, 61*time.Second, r.counted(60))
		r.close(t)
		before := len(p.got)
		r = newRig(t, path, cloud, p)
		defer r.close(t)
		r.play(t, 2*time.Hour, r.counted(7190))
		if n := len(p.got) - before; n < 1440*9/10 || refused == 0 || refused > 3 {
			t.Errorf("%d messages where 1440 are allowed, %d refused", n, refused)
		}
	})
}

// TestWhatGoesAheadKeepsTheNewest: what comes back because it could not be sent
// is older than what has come meanwhile, also at a reload.
func TestWhatGoesAheadKeepsTheNewest(t *testing.T) {
	a := &account{lanes: []*lane{{}}, wake: make(chan struct{}, 1), written: map[string]uint64{"a": 7, "b": 3}}
	newer := values("a=2 c=2")
	a.ahead.add(&newer)
	a.putBack(values("a=1 b=1"))
	heir := &account{lanes: []*lane{{}}, wake: make(chan struct{}, 1), written: map[string]uint64{"b": 5}}
	a.bequeath(heir)
	r, ok := heir.takeAhead()
	got := ""
	for _, v := range r.Values {
		got += v.Name + "=" + v.Value.String() + " "
	}
	if !ok || got != "a=2 b=1 c=2 " || heir.written["a"] != 7 || heir.written["b"] != 5 {
		t.Errorf("%s, written %v", got, heir.written)
	}
}

// TestADissectionGoesInOrder: the halves of a refused part come before what is
// behind it.
func TestADissectionGoesInOrder(t *testing.T) {
	d := newDissection(1, values("a=1 b=1 c=1 d=1"), "no")
	d.refuse("no")
	got := ""
	for _, p := range d.parts {
		for _, v := range p.Values {
			got += v.Name
		}
		got += " "
	}
	if got != "a b cd " {
		t.Error(got)
	}
}

// TestATicketGivenBackIsAsItWas, and a backlog keeps the pace that was found.
func TestATicketGivenBackIsAsItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bucket{pace: pace{interval: time.Second, slower: 10 * time.Second, stored: time.Now(), probed: time.Now()}}
		time.Sleep(probeEvery)
		if _, err := b.take(t.Context(), rankLive); err != nil { // after it, a probe is due
			t.Fatal(err)
		}
		b.pace.stored = time.Now()
		for range 2 {
			k, err := b.take(t.Context(), rankLive)
			if err != nil || !k.probe {
				t.Fatalf("%+v, %v", k, err)
			}
			b.giveBack(k)
		}
		if b.late() != 10*time.Second {
			t.Errorf("a backlog goes out every %v", b.late())
		}
	})
}

// second is a backlog sent one message a second.
func second(backlog string) Cloud {
	return Cloud{Backlog: backlog, MinInterval: time.Second, BacklogInterval: time.Second}
}

// poisoned refuses what has an attribute of that name.
func poisoned(err error) func(time.Duration, Record) error {
	return func(_ time.Duration, r Record) error {
		for _, a := range r.Values {
			if a.Name == "poison" {
				return err
			}
		}
		return nil
	}
}

// TestAReadBackHasItsNameAndValue, though the reporter uses its slice again.
func TestAReadBackHasItsNameAndValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > time.Minute }}
		r := newRig(t, newBuffer(t), second(replay), p)
		defer r.close(t)
		point := &Point{Name: "setpoint", Definition: &Definition{ID: "setpoint", Poll: time.Second}}
		reporter := newReporter([]*Device{{Name: "d", User: "u", Points: []*Point{point}}}, func(*Device, Record) {})
		reporter.back = r.readBack
		r.play(t, 2*time.Minute, func() {
			r.storeFor("u", values("temp=1"))
			time.Sleep(10 * time.Second)
			reporter.states[point].note(&Sample{Point: point, Time: time.Now(), Value: IntValue(20), Quality: Good})
			reporter.restate(point)
		})
		if !strings.HasSuffix(p.got[0], " setpoint=20") {
			t.Errorf("got:\n%s", strings.Join(p.got, "\n"))
		}
	})
}

// TestAProbeIsFoundBehindManyEmptyReports of a setpoint that was written since.
func TestAProbeIsFoundBehindManyEmptyReports(t *testing.T) {
	for _, empty := range []int{20, 2 * batchFew} {
		synctest.Test(t, func(t *testing.T) {
			p := &platform{start: time.Now(), refuse: poisoned(ErrUnanswered)}
			r := newRig(t, newBuffer(t), second(replay), p)
			defer r.close(t)
			r.play(t, time.Hour, func() {
				r.storeFor("u", values("poison=1"))
				time.Sleep(time.Second)
				for i := range empty {
					r.storeFor("u", values(fmt.Sprintf("setpoint=%d", i)))
					time.Sleep(100 * time.Millisecond)
				}
				r.readBack(&Device{User: "u"}, values("setpoint=100"))
				for i := range 100 {
					r.storeFor("u", values(fmt.Sprintf("temp=%d", i)))
					time.Sleep(time.Second)
				}
			})
			if n := r.Stats.Quarantined.Load(); n != 1 || r.store.Len("u") > 0 {
				t.Errorf("behind %d: %d put aside, %d wait", empty, n, r.store.Len("u"))
			}
		})
	}
}

// TestWhatIsHeldIsNotForgottenUnsent: what latest has merged is not answered, and
// nothing is left of the reports behind it.
func TestWhatIsHeldIsNotForgottenUnsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > 20*time.Minute }}
		p.refuse = func(elapsed time.Duration, r Record) error {
			if elapsed > 40*time.Minute || len(r.Values) == 0 {
				return nil
			}
			return ErrUnanswered
		}
		r := newRig(t, newBuffer(t), second(latest), p)
		defer r.close(t)
		r.play(t, 2*time.Hour, func() {
			for i := range 1100 {
				name := "temp"
				if i >= 1000 {
					name = "setpoint"
				}
				r.storeFor("u", values(fmt.Sprintf("%s=%d", name, i)))
				time.Sleep(time.Second)
			}
			time.Sleep(3 * time.Minute)
			r.readBack(&Device{User: "u"}, values("setpoint=1"))
		})
		if n := r.Stats.Quarantined.Load(); p.when("temp=999", false) == 0 || n > 0 {
			t.Errorf("%d put aside, %d wait, got:\n%s", n, r.store.Len("u"), strings.Join(p.got, "\n"))
		}
	})
}

// TestAReloadLosesNothingThatIsTakenApart of what went ahead.
func TestAReloadLosesNothingThatIsTakenApart(t *testing.T) {
	for _, reload := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > time.Minute }}
			var refused atomic.Int32
			refuse := poisoned(&Refusal{Code: 7, Reason: "no"})
			p.refuse = func(elapsed time.Duration, r Record) error {
				err := refuse(elapsed, r)
				if err != nil {
					refused.Add(1)
				}
				return err
			}
			r := newRig(t, newBuffer(t), second(stream+":past"), p)
			defer r.close(t)
			fresh := &platform{start: p.start, refuse: p.refuse}
			r.play(t, 5*time.Minute, func() {
				time.Sleep(10 * time.Second)
				r.storeFor("u", values("poison=1 a=1 b=1 c=1"))
				time.Sleep(54 * time.Second)
				if n := refused.Load(); n < refusals || n > refusals+1 { // of the whole, and of a part
					t.Errorf("the control failed: it is not being taken apart: %d refusals", n)
				}
				if reload {
					if _, err := r.Reload(t.Context(), r.Site(), map[string]Uplink{"u": fresh}); err != nil {
						t.Error(err)
					}
				}
			})
			p.got = append(p.got, fresh.got...)
			for _, want := range []string{"a=1", "b=1", "c=1"} {
				if p.when(want, false) == 0 {
					t.Errorf("reload %v: no %s in\n%s", reload, want, strings.Join(p.got, "\n"))
				}
			}
		})
	}
}

// TestWhatIsTakenApartNeverWalksASetpointBack: it is written before a part goes out.
func TestWhatIsTakenApartNeverWalksASetpointBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed < 5*time.Second || elapsed > time.Hour }}
		refuse := poisoned(&Refusal{Code: 7, Reason: "no"})
		p.refuse = func(elapsed time.Duration, r Record) error {
			if err := refuse(elapsed, r); err != nil || elapsed > 5*time.Second {
				return err
			}
			return ErrLost
		}
		r := newRig(t, newBuffer(t), second(replay), p)
		defer r.close(t)
		r.play(t, 2*time.Hour, func() {
			r.storeFor("u", values("setpoint=10 poison=1"))
			time.Sleep(30 * time.Minute)
			r.readBack(&Device{User: "u"}, values("setpoint=20"))
		})
		if p.when("setpoint=10", false) > 0 || p.when("setpoint=20", false) == 0 {
			t.Errorf("got:\n%s", strings.Join(p.got, "\n"))
		}
	})
}

// TestAReadBackReplacesWhatWaitsAhead unanswered.
func TestAReadBackReplacesWhatWaitsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const written = 75 * time.Second
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > time.Minute }}
		p.refuse = func(elapsed time.Duration, r Record) error {
			if elapsed > 2*time.Minute {
				return nil
			}
			time.Sleep(10 * time.Second)
			return ErrUnanswered
		}
		r := newRig(t, newBuffer(t), second(stream+":past"), p)
		defer r.close(t)
		r.play(t, 5*time.Minute, func() {
			r.storeFor("u", values("setpoint=10"))
			time.Sleep(written)
			r.readBack(&Device{User: "u"}, values("setpoint=20"))
		})
		if p.when("setpoint=10", true) > written || p.when("setpoint=20", true) == 0 {
			t.Errorf("got:\n%s", strings.Join(p.got, "\n"))
		}
	})
}

// TestWhatWentAheadAndIsTakenApartWalksNothingBack: what went ahead is taken
// apart, while a setpoint in it is written.
func TestWhatWentAheadAndIsTakenApartWalksNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > time.Minute }}
		p.refuse = poisoned(&Refusal{Code: 7, Reason: "no"})
		r := newRig(t, newBuffer(t), second(stream+":past"), p)
		defer r.close(t)
		var written time.Duration
		r.play(t, 5*time.Minute, func() {
			text := "poison=1"
			for i := range 14 {
				text += fmt.Sprintf(" v%d=1", i)
			}
			r.storeFor("u", values(text+" setpoint=10"))
			time.Sleep(67 * time.Second)
			r.readBack(&Device{User: "u"}, values("setpoint=20"))
			written = time.Since(p.start)
		})
		if at := p.when("setpoint=10", true); at > written {
			t.Errorf("written at %v, the old value arrives at %v:\n%s", written, at, strings.Join(p.got, "\n"))
		}
	})
}

// TestAHistoryThatIsReplayedWalksNothingBack: a history that waits when the site
// file goes over to replay: a setpoint was written, and the read-back confirmed,
// while it waited.
func TestAHistoryThatIsReplayedWalksNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newBuffer(t)
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > 31*time.Minute }}
		p.refuse = func(_ time.Duration, r Record) error {
			if r.Kind == HistoryRecord {
				return ErrLost // the stream is slow: nothing of it arrives until the reload
			}
			return nil
		}
		c := second(stream + ":past")
		c.BacklogInterval = 10 * time.Minute
		r := newRig(t, path, c, p)
		var written time.Duration
		r.play(t, 35*time.Minute, func() {
			for i := range 1700 {
				r.storeFor("u", values(fmt.Sprintf("setpoint=10 n=%d", i)))
				time.Sleep(time.Second)
			}
			time.Sleep(5 * time.Minute)
			r.readBack(&Device{User: "u"}, values("setpoint=20"))
			written = time.Since(p.start)
		})
		waited := r.store.Len(historyLane("u"))
		r.close(t)
		p.refuse = nil
		r = newRig(t, path, second(replay), p)
		defer r.close(t)
		r.play(t, 2*time.Hour, func() {})
		at, back := p.when("setpoint=10", true), p.when("setpoint=20", true)
		t.Logf("%d waited, written %v, setpoint=20 last at %v, setpoint=10 last at %v", waited, written, back, at)
		if at > written {
			t.Errorf("an old value arrives at %v, written at %v", at, written)
		}
	})
}
