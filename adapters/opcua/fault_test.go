package opcua_test

import (
	"strings"
	"testing"
	"time"

	"github.com/awcullen/opcua/server"
	"github.com/awcullen/opcua/ua"

	"sluice/gateway"
)

// recovered is how soon values have to come after a fault is over.
const recovered = 10 * time.Second

// The server of these tests gives the values of its next three messages to a
// connection that is gone, and numbers the one after as if it had not: it can't
// show that nothing is missed. node-opcua does.
func TestInProcessACutNetwork(t *testing.T) {
	withoutRaces(t)
	t.Parallel()
	s := startLine(t, 0)
	p := startProxy(t, s.address())
	w := watchSite(t, counters, p.endpoint())
	w.until(t, "first value", "count", 5*time.Second, isGood)
	time.Sleep(time.Second)
	p.cut()
	time.Sleep(2 * time.Second)
	p.restore()
	took := w.until(t, "values after the cut", "count", recovered, isGood)
	w.until(t, "a reading of what stood", "steady", recovered, isGood)
	if _, backwards := w.missed(t, "count"); backwards > 0 {
		t.Errorf("%d values came in a wrong order", backwards)
	}
	if got := w.of("steady"); got[len(got)-1].Time.Before(got[0].Time.Add(2 * time.Second)) {
		t.Errorf("what stood was not read again: %v", got)
	}
	t.Logf("values %s after the cut was over", took)
}

func TestInProcessABlackHoleIsNoticed(t *testing.T) {
	withoutRaces(t)
	t.Parallel()
	s := startLine(t, 0)
	p := startProxy(t, s.address())
	w := watchSite(t, counters, p.endpoint())
	w.until(t, "first value", "count", 5*time.Second, isGood)
	p.hole.Store(true)
	begin := time.Now()
	for w.lost() == 0 && time.Since(begin) < 15*time.Second {
		time.Sleep(10 * time.Millisecond)
	}
	noticed := time.Since(begin)
	p.cut()
	p.hole.Store(false)
	p.restore()
	took := w.until(t, "values after the hole", "count", recovered, isGood)
	t.Logf("noticed after %s, values %s after it was over", noticed, took)
	if noticed > 10*time.Second {
		t.Errorf("noticed after %s only", noticed)
	}
	if _, backwards := w.missed(t, "count"); backwards > 0 {
		t.Errorf("%d values came in a wrong order", backwards)
	}
}

func TestInProcessAServerThatStartsAgain(t *testing.T) {
	withoutRaces(t)
	t.Parallel()
	s := startLine(t, 0)
	p := startProxy(t, s.address())
	w := watchSite(t, counters, p.endpoint())
	w.until(t, "first value", "count", 5*time.Second, isGood)
	p.cut()
	// Another server, with its namespaces in another order and without a node.
	other := startServer(t, serverOptions{before: []string{"http://sluice.test/other"}})
	other.line(t)
	node, _ := other.NamespaceManager().FindNode(ua.NewNodeIDString(other.space, "gone"))
	if err := other.NamespaceManager().DeleteNode(node, true); err != nil {
		t.Fatal(err)
	}
	p.to(other.address())
	p.restore()
	took := w.until(t, "values of the new server", "count", recovered, isGood)
	t.Logf("values %s after the server was back", took)
	w.becomes(t, "the missing node is bad", "gone", func(s gateway.Sample) bool { return s.Reason == "BadNodeIDUnknown" })
	other.variable(t, ua.ObjectIDObjectsFolder, "gone", "gone", int32(8), ua.DataTypeIDInt32)
	took = w.becomes(t, "the node is back", "gone", func(s gateway.Sample) bool { return isGood(s) && s.Value.Int() == 8 })
	t.Logf("values of the node %s after it was back", took)
}

func TestInProcessANodeThatIsRemovedComesBack(t *testing.T) {
	withoutRaces(t)
	t.Parallel()
	s := startLine(t, 0)
	w := watchSite(t, counters, "opc.tcp://"+s.address())
	w.until(t, "first value", "gone", 5*time.Second, isGood)
	node, _ := s.NamespaceManager().FindNode(ua.NewNodeIDString(s.space, "gone"))
	if err := s.NamespaceManager().DeleteNode(node, true); err != nil {
		t.Fatal(err)
	}
	w.becomes(t, "the removed node is bad", "gone", func(s gateway.Sample) bool { return s.Reason == "BadNodeIDUnknown" })
	s.variable(t, ua.ObjectIDObjectsFolder, "gone", "gone", int32(8), ua.DataTypeIDInt32)
	w.becomes(t, "the node is back", "gone", func(s gateway.Sample) bool { return isGood(s) && s.Value.Int() == 8 })
	if missing, backwards := w.missed(t, "count"); missing+backwards > 0 || w.lost() > 0 {
		t.Errorf("the others suffered: %d missed, %d backwards, %d losses", missing, backwards, w.lost())
	}
}

func TestInProcessASubscriptionThatTheServerDrops(t *testing.T) {
	withoutRaces(t)
	t.Parallel()
	s := startLine(t, 0)
	w := watchSite(t, counters, "opc.tcp://"+s.address())
	w.until(t, "first value", "count", 5*time.Second, isGood)
	for id := uint32(1); id < 1000; id++ {
		if sub, ok := s.SubscriptionManager().Get(id); ok {
			s.SubscriptionManager().Delete(sub)
			sub.Delete()
		}
	}
	took := w.until(t, "values of a new subscription", "count", 12*time.Second+recovered, func(sample gateway.Sample) bool { return isGood(sample) && w.lost() > 0 })
	t.Logf("values %s after the subscription was dropped: %s", took, strings.Join(w.losses, "; "))
}

// The server goes on to answer, but samples nothing any more.
func TestInProcessValuesThatStandStill(t *testing.T) {
	withoutRaces(t)
	t.Parallel()
	s := startLine(t, 0)
	w := watchSite(t, counters, "opc.tcp://"+s.address())
	w.until(t, "first value", "count", 5*time.Second, isGood)
	for id := uint32(1); id < 1000; id++ {
		if sub, ok := s.SubscriptionManager().Get(id); ok {
			for _, item := range sub.Items() {
				item.SetMonitoringMode(ua.MonitoringModeDisabled)
			}
		}
	}
	took := w.until(t, "values of a new subscription", "count", 20*time.Second+recovered, func(sample gateway.Sample) bool { return isGood(sample) && w.lost() > 0 })
	t.Logf("values %s after they stood still: %s", took, strings.Join(w.losses, "; "))
	if !strings.Contains(w.losses[0], "no value has come for") {
		t.Errorf("lost for %q", w.losses)
	}
}

func TestInProcessASessionThatTheServerCloses(t *testing.T) {
	withoutRaces(t)
	t.Parallel()
	sessions := make(chan *server.Session, 1)
	s := startLine(t, 0)
	s.node(t, "steady").SetReadValueHandler(func(session *server.Session, _ ua.ReadValueID) ua.DataValue {
		select {
		case sessions <- session:
		default:
		}
		return ua.NewDataValue(float32(1.5), ua.Good, time.Time{}, 0, time.Time{}, 0)
	})
	w := watchSite(t, counters, "opc.tcp://"+s.address())
	w.until(t, "first value", "count", 5*time.Second, isGood)
	s.SessionManager().Delete(<-sessions)
	took := w.until(t, "values in a new session", "count", 12*time.Second+recovered, func(sample gateway.Sample) bool { return isGood(sample) && w.lost() > 0 })
	t.Logf("values %s after the session was closed: %s", took, strings.Join(w.losses, "; "))
}
