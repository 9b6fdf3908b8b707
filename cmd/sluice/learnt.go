package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"text/tabwriter"
	"time"

	"sluice/buffer"
	"sluice/gateway"
	"sluice/gateway/web"
)

// findLearnt is what the gateway of a site learnt about its devices, by bus: the
// running one is asked, else what it left in the buffer file is read. Where
// there is neither, nothing was learnt.
func findLearnt(ctx context.Context, s *gateway.Site) (map[string][]gateway.Learnt, error) {
	c, err := dialControl(ctx, s)
	if errors.Is(err, errNoGateway) {
		return readLearnt(s)
	}
	if err != nil {
		return nil, err
	}
	var status web.Status
	if err := c.call(ctx, http.MethodGet, "/api/status", nil, &status); err != nil {
		return nil, err
	}
	learnt := make(map[string][]gateway.Learnt)
	for _, b := range status.Buses {
		learnt[b.Name] = b.Learnt
	}
	return learnt, nil
}

func readLearnt(s *gateway.Site) (map[string][]gateway.Learnt, error) {
	if _, err := os.Stat(s.Buffer.Path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	file, err := buffer.OpenState(s.Buffer.Path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	learnt := make(map[string][]gateway.Learnt)
	for _, bus := range s.Buses {
		protocol := protocols[bus.Protocol()]
		if protocol.Learnt == nil {
			continue
		}
		if learnt[bus.Name], err = protocol.Learnt(readOnly{file}, bus, s.DevicesOn(bus)); err != nil {
			return nil, fmt.Errorf("bus %s: %w", bus.Name, err)
		}
	}
	return learnt, nil
}

// readOnly is the state of a gateway that does not run.
type readOnly struct{ *buffer.StateFile }

func (readOnly) Put(string, string, []byte) error { return errors.New("this state is only read") }

func printLearnt(out io.Writer, learnt []gateway.Learnt) {
	if len(learnt) == 0 {
		return
	}
	fmt.Fprintln(out, "learnt from the devices, and kept to by the gateway; the requests above are those without it")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, l := range learnt {
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\tsince %s\n", l.Device, l.Range, l.What, l.Reason, l.Since.Local().Format(time.DateTime))
	}
	table.Flush()
	fmt.Fprintln(out)
}
