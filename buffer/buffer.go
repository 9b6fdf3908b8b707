// Package buffer is a store-and-forward queue on disk: what was appended and committed stays, in order, until it is acknowledged.
//
// One bbolt file holds any number of lanes. A lane is an ordered queue of records with one consumer: Peek shows the oldest
// records and leaves them, Ack removes them. Append puts a record into memory and returns at once; the buffer's own goroutine
// commits events immediately and attributes when they have waited for Options.Flush. A record that is acknowledged before that
// is never written, so that a healthy line leaves the disk alone.
//
// The guarantee: a committed record survives the end of the process at any moment, is delivered at least once and in the order of
// its lane, or is counted as dropped with its cause; with Options.Gaps a gap record stands in its place and says so. No sequence number is
// given out twice, also after a crash. The file never grows beyond Options.MaxSize, nor into Options.MinFreeDisk of the disk: when there is no
// room the oldest records go, or with StopNew the newest, attributes before events. What can't be written because the disk fails is kept
// within Options.MaxMemory and tried again under the same numbers, in a file that is opened anew. State in memory changes only after a commit
// has succeeded. Everything on disk carries a checksum: a damaged file is set aside at Open, what can be read of it goes on in a new
// one, and nothing wrong is ever delivered.
//
// On disk, the records of all lanes share buckets ("segments") in the order of arrival; a segment is deleted as a whole when no lane
// needs it, and a few records that pin many segments are moved together into one. A lane is a position plus a filter.
package buffer

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Options tune a Buffer; a zero field means the default.
type Options struct {
	MaxSize   int64         // the file never exceeds this many bytes; 512 MB, at least 1 MB
	Flush     time.Duration // how long attributes and acknowledgements may wait for a commit; 1 s
	MaxMemory int64         // bytes of records that are not on disk; 8 MB
	MaxAge    time.Duration // records that have been in an open buffer for longer are dropped; 0: none, see age.go
	WhenFull  WhenFull      // what goes when there is no room
	Gaps      bool          // losses leave gap records in their lanes; without it Peek never shows one

	// MinFreeDisk is how many bytes of the disk the file leaves to others: it doesn't grow into them.
	MinFreeDisk int64

	// Preallocate makes the disk reserve MaxSize for the file, where it can and where MinFreeDisk stays free: bbolt needs free pages even to
	// delete, so that only a reserved file drains while the disk is full. If it can't, one warning says so.
	Preallocate bool

	Log *slog.Logger // says when commits fail and when they succeed again

	// Dropped is told what was lost, from the buffer's goroutine (at the end from Close) and without locks. It may call Append and Ack, and must not
	// wait for Put, Quarantine, Sync or Close.
	Dropped func(Drop)

	block    uint64        // sequence numbers reserved at a time
	retry    time.Duration // first wait after a failed commit
	freeDisk func() (int64, error)
	fail     func() error // fails a transaction before it is written
	failLate func() error // fails a transaction after it was written, as a failing fsync does
}

// WhenFull says what goes when there is no room. Attributes go before events.
type WhenFull uint8

const (
	DropOldest WhenFull = iota
	StopNew             // what is on disk stays, new records are dropped
)

const (
	minMaxSize    = 1 << 20
	lockTimeout   = time.Second
	maxRetry      = 5 * time.Second
	eventPatience = time.Second // how long a failing disk keeps events back
	maxUnsaved    = 1000        // acknowledgements that may be repeated after a crash
	maxBatch      = 4 << 20
	defaultBlock  = 1 << 32
)

var (
	errClosed    = errors.New("buffer is closed")
	errNoNumbers = errors.New("the disk has to be written before there are numbers again")
)

// Buffer is an open buffer file. Its methods may be called from several goroutines.
// Locks are taken in the order lane.reading, writer, layout, mu.
type Buffer struct {
	db   *bolt.DB
	file *os.File // of db
	path string
	opt  Options
	kick chan struct{} // something may be due
	quit chan struct{}
	done chan struct{}

	turned atomic.Bool  // the goroutine has come round
	onDisk atomic.Int32 // transactions that the disk is at work on

	writer     sync.Mutex      // held by who writes to the file, until memory says the same as the file
	frozen     []*pending      // the batch being committed; kept as it is until a commit succeeds, since a failed one may have stored it
	top        int64           // end of the used part of the file
	allocSize  int64           // the file grows by so much
	quarantine int64           // bytes in quarantine
	suspect    bool            // a commit has failed: the file has to be reopened
	stumbled   bool            // bbolt has panicked, and may still look through the file in a goroutine of its own: the map has to stay
	unsure     *unsure         // to be undone
	undecided  *undecided      // to be looked up
	left       map[uint64]bool // numbers of the batch that are not written any more, and may be in the file

	aside   SetAside
	created bool
	damaged []found // damaged records, until they are replaced

	layout sync.RWMutex // read: records on disk stay where memory says they are; write: they move

	mu          sync.Mutex
	closed      bool
	lanes       map[string]*lane
	byID        map[uint32]*lane
	nextLane    uint32
	next        uint64 // sequence number of the next record
	reserved    uint64 // numbers below are reserved on disk
	segs        []*segment
	waiting     [3]list.List // pending records by class, oldest first, without the frozen ones
	bytes       int64        // size of all pending records, with the frozen ones
	unsaved     int          // acknowledgements that are not on disk
	dirtySince  time.Time    // age of the oldest of them
	failedSince time.Time
	retryAt     time.Time
	retryWait   time.Duration
	losses      map[dropKey]*Drop
	holds       []hold
	count       Stats // the counters only
	ages        ages
}

// Append puts a record at the end of a lane and returns its sequence number. It never waits for the disk, and copies data.
// An event can be seen by Peek once it is on disk, or when the disk has failed for a second; attributes at once. A record that is too large is counted as dropped and gets 0,
// as does any record after Close.
// Times must lie between the years 1678 and 2262.
func (b *Buffer) Append(name string, class Class, t time.Time, data []byte) uint64 {
	value := encode(class, t, data)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0
	}
	b.count.Appended++
	l := b.lane(name)
	p := &pending{lane: l, class: class, time: t, added: time.Now(), value: value}
	if cause := b.refuse(p); cause != "" {
		b.lose(l, cause, t)
		b.appendGap(l, Loss{Cause: cause, Records: 1, From: t, To: t})
		return 0
	}
	wake := class == Event || b.waiting[class].Len() == 0 || b.bytes > b.opt.MaxMemory/2 || b.reserveDue()
	b.enqueue(p)
	b.boundMemory()
	if class == Attributes || b.diskless() {
		signal(l.ready)
	}
	if wake {
		signal(b.kick)
	}
	return p.seq
}

// enqueue gives a record its number and puts it at the end of its lane.
func (b *Buffer) enqueue(p *pending) {
	p.seq = b.next
	b.next++
	p.seal()
	p.elem = b.waiting[p.class].PushBack(p)
	p.lane.mem = append(p.lane.mem, p)
	b.bytes += p.size()
}

// refuse gives the reason for not taking a record: its size, or that the disk was unusable for a whole block of numbers.
func (b *Buffer) refuse(p *pending) Cause {
	switch {
	case p.size() > b.batchLimit():
		return CauseRefused
	case b.next == b.reserved:
		return CauseMemory
	}
	return ""
}

// boundMemory drops the oldest attributes, then the oldest events. A frozen record stays: it may be on disk already.
func (b *Buffer) boundMemory() {
	for b.bytes > b.opt.MaxMemory {
		e := b.waiting[Attributes].Front()
		if e == nil {
			e = b.waiting[Event].Front()
		}
		if e == nil {
			return
		}
		b.losePending(e.Value.(*pending), CauseMemory)
	}
}

// forget takes a record that is not frozen out of the account of memory.
func (b *Buffer) forget(p *pending) {
	b.waiting[p.class].Remove(p.elem)
	b.bytes -= p.size()
}

// batchLimit is the most that one transaction writes, so also the largest record.
func (b *Buffer) batchLimit() int64 {
	return min(maxBatch, b.opt.MaxMemory/4, b.opt.MaxSize/16)
}

// Sync returns when everything appended and acknowledged before is on disk, or with the error of the first commit that failed.
func (b *Buffer) Sync(ctx context.Context) error {
	b.mu.Lock()
	last := b.next - 1
	b.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("sync buffer %s: %w", b.path, err)
		}
		if err := b.commit(true); err != nil {
			b.note(err) // its batch is tried again, also where nothing else is due
			signal(b.kick)
			return err
		}
		if b.oldestPending() > last {
			return nil
		}
	}
}

// oldestPending is the lowest sequence number that is not on disk, or the next one.
func (b *Buffer) oldestPending() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	oldest := b.next
	for i := range b.waiting {
		if e := b.waiting[i].Front(); e != nil {
			oldest = min(oldest, e.Value.(*pending).seq)
		}
	}
	for _, l := range b.lanes {
		if len(l.mem) > 0 {
			oldest = min(oldest, l.mem[0].seq)
		}
	}
	return oldest
}

// Close commits everything and closes the file. Its error tells how many records are lost with the memory.
func (b *Buffer) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	b.mu.Unlock()
	close(b.quit)
	<-b.done

	err := b.Sync(context.Background())
	if err == nil {
		err = b.returnReserved()
	}
	if n := b.Stats().Pending; err != nil && n > 0 {
		err = fmt.Errorf("close: %d records are not on disk: %w", n, err)
	}
	b.reportLosses()
	b.writer.Lock() // a Put or Quarantine that is still running ends first
	defer b.writer.Unlock()
	if b.stumbled {
		return errors.Join(err, flock(b.file, false))
	}
	return errors.Join(err, b.db.Close())
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
