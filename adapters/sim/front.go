package sim

import (
	"io"
	"sync"
	"time"
)

// front is what a client of a bus sees while the bus is up: a listener or a
// port, and the connections made through it.
type front struct {
	ended chan struct{}
	group sync.WaitGroup

	mu   sync.Mutex
	held map[io.Closer]bool // nil once it is closed
}

// newFront holds what was opened for it.
func newFront(opened ...io.Closer) *front {
	f := &front{ended: make(chan struct{}), held: make(map[io.Closer]bool)}
	for _, c := range opened {
		f.hold(c)
	}
	return f
}

// run runs a function that ends soon when all that the front holds is closed.
func (f *front) run(work func()) {
	f.group.Add(1)
	go func() {
		defer f.group.Done()
		work()
	}()
}

// hold keeps c to be closed with the front; a closed front closes it at once.
func (f *front) hold(c io.Closer) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held == nil {
		c.Close()
		return false
	}
	f.held[c] = true
	return true
}

// drop closes c before the front is.
func (f *front) drop(c io.Closer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held[c] {
		delete(f.held, c)
		c.Close()
	}
}

func (f *front) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.ended:
	}
}

// close closes everything and waits for what runs.
func (f *front) close() {
	close(f.ended)
	f.mu.Lock()
	for c := range f.held {
		c.Close()
	}
	f.held = nil
	f.mu.Unlock()
	f.group.Wait()
}
