package modbus

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"sluice/gateway"
)

// model is what a Definition compiles to; devices of one profile share it.
type model struct {
	address    Address
	codec      *Codec
	conversion *gateway.Conversion
	straight   *gateway.Straight // short form of the conversion; may be nil
}

// newModel compiles a point; the error says which key of it is wrong.
func newModel(d *gateway.Definition, profile *gateway.Profile) (*model, error) {
	address, err := ParseAddress(d.At, profile.Addressing, profile.Table)
	if err != nil {
		return nil, &keyError{"at", err}
	}
	if address.Table.Bits() {
		if err := checkBit(d, address.Table); err != nil {
			return nil, err
		}
	}
	codec, err := NewCodec(d, profile.Order)
	if err != nil {
		return nil, &keyError{codecKey(d, err), err}
	}
	conversion, err := gateway.NewConversion(d)
	if err != nil {
		return nil, &keyError{"type", err}
	}
	return &model{address, codec, conversion, conversion.Straight()}, nil
}

// checkBit looks at a point in a table of bits.
func checkBit(d *gateway.Definition, table Table) error {
	switch {
	case d.Type == "":
		return &keyError{"type", errors.New("the point has no type; write type: bool")}
	case d.Type != gateway.Bool:
		return &keyError{"type", fmt.Errorf("%s is a bit, %s is not; write type: bool", table.one(), d.Type)}
	case d.Bit != nil:
		return &keyError{"bit", fmt.Errorf("%s is a bit already; remove bit", table.one())}
	case d.Bits != nil:
		return &keyError{"bits", fmt.Errorf("%s is a bit already; remove bits", table.one())}
	}
	return nil
}

// keyError is an error about one key of a point.
type keyError struct {
	key string
	err error
}

func (e *keyError) Error() string { return e.key + ": " + e.err.Error() }
func (e *keyError) Unwrap() error { return e.err }

// codecKey is the key of the point that an error of NewCodec is about.
func codecKey(d *gateway.Definition, err error) string {
	switch {
	case errors.Is(err, errNoOrder) || d.Order != "" && !slices.Contains(orders, d.Order):
		return "order"
	case typeWords[d.Type] == 0:
		return "type"
	case d.Bit != nil:
		return "bit"
	case d.Bits != nil:
		return "bits"
	case d.Type == gateway.Flags && d.Length > 0:
		return "flags"
	case d.Type == gateway.String || d.Type == gateway.Bytes || d.Type == gateway.Flags:
		return "length"
	case d.Type == gateway.Time && clockWords[d.Format] != 0:
		return "zone"
	case d.Type == gateway.Time:
		return "format"
	}
	return "type"
}

var orders = []gateway.Order{gateway.ABCD, gateway.CDAB, gateway.BADC, gateway.DCBA}

// size is how many registers, or bits, the point takes.
func (m *model) size() int {
	if m.address.Table.Bits() {
		return m.codec.Count()
	}
	return m.codec.Registers()
}

// place is where a point is in its unit.
type place struct {
	*model
	point      *gateway.Point
	start, end int    // on the wire, with the device's shift; end is the first one behind
	exponent   *place // of the point's scale_from
}

// atlas knows the place of every point of a bus, and its units.
type atlas struct {
	models models
	forbid map[*gateway.Profile][]forbidden
	places map[*gateway.Point]*place
	units  map[byte]*unit

	mu sync.Mutex // guards what was learnt about the units
}

// forbidden is a range that no merged read may touch, before the shift.
type forbidden struct {
	table       Table
	first, last int
}

// models are the compiled definitions.
type models map[*gateway.Definition]*model

// sharedModels are those of all buses of a gateway.
func sharedModels(env gateway.Env) models {
	type key struct{}
	shared, ok := env.Shared[key{}].(models)
	if !ok {
		shared = make(models)
		if env.Shared != nil {
			env.Shared[key{}] = shared
		}
	}
	return shared
}

func newAtlas(devices []*gateway.Device, known models) (*atlas, error) {
	a := &atlas{
		models: known,
		forbid: make(map[*gateway.Profile][]forbidden),
		places: make(map[*gateway.Point]*place),
		units:  make(map[byte]*unit),
	}
	for _, d := range devices {
		if err := a.add(d); err != nil {
			return nil, fmt.Errorf("device %s: %w", d.Name, err)
		}
	}
	return a, nil
}

func (a *atlas) add(d *gateway.Device) error {
	if _, ok := a.forbid[d.Profile]; !ok {
		ranges, err := parseForbid(d.Profile)
		if err != nil {
			return err
		}
		a.forbid[d.Profile] = ranges
	}
	if a.units[byte(d.Unit)] == nil {
		a.units[byte(d.Unit)] = new(unit)
	}
	u := a.units[byte(d.Unit)]
	u.devices = append(u.devices, d)
	places := make([]place, len(d.Points))
	for i, p := range d.Points {
		if err := a.locate(&places[i], p); err != nil {
			return fmt.Errorf("point %s: %w", p.ID, err)
		}
		a.places[p] = &places[i]
	}
	return a.linkExponents(d, places)
}

func (a *atlas) locate(at *place, p *gateway.Point) error {
	m := a.models[p.Definition]
	if m == nil {
		var err error
		if m, err = newModel(p.Definition, p.Device.Profile); err != nil {
			return err
		}
		a.models[p.Definition] = m
	}
	*at = place{model: m, point: p, start: m.address.Wire + p.Device.Shift}
	at.end = at.start + m.size()
	if at.start < 0 || at.end > 65536 {
		return &keyError{"at", outside(m.address.Table, at.start, at.end, p.Device.Shift)}
	}
	return nil
}

// outside says that a point reaches past an end of its table.
func outside(table Table, start, end, shift int) error {
	what := fmt.Sprintf("%s %s %d is", table, table.unitName(), start)
	if end-start > 1 {
		what = fmt.Sprintf("%s %ss %d to %d are", table, table.unitName(), start, end-1)
	}
	limit := "ends with 65535"
	if start < 0 {
		limit = "begins with 0"
	}
	if shift != 0 {
		limit += fmt.Sprintf(" (the device's shift is %d)", shift)
	}
	return fmt.Errorf("%s outside of the table, which %s", what, limit)
}

// linkExponents finds the scale_from of each point: in the device, or, where
// it was dropped there, in the profile.
func (a *atlas) linkExponents(d *gateway.Device, places []place) error {
	for i := range places {
		p := &places[i]
		if p.point.ScaleFrom == "" {
			continue
		}
		e, err := a.exponent(d, places, p.point.ScaleFrom)
		if err != nil {
			return fmt.Errorf("point %s: scale_from: %w", p.point.ID, err)
		}
		if e.address.Table != p.address.Table {
			return fmt.Errorf("point %s: scale_from: %s is in the %s table, the point in the %s table", p.point.ID, e.point.ID, e.address.Table, p.address.Table)
		}
		p.exponent = e
	}
	return nil
}

// find gives the place of a point that may have been dropped from the device.
func (a *atlas) find(d *gateway.Device, id string) (*place, error) {
	for _, p := range d.Points {
		if p.ID == id {
			return a.places[p], nil
		}
	}
	return a.exponent(d, nil, id)
}

func (a *atlas) exponent(d *gateway.Device, places []place, id string) (*place, error) {
	for i := range places {
		if places[i].point.ID == id {
			return &places[i], nil
		}
	}
	for _, def := range d.Profile.Points {
		if def.ID == id {
			e := new(place)
			return e, a.locate(e, &gateway.Point{Definition: def, Device: d})
		}
	}
	return nil, fmt.Errorf("there is no point %s", id)
}

func parseForbid(profile *gateway.Profile) ([]forbidden, error) {
	var ranges []forbidden
	for _, text := range profile.Forbid {
		first, last, err := parseRange(text, profile.Addressing, profile.Table)
		if err != nil {
			return nil, fmt.Errorf("forbid: %w", err)
		}
		ranges = append(ranges, forbidden{first.Table, first.Wire, last.Wire})
	}
	slices.SortFunc(ranges, func(x, y forbidden) int { return cmp.Compare(x.first, y.first) })
	return ranges, nil
}
