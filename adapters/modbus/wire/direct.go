package wire

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// glance is how often a blocked write looks at its context.
const glance = 25 * time.Millisecond

type deadlineReader interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// A direct source reads while somebody waits for bytes, and only then. Where no byte comes unasked for (MBAP answers that are
// not expected tell so themselves) that is enough, and it saves a request the change of goroutine: 10 of 28 us on two cores.
type direct struct {
	conn deadlineReader
	raw  *raw // conn, where it is a socket
	buf  []byte
	err  error

	deadline time.Time       // set on conn; zero where not known
	done     <-chan struct{} // of the context that ends a read

	mu      sync.Mutex
	unwatch func() bool
	closed  bool
}

// newSource is direct where the connection can do that, with room for as many frames, and one on the way.
func newSource(conn io.Reader, frames int, raw *raw) source {
	if d, ok := conn.(deadlineReader); ok && d.SetReadDeadline(time.Time{}) == nil {
		return &direct{conn: d, raw: raw, buf: make([]byte, 0, (frames+1)*(maxPDU+mbapHeader)), unwatch: func() bool { return true }}
	}
	return newInput(conn)
}

func (d *direct) take(dst []byte) (_ []byte, last time.Time, err error) {
	if len(d.buf) == 0 {
		return dst, last, d.err
	}
	dst = append(dst, d.buf...)
	d.buf = d.buf[:0]
	return dst, last, nil
}

func (d *direct) wait(ctx context.Context, limit time.Time) (bool, error) {
	d.watch(ctx)
	for {
		now := time.Now()
		if !now.Before(limit) {
			return false, ctx.Err()
		}
		if err := d.until(now, limit); err != nil {
			d.err = err
			return true, nil
		}
		// Not before: a context that ends from here on ends the read.
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := d.read()
		d.got(n, err)
		if n > 0 || d.err != nil {
			return true, nil
		}
	}
}

// ask sends a frame on a raw connection and waits for the first bytes of the answer. It says how much was sent, in less than which
// the wait has not begun; an error is that of sending, or with -1 that of ctx. Nothing is read before the wait, where there can be
// no answer yet: this is one system call of three. So the end of the stream is seen only where something follows it, as the peer's
// reset does on a request: not for use after one that was not answered.
func (d *direct) ask(ctx context.Context, now, limit time.Time, frame []byte) (sent int, err error) {
	d.watch(ctx)
	if err := d.until(now, limit); err != nil {
		return 0, err
	}
	// Not before: a context that ends from here on ends the wait.
	if err := ctx.Err(); err != nil {
		return -1, err
	}
	sent, n, err := d.raw.ask(frame, d.buf[:cap(d.buf)])
	if sent == len(frame) || errors.Is(err, os.ErrDeadlineExceeded) {
		d.got(n, err)
		err = nil
	}
	return sent, err
}

// got takes the outcome of a read.
func (d *direct) got(n int, err error) {
	d.buf = d.buf[:n]
	if errors.Is(err, os.ErrDeadlineExceeded) {
		d.deadline = time.Time{}
	} else if err != nil {
		d.err = err
	}
}

func (d *direct) read() (int, error) {
	if d.raw != nil {
		return d.raw.read(d.buf[:cap(d.buf)])
	}
	return d.conn.Read(d.buf[:cap(d.buf)])
}

// until makes a read end at the limit, or before it: the deadline of an earlier request will do, and setting one for each
// request costs more than the look at the clock that follows where it comes to pass.
func (d *direct) until(now, limit time.Time) error {
	if d.deadline.After(now) && !d.deadline.After(limit) {
		return nil
	}
	d.deadline = limit
	return d.conn.SetReadDeadline(limit)
}

// watch lets the end of the context end a read.
func (d *direct) watch(ctx context.Context) {
	if ctx.Done() == d.done {
		return
	}
	d.done, d.deadline = ctx.Done(), time.Time{}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unwatch()
	if !d.closed {
		d.unwatch = context.AfterFunc(ctx, func() { _ = d.conn.SetReadDeadline(time.Unix(1, 0)) })
	}
}

func (d *direct) shut(end func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.unwatch()
	return end()
}
