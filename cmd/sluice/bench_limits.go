package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sluice/adapters/sim"
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
published value, its memory after a while, and the time from SIGTERM to its end.
Memory is RSS, of which mapped pages of program and buffer file are a part that
the system can take back.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			fmt.Fprintln(out, "points  first value       RSS  of it anonymous  SIGTERM to end")
			for _, b := range []modbusBench{{devices: 1, registers: 100}, {devices: 10, registers: 1000}} {
				b.poll, b.pipeline = time.Second, 1
				if err := b.limits(cmd.Context(), out, settle); err != nil {
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
	cmd.Flags().DurationVar(&settle, "for", 15*time.Second, "time until memory is measured")
	return cmd
}

// limits measures one run of the daemon and prints a line.
func (b *modbusBench) limits(ctx context.Context, out io.Writer, settle time.Duration) error {
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
	begin := time.Now()
	if err := run.Start(); err != nil {
		return err
	}
	defer run.Process.Kill()
	for len(broker.Received("bench")) == 0 {
		if time.Since(begin) > time.Minute {
			return errors.New("nothing was published within a minute")
		}
		time.Sleep(200 * time.Microsecond)
	}
	first := time.Since(begin)
	pause(ctx, settle)
	rss, anonymous := memoryOf(run.Process.Pid, "VmRSS"), memoryOf(run.Process.Pid, "RssAnon")
	stop := time.Now()
	if err := run.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := run.Wait(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%6d  %8d ms  %8s  %15s  %11d ms\n", b.devices*b.registers, first.Milliseconds(), rss, anonymous, time.Since(stop).Milliseconds())
	return nil
}
