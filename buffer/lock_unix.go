//go:build unix

package buffer

import (
	"os"
	"syscall"
)

// flock takes or gives back the lock that bbolt takes too. It belongs to the open file: bbolt is given the one that has it.
func flock(f *os.File, lock bool) error {
	how := syscall.LOCK_UN
	if lock {
		how = syscall.LOCK_EX | syscall.LOCK_NB
	}
	return syscall.Flock(int(f.Fd()), how)
}
