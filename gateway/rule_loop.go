package gateway

import (
	"encoding/json"
	"fmt"
	"time"
)

// installRules makes the rules of the bus's devices.
func (b *busLoop) installRules(g *Gateway) error {
	b.gateway = g
	for _, d := range b.reporter.devices {
		rules, err := newRules(g.book, d, b.reporter.take)
		if err != nil {
			return err
		}
		d.rules = rules
		for _, c := range rules.computed {
			b.reporter.states[c.state.latest.Point] = c.state
		}
	}
	return nil
}

// restoreRules takes over what was kept before a restart.
func (b *busLoop) restoreRules() {
	if b.gateway == nil {
		return
	}
	load := func(key string, restore func([]byte) error) {
		data, err := b.gateway.config.Buffer.Get(ruleBucket, key)
		if err == nil && data != nil {
			err = restore(data)
		}
		if err != nil {
			b.log.Warn("the state of rules is lost: events may be told twice", "of", key, "error", err)
		}
	}
	load(busKey(b.bus), func(data []byte) error { return json.Unmarshal(data, &b.told) })
	for _, d := range b.reporter.devices {
		load(d.device.Name, d.rules.restore)
	}
}

// keepRules hands all states over to be kept, at the end.
func (b *busLoop) keepRules() {
	for _, d := range b.reporter.devices {
		if d.rules != nil {
			d.rules.save(time.Now())
		}
	}
}

func (g *Gateway) keepTold(key string, t told) {
	data, err := json.Marshal(t)
	if err == nil {
		g.keeper.keep(key, data)
	}
}

// judge works out what follows from the latest samples of a device.
func (d *deviceState) judge(now time.Time) {
	if d.rules != nil {
		d.rules.pass(now)
	}
}

// tick does what is due for rules without a new sample.
func (b *busLoop) tick(now time.Time) {
	for _, d := range b.reporter.devices {
		if d.rules.due(now) {
			b.stamp()
			d.rules.tick(now)
		}
	}
}

// untilRules is the earlier of a time and when something is due for rules.
func (b *busLoop) untilRules(t time.Time) time.Time {
	for _, d := range b.reporter.devices {
		if d.rules != nil && !d.rules.next.IsZero() && d.rules.next.Before(t) {
			t = d.rules.next
		}
	}
	return t
}

// newRulebook makes the book of the gateway, whose state the buffer keeps.
func (g *Gateway) newRulebook() error {
	book, err := newRulebook(g.config.Site, g.config.Log)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	g.book = book
	g.keeper = newKeeper(g.config.Buffer, g.config.Log)
	book.keep = g.keeper.keep
	return nil
}
