package modbus

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"sluice/gateway"
)

var lines = []struct {
	name string
	bus  *gateway.Bus
}{
	{"9600", rtu},
	{"19200", &gateway.Bus{Name: "b", Type: "modbus-rtu", Port: "/dev/serial/by-id/x", Line: "19200 8E1"}},
	{"115200", fast},
	{"tcp", tcp},
}

// randomMap is 150 points of one to four registers, in clusters with holes
// between, as meters and drives have them; a fifth has a forbidden range.
func randomMap(r *rand.Rand, bus *gateway.Bus) *gateway.Device {
	var points [][2]int
	at := r.IntN(1000)
	for range 150 {
		size := []int{1, 1, 2, 2, 2, 4}[r.IntN(6)]
		points = append(points, [2]int{at, size})
		if at += size; r.IntN(4) == 0 {
			at += int(r.ExpFloat64() * 15)
		}
	}
	profile := profileOf("input", points...)
	if r.IntN(5) == 0 {
		at := points[r.IntN(150)]
		profile.Forbid = []string{itoa(at[0] + at[1])}
	}
	profile.MaxRegisters = []int{0, 0, 60, 32}[r.IntN(4)]
	return device(bus, profile, "d", 1)
}

// exact is the least that the points of a map without overlaps can cost:
// the shortest way from each register to the end, by trying every length.
func exact(p planner, d *gateway.Device) time.Duration {
	profile, last := d.Profile, 0
	starts, inside := make(map[int]int), make(map[int]bool)
	for _, point := range d.Points {
		at := p.atlas.places[point]
		starts[at.start], last = at.end, max(last, at.end)
		for r := at.start + 1; r < at.end; r++ {
			inside[r] = true
		}
	}
	least := make([]time.Duration, last+200)
	for r := last - 1; r >= 0; r-- {
		end := starts[r]
		if least[r] = least[r+1]; end == 0 {
			continue
		}
		least[r] = math.MaxInt64
		for n := 1; n <= mostIn(Input, profile) && r+n <= last; n++ {
			if r+n < end || inside[r+n] {
				continue
			}
			if forbid := p.atlas.forbid[profile]; len(forbid) > 0 && r <= forbid[0].first && forbid[0].first < r+n && r+n > end {
				break
			}
			least[r] = min(least[r], p.cost(d).of(Input, n)+least[r+n])
		}
	}
	return least[0]
}

func costOf(t testing.TB, p planner, d *gateway.Device, groups [][]*gateway.Point) (total time.Duration) {
	for _, g := range groups {
		places := make([]*place, len(g))
		for i := range g {
			places[i] = p.atlas.places[g[i]]
		}
		r, err := newRequest(p.bus, places)
		if err != nil {
			t.Fatal(err)
		}
		total += p.cost(d).of(r.table, r.count)
	}
	return total
}

// TestPlanOfLargeMapsIsTheCheapest compares with another exact algorithm.
func TestPlanOfLargeMapsIsTheCheapest(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, l := range lines {
		for range 75 {
			d := randomMap(random, l.bus)
			groups, p := planOf(t, l.bus, d)
			if got, want := costOf(t, p, d, groups), exact(p, d); got != want {
				t.Fatalf("%s: the plan costs %v, the best %v", l.name, got, want)
			}
		}
	}
}

// TestALongerRoundTripChangesNoPlan: why the round trip on TCP need not be measured.
func TestALongerRoundTripChangesNoPlan(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 75 {
		d := randomMap(random, tcp)
		slow := *tcp
		slow.Quiet = 200 * time.Millisecond // is part of what a request costs, as the round trip is
		groups, _ := planOf(t, tcp, d)
		_, p := planOf(t, &slow, d)
		if got, want := costOf(t, p, d, groups), exact(p, d); got != want {
			t.Fatalf("the plan for a round trip of %v costs %v with one of %v, the best %v", roundTrip, got, roundTrip+slow.Quiet, want)
		}
	}
}

// BenchmarkPlan300Maps says how the plan compares with the optimum, and with
// what others do: no gaps at all, and gaps of up to 10 registers.
func BenchmarkPlan300Maps(b *testing.B) {
	for _, l := range lines {
		b.Run(l.name, func(b *testing.B) {
			random := rand.New(rand.NewPCG(5, 6))
			var planned, best, bare, ten time.Duration
			var maps []*gateway.Device
			for range 300 {
				d := randomMap(random, l.bus)
				maps = append(maps, d)
				groups, p := planOf(b, l.bus, d)
				planned, best = planned+costOf(b, p, d, groups), best+exact(p, d)
				for gap, sum := range map[int]*time.Duration{0: &bare, 10: &ten} {
					d.Profile.MaxGap = &gateway.Gap{Registers: gap}
					groups, p := planOf(b, l.bus, d)
					*sum += costOf(b, p, d, groups)
				}
				d.Profile.MaxGap = nil
			}
			for i := 0; b.Loop(); i++ {
				planOf(b, l.bus, maps[i%300])
			}
			b.ReportMetric(float64(planned)/float64(best), "of-optimum")
			b.ReportMetric(float64(bare)/float64(best), "of-optimum-without-gaps")
			b.ReportMetric(float64(ten)/float64(best), "of-optimum-with-gaps-to-10")
		})
	}
}
