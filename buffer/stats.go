package buffer

import (
	"os"
	"time"
)

// Cause says why records were dropped.
type Cause string

const (
	CauseAge     Cause = "age"     // older than Options.MaxAge
	CauseFull    Cause = "full"    // the file has reached its size
	CauseDisk    Cause = "disk"    // the disk has no more than Options.MinFreeDisk left
	CauseMemory  Cause = "memory"  // the disk could not be written, and memory has reached its bound
	CauseCorrupt Cause = "corrupt" // the checksum on disk is wrong
	CauseRefused Cause = "refused" // larger than the buffer takes

	CauseQuarantine Cause = "quarantine" // put aside, and the quarantine is full; only gaps tell of it, see Stats.Evicted
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
	Age, Full, Disk, Memory, Corrupt, Refused uint64
}

// Total is the sum over all causes.
func (d Dropped) Total() uint64 { return d.Age + d.Full + d.Disk + d.Memory + d.Corrupt + d.Refused }

// of is the counter of a cause.
func (d *Dropped) of(cause Cause) *uint64 {
	switch cause {
	case CauseAge:
		return &d.Age
	case CauseFull:
		return &d.Full
	case CauseDisk:
		return &d.Disk
	case CauseMemory:
		return &d.Memory
	case CauseRefused:
		return &d.Refused
	}
	return &d.Corrupt
}

// Stats are figures of a buffer. At any moment, Found + Appended + Retried + Gaps = Acked + Dropped + Quarantined + Waiting.
type Stats struct {
	Found       uint64 // records in the file at Open, damaged ones included
	Appended    uint64
	Acked       uint64
	Dropped     Dropped
	Quarantined uint64
	Retried     uint64 // records taken back from quarantine
	Evicted     uint64 // quarantined records that made room for newer ones
	Gaps        int    // gap records made, less those that were merged into another

	Waiting      int   // records that are not acknowledged, in all lanes
	Pending      int   // those of them that are not on disk
	PendingBytes int64 // memory that pending records take
	FileSize     int64
	Commits      uint64 // transactions written
	Failures     uint64 // commits that failed
	Reopened     uint64 // times that the file was reopened after one

	FailingSince time.Time // when commits began to fail, zero if they work: what comes in is held in memory only
}

// Stats returns the figures since Open.
func (b *Buffer) Stats() Stats {
	b.mu.Lock()
	s := b.count
	for _, l := range b.lanes {
		s.Waiting += l.disk + len(l.mem)
		s.Pending += len(l.mem)
	}
	s.PendingBytes, s.FailingSince = b.bytes, b.failedSince
	b.mu.Unlock()
	if info, err := os.Stat(b.path); err == nil {
		s.FileSize = info.Size()
	}
	return s
}

// Lanes are the names of the lanes in which records wait.
func (b *Buffer) Lanes() (names []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, l := range b.lanes {
		if l.disk+len(l.mem) > 0 {
			names = append(names, name)
		}
	}
	return names
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

// corrupt counts damaged records, of which nothing is known: neither their times nor where in the lane they stood.
func (b *Buffer) corrupt(l *lane, n int) {
	b.loss(l, CauseCorrupt, n)
	b.appendGap(l, Loss{Cause: CauseCorrupt, Records: n})
}

func (b *Buffer) loss(l *lane, cause Cause, n int) *Drop {
	*b.count.Dropped.of(cause) += uint64(n)
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
