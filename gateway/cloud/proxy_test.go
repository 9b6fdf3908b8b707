package cloud_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy is the line between a client and a broker.
type proxy struct {
	addr, broker string
	latency      atomic.Int64 // of a way there and back
	perByte      atomic.Int64
	attempts     atomic.Int64 // connections that were made

	mu     sync.Mutex
	lines  map[*line]struct{}
	healed chan struct{} // closed while the line holds
	cut    int           // bytes towards the broker until all connections are reset; 0 for never
}

// line is one connection.
type line struct {
	near, far *net.TCPConn
	dead      atomic.Bool // nothing passes any more, and nobody is told
}

func newProxy(t *testing.T, broker string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), broker: broker, lines: map[*line]struct{}{}, healed: make(chan struct{})}
	close(p.healed)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go p.connect(near.(*net.TCPConn), p.attempts.Add(1))
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended; p.heal(); p.reset() })
	return p
}

// connect waits until the line holds: then what was sent meanwhile is sent
// again, but not for attempts that were given up for a newer one.
func (p *proxy) connect(near *net.TCPConn, number int64) {
	p.mu.Lock()
	healed := p.healed
	p.mu.Unlock()
	<-healed
	far, err := net.Dial("tcp", p.broker)
	if err != nil || number < p.attempts.Load() {
		near.Close()
		return
	}
	l := &line{near: near, far: far.(*net.TCPConn)}
	p.mu.Lock()
	p.lines[l] = struct{}{}
	p.mu.Unlock()
	go p.pass(l, l.near, l.far)
	p.pass(l, l.far, l.near)
}

// slow sets what a way there and back takes, and each byte.
func (p *proxy) slow(latency, perByte time.Duration) {
	p.latency.Store(int64(latency))
	p.perByte.Store(int64(perByte))
}

// fall makes a black hole of the line. The connections are dead for good, as
// with a router that forgot them.
func (p *proxy) fall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.healed = make(chan struct{})
	for l := range p.lines {
		l.dead.Store(true)
	}
}

func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.healed:
	default:
		close(p.healed)
	}
}

// cutAfter resets all connections when so many bytes more have gone to the broker.
func (p *proxy) cutAfter(bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = bytes
}

// allowed is how many of n bytes still go to the broker.
func (p *proxy) allowed(n int) (some int, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut == 0 || n < p.cut {
		p.cut = max(0, p.cut-n)
		return n, false
	}
	n, p.cut = p.cut, 0
	return n, true
}

// reset ends all connections at once.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lines {
		for _, c := range []*net.TCPConn{l.near, l.far} {
			c.SetLinger(0)
			c.Close()
		}
	}
	clear(p.lines)
}

// pass passes on what comes from one side, in its time.
func (p *proxy) pass(l *line, from, to *net.TCPConn) {
	type piece struct {
		data []byte
		due  time.Time
	}
	pieces := make(chan piece, 10_000)
	go func() {
		defer to.Close()
		for q := range pieces {
			time.Sleep(time.Until(q.due))
			if n, last := len(q.data), false; to == l.far {
				if n, last = p.allowed(n); last {
					to.Write(q.data[:n])
					time.Sleep(10 * time.Millisecond) // a reset overtakes what was sent
					p.reset()
					return
				}
			}
			for i := 0; i < len(q.data) && !l.dead.Load(); i++ {
				n := 1
				if perByte := p.perByte.Load(); perByte > 0 {
					time.Sleep(time.Duration(perByte))
				} else {
					n = len(q.data) - i
				}
				if _, err := to.Write(q.data[i : i+n]); err != nil {
					return
				}
				i += n - 1
			}
		}
	}()
	defer close(pieces)
	for {
		data := make([]byte, 256)
		n, err := from.Read(data)
		if err != nil {
			return
		}
		pieces <- piece{data[:n], time.Now().Add(time.Duration(p.latency.Load() / 2))}
	}
}
