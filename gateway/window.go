package gateway

import (
	"fmt"
	"time"
)

// window is the time that a function looks back: a length, or to the last
// midnight of the site.
type window struct {
	length time.Duration
	day    bool
}

func parseWindow(text string) (window, error) {
	if text == "day" {
		return window{day: true}, nil
	}
	d, err := ParseDuration(text)
	if err != nil || d <= 0 {
		return window{}, fmt.Errorf("%q is no time", text)
	}
	return window{length: d}, nil
}

// windowSlots bounds what a window remembers, however often its point is read.
const windowSlots = 40

// past is what a function remembers of its window. Between two marks values go
// in a straight line.
type past struct {
	epoch time.Time // marks are counted from here, so that a clock that is set does not move them
	marks []mark    // a length's, oldest first; the first one may be before the window
	begin mark      // a day's
	day   int       // that begin is of
	now   mark
	begun bool
}

// mark is the state of a window's point at a time.
type mark struct {
	at      time.Duration
	value   float64
	area    float64 // value × seconds, summed up while there were samples
	covered float64 // those seconds
}

// interpolate is the mark at a time between two others.
func interpolate(a, b mark, at time.Duration) mark {
	if b.at <= a.at || at >= b.at {
		return b
	}
	share := max(0, float64(at-a.at)/float64(b.at-a.at))
	line := func(x, y float64) float64 { return x + share*(y-x) }
	return mark{max(at, a.at), line(a.value, b.value), line(a.area, b.area), line(a.covered, b.covered)}
}

// take adds a sample. A value counts in averages until the next one, but no
// longer than hold.
func (p *past) take(w window, t time.Time, value float64, hold time.Duration, place *time.Location) {
	last := p.now
	p.now = mark{at: t.Sub(p.epoch), value: value, area: last.area, covered: last.covered}
	if p.begun && p.now.at < last.at {
		p.begun, p.marks = false, p.marks[:0] // an older sample than the last: only with recorded values
	}
	if passed := p.now.at - last.at; p.begun && passed <= hold {
		p.now.area += last.value * passed.Seconds()
		p.now.covered += passed.Seconds()
	}
	if w.day {
		p.turnDay(last, t, place)
	} else {
		p.slide(w.length)
	}
	p.begun = true
}

// turnDay begins a day at its midnight, with what the value was then.
func (p *past) turnDay(last mark, t time.Time, place *time.Location) {
	year, month, date := t.In(place).Date()
	day := (year*16+int(month))*32 + date
	if p.begun && day == p.day {
		return
	}
	p.day = day
	if p.begin = p.now; p.begun {
		midnight := time.Date(year, month, date, 0, 0, 0, 0, place)
		if midnight.Day() != date { // where summer time begins at midnight, there is none
			midnight = midnight.Add(time.Hour)
		}
		p.begin = interpolate(last, p.now, midnight.Sub(p.epoch))
	}
}

// slide keeps marks for a length of time.
func (p *past) slide(length time.Duration) {
	if n := len(p.marks); n == 0 || p.now.at-p.marks[n-1].at >= length/windowSlots {
		p.marks = append(p.marks, p.now)
	}
	drop := 0
	for drop+1 < len(p.marks) && p.marks[drop+1].at <= p.now.at-length {
		drop++
	}
	if drop > 0 {
		p.marks = append(p.marks[:0], p.marks[drop:]...)
	}
}

// first is the mark at the beginning of the window, or where its samples begin.
func (p *past) first(w window) mark {
	if w.day {
		return p.begin
	}
	first, from := p.marks[0], p.now.at-w.length
	if first.at >= from {
		return first
	}
	second := p.now
	if len(p.marks) > 1 {
		second = p.marks[1]
	}
	return interpolate(first, second, from)
}
