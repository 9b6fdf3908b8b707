package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/buffer"
)

// ledger remembers commands by their id, so that none is carried out twice: in
// the buffer's state from before the first write on, with the reply once there
// is one.
type ledger struct {
	buffer *buffer.Buffer
	log    *slog.Logger

	mu      sync.Mutex
	entries map[string]*entry
	order   []*entry // by time
	loaded  bool
}

// entry is one command with an id.
type entry struct {
	key   string
	name  string // on disk: the key and when it came, so that forgetting an older one never hits a newer
	since time.Time
	begun bool // it may have written
	saved bool
	busy  bool // the reply says so; of the office's listening goroutine

	// On disk:
	User   string          `json:"user"`
	Device string          `json:"device"`
	Method string          `json:"method"`
	ID     json.RawMessage `json:"id"`
	Params []shownParam    `json:"params,omitempty"` // of one that has begun
	Reply  []byte          `json:"reply,omitempty"`  // as it is sent; nil while the command runs
	Sent   bool            `json:"sent,omitempty"`
}

// shownParam is a parameter as a reply tells it: of a secret one ***.
type shownParam struct{ Name, Raw string }

const (
	ledgerBucket = "commands"
	ledgerFor    = 60 * time.Second
	ledgerMost   = 10_000 // in memory
)

func newLedger(b *buffer.Buffer, log *slog.Logger) *ledger {
	return &ledger{buffer: b, log: log, entries: make(map[string]*entry)}
}

// keyOf is the same for a command and its repetition.
func keyOf(user string, m *Downlink) string {
	h := sha256.New()
	for _, part := range append([]string{user, m.ID, m.Method}, rawParams(m)...) {
		fmt.Fprintf(h, "%d:", len(part))
		_, _ = io.WriteString(h, part)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func rawParams(m *Downlink) (all []string) {
	for i := range m.Values {
		all = append(all, m.Values[i].Name, m.Values[i].Raw)
	}
	return all
}

// enter notes a command that has arrived. For a repetition it gives the entry
// that is there.
func (l *ledger) enter(user string, m *Downlink) (e *entry, again bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(time.Now())
	key := keyOf(user, m)
	if e := l.entries[key]; e != nil {
		return e, true
	}
	now := time.Now()
	e = &entry{key: key, name: fmt.Sprintf("%s-%016x", key, max(0, now.UnixNano())), since: now, User: user, Method: m.Method, ID: json.RawMessage(m.ID)}
	l.entries[key] = e
	l.order = append(l.order, e)
	return e, false
}

// forget drops what is older than a minute, and in a flood what was refused
// sooner. What runs stays.
func (l *ledger) forget(now time.Time) {
	gone := make(map[string][]byte)
	for range len(l.order) {
		e := l.order[0]
		age := now.Sub(e.since)
		if age < ledgerFor && len(l.order) < ledgerMost {
			break
		}
		l.order = l.order[1:]
		if e.Reply == nil && age < time.Hour || e.begun && age < ledgerFor {
			l.order = append(l.order, e)
			continue
		}
		if l.entries[e.key] == e {
			delete(l.entries, e.key)
		}
		if e.saved {
			gone[e.name] = nil
		}
	}
	if len(gone) > 0 {
		go func() { _ = l.buffer.PutAll(ledgerBucket, gone) }() // what stays on disk is dropped at the next start
	}
}

// begin puts the command on disk, before anything is written.
func (l *ledger) begin(e *entry, device string, params []Asked) error {
	l.mu.Lock()
	e.Device, e.begun = device, true
	for i := range params {
		e.Params = append(e.Params, shownParam{params[i].Name, params[i].Raw})
	}
	l.mu.Unlock()
	return l.save(e)
}

// finish keeps the reply of a command. One that was begun goes to disk.
func (l *ledger) finish(e *entry, reply []byte, begun bool) error {
	l.mu.Lock()
	e.Reply, e.since = reply, time.Now()
	l.mu.Unlock()
	if !begun {
		return nil
	}
	return l.save(e)
}

// sent notes that the broker has the reply. The disk learns of it with time:
// a crash before repeats the reply.
func (l *ledger) sent(e *entry) {
	l.mu.Lock()
	e.Sent = true
	saved := e.saved
	l.mu.Unlock()
	if saved {
		_ = l.save(e)
	}
}

func (l *ledger) save(e *entry) error {
	l.mu.Lock()
	text, err := json.Marshal(e)
	l.mu.Unlock()
	if err == nil {
		err = l.buffer.Put(ledgerBucket, e.name, text)
	}
	if err == nil {
		l.mu.Lock()
		e.saved = true
		l.mu.Unlock()
	}
	return err
}

// reply gives the stored reply, nil while the command runs.
func (l *ledger) reply(e *entry) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return e.Reply
}

// load reads what an earlier run left, once. It counts for another minute.
func (l *ledger) load() []*entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loaded {
		return slices.Clone(l.order)
	}
	l.loaded = true
	err := l.buffer.Scan(ledgerBucket, "", func(name string, value []byte) bool {
		key, _, _ := strings.Cut(name, "-")
		e := &entry{key: key, name: name, since: time.Now(), begun: true, saved: true}
		if json.Unmarshal(value, e) == nil {
			l.entries[key] = e
			l.order = append(l.order, e)
		}
		return true
	})
	if err != nil {
		l.log.Error("commands of the last run can't be read", "error", err)
	}
	return slices.Clone(l.order)
}
