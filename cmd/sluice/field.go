package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"sluice/gateway"
	"sluice/gateway/site"
)

func readCommand() *cobra.Command {
	return fieldCommand("read DEVICE POINT", "Read a point of a device now",
		`Read asks a device for one point, out of turn. While the gateway runs it is asked
by its control socket; else the bus is opened.`, "/api/read", 2)
}

func writeCommand() *cobra.Command {
	return fieldCommand("write DEVICE POINT VALUE", "Write a point of a device, with all checks",
		`Write writes one value, through the checks that a value from the cloud goes
through: type, limits, locks, guard, read-back. Only site.writes does not hold
for it. While the gateway runs it is asked by its control socket; else the bus
is opened. The line in the audit says "command line".

A machine may move: stand where you can see it.`, "/api/write", 3)
}

func fieldCommand(use, short, long, api string, args int) *cobra.Command {
	var path string
	var asJSON bool
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long + "\n\nExit code 1: no good value, or not written.",
		Args: cobra.ExactArgs(args),
		RunE: func(cmd *cobra.Command, words []string) error {
			q := fieldRequest{Device: words[0], Point: words[1]}
			if args == 3 {
				q.Value = &words[2]
			}
			var answer fieldAnswer
			err := onField(cmd, path, q, func(c *control) error {
				return c.call(cmd.Context(), http.MethodPost, api, q, &answer)
			})
			if err != nil {
				return err
			}
			return answer.print(cmd.OutOrStdout(), q, asJSON)
		},
	}
	siteFlag(cmd, &path)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON")
	return cmd
}

// print says what became of it; errFound where that is nothing good.
func (a *fieldAnswer) print(out io.Writer, q fieldRequest, asJSON bool) error {
	good := a.Quality == "good"
	words := []string{a.Value, a.Unit}
	if a.Value == "" { // a unit says nothing without a value
		words = nil
	}
	if q.Value != nil {
		good = a.Result == "done"
		words = []string{q.Point + ":", a.Result}
		if a.Old != "" || a.New != "" {
			words = append(words, fmt.Sprintf("(was %s, reads %s)", orDash(a.Old), orDash(a.New)))
		}
	} else if !good {
		words = append(words, a.Quality)
	}
	if a.Reason != "" {
		words = append(words, "– "+a.Reason)
	}
	if asJSON {
		text, err := json.Marshal(a)
		if err != nil {
			return err
		}
		words = []string{string(text)}
	}
	fmt.Fprintln(out, strings.TrimSpace(strings.Join(words, " ")))
	if !good {
		return errFound
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// onField finds who can do something on the field: the running gateway of the
// site, else one that is made for it, with the one device.
func onField(cmd *cobra.Command, path string, q fieldRequest, do func(*control) error) error {
	s, c, err := findGateway(cmd, path)
	switch {
	case err != nil:
		return err
	case c != nil:
		return do(c)
	}
	if err := only(s, q.Device); err != nil {
		return err
	}
	// The cloud's passwords may be out of reach here, and are not needed. A
	// device's are: without them nothing is written.
	if missing := site.OpenSecrets(s); missing.Errors() > 0 && s.Devices[0].Profile.Unlock != nil {
		missing.Print(cmd.ErrOrStderr())
		return errFound
	}
	return withField(cmd.Context(), s, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn})), do)
}

// only leaves one device of a site.
func only(s *gateway.Site, device string) error {
	for _, d := range s.Devices {
		if d.Name == device {
			s.Devices, s.Buses = []*gateway.Device{d}, []*gateway.Bus{d.Bus}
			d.Disabled, d.Heartbeat = false, nil
			return nil
		}
	}
	return fmt.Errorf("there is no device %s", device)
}

// withField runs a gateway that tells the cloud nothing, while do works with it.
func withField(ctx context.Context, s *gateway.Site, log *slog.Logger, do func(*control) error) error {
	b, err := openBuffer(s, log)
	if err != nil {
		return err
	}
	g, err := gateway.New(gateway.Config{Site: s, Log: log, Buffer: b, Adapters: adapters(), Quiet: true})
	if err != nil {
		return errors.Join(err, b.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { g.Run(ctx); close(ended) }()
	mux := http.NewServeMux()
	handleRead(g, mux.Handle)
	handleWrite(g, mux.Handle)
	err = do(inProcess(mux))
	stop()
	<-ended
	return errors.Join(err, b.Close())
}
