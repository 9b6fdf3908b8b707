package main

import (
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"sluice/adapters/modbus"
	"sluice/adapters/opcua"
	"sluice/configs"
	"sluice/gateway"
	"sluice/gateway/site"
)

// protocols holds the adapters that this program has, by the protocol in the
// type of a bus. A new protocol is one line here.
var protocols = map[string]struct {
	New      gateway.NewAdapter
	Check    site.Check
	Describe func(*gateway.Bus, []*gateway.Device) (gateway.Overview, error)
	Learnt   func(gateway.State, *gateway.Bus, []*gateway.Device) ([]gateway.Learnt, error) // may be nil
}{
	"modbus": {modbus.New, modbus.Check, modbus.Describe, modbus.LearntBefore},
	"opcua":  {opcua.New, opcua.Check, opcua.Describe, nil},
}

func adapters() map[string]gateway.NewAdapter {
	made := make(map[string]gateway.NewAdapter)
	for name, p := range protocols {
		made[name] = p.New
	}
	return made
}

func siteOptions() site.Options {
	o := site.Options{Checks: make(map[string]site.Check)}
	for name, p := range protocols {
		o.Checks[name] = p.Check
	}
	if builtin, err := fs.Sub(configs.FS, "profiles"); err == nil {
		o.Builtin = builtin
	}
	return o
}

// siteFlag gives a command the flag --site, which it needs.
func siteFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "site", "", "site file")
	_ = cmd.MarkFlagRequired("site") // the flag is there
}

// onlyFlags refuses arguments; most often it is the site file without its flag.
func onlyFlags(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no argument %q; a site file is named with --site FILE", cmd.CommandPath(), args[0])
	}
	return nil
}

// loadSite loads a site file with its secrets for running it, and prints what
// is wrong with it.
func loadSite(path string) (*gateway.Site, error) {
	s, found := site.Load(path, siteOptions())
	if found.Errors() == 0 {
		found = append(found, site.OpenSecrets(s)...)
	}
	found.Print(os.Stderr)
	if found.Errors() > 0 {
		return nil, errFound
	}
	return s, nil
}
