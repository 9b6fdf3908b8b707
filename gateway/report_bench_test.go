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
// of them. The short way passes by the rules of a point.
func BenchmarkNote(b *testing.B) {
	for name, plain := range map[string]bool{"short": true, "long": false} {
		b.Run(name, func(b *testing.B) {
			r, samples := wide(100, 1000)
			for _, st := range r.states {
				st.plain = plain
			}
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; done += len(samples) {
				r.noteAll(samples)
			}
		})
	}
}

func TestRepeatedSamplesTakeNoMemory(t *testing.T) {
	r, samples := wide(2, 1000)
	if n := testing.AllocsPerRun(3, func() { r.noteAll(samples) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
