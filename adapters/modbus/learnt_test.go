package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

func TestAllRefusedIsNotLearnt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meter{refuse: func(int, int) byte { return 2 }}
		d := learner("holding", time.Second, run(0, 16, 1)...)
		s, end := onMeter(t, m, nil, d)
		defer end()
		groups := s.Plan(d.Points)
		for range 5 {
			cycle(t, s, groups)
		}
		m.take()
		if bad := cycle(t, s, groups); len(bad) != 16 || len(m.take()) != 1 || len(saidLearnt(s.Adapter)) != 0 {
			t.Errorf("bad are %v, learnt %v", bad, saidLearnt(s.Adapter))
		}
		m.set(nothing)
		if bad := cycle(t, s, groups); len(bad) != 0 {
			t.Errorf("bad are %v", bad)
		}
	})
}

func TestPassingTroubleIsNotLearnt(t *testing.T) {
	for _, code := range []byte{2, 3, 4, 11, silent, short} {
		synctest.Test(t, func(t *testing.T) {
			d := learner("holding", time.Second, run(0, 16, 1)...)
			once := 0
			m := &meter{refuse: func(first, last int) byte {
				if once++; once%9 == 1 {
					return code
				}
				return 0
			}}
			s, end := onMeter(t, m, nil, d)
			defer end()
			groups := s.Plan(d.Points)
			for range 50 {
				cycle(t, s, groups)
			}
			if got := saidLearnt(s.Adapter); len(got) != 0 {
				t.Errorf("code %d: learnt %v", code, got)
			}
		})
	}
}

func TestUnitThatGoesAwayTeachesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meter{refuse: touches(2, 41), delay: 60 * time.Millisecond}
		d := learner("holding", time.Second, run(0, 64, 1)...)
		s, end := onMeter(t, m, nil, d)
		defer end()
		groups := s.Plan(d.Points)
		cycle(t, s, groups)
		m.set(func(int, int) byte { return silent })
		var err error
		for err == nil {
			var samples []gateway.Sample
			samples, err = s.Read(t.Context(), groups[0])
			for _, x := range samples {
				if err == nil && !x.Silent {
					t.Errorf("%+v is not silent", x)
				}
			}
		}
		if got := saidLearnt(s.Adapter); !wire.Broken(err) || len(got) != 0 {
			t.Errorf("%v, learnt %v", err, got)
		}
	})
}

func TestLearntSurvivesARestart(t *testing.T) {
	state := make(memory)
	points := append(run(0, 10, 1), run(20, 10, 1)...)
	start := func(t *testing.T, change func(*gateway.Device), want ...string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			m := &meter{refuse: touches(2, 4, 14)}
			d := learner("input", time.Second, points...)
			change(d)
			s, end := onMeter(t, m, state, d)
			defer end()
			cycle(t, s, s.Plan(d.Points))
			if got := m.take(); want != nil && !slices.Equal(got, want) || want == nil && len(got) < 5 {
				t.Errorf("asked %v, want %v", got, want)
			}
			for range 3 {
				cycle(t, s, s.Plan(d.Points))
			}
		})
	}
	start(t, func(*gateway.Device) {})
	if !strings.Contains(string(state["modbus.learnt/d"]), `"kind":"point"`) {
		t.Errorf("state %s", state)
	}
	start(t, func(*gateway.Device) {}, "0+4", "5+5", "20+10")
	start(t, func(d *gateway.Device) { d.Profile.Forbid = []string{"500"} })
	start(t, func(d *gateway.Device) { d.Profile.Forbid = []string{"500"} }, "0+4", "5+5", "20+10")
	state["modbus.learnt/d"] = []byte("{")
	start(t, func(*gateway.Device) {})
}

// slowState can't be read at first, and never be written.
type slowState struct {
	memory
	ready bool
}

func (s *slowState) Get(bucket, key string) ([]byte, error) {
	if !s.ready {
		return nil, errors.New("not open yet")
	}
	return s.memory.Get(bucket, key)
}

func TestStateThatIsNotThereYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meter{refuse: touches(2, 3)}
		d := learner("input", time.Second, run(0, 10, 1)...)
		s, end := onMeter(t, m, make(memory), d)
		for range 3 {
			cycle(t, s, s.Plan(d.Points))
		}
		known := &slowState{memory: s.env.State.(memory)}
		end()
		m.set(nothing)
		s, end = onMeter(t, m, known, d)
		defer end()
		groups := s.Plan(d.Points)
		cycle(t, s, groups)
		known.ready = true
		cycle(t, s, groups)
		m.take()
		if bad := cycle(t, s, groups); len(bad) != 1 || len(m.take()) != 2 {
			t.Errorf("bad are %v", bad)
		}
	})
}

func TestLearntIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meter{refuse: touches(2, 5)}
		d := learner("holding", time.Second, run(0, 10, 1)...)
		s, end := onMeter(t, m, make(memory), d)
		defer end()
		for range 3 {
			cycle(t, s, s.Plan(d.Points))
		}
		groups := s.Plan(d.Points)
		m.take()
		trials := func(hours int) (n int) {
			for range hours * 60 {
				time.Sleep(time.Minute)
				if bad := cycle(t, s, groups); len(bad) != 1 {
					t.Fatalf("bad are %v", bad)
				}
				n += len(m.take()) - 2
			}
			return n
		}
		if n := trials(24); n < 8 || n > 12 {
			t.Errorf("%d trials on the first day", n)
		}
		trials(24)
		if n := trials(48); n != 2 {
			t.Errorf("%d trials on two later days", n)
		}
		planned := s.Planned()
		m.set(nothing)
		time.Sleep(24*time.Hour + time.Minute)
		cycle(t, s, groups)
		if bad := cycle(t, s, groups); len(bad) != 0 || s.Planned() == planned || len(saidLearnt(s.Adapter)) != 0 {
			t.Errorf("bad are %v, planned %d, learnt %v", bad, s.Planned(), saidLearnt(s.Adapter))
		}
	})
}

// TestLearningOnALine: RTU makes throw-away reads after silence, which may be
// refused too.
func TestLearningOnALine(t *testing.T) {
	for _, code := range []byte{2, silent} {
		bus := serialBus(150 * time.Millisecond)
		d := device(bus, profileOf("holding", append(run(0, 12, 1), [2]int{40, 2})...), "d", 1)
		s, unit := onSlave(t, bus, d)
		for i := range unit.regs {
			unit.regs[i] = uint16(i)
		}
		unit.script(func(pdu []byte) []byte {
			first, n := int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
			switch {
			case first > 7 || first+n <= 7:
				return unit.reply(pdu)
			case code == silent:
				return nil
			}
			return []byte{pdu[0] | 0x80, code}
		})
		groups := s.Plan(d.Points)
		for n := 0; n < 30 && len(saidLearnt(s.Adapter)) == 0; n++ {
			cycle(t, s, groups)
		}
		unit.take()
		if bad, got := cycle(t, s, s.Plan(d.Points)), unit.take(); len(bad) != 1 || bad["p7"] == "" || !slices.Equal(got, []string{"0300000007", "0300080004", "0300280002"}) {
			t.Errorf("code %d: bad are %v, asked %v, learnt %q", code, bad, got, saidLearnt(s.Adapter))
		}
	}
}

func TestLearntWhileItIsRead(t *testing.T) {
	d := learner("holding", time.Second, run(0, 64, 1)...)
	m := &meter{refuse: touches(2, 3, 17, 40)}
	s, end := onMeter(t, m, make(memory), d)
	defer end()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				s.Adapter.Learnt()
			}
		}
	}()
	for range 50 {
		cycle(t, s, s.Plan(d.Points))
	}
	close(stop)
	<-done
	if got := saidLearnt(s.Adapter); len(got) != 3 {
		t.Errorf("learnt %q", got)
	}
}

// TestLearningSettles draws units with holes, points and borders that refuse
// and low limits: soon nothing is refused any more, and all that can be read is.
func TestLearningSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at, spans := 0, [][2]int(nil)
		for range rapid.IntRange(2, 40).Draw(t, "points") {
			size := rapid.IntRange(1, 4).Draw(t, "size")
			spans = append(spans, [2]int{at, size})
			at += size + rapid.SampledFrom([]int{0, 0, 0, 1, 9}).Draw(t, "gap")
		}
		bad := rapid.SliceOfN(rapid.IntRange(0, at), 0, 4).Draw(t, "bad")
		border := rapid.IntRange(-at, at).Draw(t, "border")
		most := rapid.SampledFrom([]int{125, 125, 40, 16}).Draw(t, "most")
		refuse := touches(2, bad...)
		cut := func(first, last int) bool {
			return slices.ContainsFunc(spans, func(s [2]int) bool { return s[0] < border && s[0]+s[1] > border }) == false && first < border && last >= border
		}
		m := &meter{refuse: func(first, last int) byte {
			if last-first >= most || cut(first, last) {
				return 3
			}
			return refuse(first, last)
		}}
		d := learner("input", time.Second, append(spans, [2]int{2000, 1})...)
		s, end := onMeter(t, m, nil, d)
		defer end()
		asked := 0
		for range 40 {
			cycle(t, s, s.Plan(d.Points))
			asked += len(m.take())
		}
		if limit := 60*(len(bad)+2) + 40*len(spans); asked > limit {
			t.Fatalf("%d requests in 40 cycles", asked)
		}
		lost := cycle(t, s, s.Plan(d.Points))
		for i, x := range spans {
			if why := lost[fmt.Sprintf("p%d", i)]; (why != "") != (refuse(x[0], x[0]+x[1]-1) != 0) {
				t.Fatalf("p%d at %v: %q; learnt %q", i, x, why, saidLearnt(s.Adapter))
			}
		}
		for _, q := range m.take() {
			var first, n int
			if fmt.Sscanf(q, "%d+%d", &first, &n); m.refuse(first, first+n-1) != 0 {
				t.Fatalf("still asks %s; learnt %q", q, saidLearnt(s.Adapter))
			}
		}
	})
}

// TestOneRegisterThatFailsIsBadAlone: by any exception that can be about some of
// the registers. What may go by itself, as a sensor that is out of order, is
// tried again every ten minutes, however long it took.
func TestOneRegisterThatFailsIsBadAlone(t *testing.T) {
	for code, trials := range map[byte]int{1: 2, 4: 12, 8: 12} {
		synctest.Test(t, func(t *testing.T) {
			d := learner("holding", time.Second, run(0, 16, 1)...)
			m := &meter{refuse: touches(code, 3)}
			s, end := onMeter(t, m, nil, d)
			defer end()
			groups := s.Plan(d.Points)
			for range 3 {
				cycle(t, s, groups)
			}
			for range 24 * 60 {
				time.Sleep(time.Minute)
				cycle(t, s, groups)
			}
			m.take()
			for range 120 {
				time.Sleep(time.Minute)
				if bad := cycle(t, s, groups); len(bad) != 1 || bad["p3"] == "" {
					t.Fatalf("exception %d: bad are %v", code, bad)
				}
			}
			if n := len(m.take()) - 2*120; n > trials || n < trials-2 {
				t.Errorf("exception %d: %d trials in two hours of the second day, want %d", code, n, trials)
			}
		})
	}
}

// TestOneRefusalIsNotLearnt: a request for one point that is refused once.
func TestOneRefusalIsNotLearnt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := learner("holding", time.Second, [2]int{0, 1}, [2]int{10, 1})
		once := false
		m := &meter{refuse: func(first, _ int) byte {
			if first == 10 && !once {
				once = true
				return 2
			}
			return 0
		}}
		s, end := onMeter(t, m, nil, d)
		defer end()
		for range 3 {
			cycle(t, s, s.Plan(d.Points))
		}
		if got := saidLearnt(s.Adapter); len(got) != 0 {
			t.Errorf("learnt %v", got)
		}
	})
}

// TestSearchesGoOneAfterTheOther: two requests that are refused, and a unit so
// slow that a search takes several reads.
func TestSearchesGoOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := learner("holding", time.Second, append(run(0, 64, 1), run(500, 64, 1)...)...)
		m := &meter{refuse: touches(2, 41, 541), delay: 60 * time.Millisecond}
		s, end := onMeter(t, m, nil, d)
		defer end()
		groups := s.Plan(d.Points)
		n := 0
		for ; len(saidLearnt(s.Adapter)) < 2 && n < 30; n++ {
			cycle(t, s, groups)
		}
		if got := saidLearnt(s.Adapter); len(got) != 2 {
			t.Errorf("learnt %q after %d cycles", got, n)
		}
	})
}
