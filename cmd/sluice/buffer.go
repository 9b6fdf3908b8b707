package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/gateway"
)

func bufferCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "buffer",
		Short: "Look into the buffer of a site, and deal with refused records",
		Long: `Buffer shows what waits in the buffer file of a site, and what the cloud refused:
such records are in quarantine, where they wait for somebody to retry or drop
them. While the gateway runs it is asked by its control socket; else the file
is opened.`,
	}
	cmd.PersistentFlags().StringVar(&path, "site", "", "site file")
	_ = cmd.MarkPersistentFlagRequired("site") // the flag is there
	quarantine := &cobra.Command{Use: "quarantine", Short: "Records that the cloud refused"}
	quarantine.AddCommand(
		bufferTask(&path, "list", "List the records in quarantine, oldest first", listQuarantine),
		bufferTask(&path, "show NUMBER", "Print a record in quarantine as it would be sent", showQuarantined),
		bufferTask(&path, "retry NUMBER", "Put a record back, at the end of its queue: its values reach the cloud after newer ones", postQuarantine("retry")),
		bufferTask(&path, "drop NUMBER", "Delete a record in quarantine", postQuarantine("drop")),
	)
	cmd.AddCommand(quarantine, bufferTask(&path, "status", "Show what waits, by user", showBuffer))
	return cmd
}

// bufferTask is a subcommand on a buffer, with the number of a record where it
// takes one.
func bufferTask(path *string, use, short string, do func(ctx context.Context, out io.Writer, c *control, seq string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	args := 0
	if use != cmd.Name() {
		args = 1
	}
	cmd.Args = cobra.ExactArgs(args)
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		seq := ""
		if args == 1 {
			seq = words[0]
			if _, err := strconv.ParseUint(seq, 10, 64); err != nil {
				return fmt.Errorf("%q is no number of a record: \"sluice buffer quarantine list\" shows them", seq)
			}
		}
		return onBuffer(cmd, *path, func(c *control) error { return do(cmd.Context(), cmd.OutOrStdout(), c, seq) })
	}
	return cmd
}

// withBufferFile opens the buffer file itself.
func withBufferFile(s *gateway.Site, log io.Writer, do func(*control) error) error {
	if _, err := os.Stat(s.Buffer.Path); err != nil {
		return fmt.Errorf("there is no buffer yet: %w", err)
	}
	b, err := openBuffer(s, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	handleBuffer(b, s, mux.Handle, mux.Handle)
	handleAudit(func(since time.Time, fn func(gateway.Audit) bool) error { return gateway.ReadAudit(b, since, fn) }, mux.Handle)
	handleLocks(storedLocks{b, s}, mux.Handle, mux.Handle)
	return errors.Join(do(inProcess(mux)), b.Close())
}

func showBuffer(ctx context.Context, out io.Writer, c *control, _ string) error {
	var view bufferView
	if err := c.call(ctx, http.MethodGet, "/api/buffer", nil, &view); err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "user\twaiting\toldest")
	for _, l := range view.Lanes {
		oldest := "-"
		if !l.Oldest.IsZero() {
			oldest = l.Oldest.Format(time.RFC3339)
		}
		if l.Stranded {
			oldest += "  nobody sends these: the user is not in the site file"
		}
		fmt.Fprintf(table, "%s\t%d\t%s\n", l.Lane, l.Waiting, oldest)
	}
	table.Flush()
	fmt.Fprintf(out, "\nquarantine: %s\nfile: %s, %.1f MB of at most %.1f MB\n", count(view.Quarantine, "record"), view.Path, float64(view.FileSize)/1e6, float64(view.MaxSize)/1e6)
	return nil
}

func listQuarantine(ctx context.Context, out io.Writer, c *control, _ string) error {
	var held []heldRecord
	if err := c.call(ctx, http.MethodGet, "/api/buffer/quarantine", nil, &held); err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "number\tuser\tmeasured\treason")
	for _, q := range held {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\n", q.Number, q.Lane, q.Measured.Format(time.RFC3339), q.Reason)
	}
	return table.Flush()
}

func showQuarantined(ctx context.Context, out io.Writer, c *control, seq string) error {
	var record json.RawMessage
	if err := c.call(ctx, http.MethodGet, "/api/buffer/quarantine/"+seq, nil, &record); err != nil {
		return err
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(record)
}

func postQuarantine(verb string) func(context.Context, io.Writer, *control, string) error {
	return func(ctx context.Context, _ io.Writer, c *control, seq string) error {
		return c.call(ctx, http.MethodPost, "/api/buffer/quarantine/"+seq+"/"+verb, nil, nil)
	}
}
