package modbus

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway"
)

func TestLearning(t *testing.T) {
	tooLong := func(code byte, most int) func(int, int) byte {
		return func(first, last int) byte {
			if last-first >= most {
				return code
			}
			return 0
		}
	}
	for _, tt := range []struct {
		name   string
		table  string
		points [][2]int
		refuse func(int, int) byte
		most   int               // requests until it is settled
		bad    map[string]string // afterwards
		cycle  []string          // requests afterwards
		learnt []string
	}{
		{"a hole", "input", append(run(0, 10, 1), run(20, 10, 1)...), touches(2, 14), 8, nil,
			[]string{"0+10", "20+10"}, []string{"input 10 to 19: not read along (exception 2: illegal data address)"}},
		{"two holes and three", "input", append(append(run(0, 4, 2), run(10, 4, 2)...), append(run(20, 4, 1), run(30, 8, 1)...)...), touches(2, 9, 18, 26), 40, nil,
			[]string{"0+8", "10+8", "20+4", "30+8"}, []string{
				"input 8 to 9: not read along (exception 2: illegal data address)", "input 18 to 19: not read along (exception 2: illegal data address)",
				"input 24 to 29: not read along (exception 2: illegal data address)"}},
		{"a point", "holding", run(100, 32, 2), touches(2, 141), 20, map[string]string{"p20": "exception 2: illegal data address"},
			[]string{"100+40", "142+22"}, []string{"holding 140 to 141: not read (exception 2: illegal data address)"}},
		{"the first and the last point", "holding", run(0, 16, 1), touches(2, 0, 15), 25, map[string]string{"p0": "exception 2: illegal data address", "p15": "exception 2: illegal data address"},
			[]string{"1+14"}, []string{"holding 0: not read (exception 2: illegal data address)", "holding 15: not read (exception 2: illegal data address)"}},
		{"a point in a request of its own", "holding", [][2]int{{0, 1}, {10, 1}}, touches(2, 10), 4, map[string]string{"p1": "exception 2: illegal data address"},
			[]string{"0+1"}, []string{"holding 10: not read (exception 2: illegal data address)"}},
		{"a border", "holding", run(0, 20, 1), func(first, last int) byte {
			if first < 7 && last >= 7 {
				return 2
			}
			return 0
		}, 20, nil, []string{"0+7", "7+13"}, []string{"holding 6 to 7: not read together (exception 2: illegal data address)"}},
		{"a low limit", "holding", run(0, 110, 1), tooLong(3, 40), 20, nil, []string{"0+30", "30+40", "70+40"},
			[]string{"holding: at most 40 registers in one request (exception 3: illegal data value)"}},
		{"a low limit of two long points", "holding", run(0, 2, 40), tooLong(2, 64), 9, nil, []string{"0+40", "40+40"},
			[]string{"holding: at most 40 registers in one request (exception 2: illegal data address)"}},
		{"short answers", "holding", run(0, 100, 1), tooLong(short, 60), 25, nil, []string{"0+40", "40+60"},
			[]string{"holding: at most 60 registers in one request (no valid answer of unit 1: 102 bytes that don't fit the request: 03 64 00 00 00 01 00 02 00 03 00 04)"}},
		{"a silent hole", "input", append(run(0, 10, 1), run(20, 10, 1)...), touches(silent, 14), 12, nil,
			[]string{"0+10", "20+10"}, []string{"input 10 to 19: not read along (no answer within 1s)"}},
		{"a silent point", "holding", run(0, 16, 1), touches(silent, 5), 20, map[string]string{"p5": "no answer within 1s"},
			[]string{"0+5", "6+10"}, []string{"holding 5: not read (no answer within 1s)"}},
		{"a silent point in a request of its own", "holding", [][2]int{{0, 1}, {10, 1}}, touches(silent, 10), 4, map[string]string{"p1": "no answer within 1s"},
			[]string{"0+1"}, []string{"holding 10: not read (no answer within 1s)"}},
		{"bits", "discrete", append(run(3, 10, 1), run(40, 21, 1)...), touches(2, 20, 45), 20, map[string]string{"p15": "exception 2: illegal data address"},
			[]string{"3+10", "40+5", "46+15"}, []string{"discrete 13 to 39: not read along (exception 2: illegal data address)", "discrete 45: not read (exception 2: illegal data address)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &meter{refuse: tt.refuse}
				d := learner(tt.table, time.Second, tt.points...)
				other := &gateway.Definition{ID: "other", At: "input:1000", Type: "bytes", Length: 2} // shows that the unit is there
				d.Profile.Points = append(d.Profile.Points, other)
				d.Points = append(d.Points, &gateway.Point{Definition: other, Device: d})
				s, end := onMeter(t, m, nil, d)
				defer end()
				asked, was := 0, -1
				groups := s.Plan(d.Points)
				old := groups
				for cycles := 0; asked != was || cycles < 4; cycles++ {
					if was = asked; cycles > 60 {
						cycle(t, s, groups)
						t.Fatalf("it does not settle: asks %v; learnt %q", m.take(), saidLearnt(s.Adapter))
					}
					now := s.Planned()
					cycle(t, s, groups)
					got := m.take()
					if s.Planned() != now {
						groups = s.Plan(d.Points)
					} else if cycles > 3 && slices.Equal(sorted(got), sorted(append(slices.Clone(tt.cycle), "1000+1"))) {
						break
					}
					asked += len(got)
				}
				if asked -= 4 * (len(tt.cycle) + 1); asked > tt.most {
					t.Errorf("%d requests until it is settled, want %d", asked, tt.most)
				}
				for name, groups := range map[string][][]*gateway.Point{"a new plan": groups, "the old plan": old} {
					if bad := cycle(t, s, groups); !maps.Equal(bad, tt.bad) {
						t.Errorf("%s: bad are %v, want %v", name, bad, tt.bad)
					}
					if got := sorted(m.take()); !slices.Equal(got, sorted(append(slices.Clone(tt.cycle), "1000+1"))) {
						t.Errorf("%s asks %v, want %v", name, got, tt.cycle)
					}
				}
				if got := saidLearnt(s.Adapter); !slices.Equal(sorted(got), sorted(tt.learnt)) {
					t.Errorf("learnt %q, want %q", got, tt.learnt)
				}
			})
		})
	}
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

func saidLearnt(a *Adapter) (list []string) {
	for _, l := range a.Learnt() {
		list = append(list, fmt.Sprintf("%s: %s (%s)", l.Range, l.What, l.Reason))
	}
	return list
}

func TestPointsAreReadWhileItLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meter{refuse: touches(2, 41), delay: 60 * time.Millisecond}
		d := learner("holding", time.Second, run(0, 64, 1)...)
		s, end := onMeter(t, m, nil, d)
		defer end()
		groups := s.Plan(d.Points)
		reads, worst, was := 0, 0, 65
		for ; len(saidLearnt(s.Adapter)) == 0 && reads < 30; reads++ {
			bad := len(cycle(t, s, groups))
			if bad > was {
				t.Errorf("read %d: %d points are bad, %d were", reads, bad, was)
			}
			was, worst = bad, max(worst, len(m.take()))
		}
		// Two steps of the search fit into 100 ms, beside one read for each piece that works.
		if reads > 9 || worst > 8 {
			t.Errorf("learnt after %d reads, with at most %d requests in one", reads, worst)
		}
		if bad := cycle(t, s, groups); len(bad) != 1 || len(m.take()) != 2 {
			t.Errorf("bad are %v", bad)
		}
	})
}
