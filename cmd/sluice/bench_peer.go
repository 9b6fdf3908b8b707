package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/spf13/cobra"

	"sluice/adapters/modbus/wire"
	"sluice/adapters/sim"
	"sluice/gateway"
	"sluice/gateway/cloud/twin"
	"sluice/gateway/site"
)

// benchPeerCommand is the other side of the wires: the simulated devices of a
// site and a broker, until standard input ends.
func benchPeerCommand() *cobra.Command {
	var changing, change bool
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
			var watch stopwatch
			users := make(map[string]string)
			for user, login := range s.Logins() {
				users[user] = string(login.Password)
			}
			broker, err := twin.Start(twin.Options{Users: users, Keep: 1, OnMessage: watch.arrived})
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
				if err := freeze(cmd.Context(), simulated); err != nil {
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
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			ended := make(chan error, 1)
			if change {
				go func() { ended <- watch.run(ctx, simulated.Devices[0]) }()
			} else {
				ended <- nil
			}
			if _, err := io.Copy(io.Discard, cmd.InOrStdin()); err != nil {
				return err
			}
			stop()
			if err := <-ended; err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(watch.result())
		},
	}
	cmd.Flags().BoolVar(&changing, "changing", false, "let the values change")
	cmd.Flags().BoolVar(&change, "first-change", false, "let one value change now and then")
	return cmd
}

// freeze makes every register keep its value, as written ones do.
func freeze(ctx context.Context, s *gateway.Site) error {
	for _, d := range s.Devices {
		if err := freezeDevice(ctx, d); err != nil {
			return fmt.Errorf("freeze %s: %w", d.Name, err)
		}
	}
	return nil
}

func freezeDevice(ctx context.Context, d *gateway.Device) error {
	conn, err := net.Dial("tcp", net.JoinHostPort(d.Bus.Host, d.Bus.Port))
	if err != nil {
		return err
	}
	client := wire.NewTCP(conn, wire.Options{Timeout: 10 * time.Second})
	defer client.Close()
	registers := benchAddress(len(d.Points)-1) + 1
	for first := 0; first < registers; first += wire.MaxWriteRegisters {
		values := make([]byte, 0, 2*wire.MaxWriteRegisters)
		for at := first; at < min(registers, first+wire.MaxWriteRegisters); at++ {
			values = binary.BigEndian.AppendUint16(values, uint16(at%1000))
		}
		if err := client.WriteMultipleRegisters(ctx, byte(d.Unit), uint16(first), values); err != nil {
			return err
		}
	}
	return nil
}
