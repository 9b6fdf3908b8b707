package opcua_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
)

// peerSite watches some of the counters of a node-opcua server.
func peerSite(points int) string {
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
	w := watchSite(t, peerSite(watched), line.endpoint())
	w.until(t, "first value", "c0", time.Minute, isGood)
	again := func(t *testing.T, lost int, after time.Time) {
		t.Helper()
		for w.lost() == lost {
			if time.Since(after) > time.Minute {
				t.Fatal("the loss was never noticed")
			}
			time.Sleep(10 * time.Millisecond)
		}
		noticed := time.Since(after)
		took := w.all(t, recovered)
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
		w.becomes(t, "the removed node is bad", "c1", func(s gateway.Sample) bool { return s.Quality == gateway.Bad && s.Reason != "" })
		said := w.of("c1")
		t.Logf("the removed node is %s", said[len(said)-1].Reason)
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
	if missing, _ := w.missed(t, "c0"); missing == 0 {
		t.Error("nothing was missed while the server was away: the count sees nothing")
	}
}

// all waits for another good value of every point.
func (w *watcher) all(t testing.TB, limit time.Duration) time.Duration {
	t.Helper()
	begin := time.Now()
	seen := make(map[string]int)
	for _, p := range w.points {
		seen[p.ID] = len(w.of(p.ID))
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
