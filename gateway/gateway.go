package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"sluice/buffer"
)

// Config is what a Gateway is made of.
type Config struct {
	Site     *Site
	Log      *slog.Logger
	Buffer   *buffer.Buffer
	Adapters map[string]NewAdapter // by protocol, see Bus.Protocol
	Uplinks  map[string]Uplink     // by username
	// OnReport, if set, sees each report just before the buffer takes it; it is
	// called from the bus goroutines, must return at once and keep nothing of it.
	OnReport func(user string, r Record)
	// Quiet keeps reports, events and streams to itself: for a gateway that only
	// reads and writes a point for the command line.
	Quiet bool
}

// Gateway polls the buses of a site and publishes what changes.
type Gateway struct {
	config   Config
	buses    []*busLoop
	accounts map[string]*account // by username
	lanes    []*lane             // of all accounts
	book     *rulebook
	keeper   *keeper
	office   *office
	Stats    Stats

	started time.Time
}

// New makes the adapters of all buses; nothing is opened yet.
func New(c Config) (*Gateway, error) {
	g := &Gateway{config: c, accounts: make(map[string]*account), started: time.Now()}
	if err := g.newRulebook(); err != nil {
		return nil, err
	}
	for _, user := range slices.Sorted(maps.Keys(c.Uplinks)) {
		g.accounts[user] = g.newAccount(user, c.Uplinks[user])
		g.lanes = append(g.lanes, g.accounts[user].lanes...)
	}
	shared, grid := make(map[any]any), time.Now()
	for i, bus := range c.Site.Buses {
		devices := c.Site.DevicesOn(bus)
		if len(devices) == 0 {
			continue
		}
		loop, err := g.newBus(bus, devices, shared)
		if err != nil {
			return nil, fmt.Errorf("bus %s: %w", bus.Name, err)
		}
		loop.grid = grid.Add(wave(i))
		g.buses = append(g.buses, loop)
	}
	g.keepTrends()
	var err error
	if g.office, err = newOffice(g); err != nil {
		return nil, err
	}
	return g, nil
}

// Buses poll in waves: those of one wave at the same moment, so that the process
// wakes up once for all of their requests. A wake-up takes three times the CPU
// of the request that it is for. Waves keep a thousand buses from delaying each
// other.
const (
	waveSize  = 16
	waveShift = 10 * time.Millisecond
)

// wave is how much later than the first one a bus polls.
func wave(i int) time.Duration { return time.Duration(i/waveSize) * waveShift }

func (g *Gateway) newBus(bus *Bus, devices []*Device, shared map[any]any) (*busLoop, error) {
	make, ok := g.config.Adapters[bus.Protocol()]
	if !ok {
		return nil, fmt.Errorf("no adapter for type %s", bus.Type)
	}
	log := g.config.Log.With("bus", bus.Name)
	adapter, err := make(Env{Log: log, State: g.config.Buffer, Dir: filepath.Dir(g.config.Site.Buffer.Path), Shared: shared}, bus, devices)
	if err != nil {
		return nil, err
	}
	loop := newBusLoop(bus, devices, adapter, log, &g.Stats, g.store)
	return loop, loop.installRules(g)
}

// DevicesOn gives the devices of a bus that are in use.
func (s *Site) DevicesOn(bus *Bus) []*Device {
	var on []*Device
	for _, d := range s.Devices {
		if d.Bus == bus && !d.Disabled {
			on = append(on, d)
		}
	}
	return on
}

// store puts a record of a device into the buffer.
func (g *Gateway) store(d *Device, r Record) { g.storeFor(d.User, r) }

// storeFor puts a record of a username into the buffer, and gives its number there.
func (g *Gateway) storeFor(user string, r Record) uint64 {
	if g.config.Quiet {
		return 0
	}
	if r.Kind != ReportRecord {
		class := buffer.Attributes
		if r.Kind == EventRecord {
			class = buffer.Event
		}
		return g.config.Buffer.Append(LaneName(user, r.Kind), class, r.Time, AppendRecord(nil, &r))
	}
	if g.config.OnReport != nil {
		g.config.OnReport(user, r)
	}
	g.Stats.Reports.Add(1)
	if a := g.accounts[user]; a != nil {
		return a.keep(r)
	}
	return g.config.Buffer.Append(user, buffer.Attributes, r.Time, AppendRecord(make([]byte, 0, r.size()), &r))
}

// Run works until ctx ends and all its goroutines have stopped.
func (g *Gateway) Run(ctx context.Context) {
	var wait sync.WaitGroup
	// The buses end last: a command that is stopped writes its pulses back.
	busCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	wait.Go(func() {
		g.office.run(ctx)
		stop()
	})
	for _, b := range g.buses {
		wait.Go(func() { b.run(busCtx) })
	}
	for _, l := range g.lanes {
		wait.Go(func() { l.run(ctx) })
	}
	wait.Go(func() { g.keeper.run(ctx) })
	wait.Wait()
	g.keeper.flush()
}

// Logins gives the cloud devices of the site by username: the gateway itself,
// where it has one, and the devices with a login of their own.
func (s *Site) Logins() map[string]Login {
	logins := make(map[string]Login)
	if s.Cloud.Login != nil {
		logins[s.Cloud.Login.User] = *s.Cloud.Login
	}
	for _, d := range s.Devices {
		if d.Login != nil && !d.Disabled {
			logins[d.Login.User] = *d.Login
		}
	}
	return logins
}
