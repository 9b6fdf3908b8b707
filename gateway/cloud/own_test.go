package cloud_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/buffer"
	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/cloud/twin"
)

// press is a field of one device: a setpoint of 20 and a flow of 1, unless it is
// silent.
type press struct{ silent atomic.Bool }

func (f *press) Open(context.Context) (gateway.Session, error)   { return f, nil }
func (f *press) Plan(points []*gateway.Point) [][]*gateway.Point { return [][]*gateway.Point{points} }
func (f *press) Close() error                                    { return nil }
func (f *press) Write(context.Context, *gateway.Point, gateway.Value) error {
	return errors.New("nothing is to be written")
}

func (f *press) Read(_ context.Context, group []*gateway.Point) ([]gateway.Sample, error) {
	var samples []gateway.Sample
	for _, p := range group {
		s := gateway.Sample{Point: p, Time: time.Now(), Quality: gateway.Good, Value: gateway.IntValue(map[string]int64{"setpoint": 20, "flow": 1}[p.ID])}
		if f.silent.Load() {
			s.Quality, s.Value, s.Silent, s.Reason = gateway.Bad, gateway.Value{}, true, "no answer within 1s"
		}
		samples = append(samples, s)
	}
	return samples, nil
}

// TestWhatThePlatformGetsBesideValues: what it is asked after each connect, the
// field's word where it believes otherwise, the quality of points, whether a
// device is there, the gateway's own events, and its own attributes.
func TestWhatThePlatformGetsBesideValues(t *testing.T) {
	inCI(t)
	t.Parallel()
	const own = "gw"
	tw := startTwin(t, twin.Options{Users: map[string]string{user: password, own: password}})
	f := &press{}
	bus := &gateway.Bus{Name: "b", Type: "field", Offline: gateway.Offline{After: 3, Probe: time.Second, ProbeMax: time.Second}}
	d := &gateway.Device{Name: "d", Bus: bus, User: user, Prefix: "d_", Profile: &gateway.Profile{}}
	for id, access := range map[string]string{"setpoint": "rw", "flow": "r"} {
		d.Points = append(d.Points, &gateway.Point{Definition: &gateway.Definition{ID: id, Poll: poll, Access: access}, Device: d, Name: "d_" + id})
	}
	site := &gateway.Site{Buses: []*gateway.Bus{bus}, Devices: []*gateway.Device{d}, Cloud: gateway.Cloud{
		URL: tw.URL(), Confirm: "puback", Backlog: "replay", LateTS: "none", Quality: "bad_points", OnConnect: "report",
		Login: &gateway.Login{User: own, Password: password}, OwnEvents: gateway.OwnEvents{"device_offline": true},
		Status: gateway.StatusReport{Every: time.Second},
	}}
	store, err := buffer.Open(filepath.Join(t.TempDir(), "buffer.db"), buffer.Options{MaxSize: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	uplinks := map[string]gateway.Uplink{}
	for _, name := range []string{user, own} {
		s, err := cloud.New(cloud.Config{Cloud: site.Cloud, Login: gateway.Login{User: name, Password: password}, Site: "s", Log: quiet, Ask: site.Writable(name)})
		if err != nil {
			t.Fatal(err)
		}
		uplinks[name] = s.Hurry(nil)
		wait.Go(func() { s.Run(ctx) })
	}
	g, err := gateway.New(gateway.Config{Site: site, Version: "1.2.3", Log: quiet, Buffer: store, Uplinks: uplinks,
		Adapters: map[string]gateway.NewAdapter{"field": func(gateway.Env, *gateway.Bus, []*gateway.Device) (gateway.Adapter, error) { return f, nil }}})
	if err != nil {
		t.Fatal(err)
	}
	wait.Go(func() { g.Run(ctx) })
	holds := func(name string, want ...string) func() bool {
		return func() bool {
			stored := tw.Attributes(name)
			for _, w := range want {
				if key, value, _ := strings.Cut(w, "="); stored[key] != value {
					return false
				}
			}
			return true
		}
	}
	received := func(topic, text string) (n int) {
		for _, m := range tw.Received(user) {
			if m.Topic == topic && strings.Contains(string(m.Payload), text) {
				n++
			}
		}
		return n
	}
	asked := func(times int) func() bool {
		return func() bool { return received("attributes_get/"+user, `{"keys":["d_setpoint"]}`) == times }
	}
	eventually(t, "the values", holds(user, "d_setpoint=20", "d_flow=1", `d_bad_points=""`, "d_online=true"))
	eventually(t, "the question of the first connect", asked(1))
	said := -1
	eventually(t, "a silence, after what follows from the answer", func() bool {
		before := said
		time.Sleep(10 * poll)
		said = len(tw.Received(user))
		return said == before
	})

	// Somebody else makes the platform believe that the setpoint is 33. It is told
	// the truth at the next connect, and not before.
	other, _ := run(t, settings(tw.URL(), "puback", func(c *cloud.Config) { c.Cloud.ClientID = "other" }), nil)
	if _, err := other.Publish(t.Context(), []gateway.Record{one("d_setpoint", gateway.IntValue(33))}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * poll)
	if !holds(user, "d_setpoint=33")() {
		t.Error("the setpoint is reported though nothing has changed")
	}
	tw.Cut()
	eventually(t, "the question of the second connect", asked(2))
	eventually(t, "the field's word", holds(user, "d_setpoint=20"))

	f.silent.Store(true)
	eventually(t, "the bad points", holds(user, `d_bad_points="*:timeout"`, "d_online=false"))
	eventually(t, "the event", func() bool {
		return received("event_report/"+user, `{"method":"d_device_offline","params":{"event_id":"`) == 1
	})
	eventually(t, "the status", holds(own, `version="1.2.3"`, "devices_up=0", "devices_down=1"))
	f.silent.Store(false)
	eventually(t, "the good points", holds(user, `d_bad_points=""`, "d_online=true"))
	eventually(t, "the event", func() bool {
		return received("event_report/"+user, `{"method":"d_device_online","params":{"event_id":"`) == 1
	})
	eventually(t, "the status", holds(own, "devices_up=1", "devices_down=0"))
	if !asked(2)() {
		t.Error("the platform was asked once more without a connect")
	}
}
