package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"sluice/buffer"
)

// Config is what a Gateway is made of.
type Config struct {
	Site     *Site
	Version  string // of the program, for the status
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
	mu       sync.RWMutex // over what a Reload exchanges: config, buses, accounts, lanes and desk
	config   Config
	buses    []*busLoop
	accounts map[string]*account // by username
	lanes    []*lane             // of all accounts
	clock    *clock
	book     *rulebook
	keeper   *keeper
	desk     *office
	Stats    Stats

	reloads chan reload
	started time.Time
}

// New makes the adapters of all buses; nothing is opened yet.
func New(c Config) (*Gateway, error) {
	g := &Gateway{config: c, clock: newClock(c.Buffer), reloads: make(chan reload), started: time.Now()}
	if err := g.newRulebook(); err != nil {
		return nil, err
	}
	g.accounts, g.lanes = g.newAccounts(&g.config)
	var err error
	if g.buses, err = g.newBuses(&g.config, nil); err != nil {
		return nil, err
	}
	g.keepTrends(&g.config, g.buses, nil)
	if g.desk, err = newOffice(g, &g.config, g.buses); err != nil {
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

func (g *Gateway) newBus(c *Config, bus *Bus, devices []*Device, shared map[any]any) (*busLoop, error) {
	make, ok := g.config.Adapters[bus.Protocol()]
	if !ok {
		return nil, fmt.Errorf("no adapter for type %s", bus.Type)
	}
	log := g.config.Log.With("bus", bus.Name)
	adapter, err := make(Env{Log: log, State: g.config.Buffer, Dir: filepath.Dir(c.Site.Buffer.Path), Shared: shared}, bus, devices)
	if err != nil {
		return nil, err
	}
	loop := newBusLoop(bus, devices, adapter, log, &g.Stats, g.store)
	loop.reporter.back = g.readBack
	loop.reporter.follow(g.losses)
	if name := c.Site.Cloud.Quality; name != "none" {
		loop.reporter.quality = name
	}
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
	g.clock.stamp(&r)
	if r.Kind != ReportRecord {
		class := buffer.Attributes
		if r.Kind == EventRecord {
			class = buffer.Event
		}
		lane := LaneName(user, r.Kind)
		if r.Row {
			lane = batchLane(user, r.Name)
		}
		return appendTo(g.config.Buffer, lane, class, &r)
	}
	if g.config.OnReport != nil {
		g.config.OnReport(user, r)
	}
	g.Stats.Reports.Add(1)
	if a := g.account(user); a != nil {
		return a.keep(r)
	}
	return appendTo(g.config.Buffer, user, buffer.Attributes, &r)
}

// losses tells how often reports of a device's username were lost.
func (g *Gateway) losses(d *Device) uint64 {
	if a := g.account(d.User); a != nil {
		return a.losses.Load()
	}
	return 0
}

// Run works until ctx ends and all its goroutines have stopped.
func (g *Gateway) Run(ctx context.Context) {
	var wait sync.WaitGroup
	// The buses end last: a command that is stopped writes its pulses back.
	busCtx, stopBuses := context.WithCancel(context.WithoutCancel(ctx))
	startBus, start := newLaunch(busCtx, &wait), newLaunch(ctx, &wait)
	for _, b := range g.buses {
		b.stop = startBus(b.run)
	}
	for _, l := range g.lanes {
		l.stop = start(l.run)
	}
	wait.Go(func() { g.keeper.run(ctx) })
	wait.Go(func() { g.reportStatus(ctx) })
	g.desk.stop = start(g.desk.run)
	for {
		select {
		case r := <-g.reloads:
			r.done <- g.exchange(startBus, start, r)
		case <-ctx.Done():
			g.desk.stop()
			stopBuses()
			wait.Wait()
			g.keeper.flush()
			return
		}
	}
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
