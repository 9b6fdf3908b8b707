package gateway

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

// cloudScript is an uplink with a script.
type cloudScript func(ctx context.Context, records []Record) (int, error)

func (c cloudScript) Publish(ctx context.Context, records []Record) (int, error) {
	return c(ctx, records)
}

func (c cloudScript) Await(context.Context, RecordKind, bool) error { return nil }

// away is what a loop does when it hangs: nothing, for good.
func away(ctx context.Context) { <-ctx.Done() }

// watchedSite is a gateway of one bus and one lane.
func watchedSite(t *testing.T, f *field, publish cloudScript) *Gateway {
	t.Helper()
	store, err := buffer.Open(filepath.Join(t.TempDir(), "buffer.db"), buffer.Options{MaxSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	bus := &Bus{Name: "b", Type: "field", Offline: Offline{After: 3, Probe: 10 * time.Second, ProbeMax: time.Minute}}
	d := device("d", &Definition{ID: "p", Poll: time.Minute, Report: Reporting{Mode: "always"}})
	d.Bus, d.User, d.Profile = bus, "u", &Profile{}
	g, err := New(Config{
		Site: &Site{Buses: []*Bus{bus}, Devices: []*Device{d}}, Log: slog.New(slog.DiscardHandler), Buffer: store,
		Adapters: map[string]NewAdapter{"field": func(Env, *Bus, []*Device) (Adapter, error) { return f, nil }},
		Uplinks:  map[string]Uplink{"u": publish},
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestWatchdogSeesWhatHangs: only a loop that hangs stops the feeding, whatever
// else is wrong with the field and the cloud.
func TestWatchdogSeesWhatHangs(t *testing.T) {
	fine := func(time.Duration, *Point) (Value, string) { return UintValue(1), "" }
	taken := func(_ context.Context, r []Record) (int, error) { return len(r), nil }
	for name, c := range map[string]struct {
		field   field
		publish cloudScript
		hangs   string
	}{
		"all is well":     {field{answer: fine}, taken, ""},
		"field away":      {field{openErr: func(time.Duration) error { return errors.New("no route") }}, taken, ""},
		"unit is silent":  {field{answer: func(time.Duration, *Point) (Value, string) { return Value{}, "no answer" }, takes: 3 * time.Second}, taken, ""},
		"cloud away":      {field{answer: fine}, func(ctx context.Context, _ []Record) (int, error) { return 0, Sleep(ctx, time.Hour) }, ""},
		"cloud refuses":   {field{answer: fine}, func(context.Context, []Record) (int, error) { return 0, &Refusal{Reason: "no"} }, ""},
		"too fast":        {field{answer: fine}, func(context.Context, []Record) (int, error) { return 0, ErrTooFast }, ""},
		"a read hangs":    {field{answer: fine, lost: func(at time.Duration) error { time.Sleep(max(0, at-time.Minute) * 100); return nil }}, taken, "bus b"},
		"a publish hangs": {field{answer: fine}, func(ctx context.Context, _ []Record) (int, error) { away(ctx); return 0, ctx.Err() }, "lane u"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.field.start = time.Now()
				g := watchedSite(t, &c.field, c.publish)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() { g.Run(ctx); close(ended) }()
				var dog Watchdog
				var stuck []string
				fed, longest := time.Now(), time.Duration(0)
				for range 200 {
					time.Sleep(time.Second)
					all, now := dog.Check(time.Now(), append(g.Watched(), Watched{"buffer", g.config.Buffer.Turned}), 20*time.Second)
					if stuck = now; all {
						fed = time.Now()
					}
					longest = max(longest, time.Since(fed))
				}
				cancel()
				<-ended
				if want := c.hangs != ""; want != (longest > 60*time.Second) || !want && longest > 10*time.Second {
					t.Errorf("the watchdog was not fed for %s", longest)
				}
				if c.hangs != "" && !slices.Equal(stuck, []string{c.hangs}) || c.hangs == "" && len(stuck) > 0 {
					t.Errorf("these hang: %v", stuck)
				}
			})
		})
	}
}

// TestWatchdogSurvivesAReload: loops that come and go starve nobody.
func TestWatchdogSurvivesAReload(t *testing.T) {
	var dog Watchdog
	var a, b Beat
	now := time.Now()
	check := func(want bool, loops ...Watched) {
		t.Helper()
		now = now.Add(time.Second)
		if all, _ := dog.Check(now, loops, time.Minute); all != want {
			t.Errorf("fed: %v", all)
		}
	}
	first, second := Watched{"a", a.Turned}, Watched{"b", b.Turned}
	check(false, first) // the first look begins the count
	a.Turn()
	check(true, first)
	check(false, first, Watched{"c", func() bool { return false }}) // c is new
	a.Turn()
	check(true, first, second) // c has gone, b is new
	b.Turn()
	check(false, first, second)
	a.Turn()
	check(true, first, second)
}
