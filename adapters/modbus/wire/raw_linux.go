package wire

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// A raw connection reads and writes a TCP socket by system calls that the Go scheduler is not told of. They never block: the
// socket is non-blocking, and the wait for bytes is that of the net package. What is saved is the scheduler's watchdog, which
// the first system call after a pause wakes up, to look around 50,000 times a second for a while: a quarter of what a request takes.
type raw struct {
	conn   *net.TCPConn
	socket syscall.RawConn
	buf    []byte // of the call under way
	n      int
	err    syscall.Errno
	// Made once: a closure made for each call would be an allocation.
	reads, writes, asks func(fd uintptr) bool

	// Of ask:
	frame []byte // to be sent; nil once it is
	sent  int
}

// newRaw gives nil where the connection is no TCP socket.
func newRaw(conn io.Reader) *raw {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	socket, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	r := &raw{conn: tcp, socket: socket}
	r.reads = func(fd uintptr) bool { return r.call(syscall.SYS_READ, fd) }
	r.writes = func(fd uintptr) bool { r.call(syscall.SYS_WRITE, fd); return true }
	r.asks = func(fd uintptr) bool {
		if r.frame == nil {
			return r.call(syscall.SYS_READ, fd)
		}
		answer := r.buf
		r.buf = r.frame
		r.call(syscall.SYS_WRITE, fd)
		r.sent = r.n
		whole := r.n == len(r.frame)
		r.buf, r.frame, r.n = answer, nil, 0
		return !whole
	}
	return r
}

// call makes one system call; false is that it would have to wait.
func (r *raw) call(trap, fd uintptr) bool {
	for {
		n, _, err := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&r.buf[0])), uintptr(len(r.buf)))
		if err == syscall.EINTR {
			continue
		}
		if r.n, r.err = int(n), err; err != 0 {
			r.n = 0
		}
		return err != syscall.EAGAIN
	}
}

// read waits for bytes, up to the read deadline of the connection.
func (r *raw) read(buf []byte) (int, error) {
	r.buf, r.n, r.err = buf, 0, 0
	return r.received(r.socket.Read(r.reads))
}

// received is the outcome of a read, which err ended early.
func (r *raw) received(err error) (int, error) {
	switch {
	case err != nil:
		return 0, err
	case r.err != 0:
		return 0, r.failed("read")
	case r.n == 0:
		return 0, io.EOF
	}
	return r.n, nil
}

// ask sends a frame and waits for an answer, up to the read deadline. Where not all of the frame could be sent at once, it does not
// wait, and the error is that of sending. What comes while it sends is not missed: the net package began to look out before.
func (r *raw) ask(frame, buf []byte) (sent, n int, err error) {
	r.frame, r.sent, r.buf, r.n, r.err = frame, 0, buf, 0, 0
	err = r.socket.Read(r.asks)
	if r.frame != nil { // nothing was tried
		r.frame = nil
		return 0, 0, err
	}
	if r.sent < len(frame) {
		if err == nil && r.err != 0 && r.err != syscall.EAGAIN {
			err = r.failed("write")
		}
		return r.sent, 0, err
	}
	n, err = r.received(err)
	return r.sent, n, err
}

// write sends what can be sent at once.
func (r *raw) write(buf []byte) (int, error) {
	r.buf, r.n, r.err = buf, 0, 0
	if err := r.socket.Write(r.writes); err != nil {
		return 0, err
	}
	if r.err != 0 && r.err != syscall.EAGAIN {
		return 0, r.failed("write")
	}
	return r.n, nil
}

// failed is the error as the net package has it.
func (r *raw) failed(op string) error {
	return &net.OpError{Op: op, Net: "tcp", Source: r.conn.LocalAddr(), Addr: r.conn.RemoteAddr(), Err: os.NewSyscallError(op, r.err)}
}
