package gateway

import (
	"fmt"
	"testing"
	"time"
)

// wide is a reporter with the points of some devices of one profile, all
// reported once, and a sample of each.
func wide(devices, points int) (*reporter, []Sample) {
	var definitions []*Definition
	for i := range points {
		definitions = append(definitions, &Definition{ID: fmt.Sprintf("p%d", i), Poll: time.Second})
	}
	var list []*Device
	for i := range devices {
		list = append(list, device(fmt.Sprintf("d%d", i), definitions...))
	}
	r := newReporter(list, func(*Device, Record) {})
	var samples []Sample
	for _, d := range r.devices {
		for i, st := range d.points {
			s := Sample{Point: st.latest.Point, Time: time.Now(), Value: UintValue(uint64(i)), Quality: Good}
			st.note(&s)
			samples = append(samples, s)
		}
		r.flush(d)
	}
	return r, samples
}

func (r *reporter) noteAll(samples []Sample) {
	for _, d := range r.devices {
		for i, st := range d.points {
			st.note(&samples[i])
		}
		samples = samples[len(d.points):]
	}
}

// BenchmarkNote takes samples that repeat the last report; one operation is one
// of them.
func BenchmarkNote(b *testing.B) {
	r, samples := wide(100, 1000)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += len(samples) {
		r.noteAll(samples)
	}
}

// TestRepeatedSamplesAreCheap: the short way past the rules of a point takes
// half of the time of the long one, or less, and both of them no memory.
func TestRepeatedSamplesAreCheap(t *testing.T) {
	r, samples := wide(20, 1000)
	fastest := func(plain bool) time.Duration {
		for _, st := range r.states {
			st.plain = plain
		}
		best := time.Hour
		for range 15 {
			begin := time.Now()
			r.noteAll(samples)
			best = min(best, time.Since(begin))
		}
		return best
	}
	short, long := fastest(true), fastest(false)
	t.Logf("%d ns a sample, else %d ns", short.Nanoseconds()/int64(len(samples)), long.Nanoseconds()/int64(len(samples)))
	if 2*short > long {
		t.Errorf("20,000 repeated samples take %v, looking at their rules %v", short, long)
	}
	if n := testing.AllocsPerRun(3, func() { r.noteAll(samples) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
