package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

// plant is a gateway with one bus and a real buffer file; without a cloud, unless
// it has uplinks.
type plant struct {
	t       *testing.T
	path    string
	site    *Site
	adapter Adapter
	start   time.Time
	log     logBuffer
	streams []string // what run put into the lanes of streams
	options buffer.Options
	uplinks map[string]Uplink
	begins  func(*Gateway) // nil, or called before the gateway runs
}

// run runs the gateway for a time and gives the events that it put into the
// buffer, as "seconds lane name param=value …".
func (p *plant) run(duration time.Duration) []string {
	p.t.Helper()
	store, err := buffer.Open(p.path, p.options)
	if err != nil {
		p.t.Fatal(err)
	}
	defer store.Close()
	g, err := New(Config{Site: p.site, Log: p.log.logger(), Buffer: store, Uplinks: p.uplinks, Adapters: map[string]NewAdapter{
		"sim": func(Env, *Bus, []*Device) (Adapter, error) { return p.adapter, nil },
	}})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), duration)
	defer cancel()
	if p.begins != nil {
		p.begins(g)
	}
	g.Run(ctx)
	if stored, err := store.Peek("u/streams", 1000); err == nil {
		for _, s := range stored {
			if r, err := ParseRecord(s.Data); err == nil {
				p.streams = append(p.streams, streams([]Record{r}, p.start)...)
			}
		}
	}
	var events []string
	for _, user := range []string{"gw", "u"} {
		stored, err := store.Peek(user+"/events", 1000)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, s := range stored {
			r, err := ParseRecord(s.Data)
			if err != nil {
				p.t.Fatal(err)
			}
			line := fmt.Sprintf("%v %s %s", r.Time.Sub(p.start).Round(time.Second), user, r.Name)
			for _, a := range r.Values {
				line += fmt.Sprintf(" %s=%s", a.Name, a.Value)
			}
			events = append(events, line)
			store.Ack(user+"/events", s.Seq)
		}
	}
	return events
}

// newPlant is for devices that report as u; the gateway has the login gw.
func newPlant(t *testing.T, adapter Adapter, devices ...*Device) *plant {
	bus := &Bus{Name: "b", Type: "sim", Offline: Offline{After: 3, Probe: 10 * time.Second, ProbeMax: time.Minute}}
	for _, d := range devices {
		d.Bus, d.User, d.Profile = bus, "u", &Profile{}
	}
	return &plant{t: t, path: filepath.Join(t.TempDir(), "buffer.db"), adapter: adapter, start: time.Now(), site: &Site{
		Identity: Identity{Timezone: "Europe/Berlin"}, Buses: []*Bus{bus}, Devices: devices,
		Cloud: Cloud{Login: &Login{User: "gw"}, OwnEvents: OwnEvents{"device_offline": true, "bus_down": true}},
	}}
}

// TestOutagesAreEvents: a silent device is told after three polls, and that it
// is back; a lost bus stands for its devices.
func TestOutagesAreEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 30 * time.Millisecond}}
		l.start = time.Now()
		l.dead = func(elapsed time.Duration, d *Device) bool {
			return d.Name == "u01" && elapsed > 10*time.Second && elapsed < time.Minute
		}
		l.lost = func(elapsed time.Duration) error {
			if elapsed > 3*time.Minute && elapsed < 5*time.Minute {
				return errors.New("connection reset")
			}
			if elapsed > 8*time.Minute && elapsed < 8*time.Minute+time.Second {
				return errors.New("a moment's loss")
			}
			return nil
		}
		events := newPlant(t, l, units(2, time.Second)...).run(10 * time.Minute)
		got := strings.Join(events, "\n")
		for _, want := range []string{"gw bus_down bus=b reason=connection reset", "gw bus_up bus=b down_s=", "u device_offline reason=no answer within 500ms", "u device_online down_s="} {
			if strings.Count(got, want) != 1 {
				t.Errorf("%q stands there %d times", want, strings.Count(got, want))
			}
		}
		if len(events) != 4 {
			t.Errorf("events:\n%s", got)
		}
	})
}

// TestWithoutALoginOfTheGatewayTheDevicesTellOfTheBus, each username once.
func TestWithoutALoginOfTheGatewayTheDevicesTellOfTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, &field{answer: counting, start: time.Now(), lost: func(time.Duration) error { return errors.New("no route to host") }}, units(2, time.Second)...)
		p.site.Cloud.Login = nil
		if events := p.run(10 * time.Second); len(events) != 1 || !strings.HasSuffix(events[0], " u bus_down bus=b reason=no route to host") {
			t.Errorf("events: %q", events)
		}
	})
}

// TestOutagesAreToldOnceAcrossARestart: neither the bus nor the device that is
// still away after a restart is told again, and their return is.
func TestOutagesAreToldOnceAcrossARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{field: field{answer: counting, takes: 30 * time.Millisecond}}
		l.start = time.Now()
		l.dead = func(elapsed time.Duration, d *Device) bool { return elapsed < 5*time.Minute }
		p := newPlant(t, l, units(1, time.Second)...)
		if first := p.run(2 * time.Minute); len(first) != 1 || !strings.Contains(first[0], "device_offline") {
			t.Errorf("before the restart: %v", first)
		}
		if second := p.run(2 * time.Minute); len(second) != 0 {
			t.Errorf("after the restart it is told again: %v", second)
		}
		if third := p.run(3 * time.Minute); len(third) != 1 || !strings.Contains(third[0], "device_online") {
			t.Errorf("its return: %v", third)
		}
	})
}

// TestTimedRulesNeedNoSample: repeat and the flood brake are due times of the
// bus, also between two polls and while the bus is down.
func TestTimedRulesNeedNoSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{start: time.Now()}
		f.answer = func(elapsed time.Duration, _ *Point) (Value, string) {
			return IntValue(int64(elapsed / time.Minute)), ""
		}
		f.lost = func(elapsed time.Duration) error {
			if elapsed > 3*time.Minute+30*time.Second {
				return errors.New("connection reset")
			}
			return nil
		}
		d := device("d", &Definition{ID: "p", Poll: time.Minute})
		d.Events = []*Event{
			{ID: "high", When: condition("p > 0"), Repeat: 50 * time.Second},
			{ID: "step", Each: condition("changed(p)"), Params: []string{"p"}, AtMost: &Rate{Count: 1, Per: 200 * time.Second}},
		}
		p := newPlant(t, f, d)
		p.site.Cloud.OwnEvents = nil
		wantLines(t, p.run(6*time.Minute), `
1m0s u high
1m0s u step p=1
1m50s u high
2m40s u high
3m30s u high
3m0s u step p=3 held_back=1`)
	})
}

// TestAnAlarmIsToldOnceAcrossRestarts: with a real buffer file.
func TestAnAlarmIsToldOnceAcrossRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{start: time.Now()}
		f.answer = func(elapsed time.Duration, p *Point) (Value, string) {
			if p.ID == "count" {
				return IntValue(int64(elapsed / time.Second)), ""
			}
			return IntValue(map[bool]int64{true: 9}[elapsed < 90*time.Second]), ""
		}
		d := device("d", &Definition{ID: "p", Poll: time.Second}, &Definition{ID: "count", Kind: "counter", Poll: time.Second})
		d.Events = []*Event{
			{ID: "high", When: condition("p > 5"), ClearEvent: "high_over", Params: []string{"p"}},
			{ID: "many", Each: condition(`increase(count) and count > 110`)},
		}
		p := newPlant(t, f, d)
		wantLines(t, p.run(30500*time.Millisecond), "0s u high p=9")
		wantLines(t, p.run(30500*time.Millisecond), "")
		time.Sleep(51 * time.Second)
		wantLines(t, p.run(500*time.Millisecond), "1m52s u high_over p=0\n1m52s u many by=52")
	})
}

// TestADayEndsAtTheSitesMidnight: on the gateway's own clock, with a restart
// before it, also where the day had not 24 hours.
func TestADayEndsAtTheSitesMidnight(t *testing.T) {
	for begin, want := range map[time.Time]string{ // the evenings of the days on which summer time begins in Berlin, and ends
		time.Date(2000, 3, 26, 20, 30, 0, 0, time.UTC):  "1h31m0s u midnight today=1",
		time.Date(2000, 10, 29, 20, 30, 0, 0, time.UTC): "2h31m0s u midnight today=1",
	} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(begin))
			f := &field{start: time.Now()}
			f.answer = func(elapsed time.Duration, _ *Point) (Value, string) {
				return IntValue(int64(elapsed / time.Minute)), ""
			}
			d := device("d", &Definition{ID: "p", Poll: 30 * time.Minute})
			d.Computed = []*Computed{{ID: "today", Value: condition(`delta(p, "day")`)}}
			d.Events = []*Event{{ID: "midnight", Each: condition("changed(today) and today < 30"), Params: []string{"today"}}}
			p := newPlant(t, f, d)
			wantLines(t, append(p.run(61*time.Minute), p.run(2*time.Hour)...), want)
		})
	}
}

// TestRecentEventsAreForThePage: also those that the cloud does not get.
func TestRecentEventsAreForThePage(t *testing.T) {
	w := eventDesk(t, &Event{When: condition("x > 5"), Severity: "alarm", Params: []string{"x"}})
	g := &Gateway{book: w.d.rules.book}
	for range 150 {
		w.every("x", "6 1")
		w.d.rules.events[0].judged = time.Time{}
	}
	events := g.RecentEvents()
	if len(events) != mostRecent || events[0].State != Raised || events[199].State != Cleared || events[198].Params[0].Value.Float() != 6 || events[199].Severity != Alarm {
		t.Errorf("%d events, %+v … %+v", len(events), events[0], events[len(events)-1])
	}
}

// BenchmarkComputed is one second of 10,000 computed points: 500 devices with
// 20 of them each.
func BenchmarkComputed(b *testing.B) {
	book, err := newRulebook(&Site{Identity: Identity{Timezone: "Europe/Berlin"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	profile := &Profile{Report: Reporting{Mode: "change"}}
	for i := range 20 {
		text := []string{"100 * x / 16", "round(x - y, 1)", `b and x > y ? x : 0`, `rate(x, "1m")`, `delta(energy, "day")`}[i%5]
		profile.Computed = append(profile.Computed, &Computed{ID: fmt.Sprint("c", i), Value: condition(text), Deadband: &Deadband{Value: 5}})
	}
	var devices []*Device
	for range 500 {
		d := formulaDevice()
		d.Profile, d.Computed = profile, profile.Computed
		devices = append(devices, d)
	}
	take := func(*Device, Record) {}
	r := newReporter(devices, take)
	for _, d := range r.devices {
		if d.rules, err = newRules(book, d, take); err != nil {
			b.Fatal(err)
		}
	}
	now := formulaStart
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		for _, d := range r.devices {
			for _, st := range d.points[:9] {
				st.latest.Time, st.latest.Quality = now, Good
				switch st.latest.Point.Type {
				case Float64:
					st.latest.Value = FloatValue(float64(now.Unix() % 100))
				case Bool:
					st.latest.Value = BoolValue(true)
				case Uint32:
					st.latest.Value = UintValue(uint64(now.Unix()))
				}
				if st.meter != nil {
					st.meter.note(&st.latest)
				}
			}
			d.judge(now)
			r.flush(d)
		}
	}
}
