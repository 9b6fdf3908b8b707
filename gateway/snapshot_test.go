package gateway

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

// watch runs a gateway of one bus on a scripted field, and gives what shows.
func watch(t *testing.T, f *field, devices []*Device, look func(g *Gateway)) {
	t.Helper()
	watchSite(t, f, &Site{}, devices, look)
}

func watchSite(t *testing.T, f *field, s *Site, devices []*Device, look func(g *Gateway)) {
	t.Helper()
	store, err := buffer.Open(filepath.Join(t.TempDir(), "buffer.db"), buffer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	bus := &Bus{Name: "b", Type: "modbus-tcp", Offline: Offline{After: 3, Probe: 10 * time.Second, ProbeMax: time.Minute}}
	for _, d := range devices {
		d.Bus = bus
	}
	s.Buses, s.Devices = []*Bus{bus}, devices
	f.start = time.Now()
	g, err := New(Config{
		Site: s, Log: slog.New(slog.DiscardHandler), Buffer: store,
		Adapters: map[string]NewAdapter{"modbus": func(Env, *Bus, []*Device) (Adapter, error) { return f, nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { g.Run(ctx) })
	look(g)
	cancel()
	wait.Wait()
}

func TestSnapshotShowsABusAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{answer: counting, takes: 300 * time.Millisecond}
		d := device("d", &Definition{ID: "p", Poll: time.Second}, &Definition{ID: "pin", Poll: time.Second, Secret: true})
		watch(t, f, []*Device{d}, func(g *Gateway) {
			if b := g.Snapshot(t.Context()).Buses[0]; b.State != BusStarting || b.Devices[0].Points[0].Reason != "not read yet" {
				t.Errorf("at the start: %+v", b)
			}
			time.Sleep(30500 * time.Millisecond)
			b := g.Snapshot(t.Context()).Buses[0]
			if b.State != BusUp || time.Since(b.Since).Round(time.Second) != 30*time.Second || time.Since(b.Time) != 0 {
				t.Errorf("%s since %v, copied %v ago", b.State, b.Since, time.Since(b.Time))
			}
			if math.Abs(b.RequestRate-1) > 0.1 || math.Abs(b.Utilisation-0.3) > 0.03 || math.Abs(b.SampleRate-2) > 0.2 || b.Requests != 31 {
				t.Errorf("load: %+v", b.Load)
			}
			shown := b.Devices[0]
			if !shown.Online || shown.Health != "" || shown.Points[0].Value.Int() != 30 || shown.Points[0].Quality != Good {
				t.Errorf("device: %+v", shown)
			}
			if got := shown.Points[1].Value.Text(); got != "***" {
				t.Errorf("the secret shows: %q", got)
			}
			shown.Points[0].Value = IntValue(-1) // what was given away is a copy
			time.Sleep(time.Second)
			if again := g.Snapshot(t.Context()).Buses[0].Devices[0].Points[0].Value.Int(); again != 31 {
				t.Errorf("a second later: %d", again)
			}
		})
	})
}

// TestSnapshotNeverWaitsForTheField: also while the bus goroutine hangs in
// Open, the loss shows, and its reason stays when it is over.
func TestSnapshotNeverWaitsForTheField(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{answer: counting}
		f.lost = func(elapsed time.Duration) error {
			if elapsed >= 5*time.Second && elapsed < time.Minute {
				return errors.New("connection reset")
			}
			return nil
		}
		f.openErr = func(elapsed time.Duration) error {
			if elapsed >= 5*time.Second && elapsed < time.Minute {
				time.Sleep(55 * time.Second)
			}
			return nil
		}
		d := device("d", &Definition{ID: "p", Poll: time.Second})
		watch(t, f, []*Device{d}, func(g *Gateway) {
			time.Sleep(30 * time.Second)
			begin := time.Now()
			b := g.Snapshot(t.Context()).Buses[0]
			if took := time.Since(begin); took > snapshotWait {
				t.Errorf("it took %v", took)
			}
			if b.State != BusDown || b.Error != "connection reset" || b.Devices[0].Online || b.Devices[0].Points[0].Quality != Bad {
				t.Errorf("%s %q, device %+v", b.State, b.Error, b.Devices[0])
			}
			time.Sleep(40 * time.Second)
			if b = g.Snapshot(t.Context()).Buses[0]; b.State != BusUp || b.Error != "" || b.LastError != "connection reset" || b.Since.Before(b.LastErrorAt) {
				t.Errorf("after its return: %+v", b)
			}
		})
	})
}
