package gateway

import (
	"math"
	"sync"
	"time"
)

// Trend is what a point did lately: the lowest and the highest value of each
// step of time, NaN where it had none.
type Trend struct {
	Step  time.Duration
	Times []time.Time // beginnings of the steps, oldest first
	Low   []float64
	High  []float64
}

const (
	trendMemory  = 8 << 20 // bytes over all points of a gateway
	mostSteps    = 1440
	fewestSteps  = 2
	shortestStep = time.Second
)

// trends keeps the trends of the points of one bus in columns of time, so that
// memory fills as time goes by and holds no pointers. The bus goroutine adds to
// it, now and then and not with each sample; others read.
type trends struct {
	step    time.Duration
	most    int // columns
	every   time.Duration
	due     time.Time
	states  []*pointState
	indexes map[*Point]int

	mu      sync.Mutex
	columns []trendColumn // a ring
	newest  int
	base    []float64 // what the values of a point are counted from, so that float32 is enough
}

type trendColumn struct {
	begin     time.Time
	low, high []float32
}

// newTrends makes the trends of a bus, whose gateway has a number of points.
func newTrends(devices []*deviceState, points int, history time.Duration) *trends {
	most := min(mostSteps, max(fewestSteps, trendMemory/8/max(points, 1)))
	t := &trends{step: max(history/time.Duration(most), shortestStep), indexes: make(map[*Point]int)}
	t.most = int(history / t.step)
	t.every = min(t.step, time.Second)
	if points < 1000 {
		t.every /= 4
	}
	for _, d := range devices {
		for _, st := range d.points {
			t.indexes[st.latest.Point] = len(t.states)
			t.states = append(t.states, st)
			t.base = append(t.base, math.NaN())
		}
	}
	return t
}

// sample takes the values of now, when it is time to. It belongs to the bus
// goroutine.
func (t *trends) sample(now time.Time) {
	if t == nil || now.Before(t.due) {
		return
	}
	t.due = now.Add(t.every)
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.column(now)
	for i, st := range t.states {
		v := &st.latest.Value
		if st.latest.Quality == Bad || st.latest.Point.Secret || !v.Numeric() && v.kind != Boolean {
			continue
		}
		f := v.Float()
		if math.IsNaN(t.base[i]) {
			t.base[i] = f
		}
		d := float32(f - t.base[i])
		if !(d >= c.low[i]) {
			c.low[i] = d
		}
		if !(d <= c.high[i]) {
			c.high[i] = d
		}
	}
}

// column is the one of a time: the newest, or a new one. The caller holds mu.
func (t *trends) column(now time.Time) *trendColumn {
	begin := now.Truncate(t.step)
	if len(t.columns) > 0 && !begin.After(t.columns[t.newest].begin) {
		return &t.columns[t.newest] // also after the clock went back
	}
	if len(t.columns) < t.most {
		t.columns = append(t.columns, trendColumn{low: make([]float32, len(t.states)), high: make([]float32, len(t.states))})
		t.newest = len(t.columns) - 1
	} else {
		t.newest = (t.newest + 1) % len(t.columns)
	}
	c := &t.columns[t.newest]
	c.begin = begin
	for i := range c.low {
		c.low[i], c.high[i] = float32(math.NaN()), float32(math.NaN())
	}
	return c
}

// of is the trend of a point.
func (t *trends) of(i int) Trend {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := Trend{Step: t.step}
	for k := range t.columns {
		c := &t.columns[(t.newest+1+k)%len(t.columns)]
		out.Times = append(out.Times, c.begin)
		out.Low = append(out.Low, t.base[i]+float64(c.low[i]))
		out.High = append(out.High, t.base[i]+float64(c.high[i]))
	}
	return out
}

// Trend is what a point did lately. It tells whether it is kept: not for points
// that are not there, and not at all where there is no page.
func (g *Gateway) Trend(device, point string) (Trend, bool) {
	buses, _ := g.loops()
	for _, b := range buses {
		if b.trends == nil {
			continue
		}
		for p, i := range b.trends.indexes {
			if p.ID == point && p.Device.Name == device {
				return b.trends.of(i), true
			}
		}
	}
	return Trend{}, false
}

// keepTrends makes room for the trends of all points but those of kept buses,
// where there is a page.
func (g *Gateway) keepTrends(c *Config, buses []*busLoop, kept map[*Bus]*busLoop) {
	if !c.Site.Local.trends() {
		return
	}
	points := 0
	for _, b := range buses {
		points += len(b.reporter.states)
	}
	for _, b := range buses {
		if kept[b.bus] == nil {
			b.trends = newTrends(b.reporter.devices, points, c.Site.Local.History)
		}
	}
}

// trends tells whether there is a page that shows any.
func (l *Local) trends() bool { return l.HTTP != "" && l.HTTP != "none" && l.History > 0 }
