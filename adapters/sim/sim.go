// Package sim simulates the field devices of a site: Start makes a Modbus or
// OPC UA server on loopback for every bus and gives the site back with hosts,
// ports and endpoints replaced, so that everything else runs as it does in the
// plant.
//
// What it guarantees: exactly the registers, bits and nodes that the site's
// points name exist; anything else is refused. Modbus values are made by the
// codec that reads them. Values move as measurements do and depend on the
// seed and the time since Start alone. What a client (or Set) wrote stays, as
// in real memory; no generator touches it again.
//
// A bus is a front that a client sees, with a server of somebody else's library
// behind it, so that a mistake of ours in a request is not made on both sides.
// The front takes requests while others are not answered yet, and can be
// silent, slow or gone.
//
// For Modbus the front is a TCP or TLS listener, a UDP socket, or a pseudo
// terminal for a serial port. It speaks the bus's framing, as the converters in
// cabinets do, and can answer out of order; behind it is simonvetter/modbus. A
// TLS bus gets an authority and certificates of its own at each Start, and asks
// for the client's.
//
// For OPC UA the server behind is awcullen/opcua. It listens on all interfaces,
// which it can't be talked out of, on a port that nobody is told. Its address
// space has the standard's nodes, the points' nodes with units, ranges and
// words as properties, objects that lead there, and the methods that commands
// call. It asks for no security unless the site does; its certificate is then
// the one that the site given back trusts.
package sim

import (
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"sluice/gateway"
)

// Options say how the devices behave. The zero value is good.
type Options struct {
	Seed uint64       // of the values: same seed, same values at the same time after Start
	Log  *slog.Logger // what was started; nil for nothing
	// Holes makes the registers and bits between two points of a table exist
	// too, where they are at most 125 apart: they read as 0. Most meters answer
	// that way, and requests that read over a gap need it.
	Holes bool
	// LineSpeed lets the frames on serial lines and behind converters take
	// their time, by the bus's line (9600 8N1 where it has none).
	LineSpeed bool
}

// Sim is the running devices. Its methods may be called at any time, by
// several goroutines.
type Sim struct {
	start     time.Time
	dir       string // of links to pseudo terminals and certificates; "" without any
	authority *authority
	identity  *identity
	buses     map[string]simulated
}

// simulated is a bus of one protocol.
type simulated interface {
	up() error   // opens its front, at the same place as before
	down()       // closes it, with all connections
	stop() error // ends what stands behind the front
	restart() error
	traffic() *traffic
	silence(unit int, silent bool) error
	find(device, point string) held // nil where there is none
}

// traffic is what a front counts and holds up.
type traffic struct {
	delay    atomic.Int64
	requests atomic.Int64
}

// held is a point in the memory of a device.
type held interface {
	set(gateway.Value, time.Duration) error
	get(time.Duration) (gateway.Value, gateway.Quality, string)
	fail(code uint32)
}

// Start starts the devices of every bus of a site and gives back a copy of the
// site that leads to them. Point definitions, profiles and logins are shared
// with the original; disabled devices are left out of the simulation. Secrets
// are resolved before, if at all.
func Start(site *gateway.Site, o Options) (*Sim, *gateway.Site, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sim{start: time.Now(), buses: make(map[string]simulated)}
	site = copySite(site)
	for _, settings := range site.Buses {
		if err := s.startBus(settings, site.Devices, o); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("simulate bus %s: %w", settings.Name, err), s.Close())
		}
		o.Log.Info("simulated bus started", "bus", settings.Name, "type", settings.Type, "host", settings.Host, "port", settings.Port, "endpoint", settings.Endpoint)
	}
	return s, site, nil
}

// startBus starts one bus and puts its address into the settings.
func (s *Sim) startBus(settings *gateway.Bus, devices []*gateway.Device, o Options) error {
	if settings.Type == "opcua" {
		return s.startServer(settings, devices, o)
	}
	b := &bus{name: settings.Name, rtu: true, units: make(map[byte]*unit)}
	switch settings.Type {
	case "modbus-tcp":
		b.rtu = false
	case "modbus-udp":
		b.rtu, b.udp = false, true
	case "modbus-tls":
		b.rtu = false
		if err := s.secure(b, settings); err != nil {
			return err
		}
	case "modbus-rtu-over-tcp":
	case "modbus-rtu":
		if err := s.makeDir(); err != nil {
			return err
		}
		b.link = filepath.Join(s.dir, settings.Name)
	default:
		return fmt.Errorf("type %s is not simulated", settings.Type)
	}
	if err := b.setLine(settings.Line, o.LineSpeed); err != nil {
		return err
	}
	if err := b.addUnits(settings, devices, o); err != nil {
		return err
	}
	if err := b.serve(s.elapsed); err != nil {
		return err
	}
	s.buses[b.name] = b
	if err := b.up(); err != nil {
		return err
	}
	if b.link != "" {
		settings.Port = b.link
		return nil
	}
	settings.Host, settings.Port = loopback, strconv.Itoa(b.port)
	return nil
}

// seed is the point's own, so that no two move alike.
func (o Options) seed(p *gateway.Point) uint64 {
	hash := fnv.New64a()
	fmt.Fprintf(hash, "%d %s %s", o.Seed, p.Device.Name, p.ID)
	return hash.Sum64()
}

func (s *Sim) makeDir() (err error) {
	if s.dir == "" {
		s.dir, err = os.MkdirTemp("", "sluice-sim-")
	}
	return err
}

func (s *Sim) elapsed() time.Duration { return time.Since(s.start) }

// Close ends all devices and waits until they have.
func (s *Sim) Close() error {
	var errs []error
	for _, b := range s.buses {
		b.down()
		errs = append(errs, b.stop())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// copySite copies what Start changes and what leads to it.
func copySite(old *gateway.Site) *gateway.Site {
	site := *old
	site.Buses = make([]*gateway.Bus, len(old.Buses))
	buses := make(map[*gateway.Bus]*gateway.Bus)
	for i, b := range old.Buses {
		c := *b
		site.Buses[i], buses[b] = &c, &c
	}
	site.Devices = make([]*gateway.Device, len(old.Devices))
	for i, d := range old.Devices {
		c := *d
		if c.Bus = buses[d.Bus]; c.Bus == nil {
			c.Bus = d.Bus
		}
		c.Points = make([]*gateway.Point, len(d.Points))
		for j, p := range d.Points {
			q := *p
			q.Device = &c
			c.Points[j] = &q
		}
		site.Devices[i] = &c
	}
	return &site
}
