package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

// shop is a platform of one username that notes which readings it gets.
type shop struct {
	online func() bool

	mu       sync.Mutex
	next     map[string]int64 // by attribute, the reading that is due; those before have arrived
	lost     int              // readings that were passed over
	doubled  int
	messages int
}

func (s *shop) Await(ctx context.Context, _ RecordKind, _ bool) error {
	for !s.online() {
		if Sleep(ctx, TurnEvery) != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (s *shop) Publish(_ context.Context, records []Record) (int, error) {
	for i := range records {
		if !s.online() {
			return i, ErrLost
		}
		s.mu.Lock()
		s.messages++
		for _, a := range records[i].Values {
			n, due := a.Value.Int(), s.next[a.Name]
			if n < due {
				s.doubled++
			} else {
				s.lost += int(n - due)
				s.next[a.Name] = n + 1
			}
		}
		s.mu.Unlock()
	}
	return len(records), nil
}

func (s *shop) sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.messages
}

// TestEightHoursWithoutACloud: 20 devices at 1 s. It has a million steps, so it is
// not for the race detector.
func TestEightHoursWithoutACloud(t *testing.T) {
	info, _ := debug.ReadBuildInfo()
	raced := slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
	if os.Getenv("CI") == "" || raced {
		t.Skip("takes ten seconds of processor time: set CI=true")
	}
	withoutACloud(t, 20, time.Second, 8*time.Hour, Cloud{BacklogInterval: 250 * time.Millisecond, MinInterval: 400 * time.Millisecond})
}

func TestThreeDaysWithoutACloud(t *testing.T) {
	t.Parallel()
	withoutACloud(t, 4, time.Minute, 72*time.Hour, Cloud{BacklogInterval: time.Second, MinInterval: time.Second})
}

// withoutACloud lets devices be polled while there is no cloud. Everything
// arrives once and in order, the field notices nothing, and the backlog drains at
// no less than 90 % of the rate that is allowed. The control, a reading that was
// never sent, must be found out.
func withoutACloud(t *testing.T, devices int, poll, outage time.Duration, cloud Cloud) {
	cloud.Backlog = replay
	allowed := cloud.BacklogInterval
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := &shop{next: map[string]int64{}, online: func() bool { return time.Since(start) < time.Minute || time.Since(start) > time.Minute+outage }}
		store, err := buffer.Open(newBuffer(t), buffer.Options{Gaps: true, MaxSize: 512 << 20, Flush: outage / 480})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		bus := &Bus{Name: "b", Type: "field", Offline: Offline{After: 3, Probe: time.Second, ProbeMax: time.Second}}
		site := &Site{Cloud: cloud, Buses: []*Bus{bus}}
		for i := range devices {
			d := device("d", &Definition{ID: fmt.Sprint("n", i), Poll: poll})
			d.Bus, d.User, d.Profile, d.Unit = bus, "u", &Profile{}, i+1
			site.Devices = append(site.Devices, d)
		}
		g, err := New(Config{Site: site, Log: slog.New(slog.DiscardHandler), Buffer: store, Uplinks: map[string]Uplink{"u": s},
			Adapters: map[string]NewAdapter{"field": func(Env, *Bus, []*Device) (Adapter, error) { return ticker{}, nil }}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { g.Run(ctx); close(ended) }()
		time.Sleep(time.Minute + outage)
		waiting, messages, begin := store.Stats().Waiting, s.sent(), time.Now()
		for store.Stats().Waiting > 2*devices {
			if time.Sleep(10 * time.Second); time.Since(begin) > outage {
				t.Fatalf("%d wait after twice the outage", store.Stats().Waiting)
			}
		}
		took := time.Since(begin)
		rate := float64(s.sent()-messages) / float64(took/allowed)
		time.Sleep(10500 * time.Millisecond)
		cancel()
		<-ended
		arrived := 0
		for _, n := range s.next {
			arrived += int(n)
		}
		t.Logf("%d reports waited and took %v to drain, at %.0f %% of the allowed rate; %d lost, %d doubled, %d polls skipped", waiting, took, 100*rate, s.lost, s.doubled, g.Stats.Overruns.Load())
		if waiting < devices*int(outage/poll)*99/100 || s.lost > 0 || s.doubled > 0 || g.Stats.Overruns.Load() > 0 || rate < 0.9 {
			t.Error("that is not good enough")
		}
		if put, left := int(g.Stats.Reports.Load()), store.Stats().Waiting; put-left != arrived {
			t.Errorf("%d were put in, %d are left, %d arrived", put, left, arrived)
		}
		s.Publish(t.Context(), []Record{{Values: []Attribute{{"n0", IntValue(s.next["n0"] + 1)}}}})
		if s.lost != 1 {
			t.Errorf("the control: the shop misses %d readings where it is 1", s.lost)
		}
	})
}

// slowLine leads to a platform with 3 s of latency and 1 kB a second.
type slowLine struct {
	platform
	turn chan struct{} // held while something is under way
}

func (l *slowLine) Publish(ctx context.Context, records []Record) (int, error) {
	for i, r := range records {
		l.turn <- struct{}{}
		err := Sleep(ctx, 3*time.Second+time.Duration(len(AppendRecord(nil, &r)))*time.Millisecond)
		<-l.turn
		if err != nil {
			return i, err
		}
	}
	return l.platform.Publish(ctx, records)
}

// TestASlowBrokerDelaysNoPoll: not one in a hundred is late. The control is a
// field that waits for the line.
func TestASlowBrokerDelaysNoPoll(t *testing.T) {
	for _, waits := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := &slowLine{platform: platform{start: time.Now()}, turn: make(chan struct{}, 1)}
			f := &field{start: time.Now(), takes: 10 * time.Millisecond}
			f.answer = func(elapsed time.Duration, p *Point) (Value, string) {
				if waits {
					l.turn <- struct{}{}
					<-l.turn
				}
				return counting(elapsed, p)
			}
			p := newPlant(t, f, device("d", &Definition{ID: "n", Poll: time.Second}))
			p.uplinks = map[string]Uplink{"u": l, "gw": l}
			p.site.Cloud.Backlog, p.site.Cloud.MinInterval = replay, time.Second
			p.run(10 * time.Minute)
			polls, late := len(f.reads), 0
			for i, read := range f.reads {
				at, _ := time.ParseDuration(strings.Fields(read)[0])
				if at > time.Duration(i)*time.Second+time.Second/100 {
					late++
				}
			}
			t.Logf("%d polls, %d late, %d messages", polls, late, len(l.got))
			if good := polls >= 600*99/100 && late <= polls/100; good == waits || len(l.got) < 100 {
				t.Errorf("waits: %v, %d polls of 600, %d late, %d messages", waits, polls, late, len(l.got))
			}
		})
	}
}

// ticker is a bus whose points count their readings.
type ticker map[string]int64

func (f ticker) Open(context.Context) (Session, error)      { return ticker{}, nil }
func (f ticker) Plan(points []*Point) [][]*Point            { return [][]*Point{points} }
func (f ticker) Write(context.Context, *Point, Value) error { return nil }
func (f ticker) Close() error                               { return nil }
func (f ticker) Read(_ context.Context, group []*Point) ([]Sample, error) {
	n := f[group[0].ID]
	f[group[0].ID]++
	return []Sample{{Point: group[0], Time: time.Now(), Quality: Good, Value: IntValue(n)}}, nil
}
