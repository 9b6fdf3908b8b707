package sim

import (
	"fmt"
	"time"

	"sluice/adapters/modbus"
	"sluice/gateway"
)

// Silent makes a unit stop answering, or answer again. An OPC UA server is unit
// 0 of its bus, and silent as behind a line that swallows everything: what was
// sent meanwhile is answered afterwards.
func (s *Sim) Silent(bus string, id int, silent bool) error {
	b, err := s.bus(bus)
	if err != nil {
		return err
	}
	return b.silence(id, silent)
}

// Delay makes every answer of a bus wait that long. Those to requests in flight
// together wait together.
func (s *Sim) Delay(bus string, d time.Duration) error {
	b, err := s.bus(bus)
	if err == nil {
		b.traffic().delay.Store(int64(d))
	}
	return err
}

// Shuffle lets the answers to requests that a client has in flight overtake one
// another, or not. It does nothing on RTU framing, which has one at a time.
func (s *Sim) Shuffle(bus string, on bool) error {
	b, err := s.modbus(bus)
	if err == nil {
		b.shuffle.Store(on)
	}
	return err
}

// Exception makes every request that touches a wire address fail with the
// exception; code 0 takes that back.
func (s *Sim) Exception(bus string, id int, table modbus.Table, address int, code byte) error {
	b, err := s.modbus(bus)
	if err != nil {
		return err
	}
	u := b.units[byte(id)]
	if u == nil {
		return fmt.Errorf("bus %s has no unit %d", bus, id)
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

// Fail makes every request that touches a point fail with the code, which is a
// Modbus exception or an OPC UA status; 0 takes that back.
func (s *Sim) Fail(device, point string, code uint32) error {
	h, err := s.find(device, point)
	if err == nil {
		h.fail(code)
	}
	return err
}

// StopBus takes a bus away, with all its connections. An OPC UA server keeps
// its sessions and subscriptions, as one whose cable is pulled.
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

// RestartBus turns what stands on a bus off and on again. Values stay, sessions
// and subscriptions don't.
func (s *Sim) RestartBus(bus string) error {
	b, err := s.bus(bus)
	if err != nil {
		return err
	}
	return b.restart()
}

// Requests is how many requests the bus got since Start, those to silent and
// unknown units too.
func (s *Sim) Requests(bus string) (int, error) {
	b, err := s.bus(bus)
	if err != nil {
		return 0, err
	}
	return int(b.traffic().requests.Load()), nil
}

// Set makes a device hold a value, in engineering units, as if it had been
// written.
func (s *Sim) Set(device, point string, v gateway.Value) error {
	h, err := s.find(device, point)
	if err != nil {
		return err
	}
	if err := h.set(v, s.elapsed()); err != nil {
		return fmt.Errorf("%s of %s: %w", point, device, err)
	}
	return nil
}

// Get is the value that a device holds now, in engineering units. A value that
// is not good is an error.
func (s *Sim) Get(device, point string) (gateway.Value, error) {
	h, err := s.find(device, point)
	if err != nil {
		return gateway.Value{}, err
	}
	v, quality, reason := h.get(s.elapsed())
	if quality != gateway.Good {
		return v, fmt.Errorf("%s of %s: %s: %s", point, device, v, reason)
	}
	return v, nil
}

func (s *Sim) find(device, point string) (held, error) {
	for _, b := range s.buses {
		if h := b.find(device, point); h != nil {
			return h, nil
		}
	}
	return nil, fmt.Errorf("no simulated device %s with a point %s", device, point)
}

func (s *Sim) bus(name string) (simulated, error) {
	if b := s.buses[name]; b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("no simulated bus %s", name)
}

func (s *Sim) modbus(name string) (*bus, error) {
	if b, ok := s.buses[name].(*bus); ok {
		return b, nil
	}
	return nil, fmt.Errorf("no simulated Modbus bus %s", name)
}
