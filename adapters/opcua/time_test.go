package opcua_test

import (
	"strings"
	"testing"
	"time"

	"github.com/awcullen/opcua/server"
	"github.com/awcullen/opcua/ua"
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
