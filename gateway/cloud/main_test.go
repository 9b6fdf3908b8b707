package cloud_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/cloud/twin"
)

// TestMain fails where a goroutine is left over: no session, client or broker
// may outlive its end for longer than the write timeout. Fuzzing has its own.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("16") // most of the parallel ones wait for the network
	}
	code := m.Run()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(code)
	}
	for range 100 {
		if code != 0 || runtime.NumGoroutine() <= before {
			os.Exit(code)
		}
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "goroutines are left over:")
	pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
	os.Exit(1)
}

// logBook is a log that a test can read.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

const (
	user     = "plant1"
	password = "s3cret"
)

var users = map[string]string{user: password}

func startTwin(t testing.TB, options twin.Options) *twin.Twin {
	t.Helper()
	if options.Users == nil {
		options.Users = users
	}
	tw, err := twin.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tw.Stop)
	return tw
}

// settings are what most tests use; change may be nil.
func settings(url, confirm string, change func(*cloud.Config)) cloud.Config {
	c := cloud.Config{
		Cloud: gateway.Cloud{URL: url, Confirm: confirm, ConfirmTimeout: 10 * time.Second, LateTS: "none"},
		Login: gateway.Login{User: user, Password: password},
		Site:  "site1",
	}
	if change != nil {
		change(&c)
	}
	return c
}

// run runs a session until the test ends.
func run(t testing.TB, c cloud.Config, delayed func(refused bool)) (*cloud.Session, *logBook) {
	t.Helper()
	book := &logBook{}
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(book, nil))
	}
	s, err := cloud.New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.Hurry(delayed)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { s.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return s, book
}

// eventually waits for something that happens soon, for a long time.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for range 3000 {
		if holds() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func connected(s *cloud.Session) func() bool {
	return func() bool { return !s.Status().Connected.IsZero() }
}

func says(book *logBook, text string) func() bool {
	return func() bool { return strings.Contains(book.String(), text) }
}

// numbered are reports {"n":from}, {"n":from+1}, … of now.
func numbered(from, count int) []gateway.Record {
	records := make([]gateway.Record, count)
	for i := range records {
		records[i] = one("n", gateway.IntValue(int64(from+i)))
	}
	return records
}

func one(name string, v gateway.Value) gateway.Record {
	return gateway.Record{Kind: gateway.ReportRecord, Time: time.Now(), Values: []gateway.Attribute{{Name: name, Value: v}}}
}

// publishAll publishes as a lane does: what is not confirmed is sent again.
func publishAll(ctx context.Context, s *cloud.Session, records []gateway.Record) error {
	for len(records) > 0 {
		n, err := s.Publish(ctx, records[:min(len(records), 50)])
		records = records[n:]
		var refusal *gateway.Refusal
		if ctx.Err() != nil || errors.As(err, &refusal) {
			return err
		}
	}
	return nil
}

// payloads are what the twin got on attributes, without repetitions of what had
// arrived before.
func payloads(tw *twin.Twin) (first []string, repeated int) {
	seen := map[string]bool{}
	for _, m := range tw.Received(user) {
		if p := string(m.Payload); seen[p] {
			repeated++
		} else {
			seen[p] = true
			first = append(first, p)
		}
	}
	return first, repeated
}

func checkNumbered(t *testing.T, got []string, count int) {
	t.Helper()
	if len(got) != count {
		t.Errorf("%d reports arrived, want %d", len(got), count)
	}
	for i, p := range got {
		if want := fmt.Sprintf(`{"n":%d}`, i); p != want {
			t.Fatalf("report %d is %s, want %s", i, p, want)
		}
	}
}
