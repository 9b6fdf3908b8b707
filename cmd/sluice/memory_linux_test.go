package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/adapters/sim"
	"sluice/gateway/cloud/twin"
)

// heavySite has ten cloud devices of a thousand registers, all of which are
// reported at each poll: three megabytes a second.
func heavySite(url string, ports []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
version: 1
site: { name: test }
cloud: { url: %s, confirm: puback, min_interval: 0s, backlog_interval: 0s, backlog: replay, keepalive: 5s }
buffer: { path: buffer.db, max_size: 512MB, min_free_disk: 1MB }
local: { http: none }
profiles:
  p:
    protocol: modbus
    addressing: protocol
    table: holding
    poll: 40ms
    report: { mode: always }
    points:
`, url)
	for i := range 1000 {
		fmt.Fprintf(&b, "      p%03d: { at: %d, type: uint16 }\n", i, i)
	}
	b.WriteString("buses:\n")
	for i, port := range ports {
		fmt.Fprintf(&b, "  b%d: { type: modbus-tcp, host: 127.0.0.1, port: %s }\n", i, port)
	}
	b.WriteString("devices:\n")
	for i := range ports {
		fmt.Fprintf(&b, "  - { name: d%d, profile: p, bus: b%[1]d, unit: 1, login: { user: u%[1]d, password: file:password.txt } }\n", i)
	}
	return b.String()
}

// TestMemoryIsBoundedWhateverTheBrokerDoes: a process takes no more than it may,
// while it measures more than that and can't send it, and while it sends it later.
func TestMemoryIsBoundedWhateverTheBrokerDoes(t *testing.T) {
	info, _ := debug.ReadBuildInfo()
	if os.Getenv("CI") == "" || slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("takes a minute and a core, without the race detector: set CI=true")
	}
	const most = 64 << 10 // kB
	options := twin.Options{Users: map[string]string{}, Keep: 1}
	ports := make([]string, 10)
	for i := range ports {
		ports[i] = fmt.Sprint(i + 1)
		options.Users[fmt.Sprint("u", i)] = "secret"
	}
	var arrived atomic.Int64 // bytes
	options.OnMessage = func(_, _ string, payload []byte) { arrived.Add(int64(len(payload))) }
	platform, err := twin.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(platform.Stop)
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, filepath.Join(filepath.Dir(path), "password.txt"), "secret\n")
	write(t, path, heavySite(platform.URL(), ports))
	_, simulated := startField(t, testSite(t, path), sim.Options{})
	for i, b := range simulated.Buses {
		ports[i] = b.Port
	}
	write(t, path, heavySite(platform.URL(), ports))
	run := sluice(t, "run", "--site", path)
	run.Stderr = io.Discard
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = run.Process.Kill(); _ = run.Wait() }()
	watch := func(d time.Duration) (kb int) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			kb = max(kb, anonymous(t, run.Process.Pid))
		}
		return kb
	}
	t.Logf("well: %d kB", watch(8*time.Second))
	faults := func(f twin.Faults) func() { return func() { platform.SetFaults(f) } }
	for _, c := range []struct {
		name       string
		lasts      time.Duration
		begin, end func()
	}{
		{"half-open", 30 * time.Second, faults(twin.Faults{BlackHole: true}), faults(twin.Faults{})},
		{"gone", 8 * time.Second, platform.Stop, func() {
			if err := platform.Restart(); err != nil {
				t.Fatal(err)
			}
		}},
		{"no PUBACK", 8 * time.Second, faults(twin.Faults{NoPuback: true}), faults(twin.Faults{})},
		{"resets", 5 * time.Second, func() {
			for range 50 {
				platform.Cut()
				time.Sleep(50 * time.Millisecond)
			}
		}, func() {}},
	} {
		before := arrived.Load()
		c.begin()
		kb := watch(c.lasts)
		c.end()
		kb = max(kb, watch(5*time.Second))
		waits := c.lasts >= 30*time.Second // and so for what waited to arrive
		for range 20 {
			if waits && arrived.Load()-before < most<<10 {
				kb = max(kb, watch(time.Second))
			}
		}
		bytes := (arrived.Load() - before) >> 10
		t.Logf("%s: %d kB; %d kB arrived", c.name, kb, bytes)
		if kb > most {
			t.Errorf("%s: %d kB are more than %d", c.name, kb, most)
		}
		if waits && bytes < most {
			t.Errorf("%s proves nothing: only %d kB have waited", c.name, bytes)
		}
	}
}
