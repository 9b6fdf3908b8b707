package opcua_test

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/adapters/opcua"
	"sluice/gateway"
)

// memory keeps what an adapter learns.
type memory struct {
	mutex sync.Mutex
	held  map[string][]byte
}

func (m *memory) Get(bucket, key string) ([]byte, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.held[bucket+"/"+key], nil
}

func (m *memory) Put(bucket, key string, value []byte) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.held[bucket+"/"+key] = value
	return nil
}

// alarmWatcher watches the events of an oven as a gateway that starts.
type alarmWatcher struct {
	*watcher
	told []gateway.FieldEvent
}

func watchAlarms(t *testing.T, endpoint string, state gateway.State) *alarmWatcher {
	t.Helper()
	loaded := parse(t, strings.Replace(faultSite(1), "    points:", "    events: { hot: { opcua: { severity: 1 }, severity: alarm } }\n    points:", 1))
	bus := loaded.Buses[0]
	bus.Endpoint, bus.Timeout = endpoint, 5*time.Second
	w := &alarmWatcher{watcher: &watcher{points: loaded.Devices[0].Points, samples: make(map[string][]gateway.Sample), events: loaded.Devices}}
	w.occur = func(events []gateway.FieldEvent) {
		w.mutex.Lock()
		defer w.mutex.Unlock()
		w.told = append(w.told, events...)
	}
	var err error
	if w.adapter, err = opcua.New(gateway.Env{Log: slog.New(slog.NewTextHandler(&w.log, nil)), State: state}, bus, loaded.Devices); err != nil {
		t.Fatal(err)
	}
	w.start(t)
	return w
}

// states are what was told of the alarm, on or off.
func (w *alarmWatcher) states() string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	var states []string
	for _, e := range w.told {
		states = append(states, fmt.Sprintf("%s %v", e.Source, e.Active))
	}
	return strings.Join(states, ", ")
}

func (w *alarmWatcher) tells(t *testing.T, want string) {
	t.Helper()
	if !eventually(func() bool { return w.states() == want }) {
		t.Fatalf("told %q, not %q", w.states(), want)
	}
}

// settled waits for another second of values, in which nothing may be told.
func (w *alarmWatcher) settled(t *testing.T, want string) {
	t.Helper()
	w.until(t, "values", "c0", time.Minute, isGood)
	time.Sleep(time.Second)
	w.tells(t, want)
}

// An alarm that was on before the gateway came is told, once: not again after a
// cut, another start of the gateway, or of the server; and that it went away
// meanwhile is told too.
func TestAnAlarmThatStandsIsToldOnce(t *testing.T) {
	t.Parallel()
	server := startPeer(t, "--counters", "1", "--every", "100", "--alarm")
	line := startProxy(t, strings.TrimPrefix(server.endpoint, "opc.tcp://"))
	server.do("heat 200")
	state := &memory{held: make(map[string][]byte)}
	t.Run("the first time", func(t *testing.T) {
		w := watchAlarms(t, line.endpoint(), state)
		w.tells(t, "1:oven true")
		line.cut()
		line.restore()
		w.settled(t, "1:oven true")
		server.do("unsubscribe")
		w.settled(t, "1:oven true")
	})
	t.Run("after a start of the gateway", func(t *testing.T) {
		w := watchAlarms(t, line.endpoint(), state)
		w.settled(t, "")
		server.do("restart") // it is as hot as before, with another event
		w.settled(t, "")
		server.do("heat 20")
		w.tells(t, "1:oven false")
		server.do("heat 300")
		w.tells(t, "1:oven false, 1:oven true")
	})
	server.do("heat 20")
	t.Run("it went meanwhile", func(t *testing.T) {
		w := watchAlarms(t, line.endpoint(), state)
		w.tells(t, "1:oven false")
		w.settled(t, "1:oven false")
	})
}
