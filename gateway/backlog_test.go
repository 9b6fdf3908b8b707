package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

// rig is a gateway without a field: what a test puts in goes to a platform.
type rig struct {
	*Gateway
	store *buffer.Buffer
	path  string
}

func newRig(t *testing.T, path string, cloud Cloud, p Uplink) *rig {
	t.Helper()
	store, err := buffer.Open(path, buffer.Options{Gaps: true, Flush: time.Minute, MaxAge: 12 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(Config{Site: &Site{Cloud: cloud}, Log: slog.New(slog.DiscardHandler), Buffer: store, Uplinks: map[string]Uplink{"u": p}})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{g, store, path}
}

// play runs the gateway for a time, while feed puts reports into it.
func (r *rig) play(t *testing.T, duration time.Duration, feed func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	var wait sync.WaitGroup
	wait.Go(feed)
	r.Run(ctx)
	wait.Wait()
}

func (r *rig) close(t *testing.T) {
	t.Helper()
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// counted reports n=0, n=1 … one a second, and every tenth time also slow.
func (r *rig) counted(n int) func() {
	return func() {
		for i := range n {
			report := Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"n", IntValue(int64(i))}}}
			if i%10 == 0 {
				report.Values = append(report.Values, Attribute{"slow", IntValue(int64(i))})
			}
			r.storeFor("u", report)
			time.Sleep(time.Second)
		}
	}
}

func newBuffer(t *testing.T) string { return filepath.Join(t.TempDir(), "buffer.db") }

// TestLatestSendsTheNewestOfEachPoint: an hour of outage, more than the uplink
// reads at once.
func TestLatestSendsTheNewestOfEachPoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > time.Hour }}
		r := newRig(t, newBuffer(t), Cloud{Backlog: latest, MinInterval: time.Second, BacklogInterval: time.Second}, p)
		defer r.close(t)
		r.play(t, time.Hour+time.Minute, r.counted(3650))
		if len(p.got) == 0 || !strings.HasSuffix(p.got[0], " n=3600 slow=3600") {
			t.Fatalf("the first message is %v", p.got[:min(len(p.got), 1)])
		}
		if want := 3600 + 360; int(r.Stats.Superseded.Load()) != want || len(p.got) > 60 || r.store.Len("u") > 0 {
			t.Errorf("%d superseded, want %d; %d messages, %d left", r.Stats.Superseded.Load(), want, len(p.got), r.store.Len("u"))
		}
		if value, err := r.store.Get(heldBucket, "u"); value != nil || err != nil {
			t.Errorf("kept: %x, %v", value, err)
		}
	})
}

// TestLatestSurvivesTheEnd: what was merged of a backlog is there after a restart.
func TestLatestSurvivesTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newBuffer(t)
		p := &platform{start: time.Now()}
		p.refuse = func(time.Duration, Record) error { return errors.New("not now") }
		cloud := Cloud{Backlog: latest, MinInterval: time.Second, BacklogInterval: time.Second}
		r := newRig(t, path, cloud, p)
		r.storeFor("u", Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"once", IntValue(7)}}})
		r.counted(2500)()
		r.play(t, time.Minute, func() {})
		left := r.store.Len("u")
		r.close(t)
		p.refuse = nil
		r = newRig(t, path, cloud, p)
		defer r.close(t)
		r.play(t, time.Minute, func() {})
		if left >= 2501 || len(p.got) != 1 || !strings.HasSuffix(p.got[0], " once=7 n=2499 slow=2490") {
			t.Errorf("%d were left, got %v", left, p.got)
		}
	})
}

// TestStreamSendsTheCurrentValuesFirstAndTheHistoryWithItsTimes.
func TestStreamSendsTheCurrentValuesFirstAndTheHistoryWithItsTimes(t *testing.T) {
	t.Parallel()
	for _, history := range []string{"reported", "all"} {
		synctest.Test(t, func(t *testing.T) {
			const away, back = 10*time.Minute + 500*time.Millisecond, 40*time.Minute + 500*time.Millisecond
			p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed < away || elapsed > back }}
			p.refuse = func(elapsed time.Duration, _ Record) error {
				if elapsed > away && elapsed < back {
					return ErrLost
				}
				return nil
			}
			r := newRig(t, newBuffer(t), Cloud{Backlog: stream + ":past", History: history, MinInterval: 2 * time.Second, BacklogInterval: time.Second}, p)
			defer r.close(t)
			r.play(t, time.Hour, r.counted(3500))
			first := ""
			for _, line := range p.got {
				var at, v = "", 0
				if n, _ := fmt.Sscanf(line, "%s n=%d", &at, &v); n == 2 {
					if d, _ := time.ParseDuration(at); d > back && first == "" {
						first = line
					}
				}
			}
			if !strings.HasPrefix(first, "40m0.") && !strings.HasPrefix(first, "40m1.") && !strings.HasPrefix(first, "40m2.") || !strings.HasSuffix(first, " slow=2400") {
				t.Errorf("the first report after the outage is %s", first)
			}
			// Of the outage each report is in the history, in order and with its time.
			next := 603 // those before may have arrived just before the outage
			for _, row := range p.rows {
				v := int(row.Values[0].Value.Int())
				if elapsed := row.Time.Sub(p.start).Round(time.Second); int(elapsed/time.Second) != v {
					t.Fatalf("row %d has time %v", v, elapsed)
				}
				if v == next {
					next++
				} else if v >= 603 && v < 2400 {
					t.Fatalf("row %d where %d is due", v, next)
				}
			}
			if next < 2400 {
				t.Errorf("the history ends at %d", next)
			}
			// The values that the pace merges, about every second one, are there only with all.
			online := 0
			for _, row := range p.rows {
				if v := row.Values[0].Value.Int(); v > 100 && v < 590 {
					online++
				}
			}
			if want := map[string]int{"reported": 0, "all": 244}[history]; online < want*3/4 || online > want*5/4 {
				t.Errorf("history: %s has %d rows of the time online, want %d", history, online, want)
			}
			if waiting := r.store.Stats().Waiting; waiting > 0 {
				t.Errorf("%d wait", waiting)
			}
		})
	}
}

// TestCurrentValuesThatAreNeverAnsweredArePutAside: with backlog stream too, a
// report that the platform keeps silent about blocks nothing, and it is put aside
// only when others are answered.
func TestCurrentValuesThatAreNeverAnsweredArePutAside(t *testing.T) {
	for _, dead := range []bool{false, true} { // the whole platform, for a while
		synctest.Test(t, func(t *testing.T) {
			p := &platform{start: time.Now()}
			var holdOff atomic.Int64 // until then
			p.online = func(elapsed time.Duration) bool { return int64(elapsed) > holdOff.Load() }
			mute := 0
			p.refuse = func(elapsed time.Duration, r Record) error {
				poison := slices.ContainsFunc(r.Values, func(a Attribute) bool { return a.Name == "slow" && a.Value.Int() == 10 })
				if r.Kind == ReportRecord && (poison || dead && elapsed < 10*time.Minute) {
					if poison {
						mute++
					}
					holdOff.Store(int64(elapsed + 10*time.Second))
					return ErrUnanswered
				}
				return nil
			}
			r := newRig(t, newBuffer(t), Cloud{Backlog: stream + ":past", MinInterval: time.Second, BacklogInterval: time.Second}, p)
			defer r.close(t)
			r.play(t, 30*time.Minute, func() {
				r.counted(20)() // slow is 10 at last
				for i := range 1600 {
					r.storeFor("u", Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"n", IntValue(int64(i))}}})
					time.Sleep(time.Second)
				}
			})
			held, _ := r.store.Quarantined()
			last := p.got[len(p.got)-1]
			if len(held) != 1 || held[0].Reason != othersAreAnswered || mute < silences || !strings.HasSuffix(last, " n=1599") || r.store.Stats().Waiting > 0 {
				t.Errorf("dead: %v: in quarantine %v, after %d silences, last %s, %d wait", dead, held, mute, last, r.store.Stats().Waiting)
			}
		})
	}
}

// TestAReplayNeverWalksASetpointBack: what was read back after a write goes out
// ahead of the backlog, older values of it never, and it ends the replay.
func TestAReplayNeverWalksASetpointBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > 10*time.Minute }}
		r := newRig(t, newBuffer(t), Cloud{Backlog: replay, MinInterval: time.Second, BacklogInterval: time.Second}, p)
		defer r.close(t)
		at := func(n, setpoint int) Record {
			return Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"n", IntValue(int64(n))}, {"setpoint", IntValue(int64(setpoint))}}}
		}
		r.play(t, 30*time.Minute, func() {
			for i := range 600 {
				r.storeFor("u", at(i, 20))
				time.Sleep(time.Second)
			}
			r.readBack(&Device{User: "u"}, Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"setpoint", IntValue(50)}}})
		})
		if len(p.got) == 0 || !strings.HasSuffix(p.got[0], "s setpoint=50") {
			t.Errorf("the first message is %v", p.got[:min(1, len(p.got))])
		}
		all := strings.Join(p.got, "\n")
		if strings.Contains(all, "setpoint=20") || strings.Count(all, "setpoint=50") < 2 || !strings.Contains(all, " n=1\n") {
			t.Errorf("got:\n%s", all)
		}
		if r.Stats.LeftOut.Load() < 600 || len(r.accounts["u"].written) > 0 {
			t.Errorf("%d left out, remembered are %v", r.Stats.LeftOut.Load(), r.accounts["u"].written)
		}
	})
}

// TestAReplayNeverWalksASetpointBackAfterARestart either: the program ends in the
// middle of the outage. The control, where what was written is forgotten, must
// walk it back.
func TestAReplayNeverWalksASetpointBackAfterARestart(t *testing.T) {
	for _, forgotten := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			path := newBuffer(t)
			p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > 20*time.Minute }}
			cloud := Cloud{Backlog: replay, MinInterval: time.Second, BacklogInterval: time.Second}
			r := newRig(t, path, cloud, p)
			at := func(n, setpoint int) Record {
				return Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"n", IntValue(int64(n))}, {"setpoint", IntValue(int64(setpoint))}}}
			}
			r.play(t, 10*time.Minute, func() {
				for i := range 100 {
					r.storeFor("u", at(i, 20))
					time.Sleep(time.Second)
				}
				r.readBack(&Device{User: "u"}, Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"setpoint", IntValue(50)}}})
				time.Sleep(time.Second)
				r.storeFor("u", at(100, 50))
			})
			if forgotten {
				r.store.Put(ruleBucket, "written:u", nil)
			}
			r.close(t)
			r = newRig(t, path, cloud, p)
			defer r.close(t)
			r.play(t, 30*time.Minute, func() {})
			all := strings.Join(p.got, "\n")
			if strings.Contains(all, "setpoint=20") != forgotten || !strings.Contains(p.got[len(p.got)-1], "setpoint=50") || !strings.Contains(all, " n=99") {
				t.Errorf("forgotten: %v, got:\n%s", forgotten, all)
			}
			if state, err := r.store.Get(ruleBucket, "written:u"); state != nil || err != nil || len(r.accounts["u"].written) > 0 {
				t.Errorf("still kept: %s, %v, %v", state, err, r.accounts["u"].written)
			}
		})
	}
}

// TestLatestNeverWalksASetpointBack: what it has merged of a long backlog, and
// sends by itself because the connection was lost with it three times, has no
// value from before a write.
func TestLatestNeverWalksASetpointBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > time.Hour }}
		losses := make(chan struct{}, 3)
		p.refuse = func(_ time.Duration, r Record) error {
			if len(r.Values) > 1 && len(losses) < cap(losses) {
				losses <- struct{}{}
				return ErrLost
			}
			return nil
		}
		r := newRig(t, newBuffer(t), Cloud{Backlog: latest, MinInterval: time.Second, BacklogInterval: time.Second}, p)
		defer r.close(t)
		at := func(n, setpoint int) Record {
			return Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"n", IntValue(int64(n))}, {"setpoint", IntValue(int64(setpoint))}}}
		}
		r.play(t, 2*time.Hour, func() {
			for i := range 3600 {
				r.storeFor("u", at(i, 20))
				time.Sleep(time.Second)
			}
			for len(losses) < cap(losses) {
				time.Sleep(10 * time.Millisecond)
			}
			r.readBack(&Device{User: "u"}, Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"setpoint", IntValue(50)}}})
			time.Sleep(time.Second)
			r.storeFor("u", at(3600, 50))
		})
		all := strings.Join(p.got, "\n")
		if strings.Contains(all, "setpoint=20") || !strings.Contains(p.got[len(p.got)-1], "setpoint=50") || !strings.Contains(all, " n=3600") {
			t.Errorf("got:\n%s", all)
		}
	})
}

// TestReportsOfNothingButOldSetpointsAreDone: nothing is left of them, which is
// no reason to put them aside.
func TestReportsOfNothingButOldSetpointsAreDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > time.Minute }}
		p.refuse = func(_ time.Duration, r Record) error {
			if r.Kind != ReportRecord {
				t.Errorf("a report of kind %d", r.Kind)
			}
			return nil
		}
		for _, backlog := range []string{replay, latest} {
			r := newRig(t, newBuffer(t), Cloud{Backlog: backlog, MinInterval: time.Second, BacklogInterval: time.Second}, p)
			p.start = time.Now()
			setpoint := func(v int) Record {
				return Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"setpoint", IntValue(int64(v))}}}
			}
			r.play(t, 10*time.Minute, func() {
				for i := range 50 {
					r.storeFor("u", setpoint(i))
					time.Sleep(500 * time.Millisecond)
				}
				r.readBack(&Device{User: "u"}, setpoint(100))
			})
			if s := r.store.Stats(); s.Quarantined > 0 || s.Waiting > 0 {
				t.Errorf("%s: %d in quarantine, %d wait", backlog, s.Quarantined, s.Waiting)
			}
			r.close(t)
		}
	})
}

// TestWhatIsLeftOutOfAReportDoublesNothing: it is tried again and again.
func TestWhatIsLeftOutOfAReportDoublesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now()}
		tries := 0
		p.refuse = func(elapsed time.Duration, r Record) error {
			if tries++; r.Values[0].Name == "a" && elapsed < time.Minute {
				return errors.New("not now")
			}
			return nil
		}
		r := newRig(t, newBuffer(t), Cloud{Backlog: replay, MinInterval: time.Second, BacklogInterval: time.Second}, p)
		defer r.close(t)
		r.play(t, 5*time.Minute, func() {
			r.storeFor("u", Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"a", IntValue(1)}, {"setpoint", IntValue(20)}, {"b", IntValue(2)}, {"c", IntValue(3)}}})
			time.Sleep(20 * time.Second)
			r.readBack(&Device{User: "u"}, Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"setpoint", IntValue(50)}}})
		})
		if got := strings.Join(p.names(), ", "); got != "setpoint=50, a=1 b=2 c=3, setpoint=50" || tries < 30 {
			t.Errorf("got %s in %d tries", got, tries)
		}
	})
}

// TestSlowAnswersDontKeepABacklog: a platform whose confirmation takes three
// seconds, at a pace of one message a second: what waits must not grow for ever.
func TestSlowAnswersDontKeepABacklog(t *testing.T) {
	for _, backlog := range []string{replay, stream + ":past", latest} {
		t.Run(backlog, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &platform{start: time.Now()}
				p.refuse = func(time.Duration, Record) error { time.Sleep(3 * time.Second); return nil }
				r := newRig(t, newBuffer(t), second(backlog), answering{p})
				defer r.close(t)
				r.play(t, 2*time.Hour, func() {
					r.counted(3600)()
					at30 := r.store.Len("u")
					t.Logf("after an hour %d reports wait", at30)
					if at30 > 60 {
						t.Errorf("after an hour on line %d reports wait", at30)
					}
				})
			})
		})
	}
}

// TestCurrentValuesGoFirstAfterASilentHour: with a stream the current values go
// out at once when a platform that was silent for an hour, on a connection that
// stood, answers again.
func TestCurrentValuesGoFirstAfterASilentHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now()}
		p.refuse = func(elapsed time.Duration, r Record) error {
			if r.Kind == ReportRecord && elapsed > time.Minute && elapsed < time.Hour {
				time.Sleep(9 * time.Second) // the timeout, and nearly all of the hold-off
				return ErrUnanswered
			}
			return nil
		}
		r := newRig(t, newBuffer(t), second(stream+":past"), answering{p})
		defer r.close(t)
		r.play(t, 2*time.Hour, func() {
			for i := range 62 * 60 {
				r.storeFor("u", values(fmt.Sprintf("n=%d", i)))
				time.Sleep(time.Second)
			}
			if _, live := p.numbers(); live[len(live)-1] < 61*60 {
				t.Errorf("two minutes after the platform is back the value of %v ago is its current one; %d wait", time.Duration(62*60-live[len(live)-1])*time.Second, r.store.Len("u"))
			}
		})
	})
}

// TestABacklogBesideABusyStreamEnds: a stream takes two thirds of the slots: the
// reports of an outage are caught up with all the same.
func TestABacklogBesideABusyStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > 10*time.Minute }}
		r := newRig(t, newBuffer(t), second(replay), p)
		defer r.close(t)
		r.play(t, 2*time.Hour, func() {
			go func() {
				time.Sleep(10 * time.Minute)
				for range 60 * 60 {
					r.storeFor("u", Record{Kind: StreamRecord, Time: time.Now(), Name: "s", Body: []byte("{}")})
					time.Sleep(1500 * time.Millisecond)
				}
			}()
			r.counted(70 * 60)()
			if n := r.store.Len("u"); n > 100 {
				t.Errorf("an hour after an outage of ten minutes %d reports wait, %d of the stream", n, r.store.Len("u/streams"))
			}
		})
	})
}

// TestWhatIsHeldOfAHistoryIsNotLost: what latest has merged of a history that
// another backlog has left, when the site file goes back to a stream.
func TestWhatIsHeldOfAHistoryIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newBuffer(t)
		on := false
		p := &platform{start: time.Now(), online: func(time.Duration) bool { return on }}
		r := newRig(t, path, second(stream+":past"), p)
		r.play(t, time.Hour, func() {
			r.storeFor("u", values("once=7"))
			r.counted(3000)()
		})
		r.close(t)
		refuse := true
		p.refuse = func(time.Duration, Record) error {
			if refuse {
				return ErrUnanswered
			}
			return nil
		}
		on = true
		r = newRig(t, path, second(latest), p)
		r.play(t, time.Second, func() {})
		r.close(t)
		refuse = false
		r = newRig(t, path, second(stream+":past"), p)
		defer r.close(t)
		r.play(t, time.Hour, func() {})
		found := p.when("once=7", false) > 0
		for _, row := range p.rows {
			for _, v := range row.Values {
				found = found || v.Name == "once"
			}
		}
		value, _ := r.store.Get(heldBucket, historyLane("u"))
		if !found {
			t.Errorf("once=7 never arrives; %d rows of 3001, %d lie in the small state, dropped %d, waiting %d", len(p.rows), len(value), r.store.Stats().Dropped.Total(), r.store.Stats().Waiting)
		}
	})
}

// TestOneLateAnswerMergesNoMinute: one confirmation that takes 30 s in the middle
// of a replay (pace 1 s, reports each second): the next message must not hold a
// minute of reports in one.
func TestOneLateAnswerMergesNoMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now(), online: func(e time.Duration) bool { return e > 20*time.Minute }}
		hung := false
		p.refuse = func(e time.Duration, _ Record) error {
			if e > 22*time.Minute && !hung {
				hung = true
				time.Sleep(30 * time.Second)
			} else {
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		}
		r := newRig(t, newBuffer(t), second(replay), answering{p})
		defer r.close(t)
		r.play(t, 2*time.Hour, func() { r.counted(3600)() })
		_, live := p.numbers()
		most, last := 0, 0
		for _, n := range live {
			most, last = max(most, int(n)-last), int(n)
		}
		if most > 6 {
			t.Errorf("one message stands for %d reports", most)
		}
	})
}
