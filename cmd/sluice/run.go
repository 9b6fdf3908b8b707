package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sluice/buffer"
	"sluice/gateway"
)

func runCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "run --site FILE",
		Short: "Run the gateway of a site",
		Long: `Run polls the field devices of a site, keeps what changes in the buffer and
publishes it to the cloud, until SIGINT or SIGTERM. At SIGHUP it reads the site
file again: buses and cloud sessions that differ are started anew, the others go
on, and a file with errors changes nothing.

A site that "sluice check" refuses does not run. Exit code 1 means that the
site file is wrong, 2 that the program could not start.`,
		Args: onlyFlags,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSite(path)
			if err != nil {
				return err
			}
			log, err := newLog(os.Stderr, s.Log)
			if err != nil {
				return err
			}
			again := make(chan os.Signal, 1)
			signal.Notify(again, syscall.SIGHUP)
			defer signal.Stop(again)
			return serveAgain(cmd.Context(), s, log, nil, nil, again)
		},
	}
	siteFlag(cmd, &path)
	return cmd
}

// serve runs the gateway of a site until ctx ends. adjust, if set, may change
// what the gateway is made of; started, if set, is handed it when it starts.
func serve(ctx context.Context, s *gateway.Site, log *slog.Logger, adjust func(*gateway.Config), started func(*gateway.Gateway)) error {
	return serveAgain(ctx, s, log, adjust, started, nil)
}

// serveAgain serves, and reads the site file anew at each signal of again.
func serveAgain(ctx context.Context, s *gateway.Site, log *slog.Logger, adjust func(*gateway.Config), started func(*gateway.Gateway), again <-chan os.Signal) error {
	dropStartPages() // a third of the program, which only loading has touched
	store, err := openBuffer(s, log)
	if err != nil {
		return err
	}
	err = runGateway(ctx, s, store, log, adjust, started, again)
	if closed := store.Close(); err == nil {
		err = closed
	}
	return err
}

func openBuffer(s *gateway.Site, log *slog.Logger) (*buffer.Buffer, error) {
	options := buffer.Options{
		MaxSize: int64(s.Buffer.MaxSize), Flush: s.Buffer.Flush, MaxAge: s.Buffer.MaxAge, MinFreeDisk: int64(s.Buffer.MinFreeDisk),
		Preallocate: true, Gaps: true, Log: log,
	}
	if s.Buffer.WhenFull == "stop-new" {
		options.WhenFull = buffer.StopNew
	}
	b, err := buffer.Open(s.Buffer.Path, options)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: make the folder, or write another file into the site file: buffer: { path: … }", err)
	}
	return b, err
}

// dropEvery is how often pages of the program are given back at most: what is in
// use has to be mapped again.
const dropEvery = 10 * time.Second

// settleAfter is when what only the start needed is not needed any more.
const settleAfter = 5 * time.Second

func runGateway(ctx context.Context, s *gateway.Site, store *buffer.Buffer, log *slog.Logger, adjust func(*gateway.Config), started func(*gateway.Gateway), again <-chan os.Signal) error {
	d := &daemon{log: log, store: store, service: newService(log)}
	sessions, err := d.connect(s)
	if err != nil {
		return err
	}
	config := gateway.Config{Site: s, Version: version(), Log: log, Buffer: store, Adapters: adapters(), Uplinks: uplinks(sessions)}
	if adjust != nil {
		adjust(&config)
	}
	if d.gateway, err = gateway.New(config); err != nil {
		return err
	}

	serveLocal, err := d.newLocal(s, sessions)
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // what loading and compiling left behind
	dropStartPages()
	debug.SetGCPercent(10) // for the first reports: of all points, at once
	if started != nil {
		started(d.gateway)
	}
	log.Info("sluice runs", "site", s.Name, "buses", len(s.Buses), "devices", len(s.Devices))
	d.leftBehind(nil, s)
	begin := time.Now()
	d.start(ctx, d.gateway.Run)
	d.exchange(ctx, sessions)
	d.local = d.start(ctx, serveLocal)
	d.service.allow(s)
	d.start(ctx, func(ctx context.Context) { d.service.run(ctx, d.watched, d.gateway.Summary) })
	settled, collected, dropped := time.After(settleAfter), collections(ctx), begin
	for ctx.Err() == nil {
		select {
		case <-collected:
			if time.Since(dropped) >= dropEvery {
				dropped = time.Now()
				dropStartPages() // a collection reads tables all over the program
			}
		case <-settled:
			// What a site takes is known now. 10,000 points that change ten times
			// a second take 1 MB more than at 25, and 0.3 µs less a value.
			debug.SetGCPercent(40)
			debug.FreeOSMemory()
			dropStartPages()
		case <-again:
			d.reload(ctx, s.Path)
		case <-ctx.Done():
		}
	}
	d.wait.Wait()
	d.exchange(ctx, nil) // all have ended
	stats := &d.gateway.Stats
	log.Info("sluice stops", "after", time.Since(begin).Round(time.Second), "reports", stats.Reports.Load(), "confirmed", stats.Confirmed.Load())
	return nil
}

// collections tells, until ctx ends, of each collection of garbage.
func collections(ctx context.Context) <-chan struct{} {
	type token struct{ _ [64]byte } // nobody holds it: the next collection finds it
	collected := make(chan struct{}, 1)
	var found func(struct{})
	found = func(struct{}) {
		select {
		case collected <- struct{}{}:
		default: // it is told already
		}
		if ctx.Err() == nil {
			runtime.AddCleanup(new(token), found, struct{}{})
		}
	}
	runtime.AddCleanup(new(token), found, struct{}{})
	return collected
}
