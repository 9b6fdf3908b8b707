package main

import (
	"fmt"
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
	write(t, path, strings.NewReplacer("local:", "buffer: { path: buffer.db, max_size: 8MB }\nlocal:", "backlog: replay", "backlog: replay, event_id: uid").Replace(oneMeter))
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
	for _, r := range []gateway.Record{
		{Kind: gateway.EventRecord, Time: at, Name: "hot", ID: "x1", Values: []gateway.Attribute{{Name: "t", Value: gateway.IntValue(90)}}},
		{Kind: gateway.StreamRecord, Time: at, Name: "raw", Body: []byte("01 \"ab\"")},
	} {
		lane := gateway.LaneName("gate", r.Kind)
		if err := b.Quarantine(lane, b.Append(lane, buffer.Attributes, at, gateway.AppendRecord(nil, &r)), "no such name"); err != nil {
			t.Fatal(err)
		}
	}
	for _, lane := range []string{"gate/history", "gone/events"} {
		b.Append(lane, buffer.Attributes, at, gateway.AppendRecord(nil, &r))
	}
	if _, _, err := execute(t, "buffer", "status", "--site", path); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("while the gateway runs: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ command, want string }{
		{"status", "gate          2        2025-06-18T08:15:07Z\ngate/history  1        2025-06-18T08:15:07Z\n"},
		{"status", "\ngone/events   1        2025-06-18T08:15:07Z  nobody sends these: the user is not in the site file\n\nquarantine: 3 records\n"},
		{"quarantine list", "1       gate          2025-06-18T08:15:07Z  no such attribute"},
		{"quarantine show 1", `"power": 7`},
		{"quarantine show 4", `"topic": "event_report/gate",
  "message": {
    "method": "hot",
    "params": {
      "uid": "x1",
      "t": 90
    }
  }`},
		{"quarantine show 5", `"topic": "data/gate/raw",
  "message": "01 \"ab\""`},
		{"quarantine drop 5", ""},
		{"quarantine retry 1", ""},
		{"status", "gate          3        2025-06-18T08:15:07Z\n"},
		{"status", "\n\nquarantine: 1 record\n"},
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

// TestQuarantineWhileTheGatewayRuns: a record that is put back is sent, one that
// is dropped is not.
func TestQuarantineWhileTheGatewayRuns(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	s, err := loadSite(p.path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := openBuffer(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var seqs []string
	for _, name := range []string{"back", "gone"} {
		r := gateway.Record{Kind: gateway.ReportRecord, Time: time.Now(), Values: []gateway.Attribute{{Name: name, Value: gateway.IntValue(7)}}}
		seq := b.Append("own", buffer.Attributes, r.Time, gateway.AppendRecord(nil, &r))
		if err := b.Quarantine("own", seq, "no such attribute"); err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, fmt.Sprint(seq))
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	runPlant(t, p)
	eventually(t, func() error {
		_, _, err := execute(t, "status", "--site", p.path)
		return err
	})
	for _, step := range [][2]string{{"show", seqs[0]}, {"retry", seqs[0]}, {"drop", seqs[1]}} {
		if _, _, err := execute(t, "buffer", "quarantine", step[0], step[1], "--site", p.path); err != nil {
			t.Errorf("%s: %v", step[0], err)
		}
	}
	p.waitFor(t, "own", "back", "7")
	if _, _, err := execute(t, "buffer", "quarantine", "retry", seqs[0], "--site", p.path); err == nil || err.Error() != "record "+seqs[0]+" is not in quarantine" {
		t.Errorf("put back twice: %v", err)
	}
	out, _, err := execute(t, "buffer", "status", "--site", p.path)
	if err != nil || !strings.Contains(out, "quarantine: 0 records") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, m := range p.twin.Received("own") {
		if strings.Contains(string(m.Payload), "gone") {
			t.Errorf("what was dropped is sent: %s", m.Payload)
		}
	}
}

// TestRecordsOfAUserWhoIsGoneAreSaid: at the start all, at a reload those of users
// who were there.
func TestRecordsOfAUserWhoIsGoneAreSaid(t *testing.T) {
	b, err := buffer.Open(filepath.Join(t.TempDir(), "buffer.db"), buffer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, lane := range []string{"old", "old/history", "older/events", "there"} {
		b.Append(lane, buffer.Attributes, time.Now(), []byte("x"))
	}
	site := func(user string) *gateway.Site {
		return &gateway.Site{Cloud: gateway.Cloud{Login: &gateway.Login{User: user}}}
	}
	var log strings.Builder
	d := &daemon{store: b, log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, c := range []struct {
		before *gateway.Site
		want   string
	}{
		{nil, "user=old records=2 user=older records=1 "},
		{site("old"), "user=old records=2 "},
		{site("there"), ""},
	} {
		log.Reset()
		d.leftBehind(c.before, site("there"))
		said := ""
		for line := range strings.Lines(log.String()) {
			_, about, _ := strings.Cut(line, "any more\" ")
			said += strings.TrimSpace(about) + " "
		}
		if said != c.want {
			t.Errorf("said %q, want %q", said, c.want)
		}
	}
}
