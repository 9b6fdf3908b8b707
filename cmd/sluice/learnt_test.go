package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestCheckShowsWhatWasLearnt: by the running gateway, and after it has stopped
// by what it left behind.
func TestCheckShowsWhatWasLearnt(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	if err := p.sim.Fail("a", "speed", 2); err != nil {
		t.Fatal(err)
	}
	s, err := loadSite(p.path)
	if err != nil {
		t.Fatal(err)
	}
	if out, _, err := execute(t, "check", "-v", p.path); err != nil || strings.Contains(out, "learnt") {
		t.Fatalf("before the first run: %v\n%s", err, out)
	}
	stop := serveSite(t, s)
	shows := func() error {
		out, _, err := execute(t, "check", "-v", p.path)
		if err == nil && !strings.Contains(out, "not read  exception 2: illegal data address  since 20") {
			err = errors.New("what was learnt does not show:\n" + out)
		}
		return err
	}
	eventually(t, shows)
	stop()
	if err := shows(); err != nil {
		t.Errorf("after the gateway has stopped: %v", err)
	}

	store, err := openBuffer(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	begin := time.Now()
	out, _, err := execute(t, "check", "-v", p.path)
	if err != nil || !strings.Contains(out, "what was learnt from the devices is not known: open buffer") || time.Since(begin) > 10*time.Second {
		t.Errorf("while another process has the buffer: %v\n%s", err, out)
	}
}
