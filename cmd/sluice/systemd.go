package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"sluice/gateway"
)

// service is the program as the service manager sees it. It says when the
// gateway is ready and how it is, and feeds the watchdog for as long as every
// loop turns: one that hangs ends the feeding, and systemd starts the program
// anew.
type service struct {
	notify   func(state string)
	watchdog time.Duration // within which systemd wants to be fed; 0 for no watchdog
	log      *slog.Logger

	wait atomic.Int64 // with a loop, until it hangs: a time.Duration
	dog  gateway.Watchdog
	said string          // the status
	hung map[string]bool // loops that were logged

	stuck atomic.Pointer[[]string] // loops that don't turn, for other goroutines
}

const (
	lookEvery = time.Second      // at the loops
	tellEvery = 10 * time.Second // what the status is
	patience  = 20 * time.Second // with a loop, until the log says that it hangs
	lastWords = 5 * time.Second  // for the log, before the watchdog ends the program
)

// newService finds the service manager in the environment; without one there
// is only the log.
func newService(log *slog.Logger) *service {
	v := &service{log: log, notify: func(state string) {
		if _, err := systemd.SdNotify(false, state); err != nil {
			log.Debug("no word to the service manager", "error", err)
		}
	}}
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the service manager's watchdog is not understood", "error", err)
	}
	v.watchdog = interval
	return v
}

// widest is how long a loop of the site may rightly be away for one step: an
// exchange with the slowest device, or an answer of the cloud.
func widest(s *gateway.Site) time.Duration {
	longest := s.Cloud.ConfirmTimeout
	for _, b := range s.Buses {
		longest = max(longest, b.Timeout)
	}
	for _, d := range s.Devices {
		longest = max(longest, d.Timeout, d.Profile.Timeout)
	}
	return 10*time.Second + 3*longest
}

// allow makes the watchdog as patient as a site needs.
func (v *service) allow(s *gateway.Site) {
	wait := max(patience, widest(s))
	v.wait.Store(int64(wait))
	if least := wait + lastWords; v.watchdog > 0 && v.watchdog < least {
		v.notify(fmt.Sprintf("WATCHDOG_USEC=%d", least.Microseconds()))
	}
}

// reloading says that a reload begins; ready ends it.
func (v *service) reloading() {
	v.notify(systemd.SdNotifyReloading + "\n" + systemd.SdNotifyMonotonicUsec())
}

func (v *service) ready() { v.notify(systemd.SdNotifyReady) }

// run serves until ctx ends. loops and summary are asked again and again, since
// a reload changes them.
func (v *service) run(ctx context.Context, loops func() []gateway.Watched, summary func() gateway.Summary) {
	v.hung = make(map[string]bool)
	v.ready()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var told time.Time
	for {
		if now := time.Now(); now.Sub(told) >= tellEvery {
			told = now
			v.tell(summary())
		}
		select {
		case <-ctx.Done():
			v.notify("STOPPING=1")
			return
		case now := <-look.C:
			v.look(now, loops(), time.Duration(v.wait.Load()))
		}
	}
}

// look feeds the watchdog if all loops turn, and logs which do not.
func (v *service) look(now time.Time, loops []gateway.Watched, wait time.Duration) {
	all, stuck := v.dog.Check(now, loops, wait)
	v.stuck.Store(&stuck)
	if all && v.watchdog > 0 {
		v.notify("WATCHDOG=1")
	}
	for _, name := range stuck {
		if !v.hung[name] {
			v.hung[name] = true
			v.log.Error("loop hangs", "loop", name, "for", wait)
		}
	}
	if all && len(v.hung) > 0 {
		clear(v.hung)
		v.log.Info("all loops turn again")
	}
}

// hangs are the loops that don't turn, as they were at the last look.
func (v *service) hangs() []string {
	if stuck := v.stuck.Load(); stuck != nil {
		return *stuck
	}
	return nil
}

// tell says how the gateway is, where that is news.
func (v *service) tell(s gateway.Summary) {
	if text := statusText(s); text != v.said {
		v.said = text
		v.notify("STATUS=" + text)
	}
}

func statusText(s gateway.Summary) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %s up, %s waiting, ", s.Up, count(s.Devices, "device"), count(s.Waiting, "record"))
	if s.Confirmed.IsZero() {
		b.WriteString("nothing confirmed yet")
	} else {
		b.WriteString("last confirmed at " + s.Confirmed.Format(time.DateTime))
	}
	return b.String()
}
