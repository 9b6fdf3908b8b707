package adaptertest

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"time"

	"sluice/gateway"
)

func deadBus(t *testing.T, h Harness) {
	r := newRig(t, h, answerTime)
	r.Cut()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	begin := time.Now()
	session, err := r.adapter.Open(ctx)
	if err == nil {
		session.Close()
		t.Fatal("a bus that is not there was opened")
	}
	if time.Since(begin) >= limit {
		t.Errorf("open returned after %v, when its deadline was over", time.Since(begin))
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	begin = time.Now()
	if session, err := r.adapter.Open(ended); err == nil {
		session.Close()
		t.Error("a bus that is not there was opened")
	}
	if time.Since(begin) > soon {
		t.Errorf("open returned %v after its context had ended", time.Since(begin))
	}
	r.Restore()
	session = r.open(t)
	for _, s := range r.readAll(t, session, session.Plan(r.points)) {
		good(t, s)
	}
}

func plan(t *testing.T, h Harness) {
	r := newRig(t, h, answerTime)
	session := r.open(t)
	before := r.Requests()
	for _, points := range [][]*gateway.Point{r.points, r.points[:1], r.points[len(r.points)/2:], nil} {
		count := make(map[*gateway.Point]int)
		for _, group := range session.Plan(points) {
			if len(group) == 0 {
				t.Error("an empty group")
			}
			for _, p := range group {
				count[p]++
			}
		}
		for _, p := range points {
			if count[p] != 1 {
				t.Errorf("%s is in %d groups", p.ID, count[p])
			}
		}
		if len(count) != len(points) {
			t.Errorf("%d points planned, %d asked for", len(count), len(points))
		}
	}
	if sent := r.Requests() - before; sent != 0 {
		t.Errorf("plan sent %d requests", sent)
	}
}

func read(t *testing.T, h Harness) {
	r := newRig(t, h, answerTime)
	want := r.hold()
	session := r.open(t)
	groups := session.Plan(r.points)
	before := r.Requests()
	for range 2 {
		for p, s := range r.readAll(t, session, groups) {
			good(t, s)
			if !s.Value.Equal(want[p]) {
				t.Errorf("%s.%s is %v (kind %d), the device holds %v (kind %d)", p.Device.Name, p.ID, s.Value, s.Value.Kind(), want[p], want[p].Kind())
			}
		}
	}
	if sent, most := r.Requests()-before, max(1, h.Window); sent < 2*len(groups) || sent > 2*len(groups)*most {
		t.Errorf("%d requests for %d groups, a group is one request, or %d in flight", sent, 2*len(groups), most)
	}
}

func failingPoint(t *testing.T, h Harness) {
	r := newRig(t, h, answerTime)
	session := r.open(t)
	groups := session.Plan(r.points)
	if len(groups) < 2 {
		t.Fatalf("%d group, the promise needs two", len(groups))
	}
	failing := groups[0][0]
	r.Fail(failing, true)
	samples := r.readAll(t, session, groups)
	if s := samples[failing]; s.Quality != gateway.Bad {
		t.Errorf("%s is %v, but the device refuses it", failing.ID, s.Quality)
	}
	for _, group := range groups[1:] {
		for _, p := range group {
			good(t, samples[p])
		}
	}
	r.Fail(failing, false)
	for _, s := range r.readAll(t, session, groups) {
		good(t, s)
	}
}

func silentUnit(t *testing.T, h Harness) {
	r := newRig(t, h, answerTime)
	session := r.open(t)
	groups := session.Plan(r.points)
	silent := groups[0][0].Device
	r.Silence(silent, true)
	lives := func(p *gateway.Point) bool { return p.Device.Unit != silent.Unit }
	for i, group := range groups {
		if i > 0 && !slices.ContainsFunc(group, lives) {
			continue // it only takes its time
		}
		for _, s := range r.read(t, session, group) {
			if lives(s.Point) {
				good(t, s)
			} else if s.Quality != gateway.Bad {
				t.Errorf("%s is %v, but its unit is silent", s.Point.ID, s.Quality)
			}
		}
	}
	r.Silence(silent, false)
	want := r.hold()
	for p, s := range r.readAll(t, session, groups) {
		good(t, s)
		if !s.Value.Equal(want[p]) {
			t.Errorf("%s is %v after the silence, the device holds %v", p.ID, s.Value, want[p])
		}
	}
}

func together(t *testing.T, h Harness) {
	r := newRig(t, h, answerTime)
	want := r.hold()
	session := r.open(t)
	gatherer, ok := session.(gateway.Gatherer)
	if !ok || gatherer.Room() == 1 {
		t.Skip("the session reads one group at a time")
	}
	groups := session.Plan(r.points)
	if gatherer.Room() != h.Window {
		t.Errorf("room for %d requests, the bus may have %d in flight", gatherer.Room(), h.Window)
	}
	read := func(again bool, check func(gateway.Sample)) (same int) {
		t.Helper()
		readings := make([]gateway.Reading, len(groups))
		for i, group := range groups {
			readings[i] = gateway.Reading{Group: group, Again: again}
			if gatherer.Flights(group) < 1 {
				t.Errorf("%s: no request", names(group))
			}
		}
		if err := gatherer.ReadAll(t.Context(), readings); err != nil {
			t.Fatal(err)
		}
		for i, group := range groups {
			if !readings[i].Same.IsZero() {
				same++
				continue
			}
			for k, s := range readings[i].Samples {
				if s.Point != group[k] || len(readings[i].Samples) != len(group) {
					t.Fatalf("%s: sample %d of %d is not of it", names(group), k, len(readings[i].Samples))
				}
				check(s)
			}
		}
		return same
	}
	as := func(s gateway.Sample) {
		t.Helper()
		if good(t, s); !s.Value.Equal(want[s.Point]) {
			t.Errorf("%s.%s is %v, the device holds %v", s.Point.Device.Name, s.Point.ID, s.Value, want[s.Point])
		}
	}
	if same := read(false, as); same != 0 {
		t.Errorf("%d groups of a first reading are as before", same)
	}
	if _, ok := session.(gateway.Rereader); ok && read(true, as) != len(groups) {
		t.Error("what stands was not noticed")
	}
	silent := groups[0][0].Device
	r.Silence(silent, true)
	groups = slices.DeleteFunc(slices.Clone(groups), func(g []*gateway.Point) bool { // one of its groups will do
		return &g[0] != &groups[0][0] && g[0].Device.Unit == silent.Unit
	})
	read(true, func(s gateway.Sample) {
		if s.Point.Device.Unit != silent.Unit {
			as(s)
		} else if s.Quality != gateway.Bad {
			t.Errorf("%s is %v, but its unit is silent", s.Point.ID, s.Quality)
		}
	})
	r.Silence(silent, false)
	read(false, as)
}

func cutConnection(t *testing.T, h Harness) {
	r := newRig(t, h, answerTime)
	session := r.open(t)
	groups := session.Plan(r.points)
	for _, s := range r.read(t, session, groups[0]) {
		good(t, s)
	}
	r.Cut()
	var err error
	for tries := 0; err == nil && tries < 3; tries++ {
		_, err = session.Read(t.Context(), groups[0])
	}
	if err == nil {
		t.Error("three reads of a bus that is gone, and no error")
	}
	inTime(t, "close of a lost session", func() { session.Close() })
	r.Restore()
	session = r.open(t)
	for _, s := range r.readAll(t, session, session.Plan(r.points)) {
		good(t, s)
	}
}

func cancelRead(t *testing.T, h Harness) {
	r := newRig(t, h, longTime)
	session := r.open(t)
	group := session.Plan(r.points)[0]
	r.Silence(group[0].Device, true)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := session.Read(ctx, group)
		ended <- err
	}()
	time.Sleep(100 * time.Millisecond)
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a cancelled read is no error")
		}
	case <-time.After(soon):
		t.Errorf("read goes on %v after its context ended", soon)
		session.Close()
		<-ended
	}
}

func closeRead(t *testing.T, h Harness) {
	r := newRig(t, h, longTime)
	session := r.open(t)
	group := session.Plan(r.points)[0]
	r.Silence(group[0].Device, true)
	ended := make(chan error, 1)
	go func() {
		_, err := session.Read(t.Context(), group)
		ended <- err
	}()
	time.Sleep(100 * time.Millisecond)
	inTime(t, "close during a read", func() { session.Close() })
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a read of a closed session is no error")
		}
	case <-time.After(limit):
		t.Fatalf("read goes on %v after close", limit)
	}
	inTime(t, "a second close", func() { session.Close() })
}

// Of these many sessions each would leave something; a field may start a few
// goroutines of its own meanwhile.
const sessions, few = 8, 4

func goroutines(t *testing.T, h Harness) {
	r := newRig(t, h, answerTime)
	before := runtime.NumGoroutine()
	for range sessions {
		session := r.open(t)
		for _, s := range r.readAll(t, session, session.Plan(r.points[:1])) {
			good(t, s)
		}
		session.Close()
	}
	settle(t, before)
	for range sessions {
		session := r.open(t)
		r.Cut()
		_, _ = session.Read(t.Context(), session.Plan(r.points)[0])
		session.Close()
		r.Restore()
	}
	settle(t, before)
}

// settle waits until there are about as many goroutines as before.
func settle(t *testing.T, before int) {
	t.Helper()
	for begin := time.Now(); runtime.NumGoroutine() > before+few; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > limit {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			t.Fatalf("%d goroutines before, %d after %d sessions were closed:\n%s", before, runtime.NumGoroutine(), sessions, stacks)
		}
	}
}

// inTime fails the test when work hangs.
func inTime(t *testing.T, what string, work func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s hangs", what)
	}
}
