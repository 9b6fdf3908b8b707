package gateway

import "time"

const reasonReset = "the counter was reset"

// meter follows a point that only counts up, over its rounds and resets. A drop
// is a wrap where that is the shorter way: at wraps_at the counter begins again at
// 0. Any other drop is a reset or another meter: what was counted meanwhile is
// not known, and counts as nothing. A counter that shows less for a moment and
// then goes on where it was (a meter that starts up) has not been reset.
type meter struct {
	round  float64 // one round in engineering units, 0 where wraps_at is not given
	last   float64
	total  float64 // counted from the first value on, never falls
	known  bool    // there was a value
	before float64 // the last value before a reset

	resets  int
	resetAt time.Time // of the last one
}

// newMeter is the meter of a counter, nil for other points.
func newMeter(d *Definition) *meter {
	if d.Kind != "counter" {
		return nil
	}
	m := &meter{}
	if d.WrapsAt == nil || d.ScaleFrom != "" {
		return m
	}
	conversion, err := NewConversion(d)
	if err != nil {
		return m
	}
	full := conversion.scale(FloatValue(d.WrapsAt.Float), 0)
	m.round = full.Float() - conversion.scale(FloatValue(0), 0).Float()
	return m
}

// note takes in a good sample, and tells whether the counter was reset.
func (m *meter) note(s *Sample) (reset bool) {
	v := s.Value.Float()
	if s.Quality != Good || v != v {
		return false
	}
	if !m.known {
		m.known, m.last, m.total = true, v, v
		return false
	}
	step := v - m.last
	switch {
	case step < 0 && m.round+step > 0 && m.round+step <= m.round/2:
		step += m.round
	case step < 0:
		m.before = m.last
		m.resets, m.resetAt, step, reset = m.resets+1, s.Time, 0, true
	case m.resets > 0 && v >= m.before && step > (m.before-m.last)/2 && m.before > m.last:
		step = v - m.before
		m.resetAt = time.Time{}
	}
	m.last = v
	m.total += step
	return reset
}
