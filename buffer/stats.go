package buffer

import (
	"os"
	"time"
)

// Cause says why records were dropped.
type Cause string

const (
	CauseFull    Cause = "full"    // the file has reached its size
	CauseMemory  Cause = "memory"  // the disk could not be written, and memory has reached its bound
	CauseCorrupt Cause = "corrupt" // the checksum on disk is wrong
	CauseRefused Cause = "refused" // larger than the buffer takes
)

// Drop tells of records of one lane that were lost. The times are those of the records; zero for damaged ones.
type Drop struct {
	Lane    string
	Cause   Cause
	Records int
	From    time.Time
	To      time.Time
}

// Dropped counts lost records by cause.
type Dropped struct {
	Full, Memory, Corrupt, Refused uint64
}

// Total is the sum over all causes.
func (d Dropped) Total() uint64 { return d.Full + d.Memory + d.Corrupt + d.Refused }

// Stats are figures of a buffer. At any moment, Found + Appended = Acked + Dropped + Quarantined + Waiting.
type Stats struct {
	Found       uint64 // records in the file at Open, damaged ones included
	Appended    uint64
	Acked       uint64
	Dropped     Dropped
	Quarantined uint64
	Evicted     uint64 // quarantined records that made room for newer ones

	Waiting      int   // records that are not acknowledged, in all lanes
	Pending      int   // those of them that are not on disk
	PendingBytes int64 // memory that pending records take
	FileSize     int64
	Commits      uint64 // transactions written
	Failures     uint64 // commits that failed
}

// Stats returns the figures since Open.
func (b *Buffer) Stats() Stats {
	b.mu.Lock()
	s := b.count
	for _, l := range b.lanes {
		s.Waiting += l.disk + len(l.mem)
		s.Pending += len(l.mem)
	}
	s.PendingBytes = b.bytes
	b.mu.Unlock()
	if info, err := os.Stat(b.path); err == nil {
		s.FileSize = info.Size()
	}
	return s
}

type dropKey struct {
	lane  *lane
	cause Cause
}

// lose counts one lost record.
func (b *Buffer) lose(l *lane, cause Cause, t time.Time) {
	d := b.loss(l, cause, 1)
	if d.From.IsZero() || t.Before(d.From) {
		d.From = t
	}
	if t.After(d.To) {
		d.To = t
	}
}

// corrupt counts damaged records, of which nothing is known.
func (b *Buffer) corrupt(l *lane, n int) { b.loss(l, CauseCorrupt, n) }

func (b *Buffer) loss(l *lane, cause Cause, n int) *Drop {
	switch cause {
	case CauseFull:
		b.count.Dropped.Full += uint64(n)
	case CauseMemory:
		b.count.Dropped.Memory += uint64(n)
	case CauseCorrupt:
		b.count.Dropped.Corrupt += uint64(n)
	case CauseRefused:
		b.count.Dropped.Refused += uint64(n)
	}
	k := dropKey{l, cause}
	d := b.losses[k]
	if d == nil {
		d = &Drop{Lane: l.name, Cause: cause}
		b.losses[k] = d
		signal(b.kick)
	}
	d.Records += n
	return d
}

// reportLosses hands the losses since the last time to Options.Dropped.
func (b *Buffer) reportLosses() {
	b.mu.Lock()
	losses := b.losses
	b.losses = map[dropKey]*Drop{}
	b.mu.Unlock()
	if b.opt.Dropped == nil {
		return
	}
	for _, d := range losses {
		b.opt.Dropped(*d)
	}
}
