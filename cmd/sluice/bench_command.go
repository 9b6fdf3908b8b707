package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"sluice/gateway"
	"sluice/gateway/site"
)

// commandBench measures how long a command takes to reach its register.
type commandBench struct {
	devices, registers int
	poll, duration     time.Duration
	every              time.Duration

	mu       sync.Mutex
	arrived  map[string]time.Time // by device, of the command under way
	latency  []time.Duration
	requests []time.Duration
	failed   int
	down     chan gateway.Downlink
}

func benchCommandCommand() *cobra.Command {
	b := commandBench{arrived: make(map[string]time.Time), down: make(chan gateway.Downlink, 100)}
	cmd := &cobra.Command{
		Use:   "command",
		Short: "Measure the time from a command's arrival to the register written",
		Long: `Command runs the gateway against simulated Modbus TCP devices in a second process
on this machine, all of them polled, and gives it commands. It measures the time
from the arrival of a command, with an id that goes to disk first, to the answer
of the device to the write. A command goes before the polls, so that it waits
for one request in flight at most.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return b.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	cmd.Flags().IntVar(&b.devices, "devices", 50, "number of devices")
	cmd.Flags().IntVar(&b.registers, "registers", 100, "polled registers of each device")
	cmd.Flags().DurationVar(&b.poll, "poll", 100*time.Millisecond, "poll interval")
	cmd.Flags().DurationVar(&b.every, "every", 50*time.Millisecond, "time between two commands")
	cmd.Flags().DurationVar(&b.duration, "for", 10*time.Second, "time to measure")
	return cmd
}

func (b *commandBench) run(ctx context.Context, out io.Writer) error {
	if b.devices < 1 || b.registers < 1 || b.poll < time.Millisecond || b.every < time.Millisecond || b.duration < time.Second {
		return errors.New("bench command takes at least 1 device, 1 register, --poll 1ms, --every 1ms and --for 1s")
	}
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	load := modbusBench{devices: b.devices, registers: b.registers, pipeline: 1, poll: b.poll}
	text := strings.NewReplacer(
		"site: { name: bench }", "site: { name: bench, writes: enabled }",
		"p0: { at: 0, type: uint16, unit: W }", "p0: { at: 0, type: uint16, unit: W, access: rw, min: 0, max: 65000 }",
		"devices:\n", "    commands:\n      set: { params: [p0], steps: [ { write: params } ] }\ndevices:\n",
	).Replace(string(load.site()))
	path := filepath.Join(dir, "site.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	s, found := site.Load(path, siteOptions())
	if found.Errors() > 0 {
		found.Print(os.Stderr)
		return errFound
	}
	peer, err := load.startPeer(ctx, path)
	if err != nil {
		return err
	}
	defer peer.stop()
	s.Cloud.URL = peer.Broker
	for i, bus := range s.Buses {
		bus.Host, bus.Port = peer.Buses[i].Host, peer.Buses[i].Port
	}
	fmt.Fprintf(out, "%d Modbus TCP devices × %d registers, every %s; a command every %s\n", b.devices, b.registers, short(b.poll), short(b.every))
	return b.measure(ctx, out, s)
}

func (b *commandBench) measure(ctx context.Context, out io.Writer, s *gateway.Site) error {
	ctx, stop := context.WithCancel(ctx)
	started, ended := make(chan *gateway.Gateway, 1), make(chan error, 1)
	go func() {
		ended <- serve(ctx, s, slog.New(slog.DiscardHandler), b.adjust, func(g *gateway.Gateway) { started <- g })
	}()
	defer stop()
	select {
	case err := <-ended:
		return err
	case <-started:
	}
	pause(ctx, 2*time.Second)
	b.mu.Lock()
	b.requests = nil
	b.mu.Unlock()
	for i, end := 0, time.Now().Add(b.duration); time.Now().Before(end) && ctx.Err() == nil; i++ {
		device := s.Devices[i%len(s.Devices)]
		now := time.Now()
		b.mu.Lock()
		b.arrived[device.Name] = now
		b.mu.Unlock()
		value := gateway.IntValue(int64(1 + i%60000))
		b.down <- gateway.Downlink{Kind: gateway.CommandDownlink, Arrived: now, Method: device.Prefix + "set", ID: fmt.Sprint(i),
			Values: []gateway.Asked{{Name: "p0", Value: value, Raw: value.String()}}}
		pause(ctx, b.every)
	}
	pause(ctx, time.Second)
	stop()
	if err := <-ended; err != nil {
		return err
	}
	return b.print(out)
}

// adjust puts the clocks in: around the sessions of the buses, and in place of
// the broker's messages.
func (b *commandBench) adjust(c *gateway.Config) {
	for protocol, make := range c.Adapters {
		c.Adapters[protocol] = func(env gateway.Env, bus *gateway.Bus, devices []*gateway.Device) (gateway.Adapter, error) {
			a, err := make(env, bus, devices)
			return clockedAdapter{a, b}, err
		}
	}
	for user, uplink := range c.Uplinks {
		if session, ok := uplink.(fullUplink); ok {
			c.Uplinks[user] = injected{session, b.down}
		}
	}
}

// fullUplink is what a session of the cloud is.
type fullUplink interface {
	gateway.Uplink
	gateway.Downlinker
}

// injected takes its messages from the bench.
type injected struct {
	fullUplink
	down chan gateway.Downlink
}

func (i injected) Receive(ctx context.Context) (gateway.Downlink, error) {
	select {
	case d := <-i.down:
		return d, nil
	case <-ctx.Done():
		return gateway.Downlink{}, ctx.Err()
	}
}

type clockedAdapter struct {
	gateway.Adapter
	bench *commandBench
}

func (a clockedAdapter) Open(ctx context.Context) (gateway.Session, error) {
	s, err := a.Adapter.Open(ctx)
	if err != nil {
		return nil, err
	}
	return clockedSession{s.(fullSession), a.bench}, nil
}

// fullSession is what a session of Modbus is.
type fullSession interface {
	gateway.Session
	gateway.Prober
	gateway.Pacer
	gateway.Replanner
}

type clockedSession struct {
	fullSession
	bench *commandBench
}

func (s clockedSession) Read(ctx context.Context, group []*gateway.Point) ([]gateway.Sample, error) {
	begin := time.Now()
	samples, err := s.fullSession.Read(ctx, group)
	s.bench.mu.Lock()
	defer s.bench.mu.Unlock()
	s.bench.requests = append(s.bench.requests, time.Since(begin))
	return samples, err
}

func (s clockedSession) Write(ctx context.Context, p *gateway.Point, v gateway.Value) error {
	err := s.fullSession.Write(ctx, p, v)
	s.bench.mu.Lock()
	defer s.bench.mu.Unlock()
	if err != nil {
		s.bench.failed++
	} else if at := s.bench.arrived[p.Device.Name]; !at.IsZero() {
		s.bench.latency = append(s.bench.latency, time.Since(at))
		delete(s.bench.arrived, p.Device.Name)
	}
	return err
}

// slack is what a command may take beyond one request in flight.
const slack = 10 * time.Millisecond

// print says what was measured; errFound where it is more than it may be.
func (b *commandBench) print(out io.Writer) error {
	slices.Sort(b.latency)
	slices.Sort(b.requests)
	if len(b.latency) == 0 {
		return errors.New("no command reached its register")
	}
	at := func(list []time.Duration, share int) time.Duration {
		return list[(len(list)-1)*share/100].Round(10 * time.Microsecond)
	}
	most := at(b.requests, 99) + slack
	fmt.Fprintf(out, "requests of polls   %d, median %s, p99 %s\n", len(b.requests), at(b.requests, 50), at(b.requests, 99))
	fmt.Fprintf(out, "commands            %d, %d failed, %d not written in time\n", len(b.latency), b.failed, len(b.arrived))
	fmt.Fprintf(out, "arrival to register median %s, p99 %s, longest %s\n", at(b.latency, 50), at(b.latency, 99), at(b.latency, 100))
	fmt.Fprintf(out, "allowed for p99     %s: one request in flight and %s\n", most, slack)
	if at(b.latency, 99) > most {
		return errFound
	}
	return nil
}
