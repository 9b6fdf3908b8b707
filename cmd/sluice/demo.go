package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"sluice/adapters/sim"
	"sluice/buffer"
	"sluice/configs"
	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/cloud/twin"
	"sluice/gateway/site"
)

const (
	calm     = 3 * time.Second  // from the first value to the outage
	quiet    = 2 * time.Second  // in which the outage waits for a moment with nothing on its way
	outage   = 10 * time.Second // how long the broker is away
	shortest = 20 * time.Second // that a demo can take: calm, outage and draining
)

func demoCommand() *cobra.Command {
	var duration time.Duration
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch the gateway survive an outage, with simulated devices and broker",
		Long: `Demo runs the gateway of configs/demo.yaml between simulated field devices and a
broker of its own, all on this machine and without anything to install. After a
few seconds the broker goes away for 10 s and comes back; the demo counts what
was measured and what the cloud got.

Exit code 0 only if no report was lost.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if duration != 0 && duration < shortest {
				return fmt.Errorf("--for %v is too short to see an outage end: at least %v", duration, shortest)
			}
			d := &demo{out: cmd.OutOrStdout(), start: time.Now(), latest: make(map[string]map[string]string)}
			return d.run(cmd.Context(), duration)
		},
	}
	cmd.Flags().DurationVar(&duration, "for", 0, "end by itself after this time, such as 30s; default: until Ctrl-C")
	return cmd
}

// demo is a gateway with its field and its cloud in one process, and an oracle
// that compares both ends.
type demo struct {
	out     io.Writer
	start   time.Time
	site    *gateway.Site
	left    string // what it goes without, and why
	twin    *twin.Twin
	oracle  *oracle
	gateway *gateway.Gateway
	buffer  *buffer.Buffer
	printed sync.Mutex

	mu     sync.Mutex
	latest map[string]map[string]string // what the cloud shows, by user
	first  chan struct{}                // closed when the first value arrives
}

func (d *demo) run(ctx context.Context, duration time.Duration) error {
	dir, err := os.MkdirTemp("", "sluice-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := d.load(dir); err != nil {
		return err
	}
	d.left = leaveOut(d.site)
	d.oracle, d.first = newOracle(d.site.Cloud.LateTS), make(chan struct{})
	d.twin, err = simulateCloud(d.site, d.arrived)
	if err != nil {
		return err
	}
	defer d.twin.Stop()
	d.site.Local.HTTP = freeAddress()
	d.introduce()
	field, simulated, err := sim.Start(d.site, sim.Options{Seed: 1, Holes: true})
	if err != nil {
		return err
	}
	defer field.Close()
	d.site = simulated
	return d.play(ctx, duration)
}

// load writes the demo's site file to a folder, with passwords of this run,
// and loads it as "run" does.
func (d *demo) load(dir string) error {
	content, err := configs.FS.ReadFile("demo.yaml")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "demo.yaml")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "secrets"), 0o700); err != nil {
		return err
	}
	s, found := site.Load(path, siteOptions())
	if found.Errors() > 0 {
		found.Print(os.Stderr)
		return errFound
	}
	for _, login := range s.Logins() {
		if _, name := login.Password.Reference(); name != "" {
			if err := os.WriteFile(filepath.Join(dir, "secrets", name), []byte(rand.Text()), 0o600); err != nil {
				return err
			}
		}
	}
	d.site, err = loadSite(path)
	return err
}

// play runs the gateway and the outage, and counts at the end.
func (d *demo) play(ctx context.Context, duration time.Duration) error {
	gatewayCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	ready := make(chan struct{})
	log := slog.New(slog.NewTextHandler(logWriter{d}, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	go func() {
		ended <- serve(gatewayCtx, d.site, log, func(c *gateway.Config) { c.OnReport, d.buffer = d.oracle.reported, c.Buffer }, func(g *gateway.Gateway) {
			d.gateway = g
			close(ready)
		})
	}()
	select {
	case <-ready:
	case err := <-ended:
		return err
	}
	end := make(<-chan time.Time)
	if duration > 0 {
		end = time.After(duration)
	}
	d.show(ctx, end)
	d.drain(5 * time.Second)
	waiting := d.waiting()
	stop()
	if err := <-ended; err != nil {
		return err
	}
	return d.summary(waiting)
}

// show prints a line a second and plays the outage, until ctx or the demo ends.
func (d *demo) show(ctx context.Context, end <-chan time.Time) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	first := (<-chan struct{})(d.first)
	var away, back <-chan time.Time
	var latest time.Time // for the outage
	up := true
	defer func() {
		if !up {
			d.restart()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-end:
			return
		case <-first:
			first, away, latest = nil, time.After(calm), time.Now().Add(calm+quiet)
			d.line(up)
		case <-away:
			if d.waiting() > 0 && time.Now().Before(latest) {
				away = time.After(time.Millisecond) // what is cut off before its confirmation comes twice
				continue
			}
			away, back, up = nil, time.After(outage), false
			d.print("%6.1f s  the broker goes away for %v\n", d.elapsed(), outage)
			d.twin.Stop()
		case <-back:
			back, up = nil, true
			d.restart()
		case <-tick.C:
			d.line(up)
		}
	}
}

func (d *demo) restart() {
	d.print("%6.1f s  the broker is back\n", d.elapsed())
	if err := d.twin.Restart(); err != nil {
		d.print("%6.1f s  the broker does not start: %v\n", d.elapsed(), err)
	}
}

// drain waits until everything that was measured is confirmed.
func (d *demo) drain(atMost time.Duration) {
	for begin := time.Now(); time.Since(begin) < atMost && d.waiting() > 0; {
		time.Sleep(10 * time.Millisecond)
	}
}

func (d *demo) waiting() int {
	sum := 0
	for user := range d.site.Logins() {
		sum += d.buffer.Len(user)
	}
	return sum
}

// arrived takes a message that the broker got.
func (d *demo) arrived(user, topic string, payload []byte) {
	if kind, _, _, _ := cloud.SplitTopic(topic); kind != cloud.Attributes {
		return
	}
	d.oracle.arrived(user, payload)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.latest) == 0 {
		close(d.first)
	}
	if d.latest[user] == nil {
		d.latest[user] = make(map[string]string)
	}
	for name, value := range parseAttributes(payload) {
		d.latest[user][name] = strings.Trim(value, `"`)
	}
}

func (d *demo) elapsed() float64 { return time.Since(d.start).Seconds() }

func (d *demo) print(format string, args ...any) {
	d.printed.Lock()
	defer d.printed.Unlock()
	fmt.Fprintf(d.out, format, args...)
}

func (d *demo) introduce() {
	d.print("Simulated field devices, a broker and the gateway between them, all in this process:\n\n")
	for _, device := range d.site.Devices {
		unit := ""
		if device.Unit != 0 {
			unit = fmt.Sprintf(", unit %d", device.Unit)
		}
		d.print("  %-6s %s, %d points: %s%s\n", device.Name, device.Profile.Label, len(device.Points), device.Bus.Type, unit)
	}
	if d.left != "" {
		d.print("\n%s\n", d.left)
	}
	d.print("\nIts local page is open meanwhile: http://%s\n", d.site.Local.HTTP)
	d.print("\n    time  broker  measured  delivered  waiting  what the cloud shows\n")
}

// freeAddress is the usual address of the page, or another one while that is
// taken.
func freeAddress() string {
	for _, address := range []string{"127.0.0.1:8470", "127.0.0.1:0"} {
		if l, err := net.Listen("tcp", address); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	return "none"
}

// line shows both ends at this moment.
func (d *demo) line(up bool) {
	broker := "up"
	if !up {
		broker = "AWAY"
	}
	t := d.oracle.total(d.buffer.Len, int(d.gateway.Stats.Merged.Load()))
	waiting := d.waiting()
	shows := strings.Repeat("▒", min(waiting, 40))
	if waiting < 5 {
		shows = d.values()
	}
	d.print("%6.1f s  %-6s  %8d  %9d  %7d  %s\n", d.elapsed(), broker, t.measured, t.delivered, waiting, shows)
}

// values are the first points of each device as the cloud shows them.
func (d *demo) values() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out strings.Builder
	for _, device := range d.site.Devices {
		fmt.Fprintf(&out, "%s:", device.Name)
		for _, p := range device.Points[:min(3, len(device.Points))] {
			if value, ok := d.latest[device.User][p.Name]; ok {
				fmt.Fprintf(&out, " %s %s", value, p.Unit)
			}
		}
		out.WriteString("  ")
	}
	return strings.TrimSpace(out.String())
}

// summary prints the count and tells by its error whether something was lost.
func (d *demo) summary(waiting int) error {
	t := d.oracle.total(d.buffer.Len, int(d.gateway.Stats.Merged.Load()))
	d.print("\nmeasured   %5d reports\n", t.measured)
	d.print("delivered  %5d, in order, %d of them within the message of a later one\n", t.delivered, t.merged)
	d.print("doubled    %5d\n", t.doubled)
	d.print("lost       %5d\n", t.lost)
	if waiting > 0 {
		d.print("waiting    %5d in the buffer when the demo was stopped\n", waiting)
	}
	if t.foreign > 0 {
		d.print("unknown    %5d messages that were never measured\n", t.foreign)
	}
	if t.measured == 0 || t.lost > 0 || t.foreign > 0 || waiting > 0 {
		return errFound
	}
	return nil
}

// logWriter shows the gateway's log within the demo's lines.
type logWriter struct{ demo *demo }

func (w logWriter) Write(line []byte) (int, error) {
	w.demo.print("%6.1f s  log: %s\n", w.demo.elapsed(), bytes.TrimSpace(line))
	return len(line), nil
}
