package cloud

import (
	"net"
	"runtime"
	"sync"
	"time"
)

const (
	gatherMost = 64 << 10               // bytes that wait; who writes more waits too
	goodbye    = 100 * time.Millisecond // for what waits when the connection is closed
)

// gathered is a connection that writes in one piece what came while it wrote
// the piece before. The library writes each packet by itself, and with small ones
// a third of the time went into that.
type gathered struct {
	net.Conn
	within time.Duration // for a piece

	mu      sync.Mutex
	changed *sync.Cond
	waiting []byte
	spare   []byte
	busy    bool // a goroutine writes
	err     error
}

func gather(c net.Conn, within time.Duration) *gathered {
	g := &gathered{Conn: c, within: within}
	g.changed = sync.NewCond(&g.mu)
	return g
}

// SetWriteDeadline does nothing: each piece has a time of its own.
func (g *gathered) SetWriteDeadline(time.Time) error { return nil }

// Write takes a packet. An error is that of an earlier one.
func (g *gathered) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.err == nil && len(g.waiting) > gatherMost {
		g.changed.Wait()
	}
	if g.err != nil {
		return 0, g.err
	}
	g.waiting = append(g.waiting, b...)
	if !g.busy {
		g.busy = true
		go g.flush()
	}
	return len(b), nil
}

// flush writes until nothing waits.
func (g *gathered) flush() {
	for {
		runtime.Gosched() // those who have more to write come first
		g.mu.Lock()
		data := g.waiting
		if g.busy = len(data) > 0; !g.busy {
			g.changed.Broadcast()
			g.mu.Unlock()
			return
		}
		g.waiting = g.spare
		g.mu.Unlock()
		err := g.Conn.SetWriteDeadline(time.Now().Add(g.within))
		if err == nil {
			_, err = g.Conn.Write(data)
		}
		g.mu.Lock()
		g.spare = data[:0]
		if err != nil {
			g.waiting = nil
			g.end(err)
		}
		g.changed.Broadcast()
		g.mu.Unlock()
	}
}

// end closes the connection for a reason, which its reader gets. The caller
// holds the lock.
func (g *gathered) end(err error) {
	if g.err == nil {
		g.err = err
		g.Conn.Close()
	}
}

// Read reads. Where a write has failed, it tells that.
func (g *gathered) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if err != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.err != nil {
			err = g.err
		}
	}
	return n, err
}

// Close closes the connection, once what waits is written or the time for that
// is over.
func (g *gathered) Close() error {
	late := time.AfterFunc(goodbye, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.end(net.ErrClosed)
	})
	defer late.Stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.busy && g.err == nil {
		g.changed.Wait()
	}
	g.end(net.ErrClosed)
	return nil
}
