package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/buffer"
)

// office is where everything arrives that somebody wants done in the field: what
// the cloud pushes and commands, and what people ask for on the page and the
// command line. It knows what is there and what is allowed; each device has an
// operator who does it, one thing at a time.
//
// What it guarantees: all that can be checked without the device is checked
// before anything is written; a write request goes out once; a command with an
// id is carried out at most once, also across a restart; every attempt leaves a
// line in the audit.
type office struct {
	site   *Site
	log    *slog.Logger
	buffer *buffer.Buffer
	stats  *Stats
	store  func(*Device, Record)
	own    func(kind, name string, severity Severity, d *Device, around []*Device, params ...Attribute)
	buses  []*busLoop

	operators []*operator
	byDevice  map[string]*operator
	byUser    map[string]*directory
	uplinks   map[string]Downlinker

	audit  *audit
	ledger *ledger
	locks  *locks
	pulses *releases
	out    map[string]*outbox // replies, by user

	stop func() // ends run, once it has begun

	refusedMu sync.Mutex
	refused   map[string]*refusedPushes // by user

	mu   sync.Mutex
	life context.Context // of what is begun by others than run; nil while it does not run
	work sync.WaitGroup  // commands under way
}

// directory is what a username can name.
type directory struct {
	user     string
	points   []*Point // by name: a map would take five times the memory
	commands map[string]*command
	streams  map[string]*inbound
}

// show is what nobody understood, for the audit.
func (dir *directory) show(body string) string {
	if slices.ContainsFunc(dir.points, func(p *Point) bool { return p.Secret }) {
		return "***" // it may be one of these
	}
	return short(body)
}

// Who asks.
const (
	byCloud       = "cloud"
	ByPage        = "page"
	ByCommandLine = "command line"
)

// validity is how long a push, and a command without a timeout of its own, may
// be carried out after its arrival.
const validity = 30 * time.Second

// newOffice makes the office of the buses that are made already.
func newOffice(g *Gateway, c *Config, buses []*busLoop) (*office, error) {
	d := &office{
		site: c.Site, log: c.Log, buffer: c.Buffer, stats: &g.Stats, store: g.store, own: g.ownEvent, buses: buses,
		byDevice: make(map[string]*operator), byUser: make(map[string]*directory), uplinks: make(map[string]Downlinker), out: make(map[string]*outbox),
		refused: make(map[string]*refusedPushes),
	}
	d.audit = newAudit(c.Buffer, c.Log)
	d.locks = newLocks(c.Buffer, c.Log)
	d.ledger = newLedger(c.Buffer, c.Log)
	d.pulses = newReleases(d)
	for user, uplink := range c.Uplinks {
		if down, ok := uplink.(Downlinker); ok {
			d.uplinks[user] = down
			d.out[user] = newOutbox(user, down, d)
		}
	}
	place, err := time.LoadLocation(c.Site.Timezone)
	if err != nil {
		place = time.UTC
	}
	for _, b := range buses {
		for _, state := range b.reporter.devices {
			o, err := newOperator(d, b, state.device, place)
			if err != nil {
				return nil, fmt.Errorf("device %s: %w", state.device.Name, err)
			}
			d.operators = append(d.operators, o)
			d.byDevice[state.device.Name] = o
			d.enlist(o)
		}
	}
	for _, dir := range d.byUser {
		slices.SortFunc(dir.points, func(a, b *Point) int { return strings.Compare(a.Name, b.Name) })
	}
	return d, nil
}

// inherit takes over from the office before a reload, which has ended, what must
// not be forgotten.
func (d *office) inherit(old *office) {
	d.audit, d.ledger, d.locks = old.audit, old.ledger, old.locks
	for name, o := range d.byDevice {
		was := old.byDevice[name]
		if was == nil {
			continue
		}
		was.mu.Lock()
		o.locked = was.locked
		for _, c := range o.commands {
			for _, before := range was.commands {
				if before.ID == c.ID {
					c.calls = before.calls
				}
			}
		}
		was.mu.Unlock()
	}
	d.pulses.inherit(old.pulses)
	for user, out := range d.out {
		if before := old.out[user]; before != nil {
			out.inherit(before)
		}
	}
}

// enlist puts what a device has into the directory of its user.
func (d *office) enlist(o *operator) {
	dir := d.byUser[o.device.User]
	if dir == nil {
		dir = &directory{user: o.device.User, commands: make(map[string]*command), streams: make(map[string]*inbound)}
		d.byUser[o.device.User] = dir
	}
	dir.points = append(dir.points, o.device.Points...)
	for _, c := range o.commands {
		dir.commands[o.device.Prefix+c.ID] = c
	}
	for _, s := range o.inbound {
		dir.streams[o.device.Prefix+s.stream.ID] = s
	}
}

// point is the one of a name in the cloud; nil for none.
func (dir *directory) point(name string) *Point {
	i, found := slices.BinarySearchFunc(dir.points, name, func(p *Point, name string) int { return strings.Compare(p.Name, name) })
	if !found {
		return nil
	}
	return dir.points[i]
}

// run serves everybody until ctx ends and all that was begun has ended.
func (d *office) run(ctx context.Context) {
	var wait sync.WaitGroup
	d.recover()
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, func() { end(errEnding) })()
	d.mu.Lock()
	d.life = life
	d.mu.Unlock()
	d.reportLocks()
	for user, uplink := range d.uplinks {
		wait.Go(func() { d.listen(ctx, user, uplink) })
		wait.Go(func() { d.out[user].run(ctx) })
	}
	for _, o := range d.operators {
		if o.writable() {
			wait.Go(func() { o.run(life) })
		}
		if o.device.Heartbeat != nil {
			wait.Go(func() { o.beat(ctx) })
		}
	}
	wait.Go(func() { d.audit.run(ctx) })
	wait.Go(func() { d.pulses.run(ctx) })
	wait.Wait()
	d.mu.Lock()
	d.life = nil
	d.mu.Unlock()
	d.work.Wait()
	d.audit.flush()
}

// begin runs what prepare gives in a goroutine that run waits for.
func (d *office) begin(prepare func(ctx context.Context) func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life == nil || d.life.Err() != nil {
		return errEnding
	}
	d.work.Go(prepare(d.life))
	return nil
}

// listen takes the messages of a user, judges them and hands on what is to be
// done. It never waits for the field.
func (d *office) listen(ctx context.Context, user string, uplink Downlinker) {
	dir := d.byUser[user]
	if dir == nil {
		dir = &directory{user: user}
	}
	for {
		m, err := uplink.Receive(ctx)
		if err != nil {
			return
		}
		d.stats.Downlinks.Add(1)
		switch m.Kind {
		case PushDownlink:
			d.push(ctx, dir, &m)
		case CommandDownlink:
			d.call(ctx, dir, &m)
		case StreamDownlink:
			d.inbound(ctx, dir, &m)
		case StateDownlink:
			d.state(ctx, dir, &m)
		}
	}
}

// errStalled refuses what a line held back.
var errStalled = errors.New("line was stalled")

// fitness is what is wrong with a message as such.
func fitness(m *Downlink) error {
	switch {
	case m.Err != nil:
		return fmt.Errorf("not understood: %w", m.Err)
	case m.Stalled:
		return errStalled
	}
	if age := time.Since(m.Arrived); age > validity {
		return fmt.Errorf("expired: it arrived %s ago", age.Round(time.Second))
	}
	return nil
}

// allowed tells whether somebody may write a point now; command says that it is
// within a command, which alone writes w points.
func (d *office) allowed(who string, p *Point, command bool) error {
	switch {
	case p.Access == "r" || p.Access == "":
		return fmt.Errorf("%s is only read", p.ID)
	case p.Locked:
		return fmt.Errorf("%s is locked on %s by the site file", p.ID, p.Device.Name)
	case p.Access == "w" && !p.Push && !command && isCloud(who):
		return fmt.Errorf("%s is written by commands only", p.ID)
	}
	return d.open(who, p.Device)
}

// open tells whether somebody may write to a device now.
func (d *office) open(who string, device *Device) error {
	if isCloud(who) && d.site.Writes != "enabled" {
		return errors.New("site.writes is locked: nothing that the cloud sends is written")
	}
	return d.locks.refuse(device.Name)
}

func isCloud(who string) bool { return strings.HasPrefix(who, byCloud) }
