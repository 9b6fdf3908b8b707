package web

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// depths is how many records waited lately, for the plot.
type depths struct {
	mu      sync.Mutex
	step    time.Duration
	most    int
	times   []int64 // ms, oldest first
	waiting []int
	size    []int64
}

const depthStep = 5 * time.Second

func newDepths(history time.Duration) *depths {
	d := &depths{step: max(depthStep, history/1440)}
	d.most = int(max(history/d.step, 12))
	return d
}

func (d *depths) add(now time.Time, waiting int, size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.times) == 2*d.most { // rarely, so that it costs little
		n := copy(d.times, d.times[d.most:])
		copy(d.waiting, d.waiting[d.most:])
		copy(d.size, d.size[d.most:])
		d.times, d.waiting, d.size = d.times[:n], d.waiting[:n], d.size[:n]
	}
	d.times, d.waiting, d.size = append(d.times, now.UnixMilli()), append(d.waiting, waiting), append(d.size, size)
}

// Watch notes how full the buffer is until ctx ends.
func (s *Server) Watch(ctx context.Context) {
	tick := time.NewTicker(s.depths.step)
	defer tick.Stop()
	for {
		stats := s.Gateway.BufferStats()
		s.depths.add(time.Now(), stats.Waiting, stats.FileSize)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Depths is how full the buffer was.
type Depths struct {
	StepMS  int64   `json:"step_ms"`
	Times   []int64 `json:"times"` // ms since 1970
	Waiting []int   `json:"waiting"`
	Size    []int64 `json:"file_bytes"`
}

func (s *Server) history(*http.Request) (any, error) {
	d := s.depths
	d.mu.Lock()
	defer d.mu.Unlock()
	from := max(0, len(d.times)-d.most)
	return Depths{
		StepMS: d.step.Milliseconds(), Times: append([]int64{}, d.times[from:]...), Waiting: append([]int{}, d.waiting[from:]...), Size: append([]int64{}, d.size[from:]...),
	}, nil
}

// Trend is what a point did lately: the lowest and the highest value of each
// step, null where it had none.
type Trend struct {
	StepMS int64      `json:"step_ms"`
	Times  []int64    `json:"times"` // ms since 1970
	Low    []*float64 `json:"low"`
	High   []*float64 `json:"high"`
}

func (s *Server) trend(r *http.Request) (any, error) {
	device, point := r.URL.Query().Get("device"), r.URL.Query().Get("point")
	t, ok := s.Gateway.Trend(device, point)
	if !ok {
		return nil, &Error{http.StatusNotFound, "no trend is kept of " + device + " " + point}
	}
	out := Trend{StepMS: t.Step.Milliseconds(), Times: []int64{}, Low: []*float64{}, High: []*float64{}}
	for i, at := range t.Times {
		out.Times = append(out.Times, at.UnixMilli())
		low, high := &t.Low[i], &t.High[i]
		if *low != *low {
			low, high = nil, nil
		}
		out.Low, out.High = append(out.Low, low), append(out.High, high)
	}
	return out, nil
}
