package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sluice/configs"
	"sluice/gateway/site"
)

func profilesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profiles",
		Short: "List the built-in device profiles",
		Long: `Profiles lists the profiles that a site file can name as builtin:<name>, and
prints one: as a start for your own, or to compare with the device manual.`,
		Example: `  sluice profiles
  sluice profiles show eastron-sdm630`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			files, err := fs.Glob(configs.FS, "profiles/*.yaml")
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, file := range files {
				name := strings.TrimSuffix(strings.TrimPrefix(file, "profiles/"), ".yaml")
				profile, found := site.LoadProfile("builtin:"+name, siteOptions())
				if found.Errors() > 0 {
					found.Print(os.Stderr)
					return errFound
				}
				fmt.Fprintf(table, "builtin:%s\t%s\t%s\t%s\n", name, profile.Protocol, count(len(profile.Points), "point"), profile.Label)
			}
			return table.Flush()
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "show NAME",
		Short: "Print a built-in profile",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := strings.TrimPrefix(args[0], "builtin:")
			content, err := configs.FS.ReadFile("profiles/" + name + ".yaml")
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("no built-in profile %q: \"sluice profiles\" lists them", name)
			}
			if err == nil {
				_, err = cmd.OutOrStdout().Write(content)
			}
			return err
		},
	})
	return cmd
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the site file",
		Long: `Schema prints the JSON Schema of the site file, for editors that complete and
underline: save it beside the site file and begin that with

  # yaml-language-server: $schema=site.schema.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			content, err := configs.FS.ReadFile("site.schema.json")
			if err == nil {
				_, err = cmd.OutOrStdout().Write(content)
			}
			return err
		},
	}
}
