package buffer

import (
	"os"
	"path/filepath"
	"syscall"
)

const keepSize = 1 // FALLOC_FL_KEEP_SIZE

// freeDisk is how many bytes an unprivileged program may still write to the disk of a file.
func freeDisk(path string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

// allocated is how many bytes of the disk a file takes; more than its size if it was reserved, less if it has holes.
func allocated(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(s.Blocks) * 512, nil
	}
	return info.Size(), nil
}

// reserve makes the disk keep room for a file of that size; the file's own size stays.
func reserve(f *os.File, size int64) error {
	return syscall.Fallocate(int(f.Fd()), keepSize, 0, size)
}
