package gateway

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

// numbers are the values of n in what arrived, rows of histories first.
func (p *platform) numbers() (rows, live []int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.rows {
		for _, v := range r.Values {
			if v.Name == "n" {
				rows = append(rows, v.Value.Int())
			}
		}
	}
	for _, line := range p.got {
		if _, rest, ok := strings.Cut(line, " n="); ok {
			n := int64(0)
			fmt.Sscan(rest, &n)
			live = append(live, n)
		}
	}
	return rows, live
}

// TestAnotherBacklogTakesOverWhatWaits: the site file says another backlog after
// a restart in the middle of an outage. Nothing is left where nobody looks, and
// the current value never jumps back.
func TestAnotherBacklogTakesOverWhatWaits(t *testing.T) {
	const past = stream + ":past"
	for _, change := range [][2]string{{past, replay}, {past, latest}, {latest, replay}, {latest, past}, {replay, latest}, {replay, past}} {
		synctest.Test(t, func(t *testing.T) {
			path := newBuffer(t)
			p := &platform{start: time.Now(), refuse: func(time.Duration, Record) error { return errors.New("not now") }}
			cloud := Cloud{Backlog: change[0], MinInterval: time.Second, BacklogInterval: time.Second}
			r := newRig(t, path, cloud, p)
			r.storeFor("u", Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"once", IntValue(7)}}})
			r.counted(2500)()
			r.play(t, time.Minute, r.counted(0))
			r.close(t)

			p.refuse, cloud.Backlog = nil, change[1]
			r = newRig(t, path, cloud, p)
			defer r.close(t)
			r.play(t, 2*time.Hour, func() {
				time.Sleep(time.Hour)
				r.storeFor("u", Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"n", IntValue(5000)}}})
			})
			rows, live := p.numbers()
			if !slices.IsSorted(live) || len(live) == 0 || live[len(live)-1] != 5000 || !slices.IsSorted(rows) {
				t.Errorf("%v: in the order %v, history %v", change, live, rows)
			}
			all := fmt.Sprint(p.got, p.rows)
			if s := r.store.Stats(); s.Waiting > 0 || s.Dropped.Total() > 0 || !strings.Contains(all, "once") || slices.Max(append(rows, live[:len(live)-1]...)) != 2499 {
				t.Errorf("%v: %d wait, %d dropped; %d rows, live %v", change, s.Waiting, s.Dropped.Total(), len(rows), live)
			}
			if change == [2]string{replay, past} && len(rows) != 2500 || change == [2]string{past, replay} && len(live) < 1200 {
				t.Errorf("%v: %d rows, %d live", change, len(rows), len(live))
			}
			if value, err := r.store.Get(heldBucket, "u"); value != nil || err != nil {
				t.Errorf("%v: held is still %x, %v", change, value, err)
			}
		})
	}
}

// TestAHistoryTakesMoreThanMemoryHolds: a backlog of any length becomes a history.
func TestAHistoryTakesMoreThanMemoryHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const reports = 20_000
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > time.Minute }}
		r := newRig(t, newBuffer(t), Cloud{Backlog: stream + ":past"}, p)
		defer r.close(t)
		text := strings.Repeat("x", 800) // together twice what memory takes
		for i := range reports {
			put(r.store, Record{Kind: ReportRecord, Values: []Attribute{{"n", IntValue(int64(i))}, {"text", TextValue(text)}}})
			if i%1000 == 999 {
				if err := r.store.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.play(t, 20*time.Minute, func() {})
		rows, live := p.numbers()
		if s := r.store.Stats(); s.Dropped.Total() > 0 || s.Waiting > 0 || len(rows) != reports || !slices.IsSorted(rows) || len(live) != 1 || live[0] != reports-1 {
			t.Errorf("%d dropped, %d wait, %d rows, live %v", s.Dropped.Total(), s.Waiting, len(rows), live)
		}
	})
}

// TestACrashLosesNothingOfAHistory: it comes after reports were moved, and after
// a commit of something else.
func TestACrashLosesNothingOfAHistory(t *testing.T) {
	for _, history := range []string{"reported", "all"} {
		synctest.Test(t, func(t *testing.T) {
			const reports = 100
			path := newBuffer(t)
			// With all it is the pace that moves them, without it the outage.
			p := &platform{start: time.Now(), online: func(time.Duration) bool { return history == "all" }}
			r := newRig(t, path, Cloud{Backlog: stream + ":past", History: history, MinInterval: time.Second, BacklogInterval: time.Hour}, p)
			defer r.close(t)
			r.bucketOf("u").next = time.Now().Add(5 * time.Second)
			r.play(t, 20*time.Second, func() {
				time.Sleep(time.Second) // it has begun
				for i := range reports {
					put(r.store, report("n", i))
				}
				if err := r.store.Sync(t.Context()); err != nil {
					t.Error(err)
				}
				time.Sleep(10 * time.Second)
				put(r.store, event("e", Info)) // which is a commit
				time.Sleep(time.Second)
				content, err := os.ReadFile(path)
				if err != nil {
					t.Error(err)
				}
				crashed := filepath.Join(t.TempDir(), "crashed.db")
				if err := os.WriteFile(crashed, content, 0o600); err != nil {
					t.Error(err)
				}
				b, err := buffer.Open(crashed, buffer.Options{Gaps: true})
				if err != nil {
					t.Error(err)
					return
				}
				defer b.Close()
				synctest.Wait()
				rows, live := p.numbers()
				there := map[int64]bool{}
				for _, n := range append(rows, live...) {
					there[n] = true
				}
				for _, name := range []string{"u", historyLane("u")} {
					stored, _ := b.Peek(name, 2*reports)
					for i := range stored {
						if r, err := ParseRecord(stored[i].Data); err == nil {
							there[r.Values[0].Value.Int()] = true
						}
					}
				}
				if len(there) != reports || r.store.Len("u") == reports {
					t.Errorf("history: %s: of %d reports %d are there, %d were not moved; live %v", history, reports, len(slices.Collect(maps.Keys(there))), r.store.Len("u"), live)
				}
			})
		})
	}
}

func (g *Gateway) bucketOf(user string) *bucket { return g.accounts[user].bucket }

// TestWhatGoesAheadOutlivesAReload: the current values of an outage go to the
// new session, and so does what comes to the old account while it is replaced.
func TestWhatGoesAheadOutlivesAReload(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			away := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return late }}
			if late { // the old session is at work on it when it has to end
				away.refuse = func(time.Duration, Record) error { time.Sleep(time.Minute); return errors.New("too late") }
			}
			r := newRig(t, newBuffer(t), Cloud{Backlog: stream + ":past", MinInterval: time.Second}, away)
			defer r.close(t)
			fresh := &platform{start: time.Now()}
			r.play(t, 20*time.Minute, func() {
				time.Sleep(30 * time.Second)
				before := r.account("u")
				before.keep(Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"n", IntValue(1)}}})
				time.Sleep(5 * time.Second)
				if _, err := r.Reload(t.Context(), r.Site(), map[string]Uplink{"u": fresh}); err != nil {
					t.Error(err)
				}
				before.keep(Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"m", IntValue(2)}}})
			})
			if got := strings.Join(fresh.got, " "); !strings.Contains(got, "n=1") || !strings.Contains(got, "m=2") || r.store.Stats().Waiting > 0 {
				t.Errorf("late: %v, the new session got %q, %d wait", late, got, r.store.Stats().Waiting)
			}
		})
	}
}

// TestWhatEndsConnectionsAheadOfABacklogIsPutAside, and what the cloud refuses
// there: the rest flows.
func TestWhatEndsConnectionsAheadOfABacklogIsPutAside(t *testing.T) {
	for _, reason := range []error{ErrLost, &Refusal{Code: 400, Reason: "no such attribute"}} {
		synctest.Test(t, func(t *testing.T) {
			p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > time.Minute }}
			p.refuse = func(_ time.Duration, r Record) error {
				if r.Kind == ReportRecord && slices.ContainsFunc(r.Values, func(a Attribute) bool { return a.Name == "bad" }) {
					return reason
				}
				return nil
			}
			r := newRig(t, newBuffer(t), Cloud{Backlog: stream + ":past", MinInterval: time.Second, BacklogInterval: time.Second}, p)
			defer r.close(t)
			r.play(t, 20*time.Minute, func() {
				r.storeFor("u", Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"bad", IntValue(1)}, {"good", IntValue(1)}}})
				r.counted(400)()
			})
			_, live := p.numbers()
			held, err := r.store.Quarantined()
			if err != nil || len(held) != 1 || len(live) < 200 || live[len(live)-1] != 399 || r.store.Stats().Waiting > 0 {
				t.Errorf("%v: %d in quarantine, %d wait, live %v, %v", reason, len(held), r.store.Stats().Waiting, live, err)
			}
		})
	}
}

// TestWhatIsHeldIsPutAsideItself: the platform never answers what latest has
// merged of a backlog, but what comes behind it.
func TestWhatIsHeldIsPutAsideItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := newBuffer(t)
		p := &platform{start: time.Now(), refuse: func(time.Duration, Record) error { return errors.New("not now") }}
		cloud := Cloud{Backlog: latest, MinInterval: time.Second, BacklogInterval: time.Second}
		r := newRig(t, path, cloud, p)
		r.storeFor("u", Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"once", IntValue(7)}}})
		r.counted(2500)()
		r.play(t, time.Minute, func() {})
		r.close(t)
		p.refuse = func(_ time.Duration, r Record) error {
			if strings.Contains(fmt.Sprint(r.Values), "once") {
				return ErrUnanswered
			}
			return nil
		}
		r = newRig(t, path, cloud, p)
		defer r.close(t)
		r.play(t, time.Hour, func() {})
		held, err := r.store.Quarantined()
		if err != nil || len(held) != 1 || r.store.Len("u") > 0 {
			t.Fatalf("%d in quarantine, %d wait, %v", len(held), r.store.Len("u"), err)
		}
		if record, err := ParseRecord(held[0].Data); err != nil || !strings.Contains(fmt.Sprint(record.Values), "once") {
			t.Errorf("in quarantine is %v, %v", record.Values, err)
		}
		if _, live := p.numbers(); len(live) == 0 || live[len(live)-1] != 2499 {
			t.Errorf("arrived: %v", live)
		}
	})
}

// TestWhatWasHeldIsNotSentAgain, although the disk fails when it is to be
// forgotten: newer values have gone out since.
func TestWhatWasHeldIsNotSentAgain(t *testing.T) {
	store, err := buffer.Open(newBuffer(t), buffer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := newTestLane(&platform{}, store, ReportRecord, time.Second, time.Second)
	if !l.hold(report("n", 1), 1) {
		t.Fatal("it can't be held")
	}
	if err := store.Close(); err != nil { // nothing can be written any more
		t.Fatal(err)
	}
	if l.release(); l.heldAlone() != nil || !l.released {
		t.Error("it would be sent again")
	}
}

// TestALostConnectionLeavesNothingAheadOfTheCurrentValues: a report that is in
// flight when the connection ends is history after an outage.
func TestALostConnectionLeavesNothingAheadOfTheCurrentValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := false
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed < time.Minute || elapsed > 10*time.Minute }}
		p.refuse = func(elapsed time.Duration, r Record) error {
			if elapsed > 50*time.Second && !lost {
				lost = true
				time.Sleep(11 * time.Second)
				return ErrLost
			}
			return nil
		}
		r := newRig(t, newBuffer(t), Cloud{Backlog: stream + ":past", MinInterval: time.Second, BacklogInterval: time.Second}, p)
		defer r.close(t)
		r.play(t, 20*time.Minute, r.counted(700))
		if rows, live := p.numbers(); !slices.IsSorted(live) || !slices.IsSorted(rows) || r.store.Stats().Waiting > 0 {
			t.Errorf("live %v, history %v", live, rows)
		}
	})
}

// TestTimesOfWhatGoesAheadAreMended: the clock was wrong when the current values
// of the outage were measured. A history waits for it, the values don't.
func TestTimesOfWhatGoesAheadAreMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const away, right = 5 * time.Minute, 7 * time.Minute
		time.Sleep(time.Until(earliest.Add(time.Hour))) // a bubble begins in 2000
		start := time.Now()
		var times []time.Duration // of what arrived, since the start
		rows := time.Duration(0)  // when the first of the history did
		p := &platform{start: start, online: func(elapsed time.Duration) bool { return elapsed > away }}
		p.refuse = func(elapsed time.Duration, r Record) error {
			if r.Kind == HistoryRecord && rows == 0 {
				rows = elapsed
			} else if r.Kind == ReportRecord && elapsed > right {
				times = append(times, r.Time.Sub(start))
			} else if r.Kind == ReportRecord {
				return errors.New("not now")
			}
			return nil
		}
		r := newRig(t, newBuffer(t), Cloud{Backlog: stream + ":past"}, p)
		defer r.close(t)
		r.clock.wrong = func() time.Duration {
			if time.Since(start) < right {
				return -30 * 365 * 24 * time.Hour
			}
			return 0
		}
		r.play(t, 20*time.Minute, func() {
			time.Sleep(time.Minute)
			r.storeFor("u", Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"n", IntValue(1)}}})
		})
		if len(times) != 1 || times[0].Round(time.Second) != time.Minute || rows < right {
			t.Errorf("times %v, the history came at %v", times, rows)
		}
	})
}
