package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/gateway"
	"sluice/gateway/site"
)

func auditCommand() *cobra.Command {
	var path, since, device string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "audit --site FILE",
		Short: "List what was written to the field, by whom, and what came of it",
		Long: `Audit lists every attempt to write to the field, oldest first: who asked for
what, what the point held before and after, and what came of it. Lines are kept
for a year. While the gateway runs it is asked by its control socket; else the
buffer file is opened.`,
		Args: onlyFlags,
		RunE: func(cmd *cobra.Command, _ []string) error {
			span, err := gateway.ParseDuration(since)
			if err != nil {
				return err
			}
			query := url.Values{"since": {time.Now().Add(-span).UTC().Format(time.RFC3339Nano)}}
			if device != "" {
				query.Set("device", device)
			}
			var lines []gateway.Audit
			err = onBuffer(cmd, path, func(c *control) error {
				return c.call(cmd.Context(), http.MethodGet, "/api/audit?"+query.Encode(), nil, &lines)
			})
			if err != nil {
				return err
			}
			return printAudit(cmd, lines, asJSON)
		},
	}
	siteFlag(cmd, &path)
	cmd.Flags().StringVar(&since, "since", "24h", "how far back: 2h, 30d")
	cmd.Flags().StringVar(&device, "device", "", "only of this device")
	cmd.Flags().BoolVar(&asJSON, "json", false, "a line of JSON for each")
	return cmd
}

func printAudit(cmd *cobra.Command, lines []gateway.Audit, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetEscapeHTML(false)
		for _, a := range lines {
			if err := encoder.Encode(a); err != nil {
				return err
			}
		}
		return nil
	}
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "time\twho\tdevice\twhat\tasked\twas\treads\tresult\treason")
	for _, a := range lines {
		what := strings.Trim(a.Command+" "+a.Point, " ")
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", a.Time.Format("2006-01-02T15:04:05.000Z"), a.Who, orDash(a.Device), orDash(what), orDash(a.Asked), orDash(a.Old), orDash(a.New), a.Result, a.Reason)
	}
	return table.Flush()
}

// findGateway loads a site and finds the gateway that runs it, nil for none.
func findGateway(cmd *cobra.Command, path string) (*gateway.Site, *control, error) {
	s, found := site.Load(path, siteOptions())
	if found.Errors() > 0 {
		found.Print(cmd.ErrOrStderr())
		return nil, nil, errFound
	}
	c, err := dialControl(cmd.Context(), s)
	if errors.Is(err, errNoGateway) {
		return s, nil, nil
	}
	return s, c, err
}

// onBuffer works with the running gateway of a site, else with its buffer file.
func onBuffer(cmd *cobra.Command, path string, do func(*control) error) error {
	s, c, err := findGateway(cmd, path)
	switch {
	case err != nil:
		return err
	case c != nil:
		return do(c)
	}
	return withBufferFile(s, cmd.ErrOrStderr(), do)
}

func lockCommand(on bool) *cobra.Command {
	use, short, done := "unlock", "Let the field be written again", "unlocked"
	long := `Unlock takes away what "sluice lock" has set.`
	if on {
		use, short, done = "lock", "Keep everybody from writing to the field", "locked"
		long = `Lock keeps cloud, page and command line from writing to a device, or without
DEVICE to any. Commands under way are stopped, and their pulses released. It
holds until "sluice unlock", also over a restart.

It is no safety device: before you reach into a machine, switch it off where its
maker says so.`
	}
	var path, reason string
	cmd := &cobra.Command{
		Use: use + " [DEVICE]", Short: short, Long: long, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			q, what := lockRequest{User: systemUser(), Reason: reason}, "everything"
			if len(words) == 1 {
				q.Device, what = words[0], words[0]
			}
			err := onBuffer(cmd, path, func(c *control) error {
				return c.call(cmd.Context(), http.MethodPost, "/api/"+use, q, nil)
			})
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", what, done)
			}
			return err
		},
	}
	siteFlag(cmd, &path)
	if on {
		cmd.Flags().StringVar(&reason, "reason", "", "why, for the page and for those who are refused")
	}
	return cmd
}

// systemUser is who sits at the command line, "" where that is not known.
func systemUser() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}
