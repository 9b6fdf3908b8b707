//go:build !race

package site_test

// slow is how much longer everything may take, on a machine that others use too.
const slow = 3
