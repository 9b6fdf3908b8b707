package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

// county is a gateway of two buses and two users, whose site can change.
type county struct {
	t       *testing.T
	gateway *Gateway
	fields  map[string]*field // by bus, the last one that was made
	made    []string
	refuse  string // a bus that no adapter can be made for
	clouds  map[string]Uplink
}

// countySite makes the model anew, as loading does; changes are bus=poll.
func countySite(changes ...string) *Site {
	s := &Site{Identity: Identity{Name: "s", Timezone: "UTC"}}
	for _, change := range append([]string{"left=1s", "right=1s"}, changes...) {
		name, text, _ := strings.Cut(change, "=")
		poll, _ := time.ParseDuration(text)
		at := slices.IndexFunc(s.Buses, func(b *Bus) bool { return b.Name == name })
		switch {
		case poll == 0:
			s.Buses = slices.Delete(s.Buses, at, at+1)
			s.Devices = slices.Delete(s.Devices, at, at+1)
		case at >= 0:
			s.Devices[at].Points[0].Poll = poll
		default:
			bus := &Bus{Name: name, Type: "field", Offline: Offline{After: 3, Probe: 10 * time.Second, ProbeMax: time.Minute}}
			d := device("d-"+name, &Definition{ID: "p", Poll: poll, Report: Reporting{Mode: "always"}})
			d.Bus, d.User, d.Profile = bus, "u-"+name, &Profile{}
			s.Buses, s.Devices = append(s.Buses, bus), append(s.Devices, d)
		}
	}
	return s
}

func newCounty(t *testing.T) *county { return newCountyOf(t, countySite()) }

func newCountyOf(t *testing.T, site *Site) *county {
	store, err := buffer.Open(filepath.Join(t.TempDir(), "buffer.db"), buffer.Options{MaxSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	c := &county{t: t, fields: map[string]*field{}, clouds: map[string]Uplink{"u-left": &platform{start: time.Now()}, "u-right": &platform{start: time.Now()}}}
	c.gateway, err = New(Config{
		Site: site, Log: slog.New(slog.DiscardHandler), Buffer: store, Uplinks: c.clouds,
		Adapters: map[string]NewAdapter{"field": func(_ Env, b *Bus, _ []*Device) (Adapter, error) {
			if b.Name == c.refuse {
				return nil, errors.New("not this one")
			}
			c.made = append(c.made, b.Name)
			c.fields[b.Name] = &field{start: time.Now(), answer: counting}
			return c.fields[b.Name], nil
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run reloads in the middle of 20 s, and gives what came of it.
func (c *county) run(next *Site, uplinks map[string]Uplink) (Exchanged, error) {
	ctx, cancel := context.WithCancel(c.t.Context())
	ended := make(chan struct{})
	go func() { c.gateway.Run(ctx); close(ended) }()
	time.Sleep(9500 * time.Millisecond)
	change, err := c.gateway.Reload(ctx, next, uplinks)
	time.Sleep(10 * time.Second)
	cancel()
	<-ended
	return change, err
}

// everySecond tells what is wrong with the polls of a field that nobody touched.
func everySecond(f *field) error {
	if len(f.opened) != 1 || len(f.reads) != 20 {
		return fmt.Errorf("opened %d times, read %d times: %v", len(f.opened), len(f.reads), f.reads)
	}
	for i, read := range f.reads {
		if want := fmt.Sprintf("%v p+0", time.Duration(i)*time.Second); read != want {
			return fmt.Errorf("read at %s, want %s", read, want)
		}
	}
	return nil
}

func TestReloadLeavesAloneWhatDoesNotDiffer(t *testing.T) {
	for name, c := range map[string]struct {
		changes []string
		started string
		stopped string
		left    bool // goes on
	}{
		"nothing differs": {nil, "", "", true},
		"a poll":          {[]string{"right=500ms"}, "right", "right", true},
		"one is gone":     {[]string{"right="}, "", "right", true},
		"one is new":      {[]string{"third=1s"}, "third", "", true},
		"both":            {[]string{"right=2s", "left=2s"}, "left right", "left right", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				county := newCounty(t)
				left, right := county.fields["left"], county.fields["right"]
				change, err := county.run(countySite(c.changes...), county.clouds)
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(change.Started, " "); got != c.started {
					t.Errorf("started: %s", got)
				}
				if got := strings.Join(change.Stopped, " "); got != c.stopped {
					t.Errorf("stopped: %s", got)
				}
				if err := everySecond(left); (err == nil) != c.left {
					t.Errorf("left: %v", err)
				}
				if err := everySecond(right); (err == nil) != (c.stopped == "") {
					t.Errorf("right: %v", err)
				}
				for _, b := range county.gateway.buses {
					if site := county.gateway.Site(); len(site.DevicesOn(b.bus)) != 1 || !slices.Contains(site.Buses, b.bus) {
						t.Errorf("the site doesn't hold the model of bus %s", b.bus.Name)
					}
				}
			})
		})
	}
}

// TestReloadThatFailsChangesNothing: what can't be made shows before anything
// is stopped.
func TestReloadThatFailsChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounty(t)
		left, right, before := c.fields["left"], c.fields["right"], c.gateway.Site()
		c.refuse = "third"
		change, err := c.run(countySite("right=3s", "third=1s"), c.clouds)
		if err == nil || len(change.Stopped) > 0 {
			t.Errorf("%+v, %v", change, err)
		}
		if c.gateway.Site() != before {
			t.Error("the site has changed")
		}
		for _, f := range []*field{left, right} {
			if err := everySecond(f); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestReloadOfStreamsThatCollect: one begins to, one goes on, and the rows of one
// that stops go out.
func TestReloadOfStreamsThatCollect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := func(left, right *Batch) *Site {
			s := countySite()
			for i, batch := range []*Batch{left, right} {
				s.Devices[i].Streams = []*Stream{{ID: "s", Format: "json", Every: time.Second, Body: &Body{Fields: []Field{{"p", Expression{"p"}}}}, Batch: batch}}
			}
			return s
		}
		time.Sleep(time.Until(earliest) + time.Hour) // a clock that is wrong has rows wait
		c := newCountyOf(t, site(&Batch{Within: time.Hour, Rows: 12}, nil))
		left, right := c.clouds["u-left"].(*platform), c.clouds["u-right"].(*platform)
		if _, err := c.run(site(nil, &Batch{Within: 7 * time.Second}), c.clouds); err != nil {
			t.Fatal(err)
		}
		if len(left.rows) != 10 {
			t.Errorf("of the one that stops %d rows", len(left.rows))
		}
		if n := len(right.rows); n != 7 && n != 8 || !slices.Contains(right.got, "16.5s s") {
			t.Errorf("of the one that begins %d rows: %v", n, right.got)
		}
		for _, l := range c.gateway.lanes {
			if s := l.show(time.Now()); l.collects && (s.Grows || s.Drain > 0 || !s.Oldest.IsZero()) {
				t.Errorf("rows that wait for others are taken for a backlog: %+v", s)
			}
		}
	})
}

// TestReloadExchangesUsers: a new Uplink gets what the old one has not confirmed.
func TestReloadExchangesUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounty(t)
		away := &platform{start: time.Now(), online: func(time.Duration) bool { return false }}
		fresh := &platform{start: time.Now()}
		c.gateway.accounts["u-right"].lanes[0].uplink = away
		kept := c.clouds["u-left"].(*platform)
		if _, err := c.run(countySite(), map[string]Uplink{"u-left": kept, "u-right": fresh}); err != nil {
			t.Fatal(err)
		}
		if len(kept.got) != 20 {
			t.Errorf("the kept one got %d: %v", len(kept.got), kept.got)
		}
		if len(away.got) != 0 || len(fresh.got) != 20 || !strings.HasSuffix(fresh.got[0], "p=0") {
			t.Errorf("the old one got %d, the new one %v", len(away.got), fresh.got)
		}
	})
}

// TestReloadForgetsNoPromise: how often something was done, what an id stands
// for, locks that no disk has, and pulses that are still to be released. It is the same
// whether the bus goes on or is made anew.
func TestReloadForgetsNoPromise(t *testing.T) {
	for _, anew := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newHall(t, nil)
			defer p.stop()
			reload := func() {
				t.Helper()
				next := *p.site
				if anew {
					d := pump()
					d.Points[0].Poll = p.site.Devices[0].Points[0].Poll + time.Second
					d.Bus.Offline = p.site.Buses[0].Offline
					next.Buses, next.Devices = []*Bus{d.Bus}, []*Device{d}
				}
				change, err := p.Reload(t.Context(), &next, map[string]Uplink{"u": p.wire})
				if err != nil || len(change.Started) != len(next.Buses)-change.Kept || change.Kept == 1 == anew {
					t.Fatal(change, err)
				}
				p.site = p.Site()
				time.Sleep(time.Second)
			}
			p.command("1", "rare")
			want(t, "reply", p.replies(time.Second), "1 rare ok")
			p.command("2", "key", "code", 4)
			want(t, "reply", p.replies(time.Second), "2 key ok code=***")
			p.push("lamp", true)
			p.push("lamp", false)
			time.Sleep(time.Second)
			p.command("3", "slow")
			time.Sleep(time.Second)
			p.push("again", 2)
			p.push("again", 3)
			time.Sleep(time.Second)
			reload()
			const ending = " reason=the gateway stops, or loads its site file anew"
			want(t, "pushes that wait", p.events(), "write_refused point=again value=2"+ending+" | write_refused point=again value=3"+ending)
			want(t, "the command under way", p.replies(0), "3 slow: the gateway stops, or loads its site file anew")
			p.command("4", "rare")
			want(t, "at_most", p.replies(time.Second), "4 rare: rare is called too often: at most 1 in 1h0m0s")
			p.command("2", "key", "code", 4)
			want(t, "a repeated id", p.replies(time.Second), "2 key ok code=***")
			p.push("lamp", true)
			time.Sleep(time.Second)
			want(t, "writes", p.machine.writes(), "code=4 lamp=true lamp=false")
			want(t, "events", p.events(), "write_refused point=lamp value=true reason=lamp is written too often: at most 2 in 1m0s")

			// What no disk takes is kept in memory.
			o := p.office()
			o.locks.mu.Lock()
			o.locks.set["pump"] = Lock{Device: "pump", Who: "somebody"}
			o.locks.mu.Unlock()
			req := o.byDevice["pump"].device.point("req")
			p.machine.set("req", BoolValue(true))
			o.pulses.mu.Lock()
			o.pulses.open[req] = &release{operator: o.byDevice["pump"], point: req, on: BoolValue(true), off: BoolValue(false), due: time.Now()}
			o.pulses.mu.Unlock()
			reload()
			p.command("5", "stop")
			want(t, "a lock", p.replies(time.Second), "5 stop: pump is locked since 0001-01-01 00:00:00 UTC by somebody")
			want(t, "a pulse", p.machine.writes(), "code=4 lamp=true lamp=false req=false")
		})
	}
}
