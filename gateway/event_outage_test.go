package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

type sentBatch struct {
	Record
	sent time.Time
}

// archive is a platform that keeps events and stream messages by name.
type archive struct {
	online func() bool

	mu      sync.Mutex
	batches []sentBatch        // messages of rows
	counts  map[string][]int64 // what their n were, as they came
	late    map[string]int     // those whose time is not when n was read
	due     func(n int64) time.Time
}

func (a *archive) Await(ctx context.Context, _ RecordKind, _ bool) error {
	for !a.online() {
		if Sleep(ctx, time.Second) != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (a *archive) Publish(_ context.Context, records []Record) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, r := range records {
		if !a.online() {
			return i, ErrLost
		}
		if len(r.Rows) > 0 {
			a.batches = append(a.batches, sentBatch{r, time.Now()})
		}
		for _, row := range append(r.Rows, r) {
			if err := a.keep(r.Name, row); err != nil {
				return i, err
			}
		}
	}
	return len(records), nil
}

func (a *archive) keep(name string, r Record) error {
	var n int64
	switch {
	case name == "" || r.Kind == HistoryRecord:
		return nil
	case r.Kind == StreamRecord:
		var body struct{ N int64 }
		if err := json.Unmarshal(r.Body, &body); err != nil {
			return err
		}
		n = body.N
	default:
		n = r.Values[0].Value.Int()
	}
	a.counts[name] = append(a.counts[name], n)
	if r.Time.Sub(a.due(n)).Abs() > time.Minute {
		a.late[name]++
	}
	return nil
}

// minutes is a field whose point counts the minutes.
type minutes struct {
	ticker
	start time.Time
}

func (m minutes) Open(context.Context) (Session, error) { return m, nil }
func (m minutes) Read(_ context.Context, group []*Point) ([]Sample, error) {
	now := time.Now()
	return []Sample{{Point: group[0], Time: now, Quality: Good, Value: IntValue(int64(now.Sub(m.start) / time.Minute))}}, nil
}

// TestEventsAndStreamsOutliveAnOutageOfHours, and a restart in the middle of
// it: each arrives once, in order, with the time it had. The control, a
// platform that forgets one, must be found out.
func TestEventsAndStreamsOutliveAnOutageOfHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		const outage = 8 * time.Hour
		a := &archive{counts: map[string][]int64{}, late: map[string]int{},
			online: func() bool { return time.Since(start) < 10*time.Minute || time.Since(start) > 10*time.Minute+outage },
			due:    func(n int64) time.Time { return start.Add(time.Duration(n) * time.Minute) }}
		path := newBuffer(t)
		run := func(duration time.Duration) {
			store, err := buffer.Open(path, buffer.Options{Gaps: true, Flush: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			bus := &Bus{Name: "b", Type: "field", Offline: Offline{After: 3, Probe: time.Second, ProbeMax: time.Second}}
			d := device("d", &Definition{ID: "n", Poll: 20 * time.Second})
			d.Bus, d.User, d.Profile = bus, "u", &Profile{}
			d.Events = []*Event{{ID: "minute", Each: condition("increase(n)"), Params: []string{"n"}}}
			body := &Body{Fields: []Field{{"n", Expression{"n"}}}}
			d.Streams = []*Stream{{ID: "log", Format: "json", Each: "minute", Body: body}, {ID: "rows", Format: "json", Each: "minute", Body: body, Batch: &Batch{Within: 10 * time.Minute, Rows: 25}}}
			g, err := New(Config{Site: &Site{Cloud: Cloud{Backlog: replay, MinInterval: time.Second, BacklogInterval: time.Second}, Buses: []*Bus{bus}, Devices: []*Device{d}},
				Log: slog.New(slog.DiscardHandler), Buffer: store, Uplinks: map[string]Uplink{"u": a},
				Adapters: map[string]NewAdapter{"field": func(Env, *Bus, []*Device) (Adapter, error) { return minutes{start: start}, nil }}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), duration)
			defer cancel()
			g.Run(ctx)
		}
		run(4*time.Hour + 30*time.Second)
		run(5*time.Hour + 30*time.Second)
		want := make([]int64, 0, 9*60)
		for n := range int64(9 * 60) {
			want = append(want, n+1)
		}
		for name, got := range a.counts {
			want := want
			if name == "rows" && len(got) > len(want)-11 {
				want = want[:len(got)] // the last ones wait for others
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %d of %d arrived: %s", name, len(got), len(want), firstDifference(got, want))
			}
			if a.late[name] > 0 {
				t.Errorf("%s: %d have another time", name, a.late[name])
			}
			if forgot := slices.Delete(slices.Clone(got), 199, 200); firstDifference(forgot, want) != "201 where 200 was due" {
				t.Errorf("the control: %s", firstDifference(forgot, want))
			}
		}
		if len(a.counts) != 3 {
			t.Errorf("%d kinds arrived", len(a.counts))
		}
		// A row waits for others, but not longer than within; of the outage a message has as many as it may.
		sizes := map[int]int{}
		for _, b := range a.batches {
			sizes[len(b.Rows)]++
			waited, at := b.sent.Sub(b.Rows[0].Time), b.Rows[0].Time.Sub(start)
			if at > 20*time.Minute+outage && (waited > 10*time.Minute+5*time.Second || waited < 10*time.Minute) {
				t.Errorf("a row of %v went out after %v", at, waited)
			}
		}
		if sizes[25] < 18 || sizes[11]+sizes[10] < 3 {
			t.Errorf("messages by their rows: %v", sizes)
		}
	})
}

func firstDifference(got, want []int64) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("%d where %d was due", got[i], want[i])
		}
	}
	return "one ends early"
}
