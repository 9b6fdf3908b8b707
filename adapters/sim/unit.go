package sim

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"sluice/adapters/modbus"
	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// maxHole is the longest hole that Options.Holes fills: a request's worth.
const maxHole = 125

// unit is the memory of one unit: of all devices with its unit id.
type unit struct {
	mu     sync.Mutex
	tables [4]map[int]*cell
	fields []*field // those without bits first
	silent bool
}

// cell is one register, or one bit of a table of bits.
type cell struct {
	value  uint16
	fails  byte     // exception to any request for it
	fields []*field // what is in it
	mirror *cell    // where it is read, when it is only written here
}

// add puts the points of a device into the memory.
func (u *unit) add(d *gateway.Device, o Options) error {
	for _, p := range d.Points {
		if _, err := u.place(p); err != nil {
			return fmt.Errorf("point %s: %w", p.ID, err)
		}
	}
	for _, f := range slices.Clone(u.fields) {
		if f.point.Device != d || f.point.ScaleFrom == "" {
			continue
		}
		e, err := u.exponent(d, f.point.ScaleFrom)
		if err != nil {
			return fmt.Errorf("point %s: scale_from: %w", f.point.ID, err)
		}
		f.exponent, e.scales = e, true
		if err := e.set(power(e.point.Definition)); err != nil {
			return fmt.Errorf("point %s: scale_from: %w", f.point.ID, err)
		}
	}
	for _, f := range u.fields {
		if f.point.Device == d {
			f.generate = newGenerator(f.point.Definition, scaling{f.scales, f.power()}, o.seed(f.point))
		}
	}
	return nil
}

// place makes the cells of a point, those that it is written to too.
func (u *unit) place(p *gateway.Point) (*field, error) {
	f, err := newField(p)
	if err != nil {
		return nil, err
	}
	f.cells = u.cells(f.table, f.start, f.size())
	for _, c := range f.cells {
		c.fields = append(c.fields, f)
	}
	u.fields = append(u.fields, f)
	if p.Write == nil || p.Write.At == "" {
		return f, nil
	}
	at, err := modbus.ParseAddress(p.Write.At, p.Device.Profile.Addressing, p.Device.Profile.Table)
	if err != nil {
		return nil, fmt.Errorf("write: %w", err)
	}
	for i, c := range u.cells(at.Table, at.Wire+p.Device.Shift, f.size()) {
		if at.Table.Bits() == f.table.Bits() && c != f.cells[i] {
			c.mirror = f.cells[i]
		}
	}
	return f, nil
}

// exponent is the field of a scale factor: it exists also where the site
// dropped its point.
func (u *unit) exponent(d *gateway.Device, id string) (*field, error) {
	for _, f := range u.fields {
		if f.point.Device == d && f.point.ID == id {
			return f, nil
		}
	}
	for _, def := range d.Profile.Points {
		if def.ID == id {
			return u.place(&gateway.Point{Definition: def, Device: d})
		}
	}
	return nil, fmt.Errorf("there is no point %s", id)
}

// cells gives the cells of a range and makes those that are missing.
func (u *unit) cells(table modbus.Table, start, count int) []*cell {
	if u.tables[table] == nil {
		u.tables[table] = make(map[int]*cell)
	}
	cells := make([]*cell, count)
	for i := range cells {
		c := u.tables[table][start+i]
		if c == nil {
			c = new(cell)
			u.tables[table][start+i] = c
		}
		cells[i] = c
	}
	return cells
}

// finish puts the memory in order when all points are in it.
func (u *unit) finish(holes bool) {
	slices.SortStableFunc(u.fields, func(a, b *field) int { return a.layer() - b.layer() })
	for table, cells := range u.tables {
		var addresses []int
		for address, c := range cells {
			addresses = append(addresses, address)
			slices.SortStableFunc(c.fields, func(a, b *field) int { return a.layer() - b.layer() })
		}
		slices.Sort(addresses)
		for i := 1; holes && i < len(addresses); i++ {
			if hole := addresses[i] - addresses[i-1] - 1; hole > 0 && hole <= maxHole {
				u.cells(modbus.Table(table), addresses[i-1]+1, hole)
			}
		}
	}
}

// read gives the words of a range, or an exception.
func (u *unit) read(table modbus.Table, start, count int, now time.Duration) ([]uint16, byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	cells, code := u.find(table, start, count)
	if code != 0 {
		return nil, code
	}
	u.update(cells, now)
	words := make([]uint16, count)
	for i, c := range cells {
		words[i] = c.value
	}
	return words, 0
}

// write stores words and leaves all points that they belong to alone for ever.
func (u *unit) write(table modbus.Table, start int, words []uint16, now time.Duration) byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	cells, code := u.find(table, start, len(words))
	if code != 0 {
		return code
	}
	u.update(cells, now)
	store(cells, words)
	return 0
}

// mask sets the bits of a register that and does not keep to those of or.
func (u *unit) mask(address int, and, or uint16, now time.Duration) byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	cells, code := u.find(modbus.Holding, address, 1)
	if code != 0 {
		return code
	}
	u.update(cells, now)
	store(cells, []uint16{cells[0].value&and | or&^and})
	return 0
}

// store writes words, and where they are read too.
func store(cells []*cell, words []uint16) {
	for i, c := range cells {
		c.value = words[i]
		c.keep()
		if c.mirror != nil {
			c.mirror.value = words[i]
			c.mirror.keep()
		}
	}
}

// keep makes all that is in the cell stay as it is.
func (c *cell) keep() {
	for _, f := range c.fields {
		f.written = true
	}
}

// find gives the cells of a range that must exist and work.
func (u *unit) find(table modbus.Table, start, count int) ([]*cell, byte) {
	cells := make([]*cell, count)
	for i := range cells {
		c := u.tables[table][start+i]
		if c == nil {
			return nil, byte(wire.IllegalDataAddress)
		}
		if c.fails != 0 {
			return nil, c.fails
		}
		cells[i] = c
	}
	return cells, 0
}

// begin gives every point its first value.
func (u *unit) begin(log *slog.Logger) {
	for _, f := range u.fields {
		if err := f.set(f.generate(0)); err != nil {
			log.Warn("no value to simulate", "device", f.point.Device.Name, "point", f.point.ID, "error", err)
		}
	}
}

// update brings everything that touches the cells up to date, but for what was
// written: whole values first, then the bits that stand in them.
func (u *unit) update(cells []*cell, now time.Duration) {
	for layer := range layers {
		for _, c := range cells {
			for _, f := range c.fields {
				if f.layer() == layer && !f.written && f.moved != now {
					f.moved = now
					_ = f.set(f.generate(now)) // begin has told
				}
			}
		}
	}
}

func (u *unit) isSilent() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.silent
}

// stored is a field that may be worked on at any time.
type stored struct {
	unit  *unit
	field *field
}

func (s stored) set(v gateway.Value, now time.Duration) error {
	s.unit.mu.Lock()
	defer s.unit.mu.Unlock()
	s.unit.update(s.field.cells, now)
	if err := s.field.set(v); err != nil {
		return err
	}
	for _, c := range s.field.cells {
		c.keep()
	}
	return nil
}

func (s stored) get(now time.Duration) (gateway.Value, gateway.Quality, string) {
	s.unit.mu.Lock()
	defer s.unit.mu.Unlock()
	s.unit.update(s.field.cells, now)
	return s.field.get()
}

func (s stored) fail(code uint32) {
	s.unit.mu.Lock()
	defer s.unit.mu.Unlock()
	for _, c := range s.field.cells {
		c.fails = byte(code)
	}
}
