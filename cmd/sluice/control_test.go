package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/gateway"
)

// runPlant runs the gateway of a plant in this process until the test ends.
func runPlant(t *testing.T, p *plant) *gateway.Site {
	t.Helper()
	s, err := loadSite(p.path)
	if err != nil {
		t.Fatal(err)
	}
	serveSite(t, s)
	return s
}

// serveSite runs the gateway of a site until stop, or the end of the test.
func serveSite(t *testing.T, s *gateway.Site) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, s, slog.New(slog.DiscardHandler), nil, nil) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// eventually tries until there is no error, for at most ten seconds.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	var err error
	for range 200 {
		if err = try(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal(err)
}

// TestStatusOfARunningGateway: the command line sees the daemon by its socket,
// tells what is down, and works on the buffer while it runs.
func TestStatusOfARunningGateway(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	if _, _, err := execute(t, "status", "--site", p.path); !errors.Is(err, errNoGateway) {
		t.Fatalf("without a gateway: %v", err)
	}
	// A killed gateway leaves its socket behind.
	write(t, filepath.Join(filepath.Dir(p.path), "control.sock"), "")
	s := runPlant(t, p)
	eventually(t, func() error {
		out, _, err := execute(t, "status", "--site", p.path)
		if err == nil && (!strings.Contains(out, "rtu  up ") || !strings.Contains(out, "own    connected")) {
			t.Errorf("status:\n%s", out)
		}
		return err
	})
	if info, err := os.Stat(controlPaths(s)[1]); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("control socket: %v %v", info, err)
	}
	eventually(t, func() error { // a report may be on its way
		out, _, err := execute(t, "buffer", "status", "--site", p.path)
		if err == nil && (!strings.Contains(out, "gate  0") || !strings.Contains(out, "quarantine: 0 records")) {
			err = fmt.Errorf("buffer status:\n%s", out)
		}
		return err
	})
	if _, _, err := execute(t, "buffer", "quarantine", "drop", "7", "--site", p.path); err == nil || err.Error() != "record 7 is not in quarantine" {
		t.Errorf("drop of what is not there: %v", err)
	}

	if _, _, err := execute(t, "lock", "--reason", "belt change", "--site", p.path); err != nil {
		t.Error(err)
	}
	out, _, err := execute(t, "status", "--site", p.path)
	if err != nil || !strings.Contains(out, "\nthe gateway is locked since ") || !strings.Contains(out, ": belt change\n") {
		t.Errorf("status of what is locked: %v\n%s", err, out)
	}

	if err := p.sim.StopBus("rtu"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		out, _, err := execute(t, "status", "--json", "--site", p.path)
		if !errors.Is(err, errFound) || !strings.Contains(out, `"state": "down"`) {
			return errors.New("the lost bus does not show:\n" + out)
		}
		return nil
	})
}

func TestWhatReadSaysOfAPointWithoutAValue(t *testing.T) {
	var out strings.Builder
	a := fieldAnswer{Unit: "Hz", Quality: "bad", Reason: "no answer within 500ms"}
	if err := a.print(&out, fieldRequest{}, false); err != errFound || out.String() != "bad – no answer within 500ms\n" {
		t.Errorf("%v: %q", err, out.String())
	}
}
