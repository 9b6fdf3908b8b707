package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	defaultTimeout = time.Second
	maxNoise       = 4096 // bytes in one exchange that are no answer
)

// Options say how a connection behaves. The zero value is good for TCP.
type Options struct {
	Timeout  time.Duration // response time of a unit, without line time; 0 is 1 s
	Quiet    time.Duration // silence before a request; with RTU framing 0 is QuietTime, less than 0 none
	Pipeline int           // requests that DoWindow has in flight, with MBAP framing; 0 is 1
	Tap      *Tap          // sees what is sent and received; may be nil

	// The rest is for RTU framing.
	Hold     time.Duration // silence after an unanswered request, from its end on, where longer than its timeout
	Baud     int           // 0 is no line: RTU over TCP
	CharBits int           // bits of a character with start, parity and stop; 0 is 11
	Echo     bool          // the line adapter returns our own bytes
}

// A Request asks one unit.
type Request struct {
	Unit    byte
	PDU     []byte        // function code and data
	Timeout time.Duration // response time; 0 is that of Options
	Quiet   time.Duration // silence before the request, where longer than that of Options
}

// A Client is the master of one connection. It is for one goroutine; only Close may be called from another one.
type Client struct {
	conn     io.ReadWriteCloser
	deadline interface{ SetWriteDeadline(time.Time) error } // conn, where it has this
	oneWrite bool                                           // a write that timed out can't go on: TLS
	raw      *raw                                           // conn, where it is a socket
	o        Options
	exchange func(context.Context, Request) ([]byte, error)
	in       source
	broken   error
	closing  sync.Once

	out   []byte // the frame being sent
	pdu   []byte // a request being made
	got   []byte // bytes received, used first ones are done with
	used  int
	noise int // bytes received in this exchange

	tid       uint16    // MBAP: last transaction
	depth     int       // MBAP: requests in flight at most
	datagrams bool      // MBAP: each frame comes alone
	ended     time.Time // MBAP: when the last exchange did
	flying    []flight
	silent    bool // MBAP: the last request was not answered

	silentUntil time.Time // RTU: a unit may still be answering
	told        int       // RTU: bytes received that belong to the last exchange
	units       map[byte]*unitState
}

// NewTCP is a client with MBAP framing: TCP, TLS, or anything else that keeps the order of bytes. Where conn has no
// SetReadDeadline, it is read from now on until Close, and a Close of conn has to end a Read that waits.
func NewTCP(conn io.ReadWriteCloser, o Options) *Client {
	c := newClient(conn, nil, o)
	c.exchange = c.exchangeMBAP
	c.depth = min(max(1, o.Pipeline), MaxPipeline)
	c.flying = make([]flight, 0, c.depth)
	c.raw = newRaw(conn)
	c.in = newSource(conn, c.depth, c.raw)
	return c
}

// NewUDP is a client with MBAP framing over datagrams, one frame in each. A datagram that is no frame, or not the answer to
// a request in flight, is passed over. A Write of conn sends one datagram, a Read receives one.
func NewUDP(conn net.Conn, o Options) *Client {
	c := NewTCP(conn, o)
	c.datagrams = true
	return c
}

// NewRTU is a client with RTU framing, on a serial port or a TCP connection to a converter. It reads conn from now on, until Close.
// Conn needs no deadlines; a Close of it has to end a Read that waits, and a Read of it may return nothing now and then, as serial
// ports do. Only a Write that blocks (a serial port with flow control) is not ended by a context without SetWriteDeadline.
func NewRTU(conn io.ReadWriteCloser, o Options) *Client {
	if o.Quiet == 0 {
		o.Quiet = QuietTime(o.Baud, o.CharBits)
	}
	c := newClient(conn, newInput(conn), o)
	c.exchange = c.exchangeInStep
	c.units = make(map[byte]*unitState)
	return c
}

func newClient(conn io.ReadWriteCloser, in source, o Options) *Client {
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	c := &Client{conn: conn, in: in, o: o, pdu: make([]byte, 0, maxPDU)}
	c.deadline, _ = conn.(interface{ SetWriteDeadline(time.Time) error })
	_, c.oneWrite = conn.(*tls.Conn)
	return c
}

// Close closes the connection; a request under way ends with an error.
func (c *Client) Close() (err error) {
	c.closing.Do(func() { err = c.in.shut(c.conn.Close) })
	return err
}

// Do sends a request and waits for its answer. The reply PDU is valid until the next request. The error is
//   - an Exception: the unit's refusal;
//   - ErrTimeout, perhaps as a *FrameError: no valid answer in time, the connection can be used further;
//   - that of ctx: after 50 ms at most, and the connection can be used further;
//   - a *ConnError (see Broken): the connection has to be closed;
//   - anything else: the request is malformed, nothing was sent.
//
// On RTU framing, Do can take a second timeout where an earlier request to the unit was not answered: see the package doc.
func (c *Client) Do(ctx context.Context, r Request) ([]byte, error) {
	if err := checkRequest(r.PDU); err != nil {
		return nil, err
	}
	if err := c.usable(ctx); err != nil {
		return nil, err
	}
	if r.Timeout <= 0 {
		r.Timeout = c.o.Timeout
	}
	return c.exchange(ctx, r)
}

func (c *Client) usable(ctx context.Context) error {
	if c.broken != nil {
		return &ConnError{Err: c.broken}
	}
	return ctx.Err()
}

// fail remembers that the connection is broken.
func (c *Client) fail(sent bool, err error) error {
	c.broken = err
	return &ConnError{Sent: sent, Err: err}
}

// send writes a frame. A frame that is cut leaves the connection broken.
func (c *Client) send(ctx context.Context, frame []byte, limit time.Time) error {
	if c.raw != nil {
		n, err := c.raw.write(frame)
		if err != nil {
			return c.fail(true, fmt.Errorf("write: %w", err))
		}
		if n == len(frame) {
			return nil
		}
		return c.sendRest(ctx, frame, n, limit)
	}
	return c.sendRest(ctx, frame, 0, limit)
}

// sendRest goes on behind the bytes that are sent, and waits where the connection takes no more.
func (c *Client) sendRest(ctx context.Context, frame []byte, sent int, limit time.Time) error {
	if c.deadline == nil {
		if _, err := c.conn.Write(frame); err != nil {
			return c.fail(true, fmt.Errorf("write: %w", err))
		}
		return nil
	}
	if c.raw != nil {
		defer c.deadline.SetWriteDeadline(time.Time{}) // one that has passed would end the next raw write
	}
	whole := len(frame)
	for frame = frame[sent:]; ; {
		until := time.Now().Add(glance)
		if c.oneWrite || until.After(limit) {
			until = limit
		}
		_ = c.deadline.SetWriteDeadline(until) // where it is not supported, Write waits as without
		n, err := c.conn.Write(frame)
		if err == nil {
			return nil
		}
		frame = frame[n:]
		if c.oneWrite || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(limit) {
			return c.fail(true, fmt.Errorf("write: %w", err))
		}
		if err := ctx.Err(); err != nil {
			if len(frame) < whole {
				c.broken = fmt.Errorf("write: cut after %d of %d bytes: %w", whole-len(frame), whole, err)
			}
			return err
		}
	}
}

// begin starts an exchange: the last reply is done with, and the connection is known to live.
func (c *Client) begin() error {
	c.noise = 0
	if _, err := c.take(); err != nil {
		return c.fail(false, fmt.Errorf("read: %w", err))
	}
	return nil
}

// take adds what has come to the bytes not used yet.
func (c *Client) take() (last time.Time, err error) {
	c.got = c.got[:copy(c.got, c.got[c.used:])]
	c.used = 0
	before := len(c.got)
	c.got, last, err = c.in.take(c.got)
	c.noise += len(c.got) - before
	return last, err
}

// more waits for bytes. It returns false at the limit.
func (c *Client) more(ctx context.Context, limit time.Time) (bool, error) {
	for {
		before := len(c.got) - c.used
		if _, err := c.take(); err != nil {
			return false, c.fail(true, fmt.Errorf("read: %w", err))
		}
		if len(c.got) > before {
			return true, nil
		}
		ok, err := c.in.wait(ctx, limit)
		if !ok || err != nil {
			return false, err
		}
	}
}
