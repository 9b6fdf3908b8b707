package sim

import (
	"fmt"
	"time"

	"sluice/adapters/modbus"
	"sluice/gateway"
)

// Silent makes a unit stop answering, or answer again.
func (s *Sim) Silent(bus string, id int, silent bool) error {
	u, err := s.unit(bus, id)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.silent = silent
	return nil
}

// Delay makes every answer of a bus wait that long. Those to requests in flight
// together wait together.
func (s *Sim) Delay(bus string, d time.Duration) error {
	b, err := s.bus(bus)
	if err == nil {
		b.delay.Store(int64(d))
	}
	return err
}

// Shuffle lets the answers to requests that a client has in flight overtake one
// another, or not. It does nothing on RTU framing, which has one at a time.
func (s *Sim) Shuffle(bus string, on bool) error {
	b, err := s.bus(bus)
	if err == nil {
		b.shuffle.Store(on)
	}
	return err
}

// Exception makes every request that touches a wire address fail with the
// exception; code 0 takes that back.
func (s *Sim) Exception(bus string, id int, table modbus.Table, address int, code byte) error {
	u, err := s.unit(bus, id)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.tables[table][address]
	if c == nil {
		return fmt.Errorf("unit %d of bus %s has no %s %d", id, bus, table, address)
	}
	c.fails = code
	return nil
}

// Fail makes every request that touches a point fail with the exception; code
// 0 takes that back.
func (s *Sim) Fail(device, point string, code byte) error {
	return s.with(device, point, func(_ *unit, f *field) error {
		for _, c := range f.cells {
			c.fails = code
		}
		return nil
	})
}

// StopBus takes a bus away, with all its connections.
func (s *Sim) StopBus(bus string) error {
	b, err := s.bus(bus)
	if err == nil {
		b.down()
	}
	return err
}

// StartBus brings a bus back to where it was.
func (s *Sim) StartBus(bus string) error {
	b, err := s.bus(bus)
	if err != nil {
		return err
	}
	return b.up()
}

// Requests is how many requests the bus got since Start, those to silent and
// unknown units too.
func (s *Sim) Requests(bus string) (int, error) {
	b, err := s.bus(bus)
	if err != nil {
		return 0, err
	}
	return int(b.requests.Load()), nil
}

// Set makes a device hold a value, in engineering units, as if it had been
// written.
func (s *Sim) Set(device, point string, v gateway.Value) error {
	return s.with(device, point, func(u *unit, f *field) error {
		u.update(f.cells, s.elapsed())
		if err := f.set(v); err != nil {
			return err
		}
		for _, c := range f.cells {
			c.keep()
		}
		return nil
	})
}

// Get is the value that a device holds now, in engineering units. A value that
// is not good is an error.
func (s *Sim) Get(device, point string) (v gateway.Value, err error) {
	err = s.with(device, point, func(u *unit, f *field) error {
		u.update(f.cells, s.elapsed())
		var quality gateway.Quality
		var reason string
		if v, quality, reason = f.get(); quality != gateway.Good {
			return fmt.Errorf("%s: %s", v, reason)
		}
		return nil
	})
	return v, err
}

// with finds a point and works on it.
func (s *Sim) with(device, point string, work func(*unit, *field) error) error {
	for _, b := range s.buses {
		for _, u := range b.units {
			for _, f := range u.fields {
				if f.point.Device.Name == device && f.point.ID == point {
					u.mu.Lock()
					defer u.mu.Unlock()
					if err := work(u, f); err != nil {
						return fmt.Errorf("%s of %s: %w", point, device, err)
					}
					return nil
				}
			}
		}
	}
	return fmt.Errorf("no simulated device %s with a point %s", device, point)
}

func (s *Sim) bus(name string) (*bus, error) {
	if b := s.buses[name]; b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("no simulated bus %s", name)
}

func (s *Sim) unit(bus string, id int) (*unit, error) {
	b, err := s.bus(bus)
	if err != nil {
		return nil, err
	}
	if u := b.units[byte(id)]; u != nil {
		return u, nil
	}
	return nil, fmt.Errorf("bus %s has no unit %d", bus, id)
}
