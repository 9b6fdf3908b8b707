package opcua_test

import (
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// BenchmarkWatch watches counters of node-opcua that change every second, for
// ten seconds: what this process needs of a core, what a value costs and whether
// one is missed. The server is another process, and needs more than this one.
func BenchmarkWatch(b *testing.B) {
	for _, points := range []int{1000, 10000} {
		b.Run(strconv.Itoa(points), func(b *testing.B) { benchmarkWatch(b, points) })
	}
}

func benchmarkWatch(b *testing.B, points int) {
	const seconds = 10
	p := startPeer(b, "--counters", strconv.Itoa(points), "--every", "1000")
	begin := time.Now()
	w := watchWithin(b, peerSite(points), p.endpoint, time.Minute)
	w.all(b, 2*time.Minute)
	b.ReportMetric(time.Since(begin).Seconds(), "s-to-first")
	for b.Loop() {
		before, cpu := w.total(), processTime()
		time.Sleep(seconds * time.Second)
		values, used := w.total()-before, processTime()-cpu
		missing := int64(0)
		for i := range points {
			m, _ := w.missed(b, fmt.Sprintf("c%d", i))
			missing += m
		}
		b.ReportMetric(float64(values)/seconds, "values/s")
		b.ReportMetric(float64(used.Nanoseconds())/float64(values), "ns/value")
		b.ReportMetric(100*used.Seconds()/seconds, "%-of-a-core")
		b.ReportMetric(float64(missing), "missed")
		b.ReportMetric(float64(w.lost()), "lost-sessions")
	}
}

// total is how many samples have come.
func (w *watcher) total() (n int) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for _, samples := range w.samples {
		n += len(samples)
	}
	return n
}

// processTime is the processor time of this process.
func processTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
