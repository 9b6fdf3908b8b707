package opcua_test

import (
	"strings"
	"testing"
	"time"

	"github.com/awcullen/opcua/server"
	"github.com/awcullen/opcua/ua"

	"sluice/adapters/opcua"
	"sluice/gateway"
)

// A clock that is behind by less than five minutes is kept, and its times go on
// evenly; one that is ahead by more is replaced, and that is said once.
func TestInProcessClocksThatAreOff(t *testing.T) {
	withoutRaces(t)
	t.Parallel()
	s := startLine(t, 0)
	begin := time.Now()
	skewed := func(skew time.Duration, value any) func(*server.Session, ua.ReadValueID) ua.DataValue {
		return func(*server.Session, ua.ReadValueID) ua.DataValue {
			n := time.Since(begin).Milliseconds() / 200
			if _, ok := value.(int32); ok {
				return ua.NewDataValue(int32(n), ua.Good, time.Now().Add(skew), 0, time.Now(), 0)
			}
			return ua.NewDataValue(float32(n), ua.Good, time.Now().Add(skew), 0, time.Now(), 0)
		}
	}
	s.node(t, "steady").SetReadValueHandler(skewed(-2*time.Minute, float32(0)))
	s.node(t, "gone").SetReadValueHandler(skewed(10*time.Minute, int32(0)))
	w := watchSite(t, counters, "opc.tcp://"+s.address())
	w.until(t, "first value", "count", 5*time.Second, isGood)
	time.Sleep(3 * time.Second)
	for _, id := range []string{"steady", "gone"} {
		samples := w.of(id)
		if len(samples) < 10 {
			t.Fatalf("%d samples of %s", len(samples), id)
		}
		for i, x := range samples[1:] {
			if !x.Time.After(samples[i].Time) || x.Time.After(time.Now()) || time.Since(x.Time) > 6*time.Second {
				t.Errorf("%s: %v after %v", id, x.Time, samples[i].Time)
			}
		}
	}
	if n := strings.Count(w.log.String(), "clock of the device is off"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

func TestInProcessANamespaceThatComesLater(t *testing.T) {
	withoutRaces(t)
	t.Parallel()
	s := startLine(t, 0)
	w := watchSite(t, strings.Replace(counters, "{ node: s=gone,", `{ node: "nsu=http://sluice.test/later;s=gone",`, 1), "opc.tcp://"+s.address())
	w.until(t, "first value", "count", 5*time.Second, isGood)
	if x := w.of("gone"); len(x) != 1 || !strings.Contains(x[0].Reason, "no namespace http://sluice.test/later") {
		t.Errorf("samples %v", x)
	}
	s.space = s.NamespaceManager().Add("http://sluice.test/later")
	s.variable(t, ua.ObjectIDObjectsFolder, "gone", "gone", int32(8), ua.DataTypeIDInt32)
	w.becomes(t, "the node is there", "gone", isGood)
}

// Whose clock a value's time is of: the source's, the server's where there is
// none, ours where there is neither, or where theirs is more than five minutes
// off, which is said once.
func TestWhoseTimeAValueHas(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	const min = time.Minute
	type value struct {
		now, source, server, want time.Duration // since noon; 0 is none
		late                      bool
	}
	for name, tt := range map[string]struct {
		values []value
		said   string
	}{
		"the source's":               {[]value{{1 * min, 1 * min, 0, 1 * min, false}, {3 * min, 2 * min, 3 * min, 2 * min, false}}, ""},
		"the server's":               {[]value{{1 * min, 0, 1 * min, 1 * min, false}, {3 * min, 0, 2 * min, 2 * min, false}}, ""},
		"ours":                       {[]value{{1 * min, 0, 0, 1 * min, false}, {3 * min, 0, 0, 3 * min, false}}, ""},
		"ten minutes behind":         {[]value{{11 * min, 1 * min, 0, 11 * min, false}, {13 * min, 2 * min, 0, 13 * min, false}, {14 * min, 4 * min, 0, 14 * min, false}}, "behind=11m0s"},
		"ten minutes ahead":          {[]value{{1 * min, 11 * min, 0, 1 * min, false}, {3 * min, 13 * min, 0, 3 * min, false}}, "ahead=10m0s"},
		"four minutes behind":        {[]value{{11 * min, 7 * min, 0, 11 * min, false}, {17 * min, 13 * min, 0, 13 * min, false}}, ""},
		"what has stood for an hour": {[]value{{61 * min, 1 * min, 0, 61 * min, false}, {62 * min, 1 * min, 0, 62 * min, false}}, ""},
		"what came while nobody listened": {[]value{
			{1 * min, 1 * min, 0, 1 * min, false}, {31 * min, 5 * min, 0, 5 * min, true}, {31 * min, 10 * min, 0, 10 * min, true}, {31 * min, 31 * min, 0, 31 * min, false}, {32 * min, 32 * min, 0, 32 * min, false}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := &gate{bus: gateway.Bus{Name: "plc", Type: "opcua"}}
			adapter, points := g.adapter(t)
			at := func(d time.Duration) time.Time {
				if d == 0 {
					return time.Time{}
				}
				return noon.Add(d)
			}
			for i, v := range tt.values {
				if got := opcua.Timed(adapter, points[0], at(v.source), at(v.server), at(v.now), v.late); !got.Equal(at(v.want)) {
					t.Errorf("value %d has the time %s, want %s", i, got, at(v.want))
				}
			}
			if log := g.log.String(); strings.Count(log, "clock of the device is off") > 1 || strings.Contains(log, "clock of the device is off") != (tt.said != "") || !strings.Contains(log, tt.said) {
				t.Errorf("said %q", log)
			}
		})
	}
}
