package modbus

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"sluice/gateway"
)

// checkDevice looks at the points of a device, each alone and with the others.
func (c *checker) checkDevice(d *gateway.Device) {
	switch d.Profile.Addressing {
	case "modicon", "one-based", "protocol":
	default:
		return // said already; no address means anything
	}
	places := make([]place, 0, len(d.Points))
	for _, p := range d.Points {
		if at, ok := c.checkPoint(p); ok {
			places = append(places, at)
		}
	}
	for i := range places {
		c.checkScaleFrom(d, places, &places[i])
	}
	c.checkBlocks(d, places)
	c.checkJoined(d, places)
	c.checkOverlaps(places)
	c.checkStreams(d)
}

// checkStreams looks at the raw blocks of streams.
func (c *checker) checkStreams(d *gateway.Device) {
	for _, s := range d.Streams {
		if s.Raw == nil || s.Raw.At == "" {
			continue
		}
		_, err := blockRequest(d, s.Raw)
		if err == nil {
			continue
		}
		text, suggestion := split(err)
		if a := (about{s, "raw", text}); !c.said[a] {
			c.said[a] = true
			c.add(gateway.Error, "devices."+d.Name+".streams."+s.ID+".raw.at", text, suggestion)
		}
	}
}

// checkPoint looks at one point; ok tells whether it has a place.
func (c *checker) checkPoint(p *gateway.Point) (at place, ok bool) {
	d := p.Definition
	if d.Node != "" || d.Browse != "" {
		key := "node"
		if d.Node == "" {
			key = "browse"
		}
		c.onPoint(gateway.Error, p, key, key+" is for OPC UA, the bus is "+c.bus.Type, "write at: with the address that the manual prints")
	}
	if err := c.atlas.locate(&at, p); err != nil {
		c.diagnose(p, err)
		return at, false
	}
	c.checkModicon(p, at.address)
	c.checkSize(p, &at)
	c.checkOrder(p, at.codec)
	if writable(d) {
		c.checkWrite(&at)
	}
	return at, true
}

// diagnose reports everything that keeps a point from being compiled; err is
// what was found first.
func (c *checker) diagnose(p *gateway.Point, err error) {
	d, profile := p.Definition, p.Device.Profile
	_, badAt := ParseAddress(d.At, profile.Addressing, profile.Table)
	switch {
	case d.At == "" && d.Node == "" && d.Browse == "":
		c.onPoint(gateway.Error, p, "at", "the point has no address", "write at: with the address that the manual prints")
	case d.At != "" && badAt != nil:
		c.refuse(p, "at", badAt)
	}
	var key *keyError
	if badAt == nil && errors.As(err, &key) {
		c.refuse(p, key.key, key.err)
	} else if _, err := NewCodec(d, profile.Order); err != nil {
		c.refuse(p, codecKey(d, err), err)
	}
}

// refuse reports an error about a key of a point.
func (c *checker) refuse(p *gateway.Point, key string, err error) {
	text, suggestion := split(err)
	var address *AddressError
	if errors.As(err, &address) {
		text, suggestion = address.Text, address.Suggestion
	}
	c.onPoint(gateway.Error, p, key, text, suggestion)
}

// checkModicon warns of references in a profile that counts otherwise; once a
// profile, since it is all of them or none.
func (c *checker) checkModicon(p *gateway.Point, a Address) {
	at, profile := p.At, p.Device.Profile
	if a.Explicit || profile.Addressing == "modicon" || len(at) != 5 || at[1:] == "0000" {
		return
	}
	if !(at[0] == '3' || at[0] == '4') && !(at[0] == '1' && a.Table == Discrete) {
		return
	}
	modicon, err := ParseAddress(at, "modicon", "")
	said := about{profile, "modicon", ""}
	if err != nil || c.said[said] {
		return
	}
	c.said[said] = true
	c.onPoint(gateway.Warning, p, "at", fmt.Sprintf("at %s looks like a modicon reference, but addressing is %s: it reads %s", at, profile.Addressing, a),
		fmt.Sprintf("where %s is %s, write addressing: modicon; else %s:%s says that it is meant", at, modicon, a.Table, at))
}

// checkSize refuses what no request can read.
func (c *checker) checkSize(p *gateway.Point, at *place) {
	most := mostIn(at.address.Table, p.Device.Profile)
	if at.size() <= most {
		return
	}
	key := "type"
	switch {
	case p.Count > 0:
		key = "count"
	case p.Length > 0:
		key = "length"
	}
	c.onPoint(gateway.Error, p, key, fmt.Sprintf("the point has %s, one request reads %d", at.address.Table.counted(at.size()), most), "make several points of it")
}

// checkOrder warns of an order of its own that does nothing.
func (c *checker) checkOrder(p *gateway.Point, codec *Codec) {
	if p.Order == "" || p.Order == p.Device.Profile.Order || codec.ordered() || p.Type == gateway.String || p.Type == gateway.Bytes {
		return
	}
	why := "a " + string(p.Type) + " is one, its high byte comes first"
	if codec.words > 1 {
		why = string(p.Type) + " goes register by register"
	}
	c.onPoint(gateway.Warning, p, "order", fmt.Sprintf("order is about values of two registers or more: %s", why), "remove it")
}

// checkWrite looks at how a writable point is written.
func (c *checker) checkWrite(at *place) {
	p, profile := at.point, at.point.Device.Profile
	if !c.checkTarget(at) {
		return
	}
	size, table := at.size(), at.address.Table
	if writeFunction(p.Definition, profile) == "single" && size > 1 {
		text := fmt.Sprintf("%s has %s, a single write carries one", p.ID, table.counted(size))
		const suggestion = "write function: multiple for this point: write: { function: multiple }"
		if rule := p.Definition.Write; rule != nil && rule.Function == "single" {
			c.onPoint(gateway.Error, p, "write.function", text, suggestion)
		} else {
			c.onProfile(gateway.Error, p.Device, "write_function", text, suggestion)
		}
	}
	if most := mostWritten(profile); size > most && !table.Bits() {
		c.onPoint(gateway.Error, p, "access", fmt.Sprintf("%s has %s, one write carries %d", p.ID, table.counted(size), most), "make several points of it")
	}
	if p.Bit != nil || p.Bits != nil {
		c.checkMask(at)
	}
}

// checkTarget looks at where a point is written.
func (c *checker) checkTarget(at *place) bool {
	p, key := at.point, "access"
	if rule := p.Definition.Write; rule != nil && rule.At != "" {
		key = "write.at"
	}
	if p.Device.Unit == 0 {
		return true // what is wrong is said about the unit
	}
	target, err := writeTarget(at)
	var address *AddressError
	if err == nil {
		return true
	}
	if target.Table.Writable() || errors.As(err, &address) {
		c.refuse(p, key, err)
		return false
	}
	takes := Holding
	if target.Table.Bits() {
		takes = Coil
	}
	c.onPoint(gateway.Error, p, key, fmt.Sprintf("%s can't be written", target.Table.one()),
		fmt.Sprintf("write access: r, or write: { at: … } with the %s that takes the value", takes.one()[2:]))
	return false
}

// checkMask looks at how single bits are written.
func (c *checker) checkMask(at *place) {
	p, mask := at.point, ""
	if p.Definition.Write != nil {
		mask = p.Definition.Write.Mask
	}
	low, high := bitRange(p.Definition)
	switch {
	case mask == "":
		c.onPoint(gateway.Error, p, "access", p.ID+" is a bit of a register and does not say how it is written",
			"write: { mask: fc22 } where the unit has mask write (function 22), else { mask: rmw }")
	case mask == "rmw":
		c.onPoint(gateway.Warning, p, "write.mask", "rmw writes the whole register as it was read: a change that another master makes in between is lost",
			"write mask: fc22 where the unit has mask write (function 22)")
	case low/16 != high/16:
		c.onPoint(gateway.Error, p, "write.mask", fmt.Sprintf("bits %d to %d are in two registers, a mask write changes one", low, high), "write mask: rmw, or make two points of it")
	}
}

const noFactor = "write a scale where the factor does not change"

// checkScaleFrom looks for the point that holds the exponent.
func (c *checker) checkScaleFrom(d *gateway.Device, places []place, at *place) {
	p := at.point
	if p.ScaleFrom == "" {
		return
	}
	e, err := c.atlas.exponent(d, places, p.ScaleFrom)
	switch {
	case err != nil:
		c.onPoint(gateway.Error, p, "scale_from", err.Error(), "write the name of the point that holds the exponent")
		return
	case e.address.Table != at.address.Table:
		c.onPoint(gateway.Error, p, "scale_from", fmt.Sprintf("%s is in the %s table, %s in the %s table: they can't come from one request", e.point.ID, e.address.Table, p.ID, at.address.Table), noFactor)
		return
	}
	most := mostIn(at.address.Table, d.Profile)
	joint := [2]int{min(at.start, e.start), max(at.end, e.end)}
	if span := joint[1] - joint[0]; span > most {
		c.onPoint(gateway.Error, p, "scale_from", fmt.Sprintf("%s and %s span %d registers, one request reads %d", p.ID, e.point.ID, span, most), noFactor)
	} else if f, bad := forbiddenIn(d, at.address.Table, joint, []*place{at, e}); bad {
		c.onPoint(gateway.Error, p, "scale_from", fmt.Sprintf("%s and %s come from one request, and forbid has %s between them", p.ID, e.point.ID, f.in(at.address.Table)), noFactor)
	}
}

// forbiddenIn finds what forbid has in the registers of one request, beside the
// places that it is for. Addresses are those on the wire.
func forbiddenIn(d *gateway.Device, table Table, within [2]int, wanted []*place) (span, bool) {
	ranges, _ := parseForbid(d.Profile) // what is wrong with it is said elsewhere
	for _, f := range ranges {
		for at := max(f.first+d.Shift, within[0]); f.table == table && at <= min(f.last+d.Shift, within[1]-1); at++ {
			if !slices.ContainsFunc(wanted, func(w *place) bool { return w.start <= at && at < w.end }) {
				return span{f.first + d.Shift, f.last + d.Shift}, true
			}
		}
	}
	return span{}, false
}

// checkBlocks looks at what has to come from one request.
func (c *checker) checkBlocks(d *gateway.Device, places []place) {
	first := make(map[string]*place)
	span := make(map[string][2]int)
	members := make(map[string][]*place)
	for i := range places {
		at := &places[i]
		block := at.point.Block
		f := first[block]
		members[block] = append(members[block], at)
		switch {
		case block == "":
			continue
		case f == nil:
			first[block], span[block] = at, [2]int{at.start, at.end}
			continue
		case f.address.Table != at.address.Table:
			c.onPoint(gateway.Error, at.point, "block", fmt.Sprintf("block %s: %s is in the %s table, %s in the %s table", block, f.point.ID, f.address.Table, at.point.ID, at.address.Table), "give them blocks of their own")
			continue
		}
		s := span[block]
		span[block] = [2]int{min(s[0], at.start), max(s[1], at.end)}
		if size, most := span[block][1]-span[block][0], mostIn(at.address.Table, d.Profile); size > most {
			c.onPoint(gateway.Error, at.point, "block", fmt.Sprintf("block %s spans %s, one request reads %d", block, at.address.Table.counted(size), most), "make several blocks of it")
		}
	}
	for block, f := range first {
		if bad, found := forbiddenIn(d, f.address.Table, span[block], members[block]); found {
			c.onPoint(gateway.Error, f.point, "block", fmt.Sprintf("block %s is read by one request, and forbid has %s in it", block, bad.in(f.address.Table)), "make several blocks of it")
		}
	}
}

// checkJoined looks at the points of one block that a command writes together:
// one request must hold them.
func (c *checker) checkJoined(d *gateway.Device, places []place) {
	for _, command := range d.Commands {
		for _, step := range slices.Concat(command.Steps, command.OnFail) {
			if step.Write == nil {
				continue
			}
			together := make(map[string][]patch)
			for _, id := range writtenBy(command, step.Write) {
				i := slices.IndexFunc(places, func(at place) bool { return at.point.ID == id })
				if i < 0 || places[i].point.Block == "" {
					continue
				}
				p := patch{at: &places[i]}
				var err error
				if p.target, err = writeTarget(p.at); err != nil {
					continue // said already
				}
				p.mask = make([]byte, p.at.size()*p.unit())
				p.set = p.mask
				together[p.at.point.Block] = append(together[p.at.point.Block], p)
			}
			for _, patches := range together {
				c.checkRequest(command, patches)
			}
		}
	}
}

// checkRequest looks at what one request of a command writes.
func (c *checker) checkRequest(command *gateway.Command, patches []patch) {
	first := patches[0].at.point
	all, err := joined(patches)
	switch most := mostWritten(first.Device.Profile); {
	case err != nil:
		c.onPoint(gateway.Error, first, "block", fmt.Sprintf("command %s: %v", command.ID, err), "write all points between them in the same step, or give them blocks of their own")
	case all.target.Table == Holding && len(all.mask)/2 > most:
		c.onPoint(gateway.Error, first, "block", fmt.Sprintf("command %s: block %s has %s, one write carries %d", command.ID, first.Block, Holding.counted(len(all.mask)/2), most), "make several blocks of it")
	case len(patches) > 1 && writeFunction(first.Definition, first.Device.Profile) == "single":
		c.onPoint(gateway.Error, first, "block", fmt.Sprintf("command %s: block %s has several points, a single write carries one", command.ID, first.Block), "write function: multiple for them: write: { function: multiple }")
	}
}

// writtenBy are the points that a step of a command writes.
func writtenBy(command *gateway.Command, a *gateway.Assignments) (ids []string) {
	for _, w := range a.Values {
		ids = append(ids, w.Point)
	}
	for _, p := range command.Params {
		if a.Params {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// checkOverlaps looks for points that share a part of their registers: one of
// them has a wrong address or type. The same registers twice, bits, and raw
// areas (bytes, flags) are fine.
func (c *checker) checkOverlaps(places []place) {
	sorted := make([]*place, 0, len(places))
	for i := range places {
		if p := places[i].point; p.Bit == nil && p.Bits == nil && p.Type != gateway.Bytes && p.Type != gateway.Flags {
			sorted = append(sorted, &places[i])
		}
	}
	slices.SortStableFunc(sorted, func(x, y *place) int {
		return cmp.Or(cmp.Compare(x.address.Table, y.address.Table), cmp.Compare(x.start, y.start))
	})
	var longest *place // of those so far, the one that ends last
	for _, at := range sorted {
		if longest == nil || longest.address.Table != at.address.Table || longest.end <= at.start {
			longest = at
			continue
		}
		if longest.start != at.start || longest.end != at.end {
			c.overlap(at, longest)
		}
		if at.end > longest.end {
			longest = at
		}
	}
}

func (c *checker) overlap(at, other *place) {
	addressing := at.point.Device.Profile.Addressing
	span := func(p *place) string {
		first, last := p.address, p.address
		last.Wire += p.size() - 1
		if first == last {
			return first.In(addressing)
		}
		return first.In(addressing) + " to " + last.In(addressing)
	}
	c.onPoint(gateway.Error, at.point, "at", fmt.Sprintf("%s (%s) overlaps a part of %s (%s)", at.point.ID, span(at), other.point.ID, span(other)),
		"one of the two has a wrong address, type or count")
}
