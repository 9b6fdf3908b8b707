package gateway

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

// TestTheCloudLearnsWhichPointsAreBad: on change and with the refresh, once each.
func TestTheCloudLearnsWhichPointsAreBad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{start: time.Now(), answer: func(elapsed time.Duration, p *Point) (Value, string) {
			switch {
			case p.ID == "flow" && elapsed >= 10*time.Second && elapsed < 20*time.Second:
				return Value{}, "exception 2: illegal data address"
			case elapsed >= 30*time.Second && elapsed < 40*time.Second:
				return Value{}, "no answer within 500ms"
			}
			return IntValue(1), ""
		}, lost: func(elapsed time.Duration) error {
			if elapsed >= 50*time.Second && elapsed < 55*time.Second {
				return errors.New("reset by peer")
			}
			return nil
		}, openErr: func(elapsed time.Duration) error {
			if elapsed >= 50*time.Second && elapsed < 55*time.Second {
				return errors.New("no route")
			}
			return nil
		}}
		report := Reporting{AtLeastEvery: 4 * time.Minute}
		d := device("d", &Definition{ID: "pressure", Poll: time.Second, Report: report}, &Definition{ID: "flow", Poll: time.Second, Report: report})
		d.Prefix = "d_"
		var got []string
		b := newBusLoop(&Bus{Name: "b", Offline: Offline{After: 3, Probe: 10 * time.Second, ProbeMax: time.Minute}}, []*Device{d}, f, slog.New(slog.DiscardHandler), &Stats{}, func(_ *Device, r Record) {
			line := time.Since(f.start).Round(time.Second).String()
			for _, a := range r.Values {
				if strings.HasPrefix(a.Name, "d_") {
					line += " " + a.Name[2:] + "=" + a.Value.String()
				}
			}
			if strings.Contains(line, "=") {
				got = append(got, line)
			}
		})
		b.reporter.quality = "bad_points"
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
		defer cancel()
		b.run(ctx)
		want := []string{
			"0s bad_points= online=true",
			"10s bad_points=flow:exception 2 online=true", "20s bad_points= online=true",
			"30s bad_points=*:no answer within 500ms online=false", "40s bad_points= online=true",
			"50s bad_points=*:bus down online=false",
		}
		if len(got) != 8 || strings.Join(got[:6], "\n") != strings.Join(want, "\n") || !strings.HasPrefix(got[7], "4m") || !strings.HasSuffix(got[7], " bad_points= online=true") {
			t.Errorf("got:\n%s", strings.Join(got, "\n"))
		}
	})
}

// TestTheGatewayReportsItself to its own cloud device.
func TestTheGatewayReportsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now()}
		r := newRig(t, newBuffer(t), Cloud{Login: &Login{User: "u"}, Status: StatusReport{Every: time.Minute}, Backlog: replay, MinInterval: time.Second}, p)
		defer r.close(t)
		r.config.Version = "1.2.3"
		r.play(t, 150*time.Second, func() {})
		if len(p.got) != 3 || !strings.Contains(p.got[0], " version=1.2.3 uptime_s=5 devices_up=0 devices_down=0 buses_down=0 buffer_records=0 ") {
			t.Errorf("got:\n%s", strings.Join(p.got, "\n"))
		}
	})
}

// TestAfterAConnectTheFieldIsRight: where the cloud believes something else of a
// writable point, the field's value is reported; the rest is left alone.
func TestAfterAConnectTheFieldIsRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := buffer.Open(filepath.Join(t.TempDir(), "buffer.db"), buffer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		bus := &Bus{Name: "b", Type: "field"}
		rw := func(id string) *Definition { return &Definition{ID: id, Poll: time.Hour, Access: "rw"} }
		d := device("d", rw("same"), rw("text"), rw("other"), rw("unknown"), rw("bad"), &Definition{ID: "read", Poll: time.Hour})
		d.Bus, d.User, d.Profile = bus, "u", &Profile{}
		f := &field{start: time.Now(), answer: func(_ time.Duration, p *Point) (Value, string) {
			if p.ID == "bad" {
				return Value{}, "timeout"
			}
			return Float32Value(20.1), ""
		}}
		site := &Site{Buses: []*Bus{bus}, Devices: []*Device{d}}
		g, err := New(Config{Site: site, Log: slog.New(slog.DiscardHandler), Buffer: store,
			Adapters: map[string]NewAdapter{"field": func(Env, *Bus, []*Device) (Adapter, error) { return f, nil }}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		go g.Run(ctx)
		time.Sleep(time.Second)
		before := store.Len("u")
		reportDifferences(ctx, g.buses, "u", []Asked{{Name: "same", Value: FloatValue(20.1)}, {Name: "text", Value: TextValue("20.1")}, {Name: "other", Value: IntValue(20)}, {Name: "read", Value: IntValue(1)}}, func(*Point) bool { return false })
		time.Sleep(time.Second)
		stored, err := store.Peek("u", 10)
		if err != nil || len(stored) != before+1 {
			t.Fatalf("%d reports before, %d after, %v", before, len(stored), err)
		}
		r, err := ParseRecord(stored[before].Data)
		if err != nil || len(r.Values) != 2 || r.Values[0].Name != "other" || r.Values[1].Name != "unknown" {
			t.Errorf("reported is %v, %v", r.Values, err)
		}
		if names := strings.Join(site.Writable("u"), " "); names != "same text other unknown bad" {
			t.Errorf("asked for are %s", names)
		}
		<-ctx.Done()
		synctest.Wait()
	})
}
