package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/gateway"
	"sluice/gateway/site"
	"sluice/gateway/web"
)

func statusCommand() *cobra.Command {
	var path string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status --site FILE",
		Short: "Show how the running gateway of a site is",
		Long: `Status asks the running gateway of a site, by its control socket, for what the
local page shows first: buses, devices, cloud sessions and the buffer.

Exit code 0: everything is well, 1: something is down or held back, 2: no
gateway answers.`,
		Args: onlyFlags,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := dialSite(cmd, path)
			if err != nil {
				return err
			}
			var answer json.RawMessage
			if err := c.call(cmd.Context(), http.MethodGet, "/api/status", nil, &answer); err != nil {
				return err
			}
			var s web.Status
			if err := json.Unmarshal(answer, &s); err != nil {
				return err
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				encoder.SetEscapeHTML(false)
				if err := encoder.Encode(answer); err != nil {
					return err
				}
			} else if err := printStatus(cmd.OutOrStdout(), &s); err != nil {
				return err
			}
			if !s.Well() {
				return errFound
			}
			return nil
		},
	}
	siteFlag(cmd, &path)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the API's answer")
	return cmd
}

// dialSite finds the running gateway of a site file.
func dialSite(cmd *cobra.Command, path string) (*control, error) {
	s, found := site.Load(path, siteOptions())
	if found.Errors() > 0 {
		found.Print(cmd.ErrOrStderr())
		return nil, errFound
	}
	c, err := dialControl(cmd.Context(), s)
	if errors.Is(err, errNoGateway) {
		err = fmt.Errorf("%w: nobody answers at %s", err, strings.Join(controlPaths(s), " or "))
	}
	return c, err
}

// ago is a time as a distance from now, rounded for people.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t)
	switch {
	case d < time.Minute:
		d = d.Round(time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
	}
	return d.String()
}

func printStatus(out io.Writer, s *web.Status) error {
	fmt.Fprintf(out, "%s, sluice %s, up %s, writes %s\n", s.Site, s.Version, ago(s.Time, s.Started), s.Writes)
	for _, l := range s.Locks {
		fmt.Fprintln(out, l)
	}
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "bus\tstate\tsince\trequests/s\tvalues/s\tbusy\toverruns\tdevices")
	for _, b := range s.Buses {
		fmt.Fprintf(table, "%s\t%s\t%s\t%.1f\t%.1f\t%.0f %%\t%d\t%d of %d\n",
			b.Name, b.State, ago(s.Time, b.Since), b.RequestRate, b.ValueRate, 100*b.Utilisation, b.Overruns, b.Online, b.Devices)
	}
	fmt.Fprintln(table, "\ncloud\tstate\tsince\twaiting\tto drain\tpace\tconfirmed by\tconfirmed")
	for _, c := range s.Cloud {
		state := "connected"
		if c.Connected.IsZero() {
			state = "away"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%d\n", c.User, state, ago(s.Time, c.Connected), c.Waiting, drain(c.DrainMS), time.Duration(c.PaceMS)*time.Millisecond, c.Mode, c.Confirmed)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	b := s.Buffer
	fmt.Fprintf(out, "\nbuffer: %s waiting, %.1f of %.1f MB, %d dropped, %d quarantined\n", count(b.Waiting, "record"), float64(b.FileSize)/1e6, float64(b.MaxSize)/1e6, b.Dropped, b.Quarantined)
	for _, line := range troubles(s) {
		fmt.Fprintln(out, line)
	}
	return nil
}

// drain is a time to drain in words.
func drain(ms int64) string {
	if ms < 0 {
		return "grows"
	}
	return (time.Duration(ms) * time.Millisecond).Round(100 * time.Millisecond).String()
}

// troubles are what is not well, a line each.
func troubles(s *web.Status) []string {
	var lines []string
	for _, b := range s.Buses {
		if b.State == gateway.BusDown {
			lines = append(lines, fmt.Sprintf("bus %s: %s", b.Name, b.Error))
		}
	}
	for _, d := range s.Devices {
		if d.Health != "" {
			lines = append(lines, fmt.Sprintf("device %s: %s", d.Name, d.Health))
		}
	}
	for _, c := range s.Cloud {
		if c.Error != "" {
			lines = append(lines, fmt.Sprintf("cloud %s: %s", c.User, c.Error))
		}
	}
	if !s.Buffer.FailingSince.IsZero() {
		lines = append(lines, "buffer: the disk can't be written since "+s.Buffer.FailingSince.Format(time.RFC3339))
	}
	if len(lines) > 0 {
		lines[0] = "\n" + lines[0]
	}
	return lines
}
