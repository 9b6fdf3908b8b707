package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"sluice/buffer"
	"sluice/gateway"
	"sluice/gateway/cloud"
)

func runCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "run --site FILE",
		Short: "Run the gateway of a site",
		Long: `Run polls the field devices of a site, keeps what changes in the buffer and
publishes it to the cloud, until SIGINT or SIGTERM.

A site that "sluice check" refuses does not run. Exit code 1 means that the
site file is wrong, 2 that the program could not start.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSite(path)
			if err != nil {
				return err
			}
			log, err := newLog(os.Stderr, s.Log)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), s, log, nil, nil)
		},
	}
	cmd.Flags().StringVar(&path, "site", "", "site file")
	cmd.MarkFlagRequired("site")
	return cmd
}

// serve runs the gateway of a site until ctx ends. adjust, if set, may change
// what the gateway is made of; started, if set, is handed it when it starts.
func serve(ctx context.Context, s *gateway.Site, log *slog.Logger, adjust func(*gateway.Config), started func(*gateway.Gateway)) error {
	store, err := openBuffer(s, log)
	if err != nil {
		return err
	}
	err = runGateway(ctx, s, store, log, adjust, started)
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
	return buffer.Open(s.Buffer.Path, options)
}

func runGateway(ctx context.Context, s *gateway.Site, store *buffer.Buffer, log *slog.Logger, adjust func(*gateway.Config), started func(*gateway.Gateway)) error {
	config := gateway.Config{Site: s, Log: log, Buffer: store, Adapters: adapters(), Uplinks: make(map[string]gateway.Uplink)}
	sessions := make(map[string]*cloud.Session)
	downlinks, writable := s.Downlinks(), s.Writable()
	for user, login := range s.Logins() {
		session, err := cloud.New(cloud.Config{Cloud: s.Cloud, Login: login, Site: s.Name, Log: log.With("user", user), Streams: downlinks[user], Keys: writable[user]})
		if err != nil {
			return fmt.Errorf("cloud session of %s: %w", user, err)
		}
		sessions[user] = session
		config.Uplinks[user] = session
	}
	if adjust != nil {
		adjust(&config)
	}
	g, err := gateway.New(config)
	if err != nil {
		return err
	}

	service := newService(log)
	local, err := newLocal(s, g, store, sessions, service.hangs, log)
	if err != nil {
		return err
	}
	debug.FreeOSMemory() // what loading and compiling left behind
	if started != nil {
		started(g)
	}
	log.Info("sluice runs", "site", s.Name, "buses", len(s.Buses), "devices", len(s.Devices))
	begin := time.Now()
	var wait sync.WaitGroup
	for _, session := range sessions {
		wait.Go(func() { session.Run(ctx) })
	}
	wait.Go(func() { runLocal(ctx, s, local, log) })
	wait.Go(func() {
		service.run(ctx, s, func() []gateway.Watched { return watched(g, store, sessions) }, g.Summary)
	})
	g.Run(ctx)
	wait.Wait()
	log.Info("sluice stops", "after", time.Since(begin).Round(time.Second), "reports", g.Stats.Reports.Load(), "confirmed", g.Stats.Confirmed.Load())
	return nil
}

// watched lists every loop that has to turn.
func watched(g *gateway.Gateway, store *buffer.Buffer, sessions map[string]*cloud.Session) []gateway.Watched {
	all := append(g.Watched(), gateway.Watched{Name: "buffer", Turned: store.Turned})
	for _, session := range sessions {
		all = append(all, session.Watched())
	}
	return all
}
