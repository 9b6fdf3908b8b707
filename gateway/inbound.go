package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unicode/utf8"
)

// inbound is a stream of a device, as the cloud sends it.
type inbound struct {
	operator *operator
	stream   *Stream
	reading  atomic.Bool // a read request is on its way: a second one is refused
}

// inbound does with the message of a stream what its downlink says: write:<point>
// takes the text as a pushed value, params:<command> an object as parameters,
// modbus-read a request to read, whose answer goes up on the stream.
func (d *office) inbound(ctx context.Context, dir *directory, m *Downlink) {
	in := dir.streams[m.Stream]
	err := m.Err
	if err == nil && in == nil {
		err = fmt.Errorf("there is no stream %s", m.Stream)
	}
	if err != nil {
		d.audit.refused(Audit{Who: byCloud + ":" + dir.user, Asked: "stream " + m.Stream, Reason: err.Error()})
		return
	}
	kind, name, _ := strings.Cut(in.stream.Downlink, ":")
	o := in.operator
	switch kind {
	case "write":
		p := o.device.point(name)
		text := strings.TrimSpace(string(m.Body))
		m.Values = []Asked{{Name: p.Name, Value: TextValue(text), Raw: text}}
		if !utf8.ValidString(text) {
			m.Values[0].Value = Value{}
		}
		d.push(ctx, dir, m)
	case "params":
		call := *m
		call.Kind, call.Method = CommandDownlink, o.device.Prefix+name
		out := d.out[dir.user]
		call.Values, call.Err = out.uplink.ParseParams(m.Body)
		d.call(ctx, dir, &call)
	case "modbus-read":
		d.read(dir, in, m)
	default:
		d.refuseStream(dir, in, errNoDownlink)
	}
}

func (d *office) refuseStream(dir *directory, in *inbound, err error) {
	device := in.operator.device
	d.audit.refused(Audit{Who: byCloud + ":" + dir.user, Device: device.Name, Asked: "stream " + device.Prefix + in.stream.ID, Reason: err.Error()})
}

// read carries out a read request. Nothing is written by it, so it needs no
// unlocking.
func (d *office) read(dir *directory, in *inbound, m *Downlink) {
	if err := cmp.Or(fitness(m), in.operator.reachable(false)); err != nil {
		d.refuseStream(dir, in, err)
		return
	}
	if !in.reading.CompareAndSwap(false, true) {
		d.refuseStream(dir, in, errReading)
		return
	}
	err := d.begin(func(ctx context.Context) func() {
		return func() {
			defer in.reading.Store(false)
			ctx, cancel := context.WithDeadline(ctx, m.Arrived.Add(validity))
			defer cancel()
			if err := in.operator.bus.answerFrame(ctx, in.operator.device, in.stream, m.Body); err != nil {
				d.refuseStream(dir, in, err)
			}
		}
	})
	if err != nil {
		in.reading.Store(false)
		d.refuseStream(dir, in, err)
	}
}

var errReading = errors.New("the stream's last request is not answered yet")

var errNoDownlink = errors.New("the stream takes nothing from the cloud")

// Downlinks are the streams, by user, that take something from the cloud.
func (s *Site) Downlinks() map[string][]string {
	all := make(map[string][]string)
	for _, d := range s.Devices {
		for _, stream := range d.Streams {
			if !d.Disabled && stream.Downlink != "" && stream.Downlink != "none" {
				all[d.User] = append(all[d.User], d.Prefix+stream.ID)
			}
		}
	}
	return all
}

// state is the cloud's word on what the attributes are, after a connect. With
// on_connect: apply the points with restore take it, through all the checks of
// a push; all others are reported as they are.
func (d *office) state(ctx context.Context, dir *directory, m *Downlink) {
	if m.Err != nil || m.Stalled {
		return
	}
	apply := d.site.Cloud.OnConnect == "apply"
	applied := func(p *Point) bool { return apply && p.Restore && p.Access == "rw" }
	report := func(ctx context.Context) func() {
		return func() { reportDifferences(ctx, d.buses, dir.user, m.Values, applied) }
	}
	if d.begin(report) != nil || !apply {
		return
	}
	var values []Asked
	for _, v := range m.Values {
		if p := dir.point(v.Name); p != nil && applied(p) {
			values = append(values, v)
		}
	}
	for _, together := range inBlocks(values, func(v Asked) *Point { return dir.point(v.Name) }) { // one refused value is no reason against the others
		one := *m
		one.Kind, one.Values = PushDownlink, together
		d.push(ctx, dir, &one)
	}
}
