package site_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/gateway/site"
)

// around puts a text where a site file may have it.
func around(text string) string {
	return "version: 1\nsite: { name: plant }\n" + text
}

func repeated(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

var hostile = map[string]func() string{
	"alias bomb": func() string {
		text := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
		for i := 1; i < 30; i++ {
			text += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
		}
		return text
	},
	"alias of itself":       func() string { return "devices: &d [*d]\n" },
	"flow nesting":          func() string { return strings.Repeat("[", 900_000) },
	"flow maps nested":      func() string { return strings.Repeat("{a: ", 200_000) },
	"block nesting":         func() string { return strings.Repeat("- ", 400_000) },
	"question marks":        func() string { return strings.Repeat("? ", 400_000) },
	"NUL":                   func() string { return around("\x00") },
	"no UTF-8":              func() string { return around("cloud: { url: \xff\xfe }") },
	"UTF-16":                func() string { return "\xff\xfev\x00e\x00r\x00" },
	"control characters":    func() string { return around("cloud: { url: \x01\x02 }") },
	"one long line":         func() string { return around("log: { level: " + strings.Repeat("x", 900_000) + " }") },
	"many items in a line":  func() string { return "devices: [" + strings.Repeat("a,", 450_000) + "]" },
	"many items, few lines": func() string { return "devices: [" + strings.Repeat("\n"+strings.Repeat("a,", 20_000), 22) + "]" },
	"many maps":             func() string { return "devices: [" + strings.Repeat("\n{},{},{},{},{},{},{}", 9_000) + "]" },
	"many keys":             func() string { return repeated("k%d: 1\n", 90_000) },
	"many unknown keys":     func() string { return "cloud:\n" + repeated("  k%d: 1\n", 80_000) },
	"one key many times":    func() string { return strings.Repeat("site: {}\n", 100_000) },
	"many profiles":         func() string { return "profiles:\n" + repeated("  p%d: { }\n", 60_000) },
	"many devices":          func() string { return "devices:\n" + repeated("  - { name: d%d }\n", 40_000) },
	"many buses":            func() string { return "buses:\n" + repeated("  b%d: { type: modbus-tcp, host: h }\n", 20_000) },
	"many wrong points": func() string {
		return "profiles:\n  p:\n    points:\n" + repeated("      p%d: { type: flaot, powr: 1, at: }\n", 18_000)
	},
	"many labels": func() string {
		return "profiles:\n  p:\n    points:\n      x: { enum: {" + repeated("\n%d: l,", 60_000) + "} }"
	},
	"deep expression": func() string { return expression(strings.Repeat("(", 60_000)) },
	"many negations":  func() string { return expression(strings.Repeat("not ", 15_000) + "a") },
	"many circles": func() string {
		return "profiles:\n  p:\n    computed:\n" + repeated("      c%[1]d: { value: c%[1]d + 1 }\n", 20_000)
	},
	"many points by few lines": func() string {
		return "version: 1\ncloud: { login: { user: a, password: secret:a } }\nbuses: { b: { type: modbus-tcp, host: a } }\nprofiles:\n  p:\n    points:\n" +
			repeated("      p%d: { type: int16 }\n", 5000) + "devices:\n  - profile: p\n    bus: b\n    instances:\n" + repeated("      - { name: d%d }\n", 5000)
	},
	"many events": func() string {
		return "profiles:\n  p:\n    points: { a: { type: int16 } }\n    events:\n" + repeated("      e%[1]d: { when: a > %[1]d, clear: a < %[1]d }\n", 18_000)
	},
	"many documents":  func() string { return strings.Repeat("---\n", 200_000) },
	"comments":        func() string { return strings.Repeat("# x\n", 180_000) + "a: b" },
	"anchors":         func() string { return "devices:\n" + strings.Repeat("- &a b\n", 90_000) },
	"tags":            func() string { return "devices:\n" + strings.Repeat("- !a b\n", 90_000) },
	"escapes":         func() string { return "site: { name: \"" + strings.Repeat("\\x41", 4000) + "\" }" },
	"empty":           func() string { return "" },
	"a scalar":        func() string { return "devices" },
	"a list":          func() string { return "- devices" },
	"a null":          func() string { return "~" },
	"null everywhere": func() string { return "version:\nsite:\ncloud:\nbuses:\nprofiles:\ndevices:\n" },
}

func expression(text string) string {
	return "profiles:\n  p:\n    protocol: modbus\n    addressing: protocol\n    points: { a: { at: 1, type: bool } }\n    events:\n      e: { when: '" + text + "' }\n"
}

// A hostile file of less than a megabyte is refused in a quarter of a second
// and 64 MB; slow allows for the machine and the race detector.
func TestHostileFilesAreRefused(t *testing.T) {
	for name, text := range hostile {
		t.Run(name, func(t *testing.T) {
			content := []byte(text())
			if len(content) > 1<<20 {
				t.Fatalf("%d bytes", len(content))
			}
			s, diagnostics, took, peak := measured(t, content)
			t.Logf("%d bytes: %v, %d MB, %d diagnostics", len(content), took, peak>>20, len(diagnostics))
			if s || diagnostics.Errors() == 0 {
				t.Error("it was accepted")
			}
			if took > slow*250*time.Millisecond || peak > 64<<20 {
				t.Errorf("it took %v and %d MB", took, peak>>20)
			}
			var b strings.Builder
			diagnostics.Print(&b)
			if b.Len() > 1<<20 {
				t.Errorf("%d bytes of diagnostics", b.Len())
			}
		})
	}
}

// measured loads a file and tells how much time of a processor it took, which
// does not depend on what else the machine does, and how much memory there was
// in use at most beyond what was before.
func measured(t testing.TB, content []byte) (ok bool, ds site.Diagnostics, took time.Duration, peak uint64) {
	o := options(t)
	runtime.GC()
	before := heap()
	stop, done := make(chan struct{}), make(chan uint64)
	go func() {
		most := uint64(0)
		for {
			select {
			case <-stop:
				done <- most
				return
			case <-time.After(time.Millisecond):
				most = max(most, heap())
			}
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := threadTime()
	s, ds := site.Parse("site.yaml", content, o)
	took = threadTime() - start
	close(stop)
	most := max(<-done, before)
	runtime.KeepAlive(s)
	return s != nil, ds, took, most - before
}

// threadTime is the processor time of the calling thread.
func threadTime() time.Duration {
	var u syscall.Rusage
	const thread = 1 // RUSAGE_THREAD
	if err := syscall.Getrusage(thread, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func TestHugeFileIsNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "huge.yaml")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(100 << 20); err != nil {
		t.Fatal(err)
	}
	s, diagnostics := site.Load(path, options(t))
	if s != nil || len(diagnostics) != 1 || !strings.Contains(diagnostics[0].Text, "100 MB are too much") {
		t.Errorf("%v", diagnostics)
	}
	if _, diagnostics = site.Load(t.TempDir(), options(t)); !strings.Contains(diagnostics[0].Text, "directory") {
		t.Errorf("%v", diagnostics)
	}
	if _, diagnostics = site.Parse("x.yaml", bytes.Repeat([]byte("a: b\n"), 4<<20), options(t)); len(diagnostics) != 1 {
		t.Errorf("%v", diagnostics)
	}
}

// writtenOut is a site with all its points in the file.
func writtenOut(points int) []byte {
	var b bytes.Buffer
	b.WriteString("version: 1\nsite: { name: plant }\ncloud: { url: 'mqtt://h:1883', login: { user: gw, password: secret:gw }, confirm: puback, backlog: replay }\nlocal: { http: none }\nbuses:\n")
	const each = 400
	devices := (points + each - 1) / each
	for d := range devices {
		fmt.Fprintf(&b, "  b%d: { type: modbus-tcp, host: 10.0.0.%d }\n", d, d)
	}
	b.WriteString("profiles:\n")
	for d := range devices {
		fmt.Fprintf(&b, "  p%d:\n    protocol: modbus\n    addressing: modicon\n    order: ABCD\n    points:\n", d)
		for i := range each {
			fmt.Fprintf(&b, "      voltage_l%d: { at: %d, type: float32, unit: V, deadband: 0.5, plausible: 180..260 }\n", i, 30001+2*i)
		}
	}
	b.WriteString("devices:\n")
	for d := range devices {
		fmt.Fprintf(&b, "  - { name: d%d, profile: p%d, bus: b%d, unit: 1 }\n", d, d, d)
	}
	return b.Bytes()
}

// shared is a site with many devices of one profile.
func shared(points int) []byte {
	const each = 400
	text := string(writtenOut(each))
	head, _, _ := strings.Cut(text, "devices:\n")
	var b bytes.Buffer
	b.WriteString(head + "devices:\n  - profile: p0\n    bus: b0\n    instances:\n")
	for d := range points / each {
		fmt.Fprintf(&b, "      - { name: d%d, unit: %d }\n", d, d+1)
	}
	return b.Bytes()
}

func TestLargeSitesLoad(t *testing.T) {
	for name, content := range map[string][]byte{"20,000 points written out": writtenOut(20_000), "100,000 points of one profile": shared(98_000)} {
		ok, diagnostics, took, peak := measured(t, content)
		if !ok {
			t.Errorf("%s: %v", name, diagnostics[:min(3, len(diagnostics))])
		}
		t.Logf("%s, %d kB: %v, %d MB", name, len(content)>>10, took, peak>>20)
	}
}

func benchmark(b *testing.B, content []byte) {
	b.ReportAllocs()
	var most uint64
	for b.Loop() {
		ok, diagnostics, _, peak := measured(b, content)
		if !ok {
			b.Fatal(diagnostics)
		}
		most = max(most, peak)
	}
	b.ReportMetric(float64(most)/1e6, "peak-MB")
}

func BenchmarkLoad20000PointsWrittenOut(b *testing.B) { benchmark(b, writtenOut(20_000)) }

func BenchmarkLoad98000PointsOfOneProfile(b *testing.B) { benchmark(b, shared(98_000)) }
