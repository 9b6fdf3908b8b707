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
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

// platform is an Uplink that notes what it gets.
type platform struct {
	start  time.Time
	online func(elapsed time.Duration) bool
	refuse func(elapsed time.Duration, r Record) error

	mu   sync.Mutex // several lanes publish
	got  []string
	rows []Record // of histories
}

func (p *platform) Await(ctx context.Context, _ RecordKind, _ bool) error {
	for p.online != nil && !p.online(time.Since(p.start)) {
		if sleep(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (p *platform) Publish(ctx context.Context, records []Record) (int, error) {
	short, cancel := context.WithTimeout(ctx, lateAfter)
	defer cancel()
	if err := p.Await(short, 0, false); err != nil {
		return 0, err
	}
	for i, r := range records {
		elapsed := time.Since(p.start)
		if p.refuse != nil {
			if err := p.refuse(elapsed, r); err != nil {
				return i, err
			}
		}
		line := fmt.Sprint(elapsed)
		if r.Name != "" {
			line += " " + r.Name
		}
		for _, a := range r.Values {
			line += fmt.Sprintf(" %s=%s", a.Name, a.Value)
		}
		p.mu.Lock()
		p.got, p.rows = append(p.got, line), append(p.rows, r.Rows...)
		p.mu.Unlock()
	}
	return len(records), nil
}

func newTestLane(p Uplink, store *buffer.Buffer, kind RecordKind, interval, backlog time.Duration) *lane {
	a := &account{user: "u", buffer: store, backlog: replay, bucket: &bucket{pace: pace{interval: interval}, backlog: backlog}, written: map[string]uint64{}}
	return &lane{
		account: a, name: LaneName("u", kind), user: "u", kind: kind, uplink: p, buffer: store, stats: &Stats{}, log: slog.New(slog.DiscardHandler),
		bucket: a.bucket, clock: newClock(nil),
	}
}

// uplinked runs one lane for a time, while feed appends reports to it, and gives
// the lane and what is left in its buffer.
func uplinked(t *testing.T, p *platform, interval, backlog, duration time.Duration, feed func(report func(name string, value int))) (*lane, int) {
	t.Helper()
	store, err := buffer.Open(filepath.Join(t.TempDir(), "buffer.db"), buffer.Options{Flush: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	p.start = time.Now()
	l := newTestLane(p, store, ReportRecord, interval, backlog)
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	var feeder sync.WaitGroup
	defer feeder.Wait()
	feeder.Go(func() {
		feed(func(name string, value int) {
			r := Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{name, IntValue(int64(value))}}}
			store.Append("u", buffer.Attributes, r.Time, AppendRecord(nil, &r))
		})
	})
	l.run(ctx)
	return l, store.Len("u")
}

// each reports 0, 1, 2 … with a pause between.
func each(n int, pause time.Duration) func(func(string, int)) {
	return func(report func(string, int)) {
		for i := range n {
			report("p", i)
			time.Sleep(pause)
		}
	}
}

func TestPaceMergesWhatComesBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{}
		l, left := uplinked(t, p, time.Second, time.Second, 10*time.Second, each(10, 300*time.Millisecond))
		wantLines(t, p.got, "0s p=0\n1s p=3\n2s p=6\n3s p=9")
		if l.stats.Merged.Load() != 6 || l.stats.Confirmed.Load() != 4 || left != 0 {
			t.Errorf("merged %d, confirmed %d, left %d", l.stats.Merged.Load(), l.stats.Confirmed.Load(), left)
		}
	})
}

func TestAFirstChangeAfterAQuietTimeGoesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{}
		uplinked(t, p, time.Second, time.Second, 10*time.Second, each(2, 5500*time.Millisecond))
		wantLines(t, p.got, "0s p=0\n5.5s p=1")
	})
}

func TestNoPaceMeansNoMerging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{online: func(elapsed time.Duration) bool { return elapsed > 3*time.Second }}
		l, _ := uplinked(t, p, 0, 0, 10*time.Second, each(500, 2*time.Millisecond))
		if len(p.got) != 500 || l.stats.Merged.Load() != 0 {
			t.Errorf("%d messages, %d merged", len(p.got), l.stats.Merged.Load())
		}
	})
}

// TestEveryBacklogEnds: an hour of outage at one report a second, and a pace of
// one message a second, is caught up with in at most as long as it lasted,
// since a slot holds two intervals while older records wait.
func TestEveryBacklogEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const hour = time.Hour
		p := &platform{online: func(elapsed time.Duration) bool { return elapsed > hour }}
		l, left := uplinked(t, p, time.Second, time.Second, 2*hour+10*time.Minute, each(7900, time.Second))
		if left > 2 {
			t.Errorf("%d reports wait after twice the outage", left)
		}
		last := -1
		for _, line := range p.got {
			var at, v = "", 0
			fmt.Sscanf(line, "%s p=%d", &at, &v)
			if v <= last {
				t.Fatalf("%s came after %d", line, last)
			}
			last = v
		}
		if sum := l.stats.Merged.Load() + l.stats.Confirmed.Load(); int(sum)+left < 7800 {
			t.Errorf("%d reports went out, %d are left of 7800", sum, left)
		}
	})
}

// TestARefusedReportGoesToQuarantineAndTheRestFlows. The control: a refusal that
// isn't told as one blocks the lane.
func TestARefusedReportGoesToQuarantineAndTheRestFlows(t *testing.T) {
	for _, told := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			p := &platform{refuse: func(_ time.Duration, r Record) error {
				for _, a := range r.Values {
					if a.Name == "p" && a.Value.Int() == 3 {
						if tries++; told {
							return &Refusal{Code: 400, Reason: "no such attribute"}
						}
						return errors.New("something else")
					}
				}
				return nil
			}}
			l, left := uplinked(t, p, 0, 0, time.Minute, each(6, 100*time.Millisecond))
			got := strings.Join(p.got, ",")
			if !told {
				if l.stats.Quarantined.Load() != 0 || left != 3 || strings.Contains(got, "p=5") {
					t.Errorf("the control: got %s, %d left", got, left)
				}
				return
			}
			if strings.Contains(got, "p=3") || !strings.Contains(got, "p=5") || len(p.got) != 5 {
				t.Errorf("got %s", got)
			}
			if l.stats.Quarantined.Load() != 1 || left != 0 || tries != refusals {
				t.Errorf("%d in quarantine after %d tries, %d left", l.stats.Quarantined.Load(), tries, left)
			}
		})
	}
}

// TestTooFastSlowsDown: the platform's limit goes from 1 s to 5 s and back, while
// there is a report each second. A rejection keeps its report.
func TestTooFastSlowsDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const change, back = 20 * time.Minute, 110 * time.Minute
		last := -time.Hour
		var rejected, stored []time.Duration
		p := &platform{refuse: func(elapsed time.Duration, _ Record) error {
			limit := time.Second
			if elapsed >= change && elapsed < back {
				limit = 5 * time.Second
			}
			if elapsed-last < limit {
				rejected = append(rejected, elapsed)
				return ErrTooFast
			}
			last = elapsed
			stored = append(stored, elapsed)
			return nil
		}}
		l, left := uplinked(t, p, time.Second, time.Second, 2*time.Hour, each(7200, time.Second))
		before, settling := between(rejected, 0, change), between(rejected, change, change+9*time.Minute)
		settled, sent := between(rejected, change+30*time.Minute, back), between(stored, change+30*time.Minute, back)
		t.Logf("after the change %d rejections, later %d in %d messages; %d reports are left", settling, settled, sent, left)
		if allowed := int(time.Hour / (5 * time.Second)); before > 0 || settling > 3 || settled*100 > sent || sent*100 < allowed*90 {
			t.Errorf("%d rejections before the change, %d after it, then %d in %d messages where %d are allowed", before, settling, settled, sent, allowed)
		}
		if sum := int(l.stats.Merged.Load()+l.stats.Confirmed.Load()) + left; sum != 7200 {
			t.Errorf("%d of 7200 reports went out or are left", sum)
		}
	})
}

// TestNothingIsDeletedUnconfirmed: with every second publish failing, each
// report arrives at least once and in order.
func TestNothingIsDeletedUnconfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := &platform{}
		p.refuse = func(elapsed time.Duration, r Record) error {
			if n++; n%2 == 0 {
				return errors.New("connection lost")
			}
			return nil
		}
		_, left := uplinked(t, p, 0, 0, time.Minute, each(50, 10*time.Millisecond))
		if len(p.got) != 50 || left != 0 {
			t.Fatalf("%d arrived, %d left: %v", len(p.got), left, p.got)
		}
		for i, line := range p.got {
			if !strings.HasSuffix(line, fmt.Sprintf(" p=%d", i)) {
				t.Errorf("message %d is %s", i, line)
			}
		}
	})
}

// TestAnUnreadableRecordDoesNotBlock: a record that this version can't read is
// put aside.
func TestAnUnreadableRecordDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{}
		store, err := buffer.Open(filepath.Join(t.TempDir(), "buffer.db"), buffer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		p.start = time.Now()
		r := Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"p", IntValue(1)}}}
		store.Append("u", buffer.Attributes, r.Time, []byte{99, 1, 2})
		store.Append("u", buffer.Attributes, r.Time, AppendRecord(nil, &r))
		l := newTestLane(p, store, ReportRecord, time.Second, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l.run(ctx)
		if len(p.got) != 1 || l.stats.Quarantined.Load() != 1 {
			t.Errorf("got %v, %d in quarantine", p.got, l.stats.Quarantined.Load())
		}
	})
}

// TestOnlyTheRefusedAttributeIsPutAside: of a report with ten attributes the
// cloud refuses one; the other nine arrive, and the reports behind it too.
func TestOnlyTheRefusedAttributeIsPutAside(t *testing.T) {
	for _, refused := range [][]int{{0}, {7}, {9}, {2, 3}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		synctest.Test(t, func(t *testing.T) {
			p := &platform{refuse: func(_ time.Duration, r Record) error {
				for _, a := range r.Values {
					for _, n := range refused {
						if a.Name == fmt.Sprint("a", n) {
							return &Refusal{Code: 400, Reason: "no such attribute"}
						}
					}
				}
				return nil
			}}
			store, err := buffer.Open(filepath.Join(t.TempDir(), "buffer.db"), buffer.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			p.start = time.Now()
			wide := Record{Kind: ReportRecord, Time: time.Now()}
			for i := range 10 {
				wide.Values = append(wide.Values, Attribute{fmt.Sprint("a", i), IntValue(int64(i))})
			}
			after := Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"b", IntValue(1)}}}
			store.Append("u", buffer.Attributes, wide.Time, AppendRecord(nil, &wide))
			store.Append("u", buffer.Attributes, after.Time, AppendRecord(nil, &after))
			l := newTestLane(p, store, ReportRecord, time.Second, 0)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			l.run(ctx)
			got := strings.Join(p.got, " ")
			for i := range 10 {
				if arrived := strings.Contains(got, fmt.Sprintf("a%d=", i)); arrived == slices.Contains(refused, i) {
					t.Errorf("refused %v: a%d arrived: %v", refused, i, arrived)
				}
			}
			if !strings.HasSuffix(got, "b=1") || store.Len("u") != 0 {
				t.Errorf("refused %v: got %s, %d left", refused, got, store.Len("u"))
			}
			held, err := store.Quarantined()
			if err != nil || len(held) != 1 {
				t.Fatalf("refused %v: %d in quarantine, %v", refused, len(held), err)
			}
			if r, err := ParseRecord(held[0].Data); err != nil || len(r.Values) != len(refused) {
				t.Errorf("refused %v: in quarantine is %+v, %v", refused, r, err)
			}
		})
	}
}
