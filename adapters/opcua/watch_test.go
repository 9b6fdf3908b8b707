package opcua_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/awcullen/opcua/server"
	"github.com/awcullen/opcua/ua"

	"sluice/adapters/opcua"
	"sluice/gateway"
)

// counters is a site with points that the server watches.
const counters = `version: 1
site: { name: plant }
cloud: { url: mqtt://127.0.0.1:1883, login: { user: gw, password: file:gw }, backlog: replay }
local: { http: none }
buses:
  field: { type: opcua, endpoint: "opc.tcp://127.0.0.1:4840", security: None }
profiles:
  line:
    protocol: opcua
    namespace: http://sluice.test/plant
    poll: 10ms
    points:
      count:  { node: s=count, type: int64 }
      steady: { node: s=steady, type: float32 }
      gone:   { node: s=gone, type: int32 }
devices:
  - { name: line, profile: line, bus: field }
`

// watcher is a site that is watched as the framework does it: a session that is
// lost is opened again.
type watcher struct {
	adapter gateway.Adapter
	points  []*gateway.Point
	period  time.Duration // between two numbers
	events  []*gateway.Device
	occur   func([]gateway.FieldEvent)
	mutex   sync.Mutex
	samples map[string][]gateway.Sample
	tallies map[*gateway.Point]*tally // instead of samples, where it is set
	losses  []string
	log     lockedLog
}

// lockedLog is a log that may be read meanwhile.
type lockedLog struct {
	mutex sync.Mutex
	text  strings.Builder
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.Write(b)
}

func (l *lockedLog) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.String()
}

// watchSite watches the points of a site until the test ends.
func watchSite(t *testing.T, text, endpoint string) *watcher {
	t.Helper()
	w := prepareSite(t, text, endpoint)
	w.start(t)
	return w
}

func prepareSite(t *testing.T, text, endpoint string) *watcher {
	t.Helper()
	loaded := parse(t, text)
	bus := loaded.Buses[0]
	bus.Endpoint, bus.Timeout = endpoint, 2*time.Second
	w := &watcher{samples: make(map[string][]gateway.Sample), period: 50 * time.Millisecond}
	for _, d := range loaded.Devices {
		w.points = append(w.points, d.Points...)
	}
	adapter, err := opcua.New(gateway.Env{Log: slog.New(slog.NewTextHandler(&w.log, nil))}, bus, loaded.Devices)
	if err != nil {
		t.Fatal(err)
	}
	w.adapter = adapter
	return w
}

func (w *watcher) start(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() { w.run(ctx) })
	t.Cleanup(func() {
		cancel()
		wait.Wait()
		if t.Failed() {
			t.Logf("lost: %q\nlog:\n%s", w.losses, w.log.String())
		}
	})
}

func (w *watcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		session, err := w.adapter.Open(ctx)
		if err != nil {
			w.lose(err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		subscriber := session.(gateway.Subscriber)
		session.(gateway.EventSource).TellEvents(w.events, w.occur)
		if err := subscriber.Subscribe(ctx, w.points, w.take); err != nil {
			w.lose(err)
		}
		select {
		case <-ctx.Done():
		case <-subscriber.Lost():
			w.lose(subscriber.Err())
		}
		session.Close()
	}
}

func (w *watcher) lose(err error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.losses = append(w.losses, err.Error())
}

func (w *watcher) take(samples []gateway.Sample) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for _, s := range samples {
		if w.tallies != nil {
			w.tallies[s.Point].note(s.Value.Int())
			continue
		}
		w.samples[s.Point.ID] = append(w.samples[s.Point.ID], s)
	}
}

// of gives the samples of a point.
func (w *watcher) of(id string) []gateway.Sample {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return append([]gateway.Sample(nil), w.samples[id]...)
}

// lost is how often the session was lost.
func (w *watcher) lost() int {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return len(w.losses)
}

// until waits for a sample that was taken after begin, and fits.
func (w *watcher) until(t *testing.T, what, id string, limit time.Duration, fits func(gateway.Sample) bool) time.Duration {
	t.Helper()
	begin := time.Now()
	seen := len(w.of(id))
	for {
		for _, s := range w.of(id)[seen:] {
			if fits(s) {
				return time.Since(begin)
			}
			seen++
		}
		if time.Since(begin) > limit {
			t.Fatalf("%s: not within %s", what, limit)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// becomes waits until the latest sample of a point fits.
func (w *watcher) becomes(t *testing.T, what, id string, fits func(gateway.Sample) bool) time.Duration {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if all := w.of(id); len(all) > 0 && fits(all[len(all)-1]) {
			return time.Since(begin)
		}
		if time.Since(begin) > recovered {
			t.Fatalf("%s: not within %s", what, recovered)
		}
	}
}

func isGood(s gateway.Sample) bool { return s.Quality == gateway.Good }

// missed counts the numbers that are missing in a point that counts, and what
// is not in order. A server that is busy may count twice at once and say the
// second only, so what is missing must also have taken its time.
func (w *watcher) missed(t *testing.T, id string) (missing, backwards int64) {
	t.Helper()
	var last *gateway.Sample
	for _, s := range w.of(id) {
		if s.Quality != gateway.Good {
			continue
		}
		if last != nil {
			step := s.Value.Int() - last.Value.Int()
			switch {
			case step > 1:
				took := int64(s.Time.Sub(last.Time).Round(w.period) / w.period)
				missing += max(min(step, took)-1, 0)
				t.Logf("%s: after %v of %s comes %v of %s", id, last.Value, last.Time.Format("05.000"), s.Value, s.Time.Format("05.000"))
			case step < 0:
				backwards++
			}
			if !s.Time.After(last.Time) {
				t.Errorf("%s: time goes back from %v to %v", id, last.Time, s.Time)
			}
		}
		last = &s
	}
	return missing, backwards
}

// startLine starts a server whose variable count goes up every 50 ms.
func startLine(t *testing.T, port int) *plantServer {
	t.Helper()
	s := startServer(t, serverOptions{port: port})
	s.line(t)
	return s
}

// line adds the variables of the site counters. A number stands until it was
// sampled, however busy the machine is.
func (s *plantServer) line(t *testing.T) {
	t.Helper()
	count := s.variable(t, ua.ObjectIDObjectsFolder, "count", "count", int64(0), ua.DataTypeIDInt64)
	s.variable(t, ua.ObjectIDObjectsFolder, "steady", "steady", float32(1.5), ua.DataTypeIDFloat).SetReadValueHandler(nil)
	s.variable(t, ua.ObjectIDObjectsFolder, "gone", "gone", int32(7), ua.DataTypeIDInt32).SetReadValueHandler(nil)
	var mutex sync.Mutex
	n, since := int64(0), time.Now()
	count.SetReadValueHandler(func(*server.Session, ua.ReadValueID) ua.DataValue {
		mutex.Lock()
		defer mutex.Unlock()
		if now := time.Now(); now.Sub(since) >= 50*time.Millisecond {
			n, since = n+1, now
		}
		return ua.NewDataValue(n, ua.Good, since, 0, since, 0)
	})
}

func TestInProcessEveryChangeArrives(t *testing.T) {
	withoutRaces(t)
	t.Parallel()
	s := startLine(t, 0)
	w := watchSite(t, counters, "opc.tcp://"+s.address())
	w.until(t, "first value", "count", 5*time.Second, isGood)
	time.Sleep(2 * time.Second)
	missing, backwards := w.missed(t, "count")
	if n := len(w.of("count")); n < 10 || missing+backwards > 0 || w.lost() > 0 {
		t.Errorf("%d values in 2 s, %d missed, %d backwards, %d losses", n, missing, backwards, w.lost())
	}
	if n := len(w.of("steady")); n != 1 {
		t.Errorf("%d samples of a value that does not change", n)
	}
}
