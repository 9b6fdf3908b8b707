package cloud_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/buffer"
	"sluice/gateway"
	"sluice/gateway/cloud"
)

// machine is a gateway with a machine that may be written to: what its cloud sends
// comes from a test. It notes what must never happen.
type machine struct {
	*cloud.Session // encodes replies, and reads parameters
	down           chan gateway.Downlink
	writes         atomic.Int64

	mu    sync.Mutex
	wrong string
}

func startMachine(t testing.TB) *machine {
	t.Helper()
	p := &machine{Session: new(cloud.Session), down: make(chan gateway.Downlink)}
	store, err := buffer.Open(filepath.Join(t.TempDir(), "buffer.db"), buffer.Options{MaxSize: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{
		Site: machineSite(), Log: slog.New(slog.DiscardHandler), Buffer: store, Uplinks: map[string]gateway.Uplink{user: p},
		Adapters: map[string]gateway.NewAdapter{"test": func(gateway.Env, *gateway.Bus, []*gateway.Device) (gateway.Adapter, error) { return p, nil }},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { g.Run(ctx); close(ended) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		store.Close()
	})
	return p
}

func machineSite() *gateway.Site {
	decimal := func(text string) *gateway.Decimal {
		d := new(gateway.Decimal)
		_ = d.UnmarshalText([]byte(text)) // they are numbers
		return d
	}
	device := &gateway.Device{Name: "m", User: user, Bus: &gateway.Bus{Name: "b", Type: "test"}}
	for _, d := range []*gateway.Definition{
		{ID: "a", Type: gateway.Uint16, Access: "rw", Min: decimal("20"), Max: decimal("50")},
		{ID: "switch", Type: gateway.Bool, Access: "rw"},
		{ID: "b", Type: gateway.String, Length: 8, Access: "rw"},
		{ID: "list", Type: gateway.Int16, Count: 3, Access: "rw", Min: decimal("20"), Max: decimal("50")},
		{ID: "word", Type: gateway.Uint16, Access: "w", Enum: gateway.Enum{{Raw: 1, Label: "stop"}}},
		{ID: "seen", Type: gateway.Uint16, Access: "r"},
	} {
		d.Poll = time.Second
		device.Points = append(device.Points, &gateway.Point{Definition: d, Device: device, Name: d.ID})
	}
	hz := &gateway.Param{ID: "hz", Type: "float", Min: decimal("20"), Max: decimal("50")}
	device.Commands = []*gateway.Command{{ID: "start", Params: []*gateway.Param{hz}, Steps: []*gateway.Step{{Write: &gateway.Assignments{Values: []gateway.Assignment{{Point: "a", Value: "$hz"}}}}}}}
	device.Streams = []*gateway.Stream{{ID: "params", Downlink: "params:start"}, {ID: "write", Downlink: "write:a"}}
	s := &gateway.Site{Buses: []*gateway.Bus{device.Bus}, Devices: []*gateway.Device{device}}
	s.Writes, s.Cloud.OnConnect = "enabled", "apply"
	return s
}

func (p *machine) fail(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrong = fmt.Sprintf(format, args...)
}

// send hands a message over, and returns when the one before was dealt with.
func (p *machine) send(t testing.TB, d gateway.Downlink) {
	t.Helper()
	p.down <- d
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wrong != "" {
		t.Fatal(p.wrong)
	}
}

// The cloud's side.

func (p *machine) Receive(ctx context.Context) (gateway.Downlink, error) {
	select {
	case d := <-p.down:
		return d, nil
	case <-ctx.Done():
		return gateway.Downlink{}, ctx.Err()
	}
}

func (p *machine) SendReply(_ context.Context, payload []byte) error {
	if !json.Valid(payload) || len(payload) > cloud.MaxMessage {
		p.fail("a reply is %.200q", payload)
	}
	return nil
}

func (p *machine) Publish(_ context.Context, records []gateway.Record) (int, error) {
	return len(records), nil
}

func (p *machine) Await(context.Context, gateway.RecordKind, bool) error { return nil }

// The machine's side.

func (p *machine) Open(context.Context) (gateway.Session, error) { return machineSession{p}, nil }

type machineSession struct{ *machine }

func (f machineSession) Close() error { return nil }
func (f machineSession) Plan(points []*gateway.Point) [][]*gateway.Point {
	return [][]*gateway.Point{points}
}

func (f machineSession) Read(_ context.Context, group []*gateway.Point) (samples []gateway.Sample, _ error) {
	for _, p := range group {
		samples = append(samples, gateway.Sample{Point: p, Time: time.Now(), Quality: gateway.Bad, Reason: "it tells nothing"})
	}
	return samples, nil
}

// Write takes only what fits the point, and is writable.
func (f machineSession) Write(_ context.Context, p *gateway.Point, v gateway.Value) error {
	f.writes.Add(1)
	fits := map[string]func() bool{
		"a":      func() bool { return v.Numeric() && v.Float() >= 20 && v.Float() <= 50 },
		"switch": func() bool { return v.Kind() == gateway.Boolean },
		"b":      func() bool { return v.Kind() == gateway.Text && len(v.Text()) <= 8 },
		"list": func() bool {
			for _, x := range v.List() {
				if x.Float() < 20 || x.Float() > 50 {
					return false
				}
			}
			return len(v.List()) == 3
		},
	}[p.ID]
	if fits == nil || !fits() {
		f.fail("%s is written with %s", p.ID, v)
	}
	return nil
}
