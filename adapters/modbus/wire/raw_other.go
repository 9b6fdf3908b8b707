//go:build !linux

package wire

import "io"

// raw is for Linux.
type raw struct{}

func newRaw(io.Reader) *raw { return nil }

func (*raw) read([]byte) (int, error) { panic("no raw connection") }

func (*raw) ask([]byte, []byte) (int, int, error) { panic("no raw connection") }

func (*raw) write([]byte) (int, error) { panic("no raw connection") }
