package gateway

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// TestTrendKeepsLowAndHigh: a trend has the extremes of each step, holes where
// there was no value, and ends where the history does.
func TestTrendKeepsLowAndHigh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{answer: func(elapsed time.Duration, p *Point) (Value, string) {
			if p.ID == "text" {
				return TextValue("stopped"), ""
			}
			if elapsed >= 10*time.Minute && elapsed < 12*time.Minute {
				return Value{}, "exception 2"
			}
			return FloatValue(1e9 + float64(int(elapsed/time.Second)%10)), ""
		}}
		d := device("d", &Definition{ID: "p", Poll: time.Second, Deadband: &Deadband{Value: 1e12}}, &Definition{ID: "text", Poll: time.Second})
		watchSite(t, f, &Site{Local: Local{HTTP: "127.0.0.1:0", History: time.Hour}}, []*Device{d}, func(g *Gateway) {
			time.Sleep(80 * time.Minute)
			trend, ok := g.Trend("d", "p")
			if !ok || len(trend.Times) != mostSteps || trend.Step != time.Hour/mostSteps {
				t.Fatalf("%v, %d steps of %v", ok, len(trend.Times), trend.Step)
			}
			for i := 1; i < len(trend.Times)-1; i++ { // the last one is not over
				if trend.Times[i].Sub(trend.Times[i-1]) != trend.Step {
					t.Fatalf("step %d at %v follows %v", i, trend.Times[i], trend.Times[i-1])
				}
				if low, high := trend.Low[i], trend.High[i]; !(low >= 1e9 && high <= 1e9+9 && high-low >= 1 && high-low <= 9) {
					t.Fatalf("step %d: %v to %v", i, low, high)
				}
			}
			if trend, _ := g.Trend("d", "text"); !math.IsNaN(trend.Low[0]) {
				t.Errorf("a text has a trend: %v", trend.Low[0])
			}
			if _, ok := g.Trend("d", "none"); ok {
				t.Error("a point that is not there has a trend")
			}
		})
		f.start = time.Now()
		watchSite(t, f, &Site{Local: Local{HTTP: "127.0.0.1:0", History: time.Hour}}, []*Device{d}, func(g *Gateway) {
			time.Sleep(13 * time.Minute)
			trend, _ := g.Trend("d", "p")
			holes := 0
			for _, low := range trend.Low {
				if math.IsNaN(low) {
					holes++
				}
			}
			if want := int(2 * time.Minute / trend.Step); holes < want-2 || holes > want+2 {
				t.Errorf("%d holes in two minutes without a value", holes)
			}
		})
	})
}

// TestTrendsStayWithinTheirMemory: however many points, all columns take 8 MB.
func TestTrendsStayWithinTheirMemory(t *testing.T) {
	for _, points := range []int{1, 100, 700, 10_000, 100_000} {
		x := newTrends(nil, points, 2*time.Hour)
		if bytes := x.most * points * 8; bytes > trendMemory || x.most < fewestSteps {
			t.Errorf("%d points: %d columns, %d bytes", points, x.most, bytes)
		}
		if kept := time.Duration(x.most) * x.step; kept < 119*time.Minute || kept > 2*time.Hour {
			t.Errorf("%d points: %v are kept", points, kept)
		}
	}
}
