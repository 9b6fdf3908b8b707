// Command sluice is the gateway daemon between a factory's field devices and
// its IoT cloud. Each subcommand has a file of its own; this package only
// wires the rooms of the house together.
//
// Exit codes: 0 is fine, 1 means that something wrong was found (in a site
// file, or reports were lost), 2 that the program could not run.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // an industrial PC may have no time zones installed

	"github.com/spf13/cobra"
)

// errFound ends the program with exit code 1; what was found is printed already.
var errFound = errors.New("found wrong")

func main() {
	// CPU time, of which a running gateway needs little since it hardly
	// allocates, for memory, of which an industrial PC has little.
	debug.SetGCPercent(50)
	dropStartPages() // what the tables of all packages took to set up
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the next one ends the program at once.
	context.AfterFunc(ctx, stop)
	err := rootCommand().ExecuteContext(ctx)
	switch {
	case errors.Is(err, errFound):
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "sluice:", err)
		os.Exit(2)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "sluice",
		Short:         "Edge gateway between field devices and an IoT cloud",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(), checkCommand(), demoCommand(), simulateCommand(), profilesCommand(), schemaCommand(), bufferCommand(), statusCommand(), benchCommand(),
		supportCommand(), versionCommand(), browseCommand(), traceCommand(), readCommand(), writeCommand(), auditCommand(), lockCommand(true), lockCommand(false))
	return root
}
