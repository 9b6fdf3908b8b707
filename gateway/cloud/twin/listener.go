package twin

import (
	"crypto/tls"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/mochi-mqtt/server/v2/listeners"
)

// listener keeps its connections, so that they can be cut or fall silent. It
// takes the place of the broker's own, which can deadlock when it is closed
// while a client leaves.
type listener struct {
	net.Listener
	twin *Twin
	tls  *tls.Config

	accepting sync.WaitGroup
	clients   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[*conn]struct{}
}

func listen(t *Twin, addr string) (*listener, error) {
	inner, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	l := &listener{Listener: inner, twin: t, tls: t.options.TLS, conns: map[*conn]struct{}{}}
	l.accepting.Add(1) // until Serve ends, which the broker starts
	return l, nil
}

// ID names the listener; with the methods below it is what the broker expects.
func (l *listener) ID() string { return "twin" }

// Address is host and port.
func (l *listener) Address() string { return l.Addr().String() }

// Protocol is the transport.
func (l *listener) Protocol() string { return "tcp" }

// Init has nothing to do.
func (l *listener) Init(*slog.Logger) error { return nil }

// Serve hands connections to the broker until the listener is closed.
func (l *listener) Serve(establish listeners.EstablishFn) {
	defer l.accepting.Done()
	for {
		inner, err := l.Accept()
		if err != nil {
			return
		}
		outer, ok := l.keep(inner)
		if !ok {
			return
		}
		l.clients.Go(func() { _ = establish(l.ID(), outer) })
	}
}

// keep remembers a connection, unless the listener is closed.
func (l *listener) keep(inner net.Conn) (net.Conn, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		inner.Close()
		return nil, false
	}
	c := &conn{Conn: inner, listener: l, closed: make(chan struct{}), ended: make(chan struct{})}
	l.conns[c] = struct{}{}
	if l.tls != nil {
		return tls.Server(c, l.tls), true
	}
	return c, true
}

// Close ends everything and waits until the broker is done with it.
func (l *listener) Close(listeners.CloseFn) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.Listener.Close()
	l.cut()
	l.accepting.Wait()
	l.clients.Wait()
}

func (l *listener) cut() {
	l.mu.Lock()
	conns := slices.Collect(maps.Keys(l.conns))
	l.mu.Unlock()
	for _, c := range conns {
		c.end()
	}
}

// conn is a connection on which nothing passes while the twin is a black hole.
type conn struct {
	net.Conn
	listener *listener
	once     sync.Once
	closed   chan struct{} // by the broker
	finish   sync.Once
	ended    chan struct{}
}

// healed is closed while something passes.
func (c *conn) healed() <-chan struct{} {
	t := c.listener.twin
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.healed
}

// pass waits until something passes.
func (c *conn) pass() error {
	select {
	case <-c.healed():
		return nil
	case <-c.closed:
		return net.ErrClosed
	case <-c.ended:
		return net.ErrClosed
	}
}

// Read reads, and keeps back what it read while nothing passes.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		return n, err
	}
	return n, c.pass()
}

// Write writes as soon as something passes.
func (c *conn) Write(b []byte) (int, error) {
	if err := c.pass(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// Close closes the connection; the other side does not learn of it before
// something passes again.
func (c *conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	healed := c.healed()
	select {
	case <-healed:
		c.end()
	default:
		go func() {
			select {
			case <-healed:
			case <-c.ended:
			}
			c.end()
		}()
	}
	return nil
}

// end closes the connection at once.
func (c *conn) end() {
	c.finish.Do(func() {
		close(c.ended)
		c.Conn.Close()
		c.listener.mu.Lock()
		defer c.listener.mu.Unlock()
		delete(c.listener.conns, c)
	})
}
