package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/buffer"
	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/site"
)

func bufferCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "buffer",
		Short: "Look into the buffer of a site, and deal with refused records",
		Long: `Buffer shows what waits in the buffer file of a site, and what the cloud refused:
such records are in quarantine, where they wait for somebody to retry or drop
them. The gateway has the file to itself while it runs: stop it first.`,
	}
	cmd.PersistentFlags().StringVar(&path, "site", "", "site file")
	_ = cmd.MarkPersistentFlagRequired("site") // the flag is there
	quarantine := &cobra.Command{Use: "quarantine", Short: "Records that the cloud refused"}
	quarantine.AddCommand(
		bufferTask(&path, "list", "List the records in quarantine, oldest first", 0, listQuarantine),
		bufferTask(&path, "show NUMBER", "Print a record in quarantine as it would be sent", 1, showQuarantined),
		bufferTask(&path, "retry NUMBER", "Put a record back, at the end of its queue", 1, func(out io.Writer, b *buffer.Buffer, seq uint64, _ *gateway.Site) error {
			_, err := b.QuarantineRetry(seq)
			return err
		}),
		bufferTask(&path, "drop NUMBER", "Delete a record in quarantine", 1, func(out io.Writer, b *buffer.Buffer, seq uint64, _ *gateway.Site) error {
			return b.QuarantineDrop(seq)
		}),
	)
	cmd.AddCommand(quarantine, bufferTask(&path, "status", "Show what waits, by user", 0, showBuffer))
	return cmd
}

// bufferTask is a subcommand on an open buffer, with the number of a record
// where it takes one.
func bufferTask(path *string, use, short string, args int, do func(io.Writer, *buffer.Buffer, uint64, *gateway.Site) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ExactArgs(args),
		RunE: func(cmd *cobra.Command, words []string) error {
			var seq uint64
			if args == 1 {
				var err error
				if seq, err = strconv.ParseUint(words[0], 10, 64); err != nil {
					return fmt.Errorf("%q is no number of a record: \"sluice buffer quarantine list\" shows them", words[0])
				}
			}
			s, found := site.Load(*path, siteOptions())
			if found.Errors() > 0 {
				found.Print(cmd.ErrOrStderr())
				return errFound
			}
			if _, err := os.Stat(s.Buffer.Path); err != nil {
				return fmt.Errorf("there is no buffer yet: %w", err)
			}
			b, err := openBuffer(s, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)))
			if err != nil {
				return err
			}
			err = do(cmd.OutOrStdout(), b, seq, s)
			if errors.Is(err, buffer.ErrNotFound) {
				err = fmt.Errorf("record %d is not in quarantine", seq)
			}
			return errors.Join(err, b.Close())
		},
	}
}

func showBuffer(out io.Writer, b *buffer.Buffer, _ uint64, s *gateway.Site) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "user\twaiting\toldest")
	for user := range s.Logins() {
		oldest := "-"
		head, err := b.Peek(user, 1)
		if err != nil {
			return err
		}
		if len(head) > 0 {
			oldest = head[0].Time.Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%d\t%s\n", user, b.Len(user), oldest)
	}
	table.Flush()
	held, err := b.Quarantined()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nquarantine: %s\nfile: %s, %.1f MB of at most %.1f MB\n", count(len(held), "record"), s.Buffer.Path, float64(b.Stats().FileSize)/1e6, float64(s.Buffer.MaxSize)/1e6)
	return nil
}

func listQuarantine(out io.Writer, b *buffer.Buffer, _ uint64, _ *gateway.Site) error {
	held, err := b.Quarantined()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "number\tuser\tmeasured\treason")
	for _, q := range held {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\n", q.Seq, q.Lane, q.Time.Format(time.RFC3339), q.Reason)
	}
	return table.Flush()
}

func showQuarantined(out io.Writer, b *buffer.Buffer, seq uint64, _ *gateway.Site) error {
	held, err := b.Quarantined()
	if err != nil {
		return err
	}
	for _, q := range held {
		if q.Seq != seq {
			continue
		}
		r, err := gateway.ParseRecord(q.Data)
		if err != nil {
			return err
		}
		var payload any
		if err := json.Unmarshal(cloud.AppendAttributes(nil, r, ""), &payload); err != nil {
			return err
		}
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(map[string]any{"user": q.Lane, "measured": r.Time.UTC(), "reason": q.Reason, "attributes": payload})
	}
	return buffer.ErrNotFound
}
