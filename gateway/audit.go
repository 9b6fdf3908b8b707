package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"sluice/buffer"
)

// Audit is what was tried on a point or by a command, and what came of it. The
// values of secret points are ***.
type Audit struct {
	Time    time.Time `json:"time"`
	Who     string    `json:"who"` // cloud:<user>, page, command line, gateway
	Device  string    `json:"device,omitempty"`
	Point   string    `json:"point,omitempty"`
	Command string    `json:"command,omitempty"`
	ID      string    `json:"id,omitempty"` // of the command, as it came
	Asked   string    `json:"asked,omitempty"`
	Old     string    `json:"old,omitempty"` // directly before, where it was read
	New     string    `json:"new,omitempty"` // read back
	Result  string    `json:"result"`        // done, refused, failed or unknown
	Reason  string    `json:"reason,omitempty"`
}

const (
	auditBucket = "audit"
	auditFor    = 365 * 24 * time.Hour
	auditShare  = 32              // of the buffer file that the audit may take: 1 in so many
	auditFlush  = time.Second / 5 // the most a crash can cost of it
	auditMemory = 10_000          // lines that wait for the disk
	trimEvery   = time.Hour
	mostRefused = 20 // lines of refusals in a second; the rest is counted
)

// audit writes the lines in groups; what the disk does not take stays in memory
// for a while.
type audit struct {
	buffer *buffer.Buffer
	log    *slog.Logger

	flushing sync.Mutex // held over a flush: its lines go to disk once

	mu      sync.Mutex
	waiting []stored
	lost    int   // lines that memory had no room for
	number  int   // of the line, so that two of one moment differ
	grown   int64 // bytes that were written since it was trimmed
	second  time.Time
	refusals,
	held int // of that second
	failing bool
}

// stored is a line as it is on disk.
type stored struct {
	name string
	text []byte
}

func newAudit(b *buffer.Buffer, log *slog.Logger) *audit { return &audit{buffer: b, log: log} }

// add keeps a line; its time is now.
func (a *audit) add(line Audit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.append(line)
}

// refused keeps a line about what was not even tried. In a flood of them only
// their number is kept.
func (a *audit) refused(line Audit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn(time.Now())
	if a.refusals++; a.refusals > mostRefused {
		a.held++
		return
	}
	line.Result = "refused"
	a.append(line)
}

// turn begins a new second, and says what the old one held back.
func (a *audit) turn(now time.Time) {
	if now.Sub(a.second) < time.Second {
		return
	}
	held := a.held
	a.second, a.refusals, a.held = now, 0, 0
	if held > 0 {
		a.append(Audit{Who: "gateway", Result: "refused", Reason: fmt.Sprintf("%d more were refused within a second", held)})
	}
}

func (a *audit) append(line Audit) {
	line.Time = time.Now().UTC()
	a.log.Info("write", "who", line.Who, "device", line.Device, "point", line.Point, "command", line.Command, "asked", line.Asked, "result", line.Result, "reason", line.Reason)
	if len(a.waiting) >= auditMemory {
		a.lost++
		return
	}
	text, err := json.Marshal(line)
	if err != nil {
		return // strings only
	}
	a.number = (a.number + 1) % 1000
	a.waiting = append(a.waiting, stored{auditName(line.Time, a.number), text})
}

// auditName sorts by time.
func auditName(t time.Time, number int) string {
	return fmt.Sprintf("%016x%03d", max(0, t.UnixNano()), number)
}

// run writes what waits and trims what is old, until ctx ends.
func (a *audit) run(ctx context.Context) {
	flush, trim := time.NewTicker(auditFlush), time.NewTicker(trimEvery)
	defer flush.Stop()
	defer trim.Stop()
	a.trim()
	for {
		select {
		case <-ctx.Done():
			return
		case <-flush.C:
			a.flush()
			if a.swollen() {
				a.trim()
			}
		case <-trim.C:
			a.trim()
		}
	}
}

// swollen tells whether so much was written that the audit may take more than
// its share of the file, by a quarter.
func (a *audit) swollen() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.grown > a.most()/4
}

// trim drops what is old, or too much.
func (a *audit) trim() {
	a.mu.Lock()
	a.grown = 0
	a.mu.Unlock()
	if _, err := a.buffer.Trim(auditBucket, auditName(time.Now().Add(-auditFor), 0), a.most()); err != nil {
		a.log.Warn("audit not trimmed", "error", err)
	}
}

// most is how many bytes the audit may take.
func (a *audit) most() int64 { return a.buffer.MaxSize() / auditShare }

// flush writes the lines that wait.
func (a *audit) flush() {
	a.flushing.Lock()
	defer a.flushing.Unlock()
	a.mu.Lock()
	a.turn(time.Now())
	lines := a.waiting
	a.mu.Unlock()
	if len(lines) == 0 {
		return
	}
	values, size := make(map[string][]byte, len(lines)), 0
	for _, l := range lines {
		values[l.name] = l.text
		size += len(l.name) + len(l.text)
	}
	err := a.buffer.PutAll(auditBucket, values)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.waiting = slices.Clone(a.waiting[len(lines):])
		a.grown += int64(size)
	}
	if failing := err != nil; failing != a.failing {
		a.failing = failing
		if failing {
			a.log.Error("audit can't be written, its lines stay in memory", "error", err)
		} else {
			a.log.Info("audit is written again", "lost", a.lost)
			a.lost = 0
		}
	}
}

// ReadAudit hands over the lines of a buffer's audit since a time, oldest first.
func ReadAudit(b *buffer.Buffer, since time.Time, fn func(Audit) bool) error {
	return b.Scan(auditBucket, auditName(since, 0), func(_ string, value []byte) bool {
		var line Audit
		if json.Unmarshal(value, &line) != nil {
			return true
		}
		return fn(line)
	})
}

// Audit hands over the lines since a time, oldest first, those of this moment
// too.
func (g *Gateway) Audit(since time.Time, fn func(Audit) bool) error {
	g.office().audit.flush()
	return ReadAudit(g.config.Buffer, since, fn)
}
