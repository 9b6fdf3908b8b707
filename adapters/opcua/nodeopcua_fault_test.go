package opcua_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
)

// faultSite watches some of the counters of a node-opcua server.
func faultSite(points int) string {
	var lines strings.Builder
	for i := range points {
		fmt.Fprintf(&lines, "\n      c%d: { node: 'ns=1;s=counter%d', type: uint32 }", i, i)
	}
	head, _, _ := strings.Cut(counters, "\n      count:")
	_, tail, _ := strings.Cut(counters, "type: int32 }")
	return strings.Replace(head, "    namespace: http://sluice.test/plant\n", "", 1) + lines.String() + tail
}

// TestFaultsOfAForeignServer goes through the faults of a network and a server,
// one after the other, on a server that takes ten operations a request. While
// it keeps the subscription nothing may be missed; else values come again, and
// what came while nobody watched is the only loss.
func TestFaultsOfAForeignServer(t *testing.T) {
	t.Parallel()
	const watched = 25
	p := startPeer(t, "--counters", fmt.Sprint(watched), "--every", "200", "--limits", "10")
	line := startProxy(t, strings.TrimPrefix(p.endpoint, "opc.tcp://"))
	w := watchSite(t, faultSite(watched), line.endpoint())
	w.until(t, "first value", "c0", time.Minute, isGood)
	again := func(t *testing.T, lost int, after time.Time, but ...string) {
		t.Helper()
		for w.lost() == lost {
			if time.Since(after) > time.Minute {
				t.Fatal("the loss was never noticed")
			}
			time.Sleep(10 * time.Millisecond)
		}
		noticed := time.Since(after)
		took := w.all(t, recovered, but...)
		t.Logf("noticed after %s, values of all points %s later", noticed.Round(time.Millisecond), took.Round(time.Millisecond))
	}
	nothingMissed := func(t *testing.T) {
		t.Helper()
		time.Sleep(time.Second)
		for i := range watched {
			if missing, backwards := w.missed(t, fmt.Sprintf("c%d", i)); missing+backwards > 0 {
				t.Errorf("c%d: %d values missed, %d backwards", i, missing, backwards)
			}
		}
	}

	t.Run("the network is cut", func(t *testing.T) {
		lost := w.lost()
		line.cut()
		time.Sleep(3 * time.Second)
		begin := time.Now()
		line.restore()
		again(t, lost, begin)
		nothingMissed(t)
	})
	t.Run("the network is cut five times", func(t *testing.T) {
		lost, begin := w.lost(), time.Now()
		for range 5 {
			line.cut()
			line.restore()
			time.Sleep(700 * time.Millisecond)
		}
		again(t, lost, begin)
		nothingMissed(t)
	})
	t.Run("a black hole", func(t *testing.T) {
		lost, begin := w.lost(), time.Now()
		line.hole.Store(true)
		for w.lost() == lost && time.Since(begin) < 30*time.Second {
			time.Sleep(10 * time.Millisecond)
		}
		line.cut()
		line.hole.Store(false)
		line.restore()
		again(t, lost, begin)
		nothingMissed(t)
	})
	t.Run("a node is removed", func(t *testing.T) {
		lost := w.lost()
		p.do("remove s=counter1")
		w.becomes(t, "the removed node is bad", "c1", func(s gateway.Sample) bool { return strings.HasPrefix(s.Reason, "BadNodeID") })
		p.do("add s=counter1")
		w.becomes(t, "the node is back", "c1", isGood)
		if missing, backwards := w.missed(t, "c0"); missing+backwards > 0 || w.lost() != lost {
			t.Errorf("the others suffered: %d missed, %d backwards, lost %d times", missing, backwards, w.lost()-lost)
		}
	})
	t.Run("the session is dropped", func(t *testing.T) {
		lost, begin := w.lost(), time.Now()
		p.do("drop")
		again(t, lost, begin)
	})
	t.Run("the subscriptions are deleted", func(t *testing.T) {
		lost, begin := w.lost(), time.Now()
		p.do("unsubscribe")
		again(t, lost, begin)
	})
	t.Run("the server starts again", func(t *testing.T) {
		lost, begin := w.lost(), time.Now()
		p.do("restart")
		again(t, lost, begin)
	})
	t.Run("the server starts again without a node", func(t *testing.T) {
		lost, begin := w.lost(), time.Now()
		p.do("restart s=counter2")
		again(t, lost, begin, "c2")
		w.becomes(t, "the missing node is bad", "c2", func(s gateway.Sample) bool { return strings.HasPrefix(s.Reason, "BadNodeID") })
		p.do("add s=counter2")
		w.becomes(t, "the node is back", "c2", isGood)
	})
	if missing, _ := w.missed(t, "c0"); missing == 0 {
		t.Error("nothing was missed while the server was away: the count sees nothing")
	}
}

// all waits for another good value of every point but some.
func (w *watcher) all(t *testing.T, limit time.Duration, but ...string) time.Duration {
	t.Helper()
	begin := time.Now()
	seen := make(map[string]int)
	for _, p := range w.points {
		if !slices.Contains(but, p.ID) {
			seen[p.ID] = len(w.of(p.ID))
		}
	}
	for ; len(seen) > 0; time.Sleep(10 * time.Millisecond) {
		for id, n := range seen {
			if slices.ContainsFunc(w.of(id)[n:], isGood) {
				delete(seen, id)
			}
		}
		if time.Since(begin) > limit {
			t.Fatalf("no values of %d points within %s", len(seen), limit)
		}
	}
	return time.Since(begin)
}
