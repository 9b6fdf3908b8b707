package modbus

import (
	"cmp"
	"slices"
	"time"

	"sluice/gateway"
)

// The most that the protocol allows in one read request.
const (
	maxRegisters = 125
	maxBits      = 2000
)

// item is a place with what has to come along in its request: its scale_from
// and its block.
type item struct {
	place      *place
	unit       int
	table      Table
	start, end int
}

// rules are the limits of the requests to one table of one unit.
type rules struct {
	most   int      // registers or bits
	gap    int      // registers or bits between two points
	cost   cost     // what is minimised
	forbid [][2]int // closed ranges, sorted; an empty one is a boundary before its first register
}

// planner divides points into requests.
type planner struct {
	bus   *gateway.Bus
	atlas *atlas
	auto  bool // as if all profiles said max_gap: auto
}

// part is points of one unit: those of one request, or, with a reason, those
// that no request is made for.
type part struct {
	points []*gateway.Point
	unit   int
	why    string
	size   int // of points
}

// plan gives one slice for each part.
func (p planner) plan(points []*gateway.Point) [][]*gateway.Point {
	parts := p.divide(points)
	groups := make([][]*gateway.Point, len(parts))
	for i := range parts {
		groups[i] = slices.Clip(parts[i].points)
	}
	return groups
}

// divide gives the requests for the points, sorted by unit; behind those of
// each unit what it is known to refuse; and last what is not of this bus. The
// points of the parts lie one behind the other in one array.
func (p planner) divide(points []*gateway.Point) []part {
	items := make([]item, 0, len(points))
	var strangers []part
	for _, point := range points {
		if at := p.atlas.places[point]; at != nil {
			items = append(items, newItem(at))
		} else {
			strangers = append(strangers, part{points: []*gateway.Point{point}, unit: -1, why: point.ID + " is not a point of this bus"})
		}
	}
	joinBlocks(items)
	slices.SortFunc(items, func(x, y item) int {
		// Of those that start together the longest first: it holds the others.
		return cmp.Or(cmp.Compare(x.unit, y.unit), cmp.Compare(x.table, y.table), cmp.Compare(x.start, y.start), cmp.Compare(y.end, x.end))
	})
	parts := make([]part, 0, len(items)/8+1)
	var d divider
	for first, last := 0, 0; first < len(items); first = last {
		for last = first + 1; last < len(items) && items[last].unit == items[first].unit; last++ {
		}
		parts = p.divideUnit(&d, items[first:last], parts)
	}
	all := make([]*gateway.Point, len(items))
	for i := range items {
		all[i] = items[i].place.point
	}
	for i := range parts {
		n := parts[i].size
		parts[i].points, all = all[:n], all[n:]
	}
	return append(parts, strangers...)
}

// divideUnit adds the parts of one unit, and brings its items into their order.
func (p planner) divideUnit(d *divider, items []item, parts []part) []part {
	facts := p.atlas.facts(byte(items[0].unit))
	unit, refused := items[0].unit, refusedOf(items, facts)
	items, rest := items[:len(items)-len(refused)], items[len(items)-len(refused):]
	for first, last := 0, 0; first < len(items); first = last {
		for last = first + 1; last < len(items) && items[last].table == items[first].table; last++ {
		}
		for _, cut := range d.divide(items[first:last], p.rules(items[first:last], facts)) {
			parts = append(parts, part{unit: unit, size: cut[1] - cut[0]})
		}
	}
	for i := range rest {
		if n := len(parts); i > 0 && parts[n-1].why == refused[i] {
			parts[n-1].size++
		} else {
			parts = append(parts, part{unit: unit, size: 1, why: refused[i]})
		}
	}
	return parts
}

// refusedOf moves the items that the unit refuses behind the others, and gives
// their reasons.
func refusedOf(items []item, facts []fact) (why []string) {
	var refused []item
	kept := 0
	for i := range items {
		if f := refusedBy(&items[i], facts); f != nil {
			refused, why = append(refused, items[i]), append(why, f.Reason)
		} else {
			items[kept] = items[i]
			kept++
		}
	}
	copy(items[kept:], refused)
	return why
}
func newItem(at *place) item {
	it := item{place: at, unit: at.point.Device.Unit, table: at.address.Table, start: at.start, end: at.end}
	if e := at.exponent; e != nil {
		it.start, it.end = min(it.start, e.start), max(it.end, e.end)
	}
	return it
}

// joinBlocks stretches the points of each block over the whole block.
func joinBlocks(items []item) {
	type key struct {
		device *gateway.Device
		table  Table
		block  string
	}
	blocks := make(map[key][2]int)
	for pass := range 2 {
		for i := range items {
			it := &items[i]
			if it.place.point.Block == "" {
				continue
			}
			k := key{it.place.point.Device, it.table, it.place.point.Block}
			span, seen := blocks[k]
			if pass == 1 {
				it.start, it.end = span[0], span[1]
			} else if !seen {
				blocks[k] = [2]int{it.start, it.end}
			} else {
				blocks[k] = [2]int{min(span[0], it.start), max(span[1], it.end)}
			}
		}
		if len(blocks) == 0 {
			return
		}
	}
}

// rules are those of all devices that the items of one unit belong to: of the
// limits the strictest; and what was learnt.
func (p planner) rules(items []item, facts []fact) rules {
	table := items[0].table
	r := rules{most: maxRegisters, gap: maxBits, cost: p.cost(items[0].place.point.Device)}
	if table.Bits() {
		r.most = maxBits
	}
	var seen []*gateway.Device
	for i := range items {
		d := items[i].place.point.Device
		if slices.Contains(seen, d) {
			continue
		}
		seen = append(seen, d)
		r.most = min(r.most, mostIn(table, d.Profile))
		if gap := gapIn(table, d.Profile); !gap.Auto && !p.auto {
			r.gap, r.cost = min(r.gap, gap.Registers), fewest
		}
		for _, f := range p.atlas.forbid[d.Profile] {
			if f.table == table {
				r.forbid = append(r.forbid, [2]int{f.first + d.Shift, f.last + d.Shift})
			}
		}
	}
	for i := range facts {
		facts[i].restrict(&r, table)
	}
	slices.SortFunc(r.forbid, func(x, y [2]int) int { return cmp.Compare(x[0], y[0]) })
	return r
}

// mostIn is the most registers or bits that one request to a device reads.
func mostIn(table Table, profile *gateway.Profile) int {
	most := maxRegisters
	if profile.MaxRegisters > 0 {
		most = min(most, profile.MaxRegisters)
	}
	if table.Bits() {
		return 16 * most
	}
	return most
}

// gapIn is the profile's max_gap, or the default: what nobody listed is read
// along only where reading cannot have side effects.
func gapIn(table Table, profile *gateway.Profile) gateway.Gap {
	if profile.MaxGap != nil {
		return *profile.MaxGap
	}
	return gateway.Gap{Auto: !table.Writable()}
}

// divider finds the cheapest division of one table; it keeps its memory for
// the next one.
type divider struct {
	bricks []brick
	best   []time.Duration // cost of the first n bricks
	from   []int           // where the last request of that division begins
	cuts   [][2]int
}

// brick is a run of items that lie within the first one: any request that
// reads it reads them for free.
type brick struct {
	start, end  int
	first, last int // of the items
	wall        int // the next forbidden register from start on
}

// divide cuts items, sorted by start and then by falling end, into requests
// and gives the index ranges.
//
// The division is optimal. Bricks have rising starts and rising ends, limits
// and cost depend on the span of a request only, and so an optimal division
// never needs requests that interleave: they could hand their bricks to each
// other without growing. What is left is to choose, for each brick, where the
// request that ends with it begins.
func (d *divider) divide(items []item, r rules) [][2]int {
	d.lay(items, r.forbid)
	n, table := len(d.bricks), items[0].table
	d.best, d.from = append(d.best[:0], 0), append(d.from[:0], 0)
	for j := range n {
		end := d.bricks[j].end
		best, from := time.Duration(-1), j
		for i := j; i >= 0; i-- {
			b := &d.bricks[i]
			// Alone a brick may be what it likes: check refuses it or means it.
			if i < j && (end-b.start > r.most || d.bricks[i+1].start-b.end > r.gap || b.wall < end) {
				break
			}
			if total := d.best[i] + r.cost.of(table, end-b.start); best < 0 || total <= best {
				best, from = total, i
			}
		}
		d.best, d.from = append(d.best, best), append(d.from, from)
	}
	d.cuts = d.cuts[:0]
	for j := n; j > 0; j = d.from[j] {
		d.cuts = append(d.cuts, [2]int{d.bricks[d.from[j]].first, d.bricks[j-1].last})
	}
	slices.Reverse(d.cuts)
	return d.cuts
}

func (d *divider) lay(items []item, forbid [][2]int) {
	d.bricks = d.bricks[:0]
	for i := range items {
		it := &items[i]
		if n := len(d.bricks); n > 0 && it.end <= d.bricks[n-1].end {
			d.bricks[n-1].last = i + 1
			continue
		}
		d.bricks = append(d.bricks, brick{start: it.start, end: it.end, first: i, last: i + 1, wall: wallFrom(forbid, it.start)})
	}
}

// wallFrom is the first forbidden register that is not below start.
func wallFrom(forbid [][2]int, start int) int {
	for _, f := range forbid {
		if f[1] >= start {
			return max(f[0], start)
		}
	}
	return 1 << 30
}
