//go:build !unix

package buffer

import "os"

func flock(*os.File, bool) error { return nil } // bbolt's own lock is the only one
