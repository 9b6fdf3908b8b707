package sim

import (
	"fmt"
	"os"
	"syscall"

	"github.com/creack/pty"
)

// openPort makes a pseudo terminal, links the bus's path to its far end and
// answers on the near one.
func (b *bus) openPort() (*front, error) {
	blocking, far, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("open a pseudo terminal: %w", err)
	}
	near, err := unblock(blocking)
	if err == nil {
		if err = os.Symlink(far.Name(), b.link); err != nil {
			near.Close()
		}
	}
	if err != nil {
		far.Close()
		return nil, err
	}
	// The far end stays open here too: without, the near one fails whenever no
	// client has the port open.
	f := newFront(far, link(b.link))
	f.run(func() { b.relay(f, near) })
	return f, nil
}

// unblock gives a file in place of one that a Close would not wake.
func unblock(blocking *os.File) (*os.File, error) {
	defer blocking.Close()
	fd, err := syscall.Dup(int(blocking.Fd()))
	if err != nil {
		return nil, fmt.Errorf("duplicate a pseudo terminal: %w", err)
	}
	syscall.CloseOnExec(fd)
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("unblock a pseudo terminal: %w", err)
	}
	return os.NewFile(uintptr(fd), blocking.Name()), nil
}

// link is a path that is removed with the front.
type link string

// Close removes the path.
func (path link) Close() error { return os.Remove(string(path)) }
