package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sluice/gateway"
	"sluice/gateway/site"
)

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what the gateway needs on this machine",
	}
	cmd.AddCommand(benchModbusCommand(), benchBufferCommand(), benchLimitsCommand(), benchCommandCommand())
	for _, c := range cmd.Commands() {
		run := c.RunE
		c.RunE = func(c *cobra.Command, args []string) error {
			err := run(c, args)
			if c.Context().Err() != nil { // whatever broke off with it
				return errors.New("ended early: this was not measured to the end")
			}
			return err
		}
	}
	cmd.AddCommand(benchPeerCommand())
	return cmd
}

// modbusBench is a load of simulated Modbus TCP devices.
type modbusBench struct {
	devices, registers int
	pipeline           int
	poll, duration     time.Duration
	changing, change   bool
	profile            string
}

func benchModbusCommand() *cobra.Command {
	var b modbusBench
	cmd := &cobra.Command{
		Use:   "modbus",
		Short: "Measure polling: CPU per value, memory, values per second",
		Long: `Modbus runs the gateway against simulated Modbus TCP devices and a broker, both
in a second process on this machine, and measures what the gateway's process
takes: CPU time for each polled value, peak memory, values per second. The
registers are uint16 in blocks of 20 with holes of 10, read with max_gap: auto.`,
		Example: `  sluice bench modbus
  sluice bench modbus --devices 100 --registers 1000
  sluice bench modbus --poll 100ms --changing
  sluice bench modbus --poll 1ms                                          # as fast as it can
  sluice bench modbus --devices 1 --registers 100 --poll 1ms --first-change`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return b.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().IntVar(&b.devices, "devices", 10, "number of devices")
	cmd.Flags().IntVar(&b.registers, "registers", 1000, "polled registers of each device")
	cmd.Flags().IntVar(&b.pipeline, "pipeline", 1, "requests in flight on a connection")
	cmd.Flags().DurationVar(&b.poll, "poll", time.Second, "poll interval")
	cmd.Flags().DurationVar(&b.duration, "for", 10*time.Second, "time to measure")
	cmd.Flags().BoolVar(&b.changing, "changing", false, "let every value change, so that each one is published")
	cmd.Flags().BoolVar(&b.change, "first-change", false, "measure from a change in a device to the broker; with a short --poll, since the wait for it is in it")
	cmd.Flags().StringVar(&b.profile, "profile", "", "write a CPU profile of the measured time to this file")
	return cmd
}

func (b *modbusBench) run(ctx context.Context, out, progress io.Writer) error {
	if b.devices < 1 || b.registers < 1 || b.registers > 40000 || b.poll < time.Millisecond || b.duration < time.Second {
		return errors.New("bench modbus takes at least 1 device, 1 to 40000 registers, --poll 1ms and --for 1s")
	}
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "site.yaml")
	if err := os.WriteFile(path, b.site(), 0o600); err != nil {
		return err
	}
	s, found := site.Load(path, siteOptions())
	if found.Errors() > 0 {
		found.Print(os.Stderr)
		return errFound
	}
	peer, err := b.startPeer(ctx, path)
	if err != nil {
		return err
	}
	defer peer.stop()
	s.Cloud.URL = peer.Broker
	for i, bus := range s.Buses {
		bus.Host, bus.Port = peer.Buses[i].Host, peer.Buses[i].Port
	}
	fmt.Fprintf(out, "%d Modbus TCP devices × %d registers, every %s, %s\n", b.devices, b.registers, short(b.poll), map[bool]string{false: "unchanging", true: "changing"}[b.changing])
	if err := b.measure(ctx, out, progress, s); err != nil {
		return err
	}
	took, err := peer.stop()
	printChanges(out, took)
	return err
}

// site is the site file of the bench; the addresses are filled in later.
func (b *modbusBench) site() []byte { return b.siteAt("mqtt://127.0.0.1:1", nil) }

// siteAt is the site file of the bench with the addresses of these buses.
func (b *modbusBench) siteAt(broker string, at []*gateway.Bus) []byte {
	var y strings.Builder
	fmt.Fprintf(&y, `version: 1
site: { name: bench }
cloud: { url: "%s", login: { user: bench, password: bench }, confirm: puback, backlog: replay, min_interval: 0s }
buffer: { path: buffer.db, max_size: 64MB }
local: { http: none }
buses:
`, broker)
	for i := range b.devices {
		port := "1"
		if at != nil {
			port = at[i].Port
		}
		fmt.Fprintf(&y, "  bus%d: { type: modbus-tcp, host: 127.0.0.1, port: %s, pipeline: %d }\n", i, port, b.pipeline)
	}
	fmt.Fprintf(&y, "profiles:\n  bench:\n    protocol: modbus\n    addressing: protocol\n    table: holding\n    max_gap: auto\n    poll: %s\n    points:\n", short(b.poll))
	for i := range b.registers {
		fmt.Fprintf(&y, "      p%d: { at: %d, type: uint16, unit: W }\n", i, benchAddress(i))
	}
	y.WriteString("devices:\n")
	for i := range b.devices {
		fmt.Fprintf(&y, "  - { name: d%d, profile: bench, bus: bus%d, unit: 1 }\n", i, i)
	}
	return []byte(y.String())
}

// benchAddress is where a point is: blocks of 20 with holes of 10 between them.
func benchAddress(point int) int { return point + point/20*10 }

// measure runs the gateway, lets it settle, and measures.
func (b *modbusBench) measure(ctx context.Context, out, progress io.Writer, s *gateway.Site) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	started := make(chan *gateway.Gateway, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, s, slog.New(slog.DiscardHandler), nil, func(g *gateway.Gateway) { started <- g })
	}()
	var g *gateway.Gateway
	select {
	case g = <-started:
	case err := <-ended:
		return err
	}
	for g.Stats.Samples.Load() < int64(b.devices*b.registers) && ctx.Err() == nil {
		pause(ctx, 100*time.Millisecond)
	}
	fmt.Fprintf(progress, "the gateway starts: %s\n", short(settling+b.poll))
	pause(ctx, settling+b.poll)
	if b.profile != "" {
		file, err := os.Create(b.profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Fprintf(progress, "it is measured: %s\n", short(b.duration))
	before := takeUsage(&g.Stats)
	pause(ctx, b.duration)
	after := takeUsage(&g.Stats)
	early := ctx.Err()
	stop()
	if err := errors.Join(<-ended, early); err != nil {
		return err
	}
	after.since(before).print(out)
	return nil
}

// settling is how long the start takes: the first reports are on their way to the
// cloud, and what only the start needed has been given back.
const settling = settleAfter + time.Second

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// usage is what the process has used and done.
type usage struct {
	time                                            time.Time
	wall, cpu                                       time.Duration
	samples, requests, reports, confirmed, overruns int64
}

func takeUsage(s *gateway.Stats) usage {
	var r syscall.Rusage
	// It fails only for wrong arguments.
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return usage{
		time: time.Now(), cpu: time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		samples: s.Samples.Load(), requests: s.Requests.Load(), reports: s.Reports.Load(), confirmed: s.Confirmed.Load(), overruns: s.Overruns.Load(),
	}
}

func (u usage) since(before usage) usage {
	u.wall, u.cpu = u.time.Sub(before.time), u.cpu-before.cpu
	u.samples -= before.samples
	u.requests -= before.requests
	u.reports -= before.reports
	u.confirmed -= before.confirmed
	u.overruns -= before.overruns
	return u
}

func (u usage) print(out io.Writer) {
	seconds := u.wall.Seconds()
	fmt.Fprintf(out, "values     %10.0f /s in %.0f requests/s, %.0f polls skipped\n", float64(u.samples)/seconds, float64(u.requests)/seconds, float64(u.overruns))
	fmt.Fprintf(out, "published  %10.0f messages/s\n", float64(u.confirmed)/seconds)
	fmt.Fprintf(out, "CPU        %10.1f %% of a core", 100*u.cpu.Seconds()/seconds)
	if u.samples > 0 {
		fmt.Fprintf(out, ", %.2f µs a value, %.1f million values/s on a core", float64(u.cpu.Nanoseconds())/1000/float64(u.samples), float64(u.samples)/1e6/u.cpu.Seconds())
	}
	fmt.Fprintf(out, "\nmemory     %10s at most, %s now of it not file pages\n", memory("VmHWM"), memory("RssAnon"))
}

// memory is a line of this process's status.
func memory(key string) kibibytes { return memoryOf(os.Getpid(), key) }

// kibibytes are an amount of memory; 0 where the system does not tell.
type kibibytes float64

func (k kibibytes) String() string {
	if k == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%.1f MiB", float64(k)/1024)
}

func memoryOf(pid int, key string) (k kibibytes) {
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if n, _ := fmt.Sscanf(lines.Text(), key+": %f kB", &k); n == 1 {
			return k
		}
	}
	return 0
}

// peer is the process with the devices and the broker.
type peer struct {
	Broker string
	Buses  []struct{ Host, Port string }

	cmd    *exec.Cmd
	input  io.Closer // it ends when this is closed
	output *json.Decoder
}

// startPeer runs this program a second time, as the other side of the wires.
func (b *modbusBench) startPeer(ctx context.Context, path string) (*peer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &peer{cmd: exec.CommandContext(ctx, self, "bench", "peer", path, fmt.Sprintf("--changing=%t", b.changing), fmt.Sprintf("--first-change=%t", b.change))}
	p.cmd.Stderr = os.Stderr
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.output = json.NewDecoder(output)
	if err := p.output.Decode(p); err != nil {
		p.stop()
		return nil, fmt.Errorf("start the simulated devices: %w", err)
	}
	return p, nil
}

// stop ends the peer and gives what it measured. It can be called again.
func (p *peer) stop() (took []time.Duration, err error) {
	if p.input.Close() == nil {
		err = p.output.Decode(&took)
	}
	_ = p.cmd.Wait() // its fate is of no more interest
	return took, err
}
