//go:build race

package site_test

// slow is how much longer everything may take.
const slow = 20
