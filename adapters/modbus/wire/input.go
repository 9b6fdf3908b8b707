package wire

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// maxInput bounds the bytes that wait to be taken: some frames of 260 bytes at most.
const maxInput = 2048

// A source is where the bytes of a connection come from.
type source interface {
	// take appends what has come to dst, with the time of the last byte. An error comes after all bytes before it.
	take(dst []byte) (_ []byte, last time.Time, err error)
	// wait returns true when there is something to take, false at the limit.
	wait(ctx context.Context, limit time.Time) (bool, error)
	// shut ends reading, with the function that closes the connection.
	shut(end func() error) error
}

// An input reads a connection all the time. So what came between two requests is known without waiting for it, with the
// time of its last byte; a closed connection is known before the next request is sent; and any io.Reader will do.
type input struct {
	more   chan struct{} // bytes or an error have come
	room   chan struct{} // bytes have been taken
	closed chan struct{} // the owner is closing the connection
	done   chan struct{} // the goroutine has ended
	timer  *time.Timer   // of wait

	mu   sync.Mutex
	buf  []byte
	last time.Time // when the last byte came
	err  error     // after the last byte
}

func newInput(r io.Reader) *input {
	in := &input{
		more:   make(chan struct{}, 1),
		room:   make(chan struct{}, 1),
		closed: make(chan struct{}),
		done:   make(chan struct{}),
		timer:  time.NewTimer(time.Hour),
		buf:    make([]byte, 0, maxInput),
		last:   time.Now(),
	}
	in.timer.Stop()
	go in.run(r)
	return in
}

func (in *input) run(r io.Reader) {
	defer close(in.done)
	chunk := make([]byte, 512)
	for {
		n, err := r.Read(chunk)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
		if n == 0 && err == nil {
			time.Sleep(time.Millisecond) // a serial port's read timeout: never spin on it
		}
		if !in.put(chunk[:n], err) {
			return
		}
	}
}

// put waits for room, so that a peer that babbles is held back by its own connection. It says whether to go on.
func (in *input) put(chunk []byte, err error) bool {
	for {
		in.mu.Lock()
		n := min(len(chunk), maxInput-len(in.buf))
		in.buf = append(in.buf, chunk[:n]...)
		chunk = chunk[n:]
		if n > 0 {
			in.last = time.Now()
		}
		if len(chunk) == 0 {
			in.err = err
		}
		in.mu.Unlock()
		if n > 0 || err != nil {
			signal(in.more)
		}
		if len(chunk) == 0 {
			break
		}
		select {
		case <-in.room:
		case <-in.closed:
			return false
		}
	}
	select {
	case <-in.closed:
		return false
	default:
		return err == nil
	}
}

func (in *input) take(dst []byte) (_ []byte, last time.Time, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.buf) == 0 {
		return dst, in.last, in.err
	}
	dst = append(dst, in.buf...)
	in.buf = in.buf[:0]
	signal(in.room)
	return dst, in.last, nil
}

func (in *input) wait(ctx context.Context, limit time.Time) (bool, error) {
	d := time.Until(limit)
	if d <= 0 {
		return false, ctx.Err()
	}
	in.timer.Reset(d)
	select {
	case <-in.more:
		return true, nil
	case <-in.timer.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (in *input) shut(end func() error) error {
	close(in.closed)
	err := end()
	<-in.done
	return err
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
