package gateway

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"sluice/buffer"
)

// clock mends the times of records. The clock on the wall may stand in 1970 until
// the network comes, and may step at any time; what passes between two moments of
// one boot is known all the same. So a record carries how long the machine had
// been up when it was made, and its time is worked out when it is sent, by the
// clock of then. Nothing is ever ordered or dropped by the clock on the wall.
//
// A record of an earlier boot keeps the time of its clock; where that can't be
// right (see Known) it is sent without one.
type clock struct {
	boot  uint64        // number of this boot; never 0
	up    time.Duration // how long the machine was up at start
	start time.Time
	wrong func() time.Duration // by how much the clock on the wall is wrong, in tests
}

// earliest is a time that has passed: a clock that shows an earlier one is wrong.
var earliest = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// historyPatience is how long a history waits for a clock that is right.
const historyPatience = 10 * time.Minute

// Known tells whether a record's time can be right.
func (r *Record) Known() bool { return r.Time.After(earliest) }

// newClock finds out how long the machine is up, and whether it still is the boot
// that the program last ran in.
func newClock(store *buffer.Buffer) *clock {
	c := &clock{start: time.Now(), boot: rand.Uint64()>>1 + 1<<20}
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	up, _ := os.ReadFile("/proc/uptime")
	if first, _, ok := strings.Cut(string(up), " "); ok {
		if seconds, err := strconv.ParseFloat(first, 64); err == nil {
			c.up = time.Duration(seconds * float64(time.Second))
		}
	}
	if store == nil || len(id) == 0 {
		return c
	}
	last, err := store.Get("clock", "boot")
	if err != nil {
		return c
	}
	number, n := binary.Uvarint(last)
	if n > 0 && string(last[n:]) == string(id) {
		c.boot = number
		return c
	}
	if store.Put("clock", "boot", append(binary.AppendUvarint(nil, number+1), id...)) == nil {
		c.boot = number + 1
	}
	return c
}

// stamp notes on a record how long the machine had been up. A time that didn't
// come from this machine's clock stays as it is.
func (c *clock) stamp(r *Record) {
	if !c.own(r.Time) || r.Boot != 0 {
		return
	}
	r.Boot, r.Up = c.boot, c.up+r.Time.Sub(c.start)
	if c.wrong != nil {
		r.Time = r.Time.Add(c.wrong())
	}
}

// own tells whether a time was read from this machine's clock: then it has a
// monotonic reading, which the virtual clock of a test has not.
func (c *clock) own(t time.Time) bool {
	return t != t.Round(0) || c.wrong != nil && t.Location() == time.Local
}

// mend works out the time of a record of this boot by the clock of now.
func (c *clock) mend(r *Record) {
	if r.Boot != c.boot {
		return
	}
	now := time.Now()
	age := c.up + now.Sub(c.start) - r.Up
	if r.Time = now.Add(-age); c.wrong != nil {
		r.Time = r.Time.Add(c.wrong())
	}
}

// now is the time by the clock on the wall.
func (c *clock) now() time.Time {
	if c.wrong != nil {
		return time.Now().Add(c.wrong())
	}
	return time.Now()
}

// right tells whether the clock on the wall may be right, or won't be soon.
func (c *clock) right() bool { return c.now().After(earliest) || time.Since(c.start) > historyPatience }
