package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// errDown is what a bus without a connection answers; the reason is with it.
var errDown = errors.New("the bus is down")

// patienceAfter is how long a caller whose time is over waits for the request
// that its task has under way.
const patienceAfter = time.Second

// do runs a task on the bus's goroutine, ahead of the polls, and waits until it
// is done. After an error of ctx it was not begun, or begun and not waited for:
// it tells which.
func (b *busLoop) do(ctx context.Context, t task) (bool, error) {
	done := make(chan struct{})
	begun := false // to be read once done is closed
	run := func(busCtx context.Context, b *busLoop) error {
		defer close(done)
		if ctx.Err() != nil {
			return nil
		}
		begun = true
		begin := time.Now()
		defer func() { b.traffic.spend(time.Since(begin)) }()
		return t(busCtx, b)
	}
	select {
	case b.tasks <- run:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	select {
	case <-done:
	case <-ctx.Done():
		select {
		case <-done:
		case <-time.After(patienceAfter):
			return true, context.Cause(ctx)
		}
	}
	if !begun {
		return false, context.Cause(ctx)
	}
	return true, nil
}

// down is why the bus is known to be gone, nil while it is there or may be.
func (b *busLoop) down() error {
	if why := b.gone.Load(); why != nil {
		return fmt.Errorf("%w: %s", errDown, *why)
	}
	return nil
}

// fetch reads points at once and reports what changed. An error means that the
// connection is lost.
func (b *busLoop) fetch(ctx context.Context, points []*Point) error {
	flush := func() {
		for _, p := range points {
			b.reporter.flush(b.reporter.states[p].device)
		}
	}
	flush() // what the pass under way has found, so that no point is in the report twice
	for _, group := range b.groups(points) {
		begin := time.Now()
		samples, err := b.session.Read(ctx, group)
		b.watchers.told("read", samples, begin, err)
		if err != nil {
			return err
		}
		now := time.Now()
		b.load.note(now, now.Sub(begin), len(samples))
		b.stats.Requests.Add(1)
		b.stats.Samples.Add(int64(len(samples)))
		b.heard(samples)
		for i := range samples {
			b.reporter.states[samples[i].Point].note(&samples[i])
		}
	}
	flush()
	return nil
}

// mostPlans bounds the plans of reads out of turn.
const mostPlans = 1000

// groups is the plan of a read out of turn. A session keeps what it planned, so
// the same points are planned once.
func (b *busLoop) groups(points []*Point) [][]*Point {
	if b.asideOf != b.session || len(b.aside) > mostPlans {
		b.aside, b.asideOf = make(map[string][][]*Point), b.session
	}
	var key strings.Builder
	for _, p := range points {
		key.WriteString(p.Device.Name)
		key.WriteByte('/')
		key.WriteString(p.ID)
		key.WriteByte(' ')
	}
	groups, ok := b.aside[key.String()]
	if !ok {
		groups = b.session.Plan(points)
		b.aside[key.String()] = groups
	}
	return groups
}

// rest is how long the device must not be asked now.
func (b *busLoop) rest(d *Device) time.Duration {
	if pacer, ok := b.session.(Pacer); ok {
		return pacer.Rest(d)
	}
	return 0
}

// traffic is what tasks may take of a bus: the time when nothing is due, and a
// small share of the rest, so that a flood of commands leaves the polls alone.
type traffic struct {
	owes atomic.Bool // false: there is no debt, which is how it mostly is
	mu   sync.Mutex
	debt time.Duration
	paid time.Time // debt is as of this time
}

const (
	taskShare = 0.05
	mostTasks = 250 * time.Millisecond // that may be taken before it is paid off
)

// spend notes that a task took some time of the bus.
func (t *traffic) spend(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pay()
	t.debt += took
	t.owes.Store(true)
}

// idle notes that the bus had nothing to do since a time.
func (t *traffic) idle(since time.Time) {
	if !t.owes.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pay()
	t.debt = max(0, t.debt-time.Since(since))
	t.owes.Store(t.debt > 0)
}

// full tells whether new work has to wait.
func (t *traffic) full() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pay()
	return t.debt > mostTasks
}

func (t *traffic) pay() {
	now := time.Now()
	t.debt = max(0, t.debt-time.Duration(taskShare*float64(now.Sub(t.paid))))
	t.paid = now
}
