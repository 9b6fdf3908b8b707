package gateway

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"
)

// launch runs something until the gateway ends or stop is called, which waits
// for it.
type launch func(run func(context.Context)) (stop func())

// newLaunch starts goroutines that wait waits for.
func newLaunch(ctx context.Context, wait *sync.WaitGroup) launch {
	return func(run func(context.Context)) func() {
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		wait.Go(func() {
			defer close(done)
			defer cancel()
			run(ctx)
		})
		return func() {
			cancel()
			<-done
		}
	}
}

// Exchanged tells what a reload changed.
type Exchanged struct {
	Started, Stopped []string // buses by name; one that was changed is in both
	Kept             int      // buses that went on
}

// reload is the wish for another site.
type reload struct {
	site    *Site
	uplinks map[string]Uplink
	done    chan error
	change  *Exchanged
}

// Reload makes the running gateway one of another site. A bus goes on as it is
// where nothing about it and its devices differs: its parts of the old model take
// the place of those in site. So does what belongs to a username whose Uplink is the same.
// What differs is stopped and started anew; the states of its rules are kept.
// After an error everything runs as before.
func (g *Gateway) Reload(ctx context.Context, site *Site, uplinks map[string]Uplink) (Exchanged, error) {
	r := reload{site, uplinks, make(chan error, 1), &Exchanged{}}
	select {
	case g.reloads <- r:
		err := <-r.done
		return *r.change, err
	case <-ctx.Done():
		return Exchanged{}, ctx.Err()
	}
}

// exchange carries out a reload. Whatever can't be made shows before anything
// is stopped.
func (g *Gateway) exchange(startBus, start launch, r reload) error {
	before := g.buses
	kept := g.adopt(r.site)
	c := g.config
	c.Site, c.Uplinks = r.site, r.uplinks
	buses, err := g.newBuses(&c, kept)
	if err != nil {
		return err
	}
	if _, err := newOffice(g, &c, buses); err != nil {
		return err
	}
	accounts, lanes := g.newAccounts(&c)
	g.keepTrends(&c, buses, kept)

	g.desk.stop()
	var stops []func()
	for _, b := range before {
		if kept[b.bus] == nil {
			stops = append(stops, b.stop)
			r.change.Stopped = append(r.change.Stopped, b.bus.Name)
		}
	}
	for _, l := range g.lanes {
		if !slices.Contains(lanes, l) {
			stops = append(stops, l.stop)
		}
	}
	stopAll(stops)
	g.keeper.flush() // what the new ones take over
	desk, err := newOffice(g, &c, buses)
	if err != nil {
		return err
	}
	desk.inherit(g.desk)
	inheritQuotas(before, buses)

	g.mu.Lock()
	before, old, olds := g.buses, g.lanes, g.accounts
	g.config.Site, g.config.Uplinks, g.buses, g.accounts, g.lanes, g.desk = c.Site, c.Uplinks, buses, accounts, lanes, desk
	g.mu.Unlock()
	for user, a := range accounts {
		if then := olds[user]; then != nil && then != a {
			then.bequeath(a)
		}
	}
	for _, b := range buses {
		if !slices.Contains(before, b) {
			b.stop = startBus(b.run)
			r.change.Started = append(r.change.Started, b.bus.Name)
		}
	}
	for _, l := range lanes {
		if !slices.Contains(old, l) {
			l.stop = start(l.run)
		}
	}
	desk.stop = start(desk.run)
	r.change.Kept = len(kept)
	return nil
}

// inheritQuotas takes over how often points were written, from buses that have
// ended.
func inheritQuotas(from, to []*busLoop) {
	used := make(map[string]*quota)
	for _, b := range from {
		for p, st := range b.reporter.states {
			if !slices.Contains(to, b) && st.writes != nil {
				used[pointName(p)] = st.writes
			}
		}
	}
	for _, b := range to {
		for p, st := range b.reporter.states {
			if q := used[pointName(p)]; q != nil && !slices.Contains(from, b) {
				st.writes = q
			}
		}
	}
}

// stopAll stops loops at the same time.
func stopAll(stops []func()) {
	var wait sync.WaitGroup
	for _, stop := range stops {
		wait.Go(stop)
	}
	wait.Wait()
}

// adopt finds the buses of the next site that run already, and puts the models
// that they have into it.
func (g *Gateway) adopt(next *Site) map[*Bus]*busLoop {
	kept := make(map[*Bus]*busLoop)
	if !reflect.DeepEqual(shared(g.config.Site), shared(next)) {
		return kept
	}
	for _, b := range g.buses {
		i := slices.IndexFunc(next.Buses, func(n *Bus) bool { return n.Name == b.bus.Name })
		if i < 0 {
			continue
		}
		now, then := g.config.Site.DevicesOn(b.bus), next.DevicesOn(next.Buses[i])
		if !reflect.DeepEqual(b.bus, next.Buses[i]) || !reflect.DeepEqual(now, then) {
			continue
		}
		for k, d := range then {
			next.Devices[slices.Index(next.Devices, d)] = now[k]
		}
		for _, d := range next.Devices {
			if d.Bus == next.Buses[i] {
				d.Bus = b.bus // a disabled one
			}
		}
		next.Buses[i] = b.bus
		kept[b.bus] = b
	}
	return kept
}

// shared is what every bus depends on, beside its own part of the site.
func shared(s *Site) any {
	c := s.Cloud
	c.URL, c.Login, c.ClientID, c.TLS = "", nil, "", nil
	c.Keepalive, c.Confirm, c.ConfirmTimeout, c.MinInterval, c.BacklogInterval = 0, "", 0, 0, 0
	trends := time.Duration(0)
	if s.Local.trends() {
		trends = s.Local.History
	}
	return []any{s.Name, s.Timezone, c, trends}
}

// newBuses makes the loops of all buses of a site that are not kept.
func (g *Gateway) newBuses(c *Config, kept map[*Bus]*busLoop) ([]*busLoop, error) {
	if err := g.book.move(c.Site); err != nil {
		return nil, err
	}
	clear(g.book.formulas) // of profiles that may be gone
	var buses []*busLoop
	models, grid := make(map[any]any), time.Now()
	for i, bus := range c.Site.Buses {
		if b := kept[bus]; b != nil {
			buses = append(buses, b)
			continue
		}
		devices := c.Site.DevicesOn(bus)
		if len(devices) == 0 {
			continue
		}
		loop, err := g.newBus(c, bus, devices, models)
		if err != nil {
			return nil, fmt.Errorf("bus %s: %w", bus.Name, err)
		}
		loop.grid = grid.Add(wave(i))
		buses = append(buses, loop)
	}
	return buses, nil
}

// newAccounts makes what belongs to the usernames of a site, but for those whose
// Uplink is in use already.
func (g *Gateway) newAccounts(c *Config) (map[string]*account, []*lane) {
	accounts := make(map[string]*account)
	var lanes []*lane
	for _, user := range slices.Sorted(maps.Keys(c.Uplinks)) {
		a := g.accounts[user]
		if a == nil || g.config.Uplinks[user] != c.Uplinks[user] {
			a = g.newAccount(c, user)
		}
		accounts[user] = a
		lanes = append(append(lanes, a.lanes...), g.batchLanes(c, a)...)
	}
	return accounts, lanes
}

// Site is the site that runs.
func (g *Gateway) Site() *Site {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.config.Site
}

func (g *Gateway) account(user string) *account {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.accounts[user]
}

func (g *Gateway) office() *office {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.desk
}

// loops are the buses and lanes that run.
func (g *Gateway) loops() ([]*busLoop, []*lane) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.buses, g.lanes
}
