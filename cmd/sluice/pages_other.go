//go:build !linux

package main

import "errors"

func dropStartPages() {}

func dropCache(string) error { return errors.ErrUnsupported }
