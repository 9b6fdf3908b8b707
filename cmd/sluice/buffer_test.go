package main

import (
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/buffer"
	"sluice/gateway"
	"sluice/gateway/site"
)

// TestBufferCommands: a refused record is listed, shown, put back and dropped.
func TestBufferCommands(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.yaml")
	write(t, path, strings.Replace(oneMeter, "local:", "buffer: { path: buffer.db, max_size: 8MB }\nlocal:", 1))
	if _, _, err := execute(t, "buffer", "status", "--site", path); err == nil || !strings.Contains(err.Error(), "there is no buffer yet") {
		t.Errorf("without a file: %v", err)
	}
	s, _ := site.Load(path, siteOptions())
	b, err := openBuffer(s, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	at := time.UnixMilli(1750234507181)
	r := gateway.Record{Kind: gateway.ReportRecord, Time: at, Values: []gateway.Attribute{{Name: "power", Value: gateway.IntValue(7)}}}
	var seqs []uint64
	for range 3 {
		seqs = append(seqs, b.Append("gate", buffer.Attributes, at, gateway.AppendRecord(nil, &r)))
	}
	if err := b.Quarantine("gate", seqs[0], "no such attribute"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := execute(t, "buffer", "status", "--site", path); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("while the gateway runs: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ command, want string }{
		{"status", "gate  2        2025-06-18T08:15:07Z\n\nquarantine: 1 record\n"},
		{"quarantine list", "1       gate  2025-06-18T08:15:07Z  no such attribute"},
		{"quarantine show 1", `"power": 7`},
		{"quarantine retry 1", ""},
		{"status", "gate  3        2025-06-18T08:15:07Z\n\nquarantine: 0 records\n"},
	} {
		out, errs, err := execute(t, append(append([]string{"buffer"}, strings.Fields(step.command)...), "--site", path)...)
		if err != nil || !strings.Contains(out, step.want) {
			t.Errorf("%s: %v\n%s%s", step.command, err, out, errs)
		}
	}
	if _, _, err := execute(t, "buffer", "quarantine", "drop", "1", "--site", path); err == nil || err.Error() != "record 1 is not in quarantine" {
		t.Errorf("drop of what is not there: %v", err)
	}
	if _, _, err := execute(t, "buffer", "quarantine", "drop", "x", "--site", path); err == nil || !strings.Contains(err.Error(), `"x" is no number`) {
		t.Errorf("drop of x: %v", err)
	}
}
