package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// dropCache makes the system forget the pages of a file, so that they are read from the disk again.
func dropCache(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil { // what is not on disk would stay
		return err
	}
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// dropStartPages gives back the pages of the program file that are mapped into
// memory. Most of them only the start has touched: tables, loading, compiling.
// What is needed again is mapped again, mostly from the system's cache.
func dropStartPages() {
	program, err := os.Executable()
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var begin, end uintptr
		var access string
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s", &begin, &end, &access); n != 3 || !strings.HasSuffix(lines.Text(), program) {
			continue
		}
		if access == "r-xp" || access == "r--p" { // what was never written is as it is in the file
			// Where it fails, only memory is lost.
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, begin, end-begin, syscall.MADV_DONTNEED)
		}
	}
}
