package main

import (
	"context"
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
)

func checkCommand() *cobra.Command {
	var verbose, quiet, asJSON, secrets bool
	var trace string
	var hold time.Duration
	cmd := &cobra.Command{
		Use:   "check FILE…",
		Short: "Check site files",
		Long: `Check reads site files as "sluice run" would and says what is wrong with
them: each finding with its line, the word and what to write instead. With
--secrets, a secret that is missing is an error, too: for the gateway that runs
the file, else for the user who asks.

With --verbose it also shows what the program makes of the file: each point's
address as printed and on the wire, the requests planned for each bus and how
much of its time they take, what the gateway has learnt about its devices so far
(from the running one, else from its buffer file), and which secrets are found.

Exit code 0: no errors (warnings may be there), 1: errors.

` + traceHelp,
		Example: `  sluice check site.yaml
  sluice check --verbose site.yaml
  sluice check --json configs/*.yaml
  sluice check --trace lastweek.csv site.yaml`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			if trace != "" && len(paths) > 1 {
				return errors.New("--trace is for one site")
			}
			var checked []checkedSite
			wrong := false
			for _, path := range paths {
				c, err := checkSite(cmd.Context(), path, verbose || asJSON, secrets)
				if err != nil {
					return err
				}
				wrong = wrong || c.Errors > 0
				checked = append(checked, c)
				if trace != "" && c.site != nil && c.Errors == 0 {
					return runTrace(cmd.OutOrStdout(), cmd.ErrOrStderr(), c.site, trace, hold, verbose, asJSON)
				}
				if !asJSON {
					c.found.Print(cmd.ErrOrStderr())
					if !quiet {
						c.print(cmd.OutOrStdout(), verbose)
					}
				}
			}
			if asJSON {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				encoder.SetEscapeHTML(false)
				if err := encoder.Encode(checked); err != nil {
					return err
				}
			}
			if wrong {
				return errFound
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show points, planned requests, the load of each bus and secrets")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "say only what is wrong")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print findings, points and requests as JSON")
	cmd.Flags().BoolVar(&secrets, "secrets", false, "a secret that is missing is an error")
	cmd.Flags().StringVar(&trace, "trace", "", "CSV file of recorded values: print the events and computed points that follow")
	cmd.Flags().DurationVar(&hold, "hold", 10*time.Minute, "how long a recorded value counts when no other follows")
	return cmd
}

// checkedSite is what check finds out about one file.
type checkedSite struct {
	File     string           `json:"file"`
	Errors   int              `json:"errors"`
	Warnings int              `json:"warnings"`
	Findings site.Diagnostics `json:"findings"`
	Buses    []checkedBus     `json:"buses,omitempty"` // of a site without errors

	found    site.Diagnostics
	site     *gateway.Site
	unlearnt error // why it is not known what was learnt
}

type checkedBus struct {
	Name string `json:"name"`
	Type string `json:"type"`
	gateway.Overview
	Learnt []gateway.Learnt `json:"learnt,omitempty"`
}

// checkSite checks a file; whole also looks for what was learnt about the site's
// devices, secrets opens them.
func checkSite(ctx context.Context, path string, whole, secrets bool) (checkedSite, error) {
	s, found := site.Load(path, siteOptions())
	if secrets && found.Errors() == 0 {
		found = withSecrets(ctx, s, found)
	}
	c := checkedSite{File: path, Errors: found.Errors(), Findings: found, found: found, site: s}
	c.Warnings = len(found) - c.Errors
	if c.Findings == nil {
		c.Findings = site.Diagnostics{}
	}
	if s == nil {
		return c, nil
	}
	var learnt map[string][]gateway.Learnt
	if whole {
		learnt, c.unlearnt = findLearnt(ctx, s)
	}
	for _, bus := range s.Buses {
		b := checkedBus{Name: bus.Name, Type: bus.Type, Learnt: learnt[bus.Name]}
		if protocol, ok := protocols[bus.Protocol()]; ok {
			overview, err := protocol.Describe(bus, s.DevicesOn(bus))
			if err != nil {
				return c, fmt.Errorf("%s: bus %s: %w", path, bus.Name, err)
			}
			b.Overview = overview
		}
		c.Buses = append(c.Buses, b)
	}
	return c, nil
}

// withSecrets adds what is wrong with the secrets: what the running gateway of
// the file finds, which may have been handed secrets that nobody else may read.
func withSecrets(ctx context.Context, s *gateway.Site, found site.Diagnostics) site.Diagnostics {
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	if c, err := dialControl(ctx, s); err == nil {
		var view siteView
		if err := c.call(ctx, http.MethodGet, "/api/site", nil, &view); err == nil && view.File == s.Path {
			return view.Findings
		}
	}
	return append(found, site.OpenSecrets(s)...)
}

func (c *checkedSite) print(out io.Writer, verbose bool) {
	if c.site == nil {
		fmt.Fprintf(out, "%s: %s, %s\n", c.File, count(c.Errors, "error"), count(c.Warnings, "warning"))
		return
	}
	if verbose {
		for i := range c.Buses {
			c.Buses[i].print(out)
		}
		if c.unlearnt != nil {
			fmt.Fprintf(out, "what was learnt from the devices is not known: %v\n\n", c.unlearnt)
		}
		printSecrets(out, site.FindSecrets(c.site))
	}
	points := 0
	for _, d := range c.site.Devices {
		points += len(d.Points)
	}
	fmt.Fprintf(out, "%s: site %s is fine: %s, %s, %s, %s\n", c.File, c.site.Name,
		count(len(c.site.Buses), "bus"), count(len(c.site.Devices), "device"), count(points, "point"), count(c.Warnings, "warning"))
}

func (b *checkedBus) print(out io.Writer) {
	fmt.Fprintf(out, "bus %s (%s)\n\n", b.Name, b.Type)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  device\tpoint\tprinted\treference\ton the wire\tsize\ttype\torder\tpoll")
	for _, p := range b.Points {
		poll := short(p.Poll)
		if p.Poll == 0 {
			poll = "write only"
		}
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", p.Device, p.Point, p.Printed, p.Full, p.Wire, p.Size, p.Type, p.Order, poll)
	}
	fmt.Fprintln(table)
	fmt.Fprintln(table, "  device\trequest\tpoints\tevery\ttakes")
	for _, r := range b.Requests {
		fmt.Fprintf(table, "  %s\t%s\t%d\t%s\t%s\n", r.Device, r.Reads, r.Points, short(r.Every), r.Takes.Round(10*time.Microsecond))
	}
	table.Flush()
	about := ""
	if b.Estimated {
		about = "about "
	}
	fmt.Fprintf(out, "\nbus %s: %s, %s%.2f s per %s cycle, %.0f %%\n\n", b.Name, count(len(b.Requests), "request"), about, b.PerCycle.Seconds(), short(b.Cycle), 100*b.Busy)
	printLearnt(out, b.Learnt)
}

func printSecrets(out io.Writer, secrets []site.SecretStatus) {
	for _, s := range secrets {
		state := "found in " + s.Place
		if s.Err != nil {
			state = "missing: " + s.Err.Error()
		}
		fmt.Fprintf(out, "secret %s: %s\n", s.Reference, state)
	}
	if len(secrets) > 0 {
		fmt.Fprintln(out)
	}
}

// short writes a duration as a site file does: 1m, not 1m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// count puts a number before its noun.
func count(n int, noun string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(noun, "s"):
		noun += "es"
	default:
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
