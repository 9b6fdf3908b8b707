package gateway

import (
	"context"
	"sync/atomic"
	"time"
)

// Beat is set by a loop each time it comes round, for a watchdog to see. A loop
// that has nothing to do comes round every TurnEvery all the same.
type Beat struct{ turned atomic.Bool }

// TurnEvery is the longest that an idle loop sleeps. What a loop waits for
// longer than a few of these is cut up, or calls Turn.
const TurnEvery = 5 * time.Second

// Turn notes that the loop comes round.
func (b *Beat) Turn() {
	if !b.turned.Load() { // so that a busy loop doesn't write to memory that is shared
		b.turned.Store(true)
	}
}

// Turned tells whether the loop has come round since the last call.
func (b *Beat) Turned() bool { return b.turned.Swap(false) }

type beatKey struct{}

// WithBeat gives the context of the loop that the beat is of.
func WithBeat(ctx context.Context, b *Beat) context.Context {
	return context.WithValue(ctx, beatKey{}, b)
}

// Turn notes that the loop that ctx comes from is at work. An adapter or an
// uplink calls it between the steps of what takes long, each of which has an
// end of its own: an exchange with its timeout, a wait for a connection.
func Turn(ctx context.Context) {
	if b, ok := ctx.Value(beatKey{}).(*Beat); ok {
		b.Turn()
	}
}

// Sleep waits for d, and turns meanwhile. Its error is that of ctx.
func Sleep(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); ; {
		Turn(ctx)
		left := time.Until(end)
		if left <= 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		sleep(ctx, min(left, TurnEvery))
	}
}

// Watched is a loop that has to turn for as long as the program is well.
type Watched struct {
	Name   string // "bus rs485-1", "lane press3"
	Turned func() bool
}

// Watched lists the loops of the gateway. Each call of Turned forgets what it
// tells, so that there can be one Watchdog.
func (g *Gateway) Watched() []Watched {
	var all []Watched
	buses, lanes := g.loops()
	for _, b := range buses {
		all = append(all, Watched{"bus " + b.bus.Name, b.beat.Turned})
	}
	for _, l := range lanes {
		all = append(all, Watched{"lane " + l.name, l.beat.Turned})
	}
	return all
}

// Watchdog looks after loops. Its zero value is ready; it belongs to one
// goroutine.
type Watchdog struct {
	turned map[string]time.Time // when a loop was last seen to have turned
	fed    time.Time
}

// Check looks at the loops. It tells whether every one of them has turned since
// it last said so; the first look only begins the count. stuck are those that
// have not turned for longer than patience.
func (w *Watchdog) Check(now time.Time, loops []Watched, patience time.Duration) (all bool, stuck []string) {
	if w.turned == nil {
		w.turned, w.fed = make(map[string]time.Time), now
	}
	before := w.turned
	w.turned = make(map[string]time.Time, len(loops))
	all = true
	for _, l := range loops {
		last, known := before[l.Name]
		if l.Turned() || !known {
			last = now
		}
		w.turned[l.Name] = last
		if !last.After(w.fed) {
			all = false
		}
		if now.Sub(last) > patience {
			stuck = append(stuck, l.Name)
		}
	}
	if all {
		w.fed = now
	}
	return all, stuck
}
