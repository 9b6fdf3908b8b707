package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"sluice/adapters/sim"
	"sluice/gateway"
	"sluice/gateway/cloud/twin"
	"sluice/gateway/site"
)

// simulatedBuffer is enough for an afternoon, in a temporary folder that may be
// memory.
const simulatedBuffer = 32 << 20

func simulateCommand() *cobra.Command {
	var duration time.Duration
	var messages bool
	cmd := &cobra.Command{
		Use:   "simulate FILE",
		Short: "Try a site file without its plant and its cloud",
		Long: `Simulate runs the gateway of a site against simulated field devices and a
simulated cloud, all on this machine. The devices have exactly the registers and
nodes that the site's points name, with values that move; registers in a gap read
as 0. The local page shows it all, and a Modbus tool may look at the devices, too.

Nothing of the plant, the cloud or the site's buffer file is touched, no secret
has to be there, and what is written is forgotten at the end.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if duration > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, duration)
				defer cancel()
			}
			return simulate(ctx, args[0], messages, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().DurationVar(&duration, "for", 0, "end by itself after this time, such as 30s; default: until Ctrl-C")
	cmd.Flags().BoolVar(&messages, "messages", false, "print each message that the cloud gets")
	return cmd
}

func simulate(ctx context.Context, path string, messages bool, out, errs io.Writer) error {
	s, found := site.Load(path, siteOptions())
	if found.Errors() > 0 {
		found.Print(errs)
		return errFound
	}
	dir, err := os.MkdirTemp("", "sluice-simulate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, at := range s.Secrets {
		*at.Secret = gateway.Secret(rand.Text())
	}
	s.Buffer.Path, s.Buffer.MinFreeDisk = filepath.Join(dir, "buffer.db"), 0
	s.Buffer.MaxSize = min(s.Buffer.MaxSize, simulatedBuffer)
	s.Local.HTTP, s.Local.Password = freeAddress(), ""
	left := leaveOut(s)
	var tell func(user, topic string, payload []byte)
	if messages {
		var mu sync.Mutex
		tell = func(_, topic string, payload []byte) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(out, "%s  %s  %s\n", time.Now().Format(time.TimeOnly), topic, payload)
		}
	}
	cloud, err := simulateCloud(s, tell)
	if err != nil {
		return err
	}
	defer cloud.Stop()
	field, s, err := sim.Start(s, sim.Options{Seed: 1, Holes: true})
	if err != nil {
		return err
	}
	defer field.Close()
	for _, b := range s.Buses {
		fmt.Fprintf(out, "simulated bus %s: %s at %s\n", b.Name, b.Type, b.Place())
	}
	if left != "" {
		fmt.Fprintln(out, left)
	}
	log, err := newLog(errs, s.Log)
	if err != nil {
		return err
	}
	return serve(ctx, s, log, nil, nil)
}

// simulateCloud starts a cloud that knows the site's users, and lets the site lead
// to it. tell sees each message; nil for nobody.
func simulateCloud(s *gateway.Site, tell func(user, topic string, payload []byte)) (*twin.Twin, error) {
	users := make(map[string]string)
	for user, login := range s.Logins() {
		users[user] = string(login.Password)
	}
	cloud, err := twin.Start(twin.Options{Users: users, Respond: true, OnMessage: tell})
	if err != nil {
		return nil, err
	}
	s.Cloud.URL = cloud.URL()
	return cloud, nil
}

// leaveOut drops the devices that this build has no simulated server for, and
// says which.
func leaveOut(s *gateway.Site) string {
	if sim.ServesOPCUA {
		return ""
	}
	var names []string
	s.Devices = slices.DeleteFunc(s.Devices, func(x *gateway.Device) bool {
		left := x.Bus.Type == "opcua"
		if left {
			names = append(names, x.Name)
		}
		return left
	})
	s.Buses = slices.DeleteFunc(s.Buses, func(b *gateway.Bus) bool { return b.Type == "opcua" })
	if len(names) == 0 {
		return ""
	}
	return "Left out, since the packaged program brings no simulated OPC UA server: " + strings.Join(names, ", ") + "."
}
