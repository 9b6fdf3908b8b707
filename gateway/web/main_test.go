package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/buffer"
	"sluice/gateway"
)

// field is a bus whose devices count up, until they are told to be down.
type field struct {
	mu    sync.Mutex
	down  error
	reads int
}

func (f *field) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = err
}

func (f *field) Open(context.Context) (gateway.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f, f.down
}

func (f *field) Plan(points []*gateway.Point) [][]*gateway.Point { return [][]*gateway.Point{points} }

func (f *field) Read(_ context.Context, group []*gateway.Point) ([]gateway.Sample, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down != nil {
		return nil, f.down
	}
	f.reads++
	samples := make([]gateway.Sample, len(group))
	for i, p := range group {
		samples[i] = gateway.Sample{Point: p, Time: time.Now(), Value: gateway.FloatValue(float64(f.reads)), Quality: gateway.Good}
		if p.ID == "bad" {
			samples[i] = gateway.Sample{Point: p, Time: time.Now(), Reason: "exception 2: illegal data address"}
		}
	}
	return samples, nil
}

func (f *field) Write(context.Context, *gateway.Point, gateway.Value) error {
	return &gateway.WriteError{Err: errors.New("not in this test")}
}
func (f *field) Close() error { return nil }

// rig is a gateway with one bus and its page.
type rig struct {
	*Server
	field  *field
	site   *gateway.Site
	url    string
	client *http.Client
}

func newRig(t testing.TB, local gateway.Local, adjust func(*Config)) *rig {
	t.Helper()
	store, err := buffer.Open(filepath.Join(t.TempDir(), "buffer.db"), buffer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	bus := &gateway.Bus{Name: "plc", Type: "modbus-tcp", Host: "10.0.0.5", Port: "502"}
	two := 2
	device := &gateway.Device{Name: "press", Label: "Press 3", Bus: bus, Profile: &gateway.Profile{Name: "press"}, User: "press"}
	for _, d := range []*gateway.Definition{
		{ID: "speed", Unit: "rpm", Poll: 50 * time.Millisecond, Access: "rw", Decimals: &two},
		{ID: "bad", Poll: 50 * time.Millisecond, Access: "r"},
		{ID: "pin", Poll: 50 * time.Millisecond, Access: "r", Secret: true},
	} {
		device.Points = append(device.Points, &gateway.Point{Definition: d, Device: device, Name: d.ID})
	}
	r := &rig{field: &field{}, site: &gateway.Site{Identity: gateway.Identity{Name: "hall", Writes: "locked"}, Local: local, Buses: []*gateway.Bus{bus}, Devices: []*gateway.Device{device}}}
	r.site.Buffer = gateway.BufferSettings{Path: "buffer.db", MaxSize: 8 << 20}
	g, err := gateway.New(gateway.Config{
		Site: r.site, Log: slog.New(slog.DiscardHandler), Buffer: store,
		Adapters: map[string]gateway.NewAdapter{"modbus": func(gateway.Env, *gateway.Bus, []*gateway.Device) (gateway.Adapter, error) { return r.field, nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{
		Site: r.site, Gateway: g, Log: slog.New(slog.DiscardHandler), Version: "test",
		Cloud: func() []CloudSession { return []CloudSession{{User: "press", Connected: time.Now(), Mode: "puback"}} },
	}
	if adjust != nil {
		adjust(&c)
	}
	if r.Server, err = New(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	t.Cleanup(func() { cancel(); wait.Wait() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + l.Addr().String()
	r.client = &http.Client{Transport: &http.Transport{}, Timeout: 20 * time.Second}
	wait.Go(func() { g.Run(ctx) })
	wait.Go(func() { r.serve(ctx, l, r.pageHandler()) })
	r.await(t, func() bool { return r.Gateway.Snapshot(t.Context()).Buses[0].State == gateway.BusUp })
	return r
}

// await waits for what is bound to happen.
func (r *rig) await(t testing.TB, happened func() bool) {
	t.Helper()
	for range 500 {
		if happened() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it did not happen within five seconds")
}

// ask makes a request as a browser does that shows the page itself, with
// changes: "Name: value" sets a header.
func (r *rig) ask(t *testing.T, method, path, body string, headers ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if req.Header.Set(name, value); name == "Host" {
			req.Host = value
		}
	}
	answer, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(content), answer.Header
}

func decode[T any](t *testing.T, body string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(bytes.NewReader([]byte(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatal(fmt.Errorf("%w in %s", err, body))
	}
	return v
}
