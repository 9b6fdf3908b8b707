//go:build !race

package gateway

const raced = false // the race detector looks on
