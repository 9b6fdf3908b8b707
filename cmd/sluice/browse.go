package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/adapters/opcua"
	"sluice/gateway"
	"sluice/gateway/site"
)

// quietFor is how long browse works before it says how far it is.
const quietFor = 2 * time.Second

func browseCommand() *cobra.Command {
	var path string
	var asJSON, asYAML bool
	o := opcua.BrowseOptions{}
	cmd := &cobra.Command{
		Use:   "browse BUS [PATH] --site FILE",
		Short: "Show what an OPC UA server has, and write points of it",
		Long: `Browse connects to the OPC UA server of a bus as the gateway does, with the same
security and trust, and shows its address space below a path or node: names,
data types, whether values may be read and written, and what they are now. It
writes nothing to the server.

With --yaml it prints the variables as points for the site file, with units,
ranges and words where the server has them. All of them are read-only there:
what may be written, and within which limits, is for you to say.`,
		Example: `  sluice browse press3 --site site.yaml
  sluice browse press3 /Objects/Press3/Cycle --site site.yaml --yaml
  sluice browse press3 i=2253 --site site.yaml --depth 2`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				o.From = args[1]
			}
			progress := &browseProgress{out: cmd.ErrOrStderr(), next: time.Now().Add(quietFor)}
			o.Progress = progress.found
			tree, err := browse(cmd.Context(), path, args[0], o, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if tree.Cut {
				fmt.Fprintf(cmd.ErrOrStderr(), "there are more than %d nodes: name a path, or allow --most\n", o.Most)
			}
			switch {
			case asYAML:
				return tree.WritePoints(cmd.OutOrStdout())
			case asJSON:
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				encoder.SetEscapeHTML(false)
				return encoder.Encode(tree)
			}
			return printTree(cmd.OutOrStdout(), tree)
		},
	}
	siteFlag(cmd, &path)
	cmd.Flags().IntVar(&o.Depth, "depth", 8, "levels below the path")
	cmd.Flags().IntVar(&o.Most, "most", 5000, "nodes at the most")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the tree as JSON")
	cmd.Flags().BoolVar(&asYAML, "yaml", false, "print points for the site file")
	cmd.MarkFlagsMutuallyExclusive("json", "yaml")
	return cmd
}

// browse finds the bus in the site and browses its server. Of the secrets, only
// those of the bus have to be there.
func browse(ctx context.Context, path, name string, o opcua.BrowseOptions, out io.Writer) (*opcua.Tree, error) {
	s, found := site.Load(path, siteOptions())
	if found.Errors() > 0 {
		found.Print(out)
		return nil, errFound
	}
	bus, err := soleBus(s, name, out)
	if err != nil {
		return nil, err
	}
	if bus.Type != "opcua" {
		return nil, fmt.Errorf("bus %s is of type %s: only OPC UA servers can be browsed", name, bus.Type)
	}
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelWarn})).With("bus", name)
	return opcua.Browse(ctx, gateway.Env{Log: log, Dir: filepath.Dir(s.Buffer.Path)}, bus, o)
}

// soleBus finds the bus that something is to be done with. Of the site's
// secrets, only those of the bus have to be there.
func soleBus(s *gateway.Site, name string, out io.Writer) (*gateway.Bus, error) {
	var names []string
	for _, bus := range s.Buses {
		if bus.Name != name {
			names = append(names, bus.Name)
			continue
		}
		missing := site.OpenSecrets(s)
		needed := []gateway.Secret{bus.Login.Password, bus.Login.Key}
		if bus.TLS != nil {
			needed = append(needed, bus.TLS.Key)
		}
		for _, secret := range needed {
			if kind, _ := secret.Reference(); kind != "" {
				missing.Print(out)
				return nil, fmt.Errorf("bus %s: the secret %s is missing", name, string(secret))
			}
		}
		return bus, nil
	}
	return nil, fmt.Errorf("the site has no bus %s; it has %s", name, strings.Join(names, ", "))
}

// browseProgress says once a while how many nodes were found.
type browseProgress struct {
	out  io.Writer
	next time.Time
}

func (p *browseProgress) found(n int) {
	if now := time.Now(); now.After(p.next) {
		p.next = now.Add(quietFor)
		fmt.Fprintf(p.out, "%d nodes so far …\n", n)
	}
}

// longestValue is what a value takes of a line at the most.
const longestValue = 40

func printTree(out io.Writer, tree *opcua.Tree) error {
	for i, uri := range tree.Namespaces {
		fmt.Fprintf(out, "namespace %d: %s\n", i, uri)
	}
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	printNode(table, tree.Root, 0)
	return table.Flush()
}

func printNode(table io.Writer, n *opcua.Node, depth int) {
	kind, access, value := n.Type, n.Access, n.Value
	if n.Class != "variable" {
		kind = n.Class
	}
	if n.Count > 0 {
		kind += fmt.Sprintf("[%d]", n.Count)
	}
	if r := []rune(value); len(r) > longestValue {
		value = string(r[:longestValue]) + "…"
	}
	if n.Unit != "" && value != "" {
		value += " " + n.Unit
	}
	if n.Status != "" {
		value = strings.TrimSpace(value + " " + n.Status)
	}
	if n.Closed {
		value = "…"
	}
	id := n.ID
	if n.Index > 0 {
		id = fmt.Sprintf("ns=%d;%s", n.Index, id)
	}
	fmt.Fprintf(table, "%s%s\t%s\t%s\t%s\t%s\n", strings.Repeat("  ", depth), n.Name, kind, access, oneLine.Replace(value), id)
	for _, c := range n.Children {
		printNode(table, c, depth+1)
	}
}

var oneLine = strings.NewReplacer("\n", "⏎", "\r", "", "\t", " ")
