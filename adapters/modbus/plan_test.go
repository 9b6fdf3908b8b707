package modbus

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/gateway"
)

func itoa(n int) string { return strconv.Itoa(n) }

// device makes a device of the points; at is given to each by its number.
func device(bus *gateway.Bus, profile *gateway.Profile, name string, unit int) *gateway.Device {
	d := &gateway.Device{Name: name, Profile: profile, Bus: bus, Unit: unit}
	for _, def := range profile.Points {
		d.Points = append(d.Points, &gateway.Point{Definition: def, Device: d, Name: def.ID})
	}
	return d
}

// holding makes a profile with uint16 points, or longer ones, at wire addresses.
func profileOf(table string, spans ...[2]int) *gateway.Profile {
	p := &gateway.Profile{Name: "test", Protocol: "modbus", Addressing: "protocol", Table: table, Order: "ABCD"}
	for i, s := range spans {
		d := &gateway.Definition{ID: fmt.Sprintf("p%d", i), At: itoa(s[0]), Poll: time.Second, Access: "r"}
		switch {
		case table == "coil" || table == "discrete":
			d.Type, d.Count = "bool", s[1]
		default:
			d.Type, d.Length = "bytes", 2*s[1]
		}
		p.Points = append(p.Points, d)
	}
	return p
}

func planOf(t testing.TB, bus *gateway.Bus, devices ...*gateway.Device) ([][]*gateway.Point, planner) {
	t.Helper()
	atlas, err := newAtlas(devices, make(models))
	if err != nil {
		t.Fatal(err)
	}
	var points []*gateway.Point
	for _, d := range devices {
		points = append(points, d.Points...)
	}
	p := planner{bus: bus, atlas: atlas}
	return p.plan(points), p
}

// spans writes a plan as the registers that it reads.
func spans(t testing.TB, p planner, groups [][]*gateway.Point) (list []string) {
	t.Helper()
	for _, g := range groups {
		places := make([]*place, len(g))
		for i := range g {
			places[i] = p.atlas.places[g[i]]
		}
		r, err := newRequest(p.bus, places)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%d:%s %d+%d", r.unit, r.table, r.start, r.count))
	}
	return list
}

var (
	tcp  = &gateway.Bus{Name: "tcp", Type: "modbus-tcp", Host: "localhost"}
	rtu  = &gateway.Bus{Name: "rtu", Type: "modbus-rtu", Port: "/dev/serial/by-id/x", Line: "9600 8N1", Timeout: 500 * time.Millisecond}
	fast = &gateway.Bus{Name: "fast", Type: "modbus-rtu", Port: "/dev/serial/by-id/x", Line: "115200 8N1", Timeout: 500 * time.Millisecond}
)

func TestPlanMergesWhatItMay(t *testing.T) {
	gap := func(n int) *gateway.Gap { return &gateway.Gap{Registers: n} }
	tests := []struct {
		name   string
		bus    *gateway.Bus
		change func(*gateway.Profile)
		table  string
		points [][2]int
		want   []string
	}{
		{"neighbours", tcp, nil, "holding", [][2]int{{0, 1}, {1, 2}, {3, 1}}, []string{"1:holding 0+4"}},
		{"any order of the file", tcp, nil, "holding", [][2]int{{3, 1}, {0, 1}, {1, 2}}, []string{"1:holding 0+4"}},
		{"overlaps", tcp, nil, "holding", [][2]int{{0, 4}, {2, 4}, {1, 1}}, []string{"1:holding 0+6"}},
		{"no gap in holding registers", tcp, nil, "holding", [][2]int{{0, 1}, {2, 1}}, []string{"1:holding 0+1", "1:holding 2+1"}},
		{"no gap in coils", tcp, nil, "coil", [][2]int{{0, 1}, {2, 1}}, []string{"1:coil 0+1", "1:coil 2+1"}},
		{"a gap by number", tcp, func(p *gateway.Profile) { p.MaxGap = gap(2) }, "holding", [][2]int{{0, 1}, {3, 1}, {7, 1}}, []string{"1:holding 0+4", "1:holding 7+1"}},
		{"no gap by number", tcp, func(p *gateway.Profile) { p.MaxGap = gap(0) }, "input", [][2]int{{0, 1}, {3, 1}}, []string{"1:input 0+1", "1:input 3+1"}},
		{"auto on TCP reads long gaps", tcp, nil, "input", [][2]int{{0, 1}, {100, 1}}, []string{"1:input 0+101"}},
		{"auto at 9600 Bd reads short ones", rtu, nil, "input", [][2]int{{0, 1}, {10, 1}, {30, 1}}, []string{"1:input 0+11", "1:input 30+1"}},
		{"auto at 115200 Bd reads longer ones", fast, nil, "input", [][2]int{{0, 1}, {10, 1}, {30, 1}}, []string{"1:input 0+31"}},
		{"auto on holding registers when asked", tcp, func(p *gateway.Profile) { p.MaxGap = &gateway.Gap{Auto: true} }, "holding", [][2]int{{0, 1}, {100, 1}}, []string{"1:holding 0+101"}},
		{"discrete inputs", tcp, nil, "discrete", [][2]int{{0, 1}, {1999, 1}, {2000, 1}}, []string{"1:discrete 0+1", "1:discrete 1999+2"}},
		{"max_registers", tcp, func(p *gateway.Profile) { p.MaxRegisters = 4 }, "holding", [][2]int{{0, 3}, {3, 3}, {6, 1}}, []string{"1:holding 0+3", "1:holding 3+4"}},
		{"never a point in two", tcp, func(p *gateway.Profile) { p.MaxRegisters = 4 }, "holding", [][2]int{{0, 3}, {3, 4}}, []string{"1:holding 0+3", "1:holding 3+4"}},
		{"forbid", tcp, func(p *gateway.Profile) { p.Forbid = []string{"5..6"} }, "input", [][2]int{{0, 2}, {4, 1}, {7, 1}, {9, 1}}, []string{"1:input 0+5", "1:input 7+3"}},
		{"forbid in another table", tcp, func(p *gateway.Profile) { p.Forbid = []string{"holding:5..6"} }, "input", [][2]int{{0, 2}, {9, 1}}, []string{"1:input 0+10"}},
		{"a point that is forbidden is read alone", tcp, func(p *gateway.Profile) { p.Forbid = []string{"5"} }, "input", [][2]int{{4, 1}, {5, 1}, {6, 1}}, []string{"1:input 4+1", "1:input 5+1", "1:input 6+1"}},
		{"a block in spite of its gap", tcp, func(p *gateway.Profile) { p.Points[0].Block, p.Points[1].Block = "a", "a" }, "holding", [][2]int{{0, 1}, {50, 1}, {20, 1}}, []string{"1:holding 0+51"}},
		{"a scale factor in spite of its gap", tcp, func(p *gateway.Profile) {
			p.Points[0].ScaleFrom, p.Points[1].Type = "p1", "int16"
		}, "holding", [][2]int{{0, 1}, {50, 1}, {70, 1}}, []string{"1:holding 0+51", "1:holding 70+1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			profile := profileOf(tt.table, tt.points...)
			if tt.change != nil {
				tt.change(profile)
			}
			groups, p := planOf(t, tt.bus, device(tt.bus, profile, "d", 1))
			if got := spans(t, p, groups); !slices.Equal(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestPlanOfSeveralUnits(t *testing.T) {
	profile := profileOf("input", [2]int{0, 1}, [2]int{2, 1})
	one, two := device(tcp, profile, "one", 1), device(tcp, profile, "two", 2)
	part := device(tcp, profile, "part", 2)
	part.Shift, part.SameUnit, two.SameUnit = 10, true, true
	groups, p := planOf(t, tcp, one, two, part)
	if got, want := spans(t, p, groups), []string{"1:input 0+3", "2:input 0+13"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestPlanOfUnitsBehindAConverter: where several units stand behind one host, bytes
// cost what they do on a serial line.
func TestPlanOfUnitsBehindAConverter(t *testing.T) {
	profile := profileOf("input", [2]int{0, 1}, [2]int{10, 1}, [2]int{60, 1})
	groups, p := planOf(t, tcp, device(tcp, profile, "a", 1), device(tcp, profile, "b", 2))
	want := []string{"1:input 0+11", "1:input 60+1", "2:input 0+11", "2:input 60+1"}
	if got := spans(t, p, groups); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	shared := device(tcp, profile, "b", 1) // one unit that two devices share
	if groups, _ := planOf(t, tcp, device(tcp, profile, "a", 1), shared); len(groups) != 1 {
		t.Errorf("%d requests to one unit", len(groups))
	}
}

func TestPlanLeavesNoStrangerOut(t *testing.T) {
	d := device(tcp, profileOf("holding", [2]int{0, 1}), "d", 1)
	_, p := planOf(t, tcp, d)
	stranger := &gateway.Point{Definition: &gateway.Definition{ID: "stranger"}, Device: d}
	if groups := p.plan([]*gateway.Point{stranger, d.Points[0]}); len(groups) != 2 || groups[1][0] != stranger {
		t.Errorf("%v", groups)
	}
	if groups := p.plan(nil); len(groups) != 0 {
		t.Errorf("a plan of nothing: %v", groups)
	}
}

// drawMap draws a small register map with all that the plan has to respect.
func drawMap(t *rapid.T) (*gateway.Bus, *gateway.Device) {
	bus := rapid.SampledFrom([]*gateway.Bus{tcp, rtu, fast}).Draw(t, "bus")
	table := rapid.SampledFrom([]string{"holding", "input", "coil", "discrete"}).Draw(t, "table")
	var points [][2]int
	for range rapid.IntRange(1, 7).Draw(t, "points") {
		points = append(points, [2]int{rapid.IntRange(0, 40).Draw(t, "at"), rapid.IntRange(1, 6).Draw(t, "size")})
	}
	profile := profileOf(table, points...)
	profile.MaxRegisters = rapid.SampledFrom([]int{0, 6, 10, 25}).Draw(t, "max_registers")
	if n := rapid.IntRange(-2, 6).Draw(t, "max_gap"); n >= -1 {
		profile.MaxGap = &gateway.Gap{Auto: n < 0, Registers: max(0, n)}
	}
	for range rapid.IntRange(0, 2).Draw(t, "forbids") {
		first := rapid.IntRange(0, 40).Draw(t, "forbid")
		profile.Forbid = append(profile.Forbid, fmt.Sprintf("%d..%d", first, first+rapid.IntRange(0, 4).Draw(t, "forbidden")))
	}
	return bus, device(bus, profile, "d", 1)
}

// allowed says whether the rules let the places be read by one request, and
// what it costs; it is written without looking at the plan.
func allowed(p planner, places []*place) (time.Duration, bool) {
	profile, table := places[0].point.Device.Profile, places[0].address.Table
	start, end := places[0].start, places[0].end
	covered := make(map[int]bool)
	nested := false // one point holds all others: the request is no merged one
	for _, at := range places {
		start, end = min(start, at.start), max(end, at.end)
		for r := at.start; r < at.end; r++ {
			covered[r] = true
		}
	}
	for _, at := range places {
		nested = nested || at.start == start && at.end == end
	}
	c, gap := p.cost(places[0].point.Device), gapIn(table, profile)
	if !gap.Auto {
		c = fewest
	}
	if nested {
		return c.of(table, end-start), true
	}
	run := 0
	for r := start; r < end; r++ {
		if run++; covered[r] {
			run = 0
		}
		if !gap.Auto && run > gap.Registers {
			return 0, false
		}
		for _, f := range p.atlas.forbid[profile] {
			if f.table == table && r >= f.first && r <= f.last {
				return 0, false
			}
		}
	}
	return c.of(table, end-start), end-start <= mostIn(table, profile)
}

// cheapest tries every division of the places into sets.
func cheapest(p planner, places []*place, sets [][]*place) time.Duration {
	if len(places) == 0 {
		total := time.Duration(0)
		for _, s := range sets {
			c, ok := allowed(p, s)
			if !ok {
				return -1
			}
			total += c
		}
		return total
	}
	best := cheapest(p, places[1:], append(sets, []*place{places[0]}))
	for i := range sets {
		changed := slices.Clone(sets)
		changed[i] = append(slices.Clone(sets[i]), places[0])
		if c := cheapest(p, places[1:], changed); c >= 0 && (best < 0 || c < best) {
			best = c
		}
	}
	return best
}

// TestPlanIsTheCheapest compares with brute force over all divisions, and
// checks what every plan has to keep.
func TestPlanIsTheCheapest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bus, d := drawMap(t)
		atlas, err := newAtlas([]*gateway.Device{d}, make(models))
		if err != nil {
			t.Fatal(err)
		}
		p := planner{bus: bus, atlas: atlas}
		seen := make(map[*gateway.Point]int)
		total := time.Duration(0)
		for _, g := range p.plan(d.Points) {
			var places []*place
			for _, point := range g {
				seen[point]++
				places = append(places, atlas.places[point])
			}
			c, ok := allowed(p, places)
			if !ok {
				t.Fatalf("a request that is not allowed: %v", g)
			}
			total += c
		}
		for _, point := range d.Points {
			if seen[point] != 1 {
				t.Fatalf("%s is in %d requests", point.ID, seen[point])
			}
		}
		var places []*place
		for _, point := range d.Points {
			places = append(places, atlas.places[point])
		}
		if best := cheapest(p, places, nil); best != total {
			t.Fatalf("the plan costs %v, the best %v", total, best)
		}
	})
}

// TestPlanKeepsBlocksTogether: blocks and scale factors come from one request
// whatever the limits would say.
func TestPlanKeepsBlocksTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bus, d := drawMap(t)
		profile := d.Profile
		for _, def := range profile.Points {
			def.Block = rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(t, "block")
		}
		atlas, err := newAtlas([]*gateway.Device{d}, make(models))
		if err != nil {
			t.Fatal(err)
		}
		request := make(map[string]int)
		count := 0
		for i, g := range (planner{bus: bus, atlas: atlas}).plan(d.Points) {
			for _, point := range g {
				count++
				if was, ok := request[point.Block]; ok && point.Block != "" && was != i {
					t.Fatalf("block %s is in requests %d and %d", point.Block, was, i)
				}
				request[point.Block] = i
			}
		}
		if count != len(d.Points) {
			t.Fatalf("%d of %d points", count, len(d.Points))
		}
	})
}

// fleet is 100 devices of 1,000 registers, in blocks of 20 with holes of 10.
func fleet(bus *gateway.Bus, devices, points int) []*gateway.Device {
	profile := &gateway.Profile{Name: "big", Addressing: "protocol", Table: "input", Order: "ABCD"}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range points {
		profile.Points = append(profile.Points, &gateway.Definition{ID: fmt.Sprintf("p%d", i), At: itoa(i + i/20*10), Type: "uint16", Poll: time.Second})
	}
	r.Shuffle(points, func(i, j int) { profile.Points[i], profile.Points[j] = profile.Points[j], profile.Points[i] })
	var list []*gateway.Device
	for i := range devices {
		list = append(list, device(bus, profile, fmt.Sprintf("d%d", i), i+1))
	}
	return list
}

// BenchmarkPlan100k is a session's plan, compiled.
func BenchmarkPlan100k(b *testing.B) {
	devices := fleet(rtu, 100, 1000)
	a, err := New(gateway.Env{}, rtu, devices)
	if err != nil {
		b.Fatal(err)
	}
	var points []*gateway.Point
	for _, d := range devices {
		points = append(points, d.Points...)
	}
	b.ReportAllocs()
	for b.Loop() {
		newSession(a.(*Adapter), nil).Plan(points)
	}
}

func BenchmarkNew100k(b *testing.B) {
	devices := fleet(tcp, 100, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := New(gateway.Env{}, tcp, devices); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck100k(b *testing.B) {
	devices := fleet(rtu, 100, 1000)
	b.ReportAllocs()
	for b.Loop() {
		Check(rtu, devices)
	}
}
