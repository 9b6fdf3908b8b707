package main

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway"
)

// TestWatchdogIsFedOnlyWhileAllTurn: systemd is told at least every six seconds
// while both loops turn, and never again once one of them hangs.
func TestWatchdogIsFedOnlyWhileAllTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		var log bytes.Buffer
		fed := 0
		v := &service{watchdog: 30 * time.Second, log: slog.New(slog.NewTextHandler(&log, nil)), notify: func(state string) {
			if state == "WATCHDOG=1" {
				fed++
			} else {
				told = append(told, state)
			}
		}}
		var steady, other gateway.Beat
		hung := false
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		v.allow(&gateway.Site{Buses: []*gateway.Bus{{Timeout: 20 * time.Second}}})
		go func() {
			defer close(done)
			v.run(ctx, func() []gateway.Watched {
				return []gateway.Watched{{Name: "steady", Turned: steady.Turned}, {Name: "other", Turned: other.Turned}}
			}, func() gateway.Summary { return gateway.Summary{Devices: 3, Up: 2, Waiting: 17} })
		}()
		pass := func(d time.Duration) int {
			before := fed
			for range d / gateway.TurnEvery {
				steady.Turn()
				if !hung {
					other.Turn()
				}
				time.Sleep(gateway.TurnEvery)
				synctest.Wait()
			}
			return fed - before
		}
		if n := pass(time.Minute); n < 10 {
			t.Errorf("fed %d times in a minute in which all turned", n)
		}
		hung = true
		pass(gateway.TurnEvery)
		if n := pass(2 * time.Minute); n != 0 {
			t.Errorf("fed %d times while a loop hung", n)
		}
		if !strings.Contains(log.String(), `level=ERROR msg="loop hangs" loop=other for=1m10s`) {
			t.Errorf("the log says: %s", log.String())
		}
		hung = false
		if n := pass(time.Minute); n < 10 || !strings.Contains(log.String(), "all loops turn again") {
			t.Errorf("fed %d times in the minute after; the log says: %s", n, log.String())
		}
		cancel()
		<-done
		want := []string{"WATCHDOG_USEC=75000000", "READY=1", "STATUS=2 of 3 devices up, 17 records waiting, nothing confirmed yet", "STOPPING=1"}
		if !slices.Equal(told, want) {
			t.Errorf("told %q", told)
		}
	})
}

// TestServiceManagerIsTold runs the daemon as systemd does.
func TestServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	run := sluice(t, "run", "--site", p.path)
	run.Env = append(run.Env, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=30000000")
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	heard := func(want string) {
		t.Helper()
		conn.SetReadDeadline(time.Now().Add(25 * time.Second))
		for packet := make([]byte, 4096); ; {
			n, err := conn.Read(packet)
			if err != nil {
				t.Fatalf("systemd never hears %q: %v", want, err)
			}
			if strings.Contains(string(packet[:n]), want) {
				return
			}
		}
	}
	heard("READY=1")
	heard("WATCHDOG=1")
	heard("STATUS=2 of 2 devices up, 0 records waiting, last confirmed at 2")
	heard("WATCHDOG=1")
	run.Process.Signal(syscall.SIGHUP)
	heard("RELOADING=1\nMONOTONIC_USEC=")
	heard("READY=1")
	run.Process.Signal(syscall.SIGTERM)
	heard("STOPPING=1")
	if err := run.Wait(); err != nil {
		t.Error(err)
	}
}
