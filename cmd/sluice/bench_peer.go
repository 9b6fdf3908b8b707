package main

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"sluice/adapters/sim"
	"sluice/gateway"
	"sluice/gateway/cloud/twin"
	"sluice/gateway/site"
)

// benchPeerCommand is the other side of the wires: the simulated devices of a
// site and a broker, until standard input ends.
func benchPeerCommand() *cobra.Command {
	var changing bool
	cmd := &cobra.Command{
		Use:    "peer FILE",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, found := site.Load(args[0], siteOptions())
			if found.Errors() > 0 {
				found.Print(cmd.ErrOrStderr())
				return errFound
			}
			users := make(map[string]string)
			for user, login := range s.Logins() {
				users[user] = string(login.Password)
			}
			broker, err := twin.Start(twin.Options{Users: users, Keep: 1})
			if err != nil {
				return err
			}
			defer broker.Stop()
			field, simulated, err := sim.Start(s, sim.Options{Holes: true})
			if err != nil {
				return err
			}
			defer field.Close()
			if !changing {
				if err := freeze(field, simulated); err != nil {
					return err
				}
			}
			p := peer{Broker: broker.URL()}
			for _, bus := range simulated.Buses {
				p.Buses = append(p.Buses, struct{ Host, Port string }{bus.Host, bus.Port})
			}
			if err := json.NewEncoder(cmd.OutOrStdout()).Encode(p); err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, cmd.InOrStdin())
			return err
		},
	}
	cmd.Flags().BoolVar(&changing, "changing", false, "let the values change")
	return cmd
}

// freeze makes every point keep its value.
func freeze(field *sim.Sim, s *gateway.Site) error {
	for _, d := range s.Devices {
		for i, p := range d.Points {
			if err := field.Set(d.Name, p.ID, gateway.UintValue(uint64(i%1000))); err != nil {
				return err
			}
		}
	}
	return nil
}
