package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sluice/adapters/sim"
	"sluice/gateway"
	"sluice/gateway/cloud/twin"
	"sluice/gateway/site"
)

func benchLimitsCommand() *cobra.Command {
	var settle time.Duration
	cmd := &cobra.Command{
		Use:   "limits",
		Short: "Measure start, memory and end of the daemon",
		Long: `Limits runs the daemon as a process of its own against simulated devices and a
broker, with 100 and with 10,000 points that are polled every second and all
change. It measures the time from the start of the process to the first
published value, its memory, the memory that an open page of all points takes
more, and the time from SIGTERM to the end. Memory is the highest RSS of all
seconds after the start, of which mapped pages of program and buffer file
are a part that the system can take back.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			fmt.Fprintln(out, "points  first value       RSS  of it anonymous  page open  SIGTERM to end")
			for _, b := range []modbusBench{{devices: 1, registers: 100}, {devices: 10, registers: 1000}} {
				b.poll, b.pipeline = time.Second, 1
				if err := b.limits(cmd.Context(), out, cmd.ErrOrStderr(), settle); err != nil {
					return fmt.Errorf("%d points: %w", b.devices*b.registers, err)
				}
			}
			if self, err := os.Executable(); err == nil {
				if info, err := os.Stat(self); err == nil {
					fmt.Fprintf(out, "program %.1f MB\n", float64(info.Size())/1e6)
				}
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&settle, "for", time.Minute, "how long memory is measured, after a start of as long, at most ten seconds")
	return cmd
}

// limits measures one run of the daemon and prints a line.
func (b *modbusBench) limits(ctx context.Context, out, progress io.Writer, settle time.Duration) error {
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	broker, err := twin.Start(twin.Options{Users: map[string]string{"bench": "bench"}, Keep: 1})
	if err != nil {
		return err
	}
	defer broker.Stop()
	path := filepath.Join(dir, "site.yaml")
	plan, found := site.Parse(path, b.site(), siteOptions())
	if found.Errors() > 0 {
		found.Print(os.Stderr)
		return errFound
	}
	field, simulated, err := sim.Start(plan, sim.Options{Holes: true})
	if err != nil {
		return err
	}
	defer field.Close()
	if err := os.WriteFile(path, b.siteAt(broker.URL(), simulated.Buses), 0o600); err != nil {
		return err
	}

	self, err := os.Executable()
	if err != nil {
		return err
	}
	run := exec.CommandContext(ctx, self, "run", "--site", path)
	var log bytes.Buffer
	run.Stderr = &log
	begin := time.Now()
	if err := run.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- run.Wait() }()
	defer run.Process.Kill()
	for len(broker.Received("bench")) == 0 {
		select {
		case err := <-ended:
			return fmt.Errorf("the daemon ended: %w\n%s", err, log.Bytes())
		case <-time.After(200 * time.Microsecond):
		}
	}
	first := time.Since(begin)
	fmt.Fprintf(progress, "%d points: measured for %s, and as long with a page open\n", b.devices*b.registers, settle)
	pause(ctx, min(settle, 2*settleAfter))
	alone, anonymous := highest(ctx, run.Process.Pid, settle)
	closePage, err := openPage(ctx, plan)
	if err != nil {
		return err
	}
	withPage, _ := highest(ctx, run.Process.Pid, settle)
	closePage()
	stop := time.Now()
	if err := run.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := <-ended; err != nil {
		return err
	}
	fmt.Fprintf(out, "%6d  %8d ms  %8s  %15s  %9s  %11d ms\n", b.devices*b.registers, first.Milliseconds(), alone, anonymous, withPage, time.Since(stop).Milliseconds())
	return nil
}

// highest is the most that a process takes of the memory within a time.
func highest(ctx context.Context, pid int, within time.Duration) (rss, anonymous kibibytes) {
	for end := time.Now().Add(within); ctx.Err() == nil && time.Now().Before(end); pause(ctx, min(time.Second, within)) {
		if now := memoryOf(pid, "VmRSS"); now > rss {
			rss, anonymous = now, memoryOf(pid, "RssAnon")
		}
	}
	return rss, anonymous
}

// openPage asks for what an open page of all points does.
func openPage(ctx context.Context, s *gateway.Site) (closePage func(), err error) {
	c, err := dialControl(ctx, s)
	if err != nil {
		return nil, err
	}
	stream, err := c.open(ctx, http.MethodGet, "/api/stream?points=1", nil)
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, stream) // until it is closed
	}()
	return func() {
		stream.Close()
		<-ended
	}, nil
}
