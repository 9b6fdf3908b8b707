package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// operator does what is asked of one device: one command at a time, and pushes
// when no command is under way. A preempting command ends the one that runs.
type operator struct {
	office   *office
	bus      *busLoop
	device   *Device
	guards   map[*Point]*demand
	commands []*command
	inbound  []*inbound

	pushes chan *pushJob
	turn   chan struct{} // held by who writes: a command, or a push
	owing  chan struct{} // told when there is a point in owed

	disk sync.Mutex // over what is on disk of a pulse

	mu      sync.Mutex
	current *execution // the command under way
	owed    map[*Point]bool
	stops   map[*command]time.Time // preempting commands, when they last began; none once something else began
	stopped stopping
	over    bool  // no push is done any more
	locked  *bool // as it was last reported; nil: not yet
}

// stopping is how often preempting commands have begun, and the last of them.
type stopping struct {
	times int
	by    string
}

// mostPushes is how many pushes may wait for a device.
const mostPushes = 16

func newOperator(d *office, b *busLoop, device *Device, place *time.Location) (*operator, error) {
	o := &operator{
		office: d, bus: b, device: device, guards: make(map[*Point]*demand),
		pushes: make(chan *pushJob, mostPushes), turn: make(chan struct{}, 1), owing: make(chan struct{}, 1), owed: make(map[*Point]bool),
		stops: make(map[*command]time.Time),
	}
	for _, p := range device.Points {
		if p.Guard == nil || p.Access == "r" {
			continue
		}
		value := p.Operand()
		value.WriteOnly = false
		guard, err := b.compileDemand(device, p.Guard, map[string]Operand{"value": value}, place)
		if err != nil {
			return nil, fmt.Errorf("point %s: %w", p.ID, err)
		}
		o.guards[p] = guard
	}
	for _, c := range device.Commands {
		compiled, err := o.compile(c, place)
		if err != nil {
			return nil, fmt.Errorf("command %s: %w", c.ID, err)
		}
		o.commands = append(o.commands, compiled)
	}
	for _, s := range device.Streams {
		o.inbound = append(o.inbound, &inbound{operator: o, stream: s})
	}
	return o, nil
}

// writable tells whether there is anything to do for the operator.
func (o *operator) writable() bool {
	for _, p := range o.device.Points {
		if p.Access == "rw" || p.Access == "w" {
			return true
		}
	}
	return len(o.commands) > 0
}

// run does the pushes until ctx ends. Those that wait then are refused.
func (o *operator) run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case job := <-o.pushes:
			o.do(ctx, job)
		case <-o.owing:
			o.restate(ctx)
		}
	}
	o.mu.Lock()
	o.over = true
	o.mu.Unlock()
	for len(o.pushes) > 0 {
		o.do(ctx, <-o.pushes)
	}
}

// accept queues a push.
func (o *operator) accept(job *pushJob) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over {
		return errEnding
	}
	job.stopped = o.stopped
	select {
	case o.pushes <- job:
		return nil
	default:
		return errBusy
	}
}

// still tells whether a push that waited may be written: not once a preempting
// command came, which is there to have the last word.
func (o *operator) still(job *pushJob) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stopped != job.stopped {
		return fmt.Errorf("not written: %s came first", o.stopped.by)
	}
	clear(o.stops) // after this, a stop is no repetition
	return o.office.open(job.who, o.device)
}

// reachable tells whether a message for the device makes sense now: its bus is
// not known to be gone, and has time.
func (o *operator) reachable(urgent bool) error {
	if err := o.bus.down(); err != nil {
		return err
	}
	if !urgent && o.bus.traffic.full() {
		return errBusyBus
	}
	return nil
}

var (
	errBusy    = errors.New("busy")
	errBusyBus = fmt.Errorf("%w: the bus has no time left for writes", errBusy)
)

// guardsOf are the guards of a write of a point: its own, and the command's.
func (o *operator) guardsOf(p *Point, more *demand) []*demand {
	var all []*demand
	if more != nil {
		all = append(all, more)
	}
	if own := o.guards[p]; own != nil {
		all = append(all, own)
	}
	return all
}

// take waits for the turn to write.
func (o *operator) take(ctx context.Context) error {
	select {
	case o.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (o *operator) give() { <-o.turn }

// owe has the real values of points reported, whether they changed or not: the
// cloud takes what it pushed for what is. A busy bus leaves it to the next poll.
func (o *operator) owe(points ...*Point) {
	o.mu.Lock()
	for _, p := range points {
		if p.Access == "r" || p.Access == "rw" {
			o.owed[p] = true
		}
	}
	o.mu.Unlock()
	tell(o.owing)
}

func tell(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// restate reads and reports the points that are owed.
func (o *operator) restate(ctx context.Context) {
	o.mu.Lock()
	var points []*Point
	for _, p := range o.device.Points {
		if o.owed[p] {
			points = append(points, p)
		}
	}
	clear(o.owed)
	o.mu.Unlock()
	if len(points) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, validity)
	defer cancel()
	_, _ = o.bus.do(ctx, func(busCtx context.Context, b *busLoop) error {
		for _, p := range points {
			b.reporter.states[p].owe()
		}
		if b.session == nil || b.traffic.full() || b.rest(o.device) > 0 {
			return nil
		}
		lost := b.fetch(busCtx, points)
		return lost
	})
}
