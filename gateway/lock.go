package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"sluice/buffer"
)

// Lock is a technician's word that nothing is to be written, to one device or,
// with Device "", to any.
type Lock struct {
	Device string    `json:"device,omitempty"`
	Who    string    `json:"who"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"` // in the technician's words
}

// String says what is locked, since when, by whom and why.
func (l Lock) String() string {
	what, why := "the gateway", ""
	if l.Device != "" {
		what = l.Device
	}
	if l.Reason != "" {
		why = ": " + l.Reason
	}
	return fmt.Sprintf("%s is locked since %s by %s%s", what, l.Since.UTC().Format("2006-01-02 15:04:05 UTC"), l.Who, why)
}

// locks are the locks in force. They outlive the program; nobody but unlock
// takes one away.
type locks struct {
	buffer *buffer.Buffer
	log    *slog.Logger

	mu  sync.Mutex
	set map[string]Lock
}

const locksBucket = "locks"

// lockName is how a lock stands in the state, which has no empty names.
func lockName(device string) string { return "/" + device }

func newLocks(b *buffer.Buffer, log *slog.Logger) *locks {
	l := &locks{buffer: b, log: log, set: make(map[string]Lock)}
	err := readLocks(b, func(lock Lock) { l.set[lock.Device] = lock })
	if err != nil {
		log.Error("locks can't be read: everything is locked", "error", err)
		l.set[""] = Lock{Who: "gateway", Since: time.Now()}
	}
	return l
}

func readLocks(b *buffer.Buffer, fn func(Lock)) error {
	return b.Scan(locksBucket, "", func(name string, value []byte) bool {
		lock := Lock{Device: name[1:], Who: "unknown"}
		_ = json.Unmarshal(value, &lock) // a damaged lock is a lock
		fn(lock)
		return true
	})
}

// ReadLocks gives the locks that a buffer holds.
func ReadLocks(b *buffer.Buffer) (all []Lock, err error) {
	err = readLocks(b, func(l Lock) { all = append(all, l) })
	return all, err
}

// StoreLock sets or takes away a lock in a buffer that no gateway uses.
func StoreLock(b *buffer.Buffer, lock Lock, on bool) error {
	if !on {
		return b.Put(locksBucket, lockName(lock.Device), nil)
	}
	lock.Reason = short(lock.Reason)
	text, err := json.Marshal(lock)
	if err != nil {
		return err
	}
	return b.Put(locksBucket, lockName(lock.Device), text)
}

// put sets or takes away a lock. A lock holds even if it can't be stored; an
// unlock that can't be stored is refused.
func (l *locks) put(lock Lock, on bool) error {
	err := StoreLock(l.buffer, lock, on)
	l.mu.Lock()
	defer l.mu.Unlock()
	if on {
		l.set[lock.Device] = lock
	} else if err == nil {
		delete(l.set, lock.Device)
	}
	return err
}

// refuse tells which lock is in the way of a write to a device.
func (l *locks) refuse(device string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range []string{"", device} {
		if lock, ok := l.set[name]; ok {
			return errors.New(lock.String())
		}
	}
	return nil
}

func (l *locks) all() map[string]Lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.set)
}
