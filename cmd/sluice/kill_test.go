package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/site"
)

// Where a process kills itself, as SLUICE_KILL_AT says: at the first command
// with the id doomed.
const doomed = "4711"

// runDoomed is sluice run with a cut in it.
func runDoomed(path, at string) {
	s, found := site.Load(path, siteOptions())
	if found.Errors() > 0 || site.OpenSecrets(s).Errors() > 0 {
		found.Print(os.Stderr)
		os.Exit(2)
	}
	d := &doom{at: at}
	err := serve(context.Background(), s, slog.New(slog.DiscardHandler), d.adjust, nil)
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}

// doom watches a command on its way.
type doom struct {
	at    string
	wrote bool // of the bus's goroutine
}

// reached ends the process at its point, as a power cut would.
func (d *doom) reached(point string) {
	if d.at == point {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (d *doom) adjust(c *gateway.Config) {
	for protocol, make := range c.Adapters {
		c.Adapters[protocol] = func(env gateway.Env, bus *gateway.Bus, devices []*gateway.Device) (gateway.Adapter, error) {
			a, err := make(env, bus, devices)
			return doomedAdapter{a, d}, err
		}
	}
	for user, uplink := range c.Uplinks {
		if session, ok := uplink.(fullUplink); ok {
			c.Uplinks[user] = doomedUplink{session, d}
		}
	}
}

type doomedUplink struct {
	fullUplink
	*doom
}

func (u doomedUplink) Receive(ctx context.Context) (gateway.Downlink, error) {
	m, err := u.fullUplink.Receive(ctx)
	if m.ID == doomed {
		u.reached("received")
	}
	return m, err
}

func (u doomedUplink) SendReply(ctx context.Context, payload []byte) error {
	mine := strings.Contains(string(payload), `"id":`+doomed)
	if mine {
		u.reached("reply stored")
	}
	err := u.fullUplink.SendReply(ctx, payload)
	if mine && err == nil {
		u.reached("replied")
	}
	return err
}

type doomedAdapter struct {
	gateway.Adapter
	*doom
}

func (a doomedAdapter) Open(ctx context.Context) (gateway.Session, error) {
	s, err := a.Adapter.Open(ctx)
	if err != nil {
		return nil, err
	}
	return doomedSession{s.(fullSession), a.doom}, nil
}

type doomedSession struct {
	fullSession
	*doom
}

// doomedValue is what the doomed command writes.
const doomedValue = 12345

func (s doomedSession) Write(ctx context.Context, p *gateway.Point, v gateway.Value) error {
	mine := p.ID == "word" && v.Int() == doomedValue
	if mine {
		s.reached("started")
	}
	err := s.fullSession.Write(ctx, p, v)
	if mine {
		s.reached("written")
		s.wrote = true
	}
	return err
}

func (s doomedSession) Read(ctx context.Context, group []*gateway.Point) ([]gateway.Sample, error) {
	samples, err := s.fullSession.Read(ctx, group)
	if s.wrote {
		s.reached("read back")
	}
	return samples, err
}

// TestACommandIsCutAtEachPoint is scoreboard C1: the process is killed at a point
// of a command, which is sent three times to the next one. It is written once at
// most, and has one verdict.
func TestACommandIsCutAtEachPoint(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]struct {
		written int
		verdict string
	}{
		"received":     {1, `"result":true`}, // nothing of it was done: the repetition is the command
		"started":      {0, "unknown outcome: the gateway was restarted"},
		"written":      {1, "unknown outcome: the gateway was restarted"},
		"read back":    {1, "unknown outcome: the gateway was restarted"},
		"reply stored": {1, `"result":true`},
		"replied":      {1, `"result":true`},
	} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			p := newDriven(t)
			run := sluice(t, p.path)
			run.Env = append(run.Env, "SLUICE_KILL_AT="+at)
			if err := run.Start(); err != nil {
				t.Fatal(err)
			}
			p.waitForReply(t, "1", `"set"`, 1)
			command := fmt.Sprintf(`{"method":"set","params":{"word":%d},"id":%s}`, doomedValue, doomed)
			p.send(t, "command_send", command)
			if err := run.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("the process ended with %v", err)
			}
			next := sluice(t, "run", "--site", p.path)
			if err := next.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = next.Process.Kill(); _ = next.Wait() }()
			p.waitForReply(t, "2", `"set"`, 2)
			for range 3 {
				p.send(t, "command_send", command)
				time.Sleep(100 * time.Millisecond)
			}
			p.waitForReply(t, "3", `"set"`, 3) // answered behind the three
			replies, written := p.replies(doomed), p.counter.count(fmt.Sprintf("11=%d", doomedValue))
			if written != want.written || len(replies) != 1 {
				t.Errorf("%d writes, want %d; replies %v", written, want.written, replies)
			}
			for text := range replies {
				if !strings.Contains(text, want.verdict) {
					t.Errorf("the verdict %s, want %s", text, want.verdict)
				}
			}
		})
	}
}
