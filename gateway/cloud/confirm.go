package cloud

import (
	"log/slog"
	"sync"
	"time"
)

// What counts as delivered: the settings of confirm, and the modes in force.
const (
	byAuto     = "auto" // as a mode: it waits for answers, but none was ever seen
	byPuback   = "puback"
	byResponse = "response"
)

// silencesToPuback is how many unanswered messages it takes to believe that the
// platform does not answer.
const silencesToPuback = 3

// A platform whose answers were seen may be down for a while; what it does not
// answer then is kept and sent again. Only when it has answered nothing for
// goneAfter, and to at least goneSilences messages, its answers are switched off.
const (
	goneAfter    = 30 * time.Minute
	goneSilences = 20
)

// confirmation decides, for one topic of one username, what counts as delivered.
type confirmation struct {
	setting string
	topic   string // of the answers
	log     *slog.Logger
	changed func() // told when answers begin or end; nil for nobody

	mu       sync.Mutex
	seen     bool      // an answer, and they have not stopped since
	told     bool      // that there are some that can't be read
	silences int       // messages without one
	since    time.Time // of the first of them
}

// mode is what counts as delivered now.
func (c *confirmation) mode() string {
	if c.setting != byAuto {
		return c.setting
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.seen:
		return byResponse
	case c.silences >= silencesToPuback:
		return byPuback
	}
	return byAuto
}

// heard notes that the platform answers.
func (c *confirmation) heard() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.seen {
		defer c.change()
	}
	if c.setting == byAuto && !c.seen && c.silences >= silencesToPuback {
		c.log.Info("the platform answers: messages count as delivered when it says so", "topic", c.topic)
	}
	c.seen, c.silences = true, 0
}

// unreadable notes an answer that says nothing: its message has none.
func (c *confirmation) unreadable(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.told {
		c.told = true
		c.log.Warn("what the platform answers can't be read, and confirms nothing", "topic", c.topic, "error", err)
	}
}

// change tells that answers begin or end, from a goroutine of its own: nobody
// waits for what follows.
func (c *confirmation) change() {
	if c.changed != nil {
		go c.changed()
	}
}

// answers tells whether the platform sends them.
func (c *confirmation) answers() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// silence notes that a message stayed without an answer, and tells whether its
// PUBACK alone makes it delivered.
func (c *confirmation) silence() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silences++; c.silences == 1 {
		c.since = time.Now()
	}
	if c.setting != byAuto {
		return false
	}
	if c.seen && c.silences >= goneSilences && time.Since(c.since) >= goneAfter {
		c.seen = false
		defer c.change()
		c.log.Warn("the platform answers no more: messages count as delivered when the broker has them (PUBACK)", "topic", c.topic, "silent", time.Since(c.since).Round(time.Second))
		return true
	}
	if !c.seen && c.silences == silencesToPuback {
		c.log.Info("the platform sends no answers: messages count as delivered when the broker has them (PUBACK)", "topic", c.topic)
	}
	return !c.seen
}

// follow takes over what an earlier session of the same user has learnt.
func (c *confirmation) follow(old *confirmation) {
	old.mu.Lock()
	defer old.mu.Unlock()
	c.seen, c.silences, c.since = old.seen, old.silences, old.since
}
