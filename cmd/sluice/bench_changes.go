package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// stopwatch takes the time from a change in a device to its arrival at the
// broker: the wait for the next poll is in it.
type stopwatch struct {
	mu      sync.Mutex
	changed time.Time // zero: nothing is on its way
	took    []time.Duration
}

// arrived is the broker's OnMessage.
func (w *stopwatch) arrived(_, topic string, _ []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.changed.IsZero() && strings.HasPrefix(topic, "attributes/") {
		w.took = append(w.took, time.Since(w.changed))
		w.changed = time.Time{}
	}
}

// start tells whether nothing is on its way, and then that a change is.
func (w *stopwatch) start() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.changed.IsZero() {
		return false
	}
	w.changed = time.Now()
	return true
}

// run changes the first register of a device now and then, until ctx ends.
func (w *stopwatch) run(ctx context.Context, d *gateway.Device) error {
	conn, err := net.Dial("tcp", net.JoinHostPort(d.Bus.Host, d.Bus.Port))
	if err != nil {
		return err
	}
	client := wire.NewTCP(conn, wire.Options{Timeout: 10 * time.Second})
	defer client.Close()
	for value := uint16(1); ; value++ {
		pause(ctx, 40*time.Millisecond+rand.N(20*time.Millisecond)) // not in step with the polls
		if ctx.Err() != nil {
			return nil
		}
		if !w.start() {
			continue
		}
		if err := client.WriteSingleRegister(ctx, byte(d.Unit), 0, value); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// result is what was measured, without the first second's worth: the start.
func (w *stopwatch) result() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.took[min(20, len(w.took)):]
}

// printChanges tells how long changes took to the broker.
func printChanges(out io.Writer, took []time.Duration) {
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	fmt.Fprintf(out, "changes    %10d reached the broker, half of them within %s of the device's new value, 99 %% within %s\n",
		len(took), took[len(took)/2].Round(10*time.Microsecond), took[len(took)*99/100].Round(10*time.Microsecond))
}
