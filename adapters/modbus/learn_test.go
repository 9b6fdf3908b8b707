package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// meter is a unit on TCP whose registers hold their address, and whose bits are
// set where that is odd.
type meter struct {
	mu     sync.Mutex
	asked  []string
	delay  time.Duration
	flying int // requests, and the most that there were
	most   int
	refuse func(first, last int) byte // exception for a read; silent for silence, short for half an answer
}

const silent, short = 0xFF, 0xFE

// serve answers each request as soon as its delay is over, in any order.
func (m *meter) serve(conn net.Conn) {
	var answers sync.WaitGroup
	defer answers.Wait()
	var line sync.Mutex
	head := make([]byte, 7)
	for {
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		pdu := make([]byte, binary.BigEndian.Uint16(head[4:])-1)
		if _, err := io.ReadFull(conn, pdu); err != nil {
			return
		}
		m.mu.Lock()
		reply := m.reply(pdu)
		m.flying++
		m.most = max(m.most, m.flying)
		m.mu.Unlock()
		frame := append(slices.Clone(head), reply...)
		binary.BigEndian.PutUint16(frame[4:], uint16(len(reply)+1))
		answers.Go(func() {
			time.Sleep(m.delay)
			m.mu.Lock()
			m.flying--
			m.mu.Unlock()
			line.Lock()
			defer line.Unlock()
			if reply != nil {
				_, _ = conn.Write(frame)
			}
		})
	}
}

func (m *meter) reply(pdu []byte) []byte {
	first, n := int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
	m.asked = append(m.asked, fmt.Sprintf("%d+%d", first, n))
	switch code := m.refuse(first, first+n-1); code {
	case 0:
	case silent:
		return nil
	case short:
		n /= 2
	default:
		return []byte{pdu[0] | 0x80, code}
	}
	if pdu[0] == wire.FuncReadCoils || pdu[0] == wire.FuncReadDiscreteInputs {
		reply := append([]byte{pdu[0], byte((n + 7) / 8)}, make([]byte, (n+7)/8)...)
		for i := range n {
			reply[2+i/8] |= byte((first+i)%2) << (i % 8)
		}
		return reply
	}
	reply := []byte{pdu[0], byte(2 * n)}
	for i := range n {
		reply = binary.BigEndian.AppendUint16(reply, uint16(first+i))
	}
	return reply
}

// take gives what was asked since the last take.
func (m *meter) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.asked
	m.asked = nil
	return was
}

func (m *meter) set(refuse func(first, last int) byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = refuse
}

// touches refuses what has one of the registers in it.
func touches(code byte, registers ...int) func(int, int) byte {
	return func(first, last int) byte {
		for _, r := range registers {
			if first <= r && r <= last {
				return code
			}
		}
		return 0
	}
}

func nothing(int, int) byte { return 0 }

// memory is a state that a test keeps.
type memory map[string][]byte

func (m memory) Get(bucket, key string) ([]byte, error) { return m[bucket+"/"+key], nil }
func (m memory) Put(bucket, key string, v []byte) error { m[bucket+"/"+key] = v; return nil }

// failer is a test or a property.
type failer interface {
	Helper()
	Fatalf(string, ...any)
}

// onMeter opens a session to a meter.
func onMeter(t failer, m *meter, state gateway.State, d *gateway.Device) (*session, func()) {
	t.Helper()
	a, err := New(gateway.Env{State: state}, d.Bus, []*gateway.Device{d})
	if err != nil {
		t.Fatalf("%v", err)
	}
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); m.serve(far) }()
	s := newSession(a.(*Adapter), wire.NewTCP(near, wire.Options{Timeout: d.Bus.Timeout}))
	return s, func() { s.Close(); far.Close(); <-done }
}

// cycle reads all points once, as the bus loop does, and gives those that are
// not good, with their reasons. A good one has to have its right value.
func cycle(t failer, s *session, groups [][]*gateway.Point) map[string]string {
	t.Helper()
	bad := make(map[string]string)
	for _, group := range groups {
		samples, err := s.Read(ctx(t), group)
		if err != nil {
			t.Fatalf("%v", err)
		}
		for i, x := range samples {
			at := s.atlas.places[x.Point]
			switch {
			case x.Point != group[i] || x.Time.IsZero():
				t.Fatalf("sample %d is %+v, want one of %s", i, x, group[i].ID)
			case x.Quality != gateway.Good:
				bad[x.Point.ID] = x.Reason
			case at.address.Table.Bits():
				if x.Value.List()[0].Bool() != (at.start%2 == 1) {
					t.Fatalf("%s is %s", x.Point.ID, x.Value)
				}
			case !strings.HasPrefix(x.Value.String(), fmt.Sprintf("%04x", at.start)) || len(x.Value.String()) != 4*(at.end-at.start):
				t.Fatalf("%s is %s, at %d", x.Point.ID, x.Value, at.start)
			}
		}
	}
	return bad
}

func run(first, count, size int) (spans [][2]int) {
	for i := range count {
		spans = append(spans, [2]int{first + i*size, size})
	}
	return spans
}

func learner(table string, timeout time.Duration, spans ...[2]int) *gateway.Device {
	bus := &gateway.Bus{Name: "b", Type: "modbus-tcp", Host: "localhost", Timeout: timeout}
	return device(bus, profileOf(table, spans...), "d", 1)
}

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
		for groups := s.Plan(d.Points); len(saidLearnt(s.Adapter)) == 0 && len(unit.log) < 200; {
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
