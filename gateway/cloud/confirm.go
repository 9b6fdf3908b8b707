package cloud

import (
	"log/slog"
	"sync"
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

// confirmation decides, for one username, what counts as delivered.
type confirmation struct {
	setting string
	log     *slog.Logger

	mu       sync.Mutex
	seen     bool // an answer, ever
	silences int  // messages without one, before that
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
	if c.seen {
		return
	}
	c.seen = true
	if c.setting == byAuto && c.silences >= silencesToPuback {
		c.log.Info("the platform answers: reports count as delivered when it says so")
	}
}

// silence notes that a message stayed without an answer, and tells whether its
// PUBACK alone makes it delivered.
func (c *confirmation) silence() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.setting != byAuto || c.seen {
		return false
	}
	if c.silences++; c.silences == silencesToPuback {
		c.log.Info("the platform sends no answers: reports count as delivered when the broker has them (PUBACK)")
	}
	return true
}
