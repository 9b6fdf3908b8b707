package modbus

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

var _ gateway.Tracer = (*Adapter)(nil)

// watchers are those who watch a bus.
type watchers struct {
	mu   sync.Mutex
	all  map[int]func(gateway.Frame)
	next int
}

// Trace hands every frame of the bus to see until stop is called.
func (a *Adapter) Trace(see func(gateway.Frame)) (stop func()) {
	w := &a.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = make(map[int]func(gateway.Frame))
	}
	id := w.next
	w.next++
	w.all[id] = see
	if len(w.all) == 1 {
		secrets := a.secrets()
		a.tap.Watch(func(e wire.Event) { a.show(e, secrets) })
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if delete(w.all, id); len(w.all) == 0 {
			a.tap.Watch(nil)
		}
	}
}

func (a *Adapter) show(e wire.Event, secrets secrets) {
	f := a.frame(e, secrets)
	a.watch.mu.Lock()
	defer a.watch.mu.Unlock()
	for _, see := range a.watch.all {
		see(f)
	}
}

// frame puts an event into words.
func (a *Adapter) frame(e wire.Event, secrets secrets) gateway.Frame {
	kinds := [...]gateway.FrameKind{wire.Sent: gateway.FrameSent, wire.Answer: gateway.FrameAnswer, wire.Failed: gateway.FrameFailed, wire.Dropped: gateway.FrameDropped}
	f := gateway.Frame{Time: e.Time.UTC(), Kind: kinds[e.Kind], Took: e.Took}
	open := e.Kind != wire.Dropped && e.Kind != wire.Failed // what is in it is known
	if e.Kind == wire.Dropped {
		f.What = e.Why
	} else {
		f.Unit = strconv.Itoa(int(e.Unit))
		if u := a.atlas.units[e.Unit]; u != nil && len(u.devices) > 0 {
			f.Unit += " " + u.name()
		}
		if e.Err != nil {
			f.Error = e.Err.Error()
		}
		open = decode(&f, e, secrets) && open
	}
	switch {
	case open || len(secrets) == 0:
		f.Bytes = hex.EncodeToString(e.Frame)
	case e.Kind == wire.Failed && len(e.Frame) > 0: // the error quotes it
		f.Error = "no valid answer"
	}
	return f
}

// decode says what is asked or answered, and with what values. It tells whether
// there is nothing secret in it.
func decode(f *gateway.Frame, e wire.Event, secrets secrets) (open bool) {
	table, first, count, ok := asked(e.Request)
	if !ok {
		f.What = fmt.Sprintf("function %d", e.Request[0])
		return false
	}
	function, about := e.Request[0], span{first, first + count - 1}
	hidden := secrets.within(e.Unit, table, about)
	f.What = functionNames[function] + " " + about.in(table)
	switch {
	case e.Kind == wire.Sent:
		f.Values = values(written(e.Request), table, first, count, hidden)
	case e.Kind == wire.Answer && e.Err == nil && function <= wire.FuncReadInputRegisters && len(e.PDU) > 2:
		f.Values = values(e.PDU[2:], table, first, count, hidden)
	}
	return len(hidden) == 0
}

var functionNames = map[byte]string{
	wire.FuncReadCoils: "read", wire.FuncReadDiscreteInputs: "read", wire.FuncReadHoldingRegisters: "read", wire.FuncReadInputRegisters: "read",
	wire.FuncWriteSingleCoil: "write", wire.FuncWriteSingleRegister: "write", wire.FuncWriteMultipleCoils: "write", wire.FuncWriteMultipleRegisters: "write",
	wire.FuncMaskWriteRegister: "mask",
}

// asked is what a request is about; false where this adapter does not make such
// requests.
func asked(pdu []byte) (table Table, first, count int, ok bool) {
	word := func(at int) int { return int(pdu[at])<<8 | int(pdu[at+1]) }
	if len(pdu) < 5 {
		return 0, 0, 0, false
	}
	first, count = word(1), 1
	switch pdu[0] {
	case wire.FuncReadCoils, wire.FuncWriteMultipleCoils:
		return Coil, first, word(3), true
	case wire.FuncReadDiscreteInputs:
		return Discrete, first, word(3), true
	case wire.FuncReadHoldingRegisters, wire.FuncWriteMultipleRegisters:
		return Holding, first, word(3), true
	case wire.FuncReadInputRegisters:
		return Input, first, word(3), true
	case wire.FuncWriteSingleCoil:
		return Coil, first, count, true
	case wire.FuncWriteSingleRegister, wire.FuncMaskWriteRegister:
		return Holding, first, count, true
	}
	return 0, 0, 0, false
}

// written is the data of a write request.
func written(pdu []byte) []byte {
	switch pdu[0] {
	case wire.FuncWriteSingleCoil:
		return []byte{pdu[3] & 1}
	case wire.FuncWriteSingleRegister:
		return pdu[3:5]
	case wire.FuncWriteMultipleCoils, wire.FuncWriteMultipleRegisters:
		return pdu[min(6, len(pdu)):]
	}
	return nil
}

// values are the registers in decimal, or the bits; a secret one is ***.
func values(data []byte, table Table, first, count int, hidden []span) string {
	var text strings.Builder
	for i := range count {
		switch at := first + i; {
		case table.Bits() && i/8 >= len(data), !table.Bits() && 2*i+1 >= len(data):
			return text.String()
		case slices.ContainsFunc(hidden, func(s span) bool { return at >= s.first && at <= s.last }):
			text.WriteString(" ***")
		case table.Bits():
			fmt.Fprintf(&text, " %d", data[i/8]>>(i%8)&1)
		default:
			fmt.Fprintf(&text, " %d", int(data[2*i])<<8|int(data[2*i+1]))
		}
	}
	return strings.TrimPrefix(text.String(), " ")
}

// secrets are the registers that nobody may see.
type secrets []secretSpan

type secretSpan struct {
	unit  byte
	table Table
	span  span
}

// within gives those in a range.
func (all secrets) within(unit byte, table Table, s span) (hidden []span) {
	for _, x := range all {
		if x.unit == unit && x.table == table && x.span.first <= s.last && x.span.last >= s.first {
			hidden = append(hidden, x.span)
		}
	}
	return hidden
}

// secrets are the places of secret points and of those that unlock, where they
// are read and where they are written.
func (a *Adapter) secrets() (all secrets) {
	for _, u := range a.atlas.units {
		for _, d := range u.devices {
			for _, def := range d.Profile.Points {
				unlocks := d.Profile.Unlock != nil && d.Profile.Unlock.Write[def.ID] != nil
				at, err := a.atlas.find(d, def.ID)
				if err != nil || !unlocks && !at.point.Secret {
					continue
				}
				all = append(all, secretSpan{byte(d.Unit), at.address.Table, span{at.start, at.end - 1}})
				if target, err := writeTarget(at); err == nil {
					all = append(all, secretSpan{byte(d.Unit), target.Table, span{target.Wire, target.Wire + at.size() - 1}})
				}
			}
		}
	}
	return all
}
