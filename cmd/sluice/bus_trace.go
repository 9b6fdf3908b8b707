package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sluice/buffer"
	"sluice/gateway"
	"sluice/gateway/site"
)

// traceOptions say what to show of a bus's traffic, and for how long.
type traceOptions struct {
	bus           string
	duration      time.Duration
	count         int
	bytes, asJSON bool
}

func traceCommand() *cobra.Command {
	var path string
	var o traceOptions
	cmd := &cobra.Command{
		Use:   "trace BUS --site FILE",
		Short: "Show what goes over a bus: requests, answers and what is wrong with them",
		Long: `Trace shows the frames of a Modbus bus as they come and go: who is asked for
what, the registers that came back and how long that took, exceptions by name,
answers that were damaged, and bytes that nobody waited for. Of an OPC UA bus it
shows what is read and written, and what the server tells by itself.

It watches the running gateway of the site. Where none runs, it opens the bus
itself and polls as the gateway would; it writes nothing to the field. Registers
of secret points are shown as ***.

Exit code 1: nothing went over the bus.`,
		Example: `  sluice trace rs485-1 --site /etc/sluice/site.yaml
  sluice trace rs485-1 --site site.yaml --bytes --count 20`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.bus = args[0]
			s, found := site.Load(path, siteOptions())
			if found.Errors() > 0 {
				found.Print(cmd.ErrOrStderr())
				return errFound
			}
			ctx, stop := context.WithTimeout(cmd.Context(), o.duration)
			defer stop()
			out := &seen{out: cmd.OutOrStdout()}
			begin := time.Now()
			if err := o.run(ctx, s, out); err != nil || out.any {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "nothing went over %s in %s; \"sluice status\" says how a bus of the running gateway is\n", o.bus, time.Since(begin).Round(time.Second))
			return errFound
		},
	}
	siteFlag(cmd, &path)
	cmd.Flags().DurationVar(&o.duration, "for", 30*time.Second, "how long")
	cmd.Flags().IntVar(&o.count, "count", 0, "end after so many frames; 0 for all")
	cmd.Flags().BoolVar(&o.bytes, "bytes", false, "show the bytes of each frame, too")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print a line of JSON for each frame")
	return cmd
}

// seen is an output that knows whether anything was written.
type seen struct {
	out io.Writer
	any bool
}

func (s *seen) Write(p []byte) (int, error) {
	s.any = true
	return s.out.Write(p)
}

func (o *traceOptions) run(ctx context.Context, s *gateway.Site, out io.Writer) error {
	c, err := dialControl(ctx, s)
	if errors.Is(err, errNoGateway) {
		return o.traceAlone(ctx, s, out)
	}
	if err != nil {
		return err
	}
	answer, err := c.open(ctx, http.MethodGet, "/api/trace?bus="+url.QueryEscape(o.bus), nil)
	if err != nil {
		return err
	}
	defer answer.Close()
	frames := json.NewDecoder(answer)
	for n := 0; o.count == 0 || n < o.count; n++ {
		var f gateway.Frame
		if err := frames.Decode(&f); err != nil {
			if ctx.Err() != nil || errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("trace %s: %w", o.bus, err)
		}
		if err := o.print(out, f); err != nil {
			return err
		}
	}
	return nil
}

// traceAlone polls one bus as a gateway would, and watches. What is measured
// goes nowhere.
func (o *traceOptions) traceAlone(ctx context.Context, s *gateway.Site, out io.Writer) error {
	if _, err := soleBus(s, o.bus, os.Stderr); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sluice-trace-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	store, err := buffer.Open(filepath.Join(dir, "buffer.db"), buffer.Options{MaxSize: 16 << 20})
	if err != nil {
		return err
	}
	defer store.Close()
	g, err := gateway.New(gateway.Config{Site: onlyBus(s, o.bus), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Buffer: store, Adapters: adapters()})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	frames, err := g.Trace(ctx, o.bus)
	if err != nil {
		stop()
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.Run(ctx)
	}()
	defer func() {
		stop()
		<-ended
	}()
	for n := 0; o.count == 0 || n < o.count; n++ {
		select {
		case f := <-frames:
			if err := o.print(out, f); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// onlyBus is a site without its other buses, that writes nothing.
func onlyBus(s *gateway.Site, bus string) *gateway.Site {
	only := *s
	only.Writes = "locked"
	only.Buses, only.Devices = nil, nil
	for _, b := range s.Buses {
		if b.Name == bus {
			only.Buses = append(only.Buses, b)
		}
	}
	for _, d := range s.Devices {
		if d.Bus.Name == bus {
			only.Devices = append(only.Devices, d)
		}
	}
	return &only
}

func (o *traceOptions) print(out io.Writer, f gateway.Frame) error {
	if o.asJSON {
		return json.NewEncoder(out).Encode(f)
	}
	arrow := map[gateway.FrameKind]string{gateway.FrameSent: "→", gateway.FrameAnswer: "←", gateway.FrameFailed: "✗", gateway.FrameDropped: "?"}[f.Kind]
	line := fmt.Sprintf("%s %s ", f.Time.Local().Format("15:04:05.000"), arrow)
	if f.Took > 0 {
		line += fmt.Sprintf("%8s  ", f.Took.Round(10*time.Microsecond))
	} else {
		line += fmt.Sprintf("%8s  ", "")
	}
	if f.Unit != "" {
		line += "unit " + f.Unit + ": "
	}
	line += f.What
	if f.Values != "" {
		line += " = " + f.Values
	}
	if f.Error != "" {
		line += ": " + f.Error
	}
	if o.bytes && f.Bytes != "" {
		line += "\n" + fmt.Sprintf("%26s[%s]", "", f.Bytes)
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

// serveTrace is GET /api/trace: a line of JSON for each frame of a bus, until
// the caller hangs up or an hour is over.
func serveTrace(g *gateway.Gateway) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, stop := context.WithTimeout(r.Context(), time.Hour)
		defer stop()
		frames, err := g.Trace(ctx, r.URL.Query().Get("bus"))
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
			return
		}
		stream, encoder := http.NewResponseController(w), json.NewEncoder(w)
		// The server's deadlines are for requests that are answered at once.
		if errors.Join(stream.SetReadDeadline(time.Time{}), stream.Flush()) != nil {
			return
		}
		for {
			select {
			case f := <-frames:
				if errors.Join(stream.SetWriteDeadline(time.Now().Add(10*time.Second)), encoder.Encode(f), stream.Flush()) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
}
