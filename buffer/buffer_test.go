package buffer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

var noon = time.Date(2025, 6, 18, 12, 0, 0, 123456789, time.UTC)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if os.Getenv(childDiskEnv) != "" {
			if err := childDisk(dir); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			return
		}
		child(dir)
		return
	}
	flag.Parse()
	os.Exit(inMemory(m.Run))
}

// inMemory puts the files of tests into memory where there is room: what they look at doesn't depend on a disk, but waits for its syncs
// would be most of their time. Benchmarks want the disk.
func inMemory(run func() int) int {
	const memory = "/dev/shm"
	if free, err := freeDisk(memory + "/x"); err != nil || free < 1<<30 || flag.Lookup("test.bench").Value.String() != "" {
		return run()
	}
	dir, err := os.MkdirTemp(memory, "sluice-buffer-")
	if err != nil {
		return run()
	}
	defer os.RemoveAll(dir)
	if err := os.Setenv("TMPDIR", dir); err != nil {
		fmt.Println(err)
		return 1
	}
	return run()
}

// open opens a buffer that is closed with the test. Flush is long unless set: tests commit by Sync.
func open(t testing.TB, path string, o Options) *Buffer {
	t.Helper()
	if o.Flush == 0 {
		o.Flush = time.Hour
	}
	b, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "buffer.db") }

func syncNow(t testing.TB, b *Buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.Sync(ctx); err != nil {
		t.Fatal(err)
	}
}

func closeNow(t testing.TB, b *Buffer) {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func peek(t testing.TB, b *Buffer, lane string, limit int) []Record {
	t.Helper()
	records, err := b.Peek(lane, limit)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func texts(records []Record) string {
	var out []string
	for _, r := range records {
		out = append(out, string(r.Data))
	}
	return strings.Join(out, " ")
}

// drain acknowledges everything in a lane and returns the numbers seen.
func drain(t testing.TB, b *Buffer, lane string) (seqs []uint64) {
	t.Helper()
	for {
		records := peek(t, b, lane, 100)
		if len(records) == 0 {
			return seqs
		}
		for _, r := range records {
			if n := len(seqs); n > 0 && r.Seq <= seqs[n-1] {
				t.Fatalf("lane %s: %d after %d, which is acknowledged", lane, r.Seq, seqs[n-1])
			}
			seqs = append(seqs, r.Seq)
		}
		b.Ack(lane, seqs[len(seqs)-1])
	}
}

// balanced checks the account that Stats promises.
func balanced(t testing.TB, b *Buffer) Stats {
	t.Helper()
	s := b.Stats()
	if in, out := s.Found+s.Appended+s.Retried+uint64(s.Gaps), s.Acked+s.Dropped.Total()+s.Quarantined+uint64(s.Waiting); in != out {
		t.Fatalf("%d records in, %d accounted for: %+v", in, out, s)
	}
	return s
}

func TestPeekLeavesAndAckRemoves(t *testing.T) {
	for _, onDisk := range []bool{false, true} {
		b := open(t, newPath(t), Options{})
		data := []byte("a")
		first := b.Append("l", Attributes, noon, data)
		data[0] = 'x'
		b.Append("other", Attributes, noon, []byte("o"))
		b.Append("l", Attributes, noon, []byte("b"))
		b.Append("l", Attributes, noon, []byte("c"))
		if onDisk {
			syncNow(t, b)
		}
		for range 2 {
			if got := texts(peek(t, b, "l", 2)); got != "a b" {
				t.Fatalf("on disk %v: peek 2 = %q", onDisk, got)
			}
		}
		if r := peek(t, b, "l", 1)[0]; r.Seq != first || !r.Time.Equal(noon) || r.Class != Attributes {
			t.Fatalf("on disk %v: %+v", onDisk, r)
		}
		b.Ack("l", first)
		b.Ack("l", first)
		b.Ack("l", 0)
		b.Ack("unknown", 5)
		if got := texts(peek(t, b, "l", 100)); got != "b c" || b.Len("l") != 2 || b.Len("other") != 1 {
			t.Fatalf("on disk %v: after ack %q, len %d", onDisk, got, b.Len("l"))
		}
		b.Ack("l", 1<<60) // beyond what was ever given out: what comes later is not covered
		if b.Len("l") != 0 || len(peek(t, b, "l", 1)) != 0 {
			t.Fatalf("on disk %v: not empty", onDisk)
		}
		b.Append("l", Attributes, noon, []byte("d"))
		if got := texts(peek(t, b, "l", 1)); got != "d" {
			t.Fatalf("on disk %v: %q after ack beyond the end", onDisk, got)
		}
		balanced(t, b)
	}
}

func TestEventIsSeenOnceOnDisk(t *testing.T) {
	var mu sync.Mutex
	broken := false
	b := open(t, newPath(t), Options{retry: time.Millisecond, fail: func() error {
		mu.Lock()
		defer mu.Unlock()
		if broken {
			return errors.New("broken")
		}
		return nil
	}})
	set := func(v bool) { mu.Lock(); broken = v; mu.Unlock() }
	set(true)
	b.Append("l", Attributes, noon, []byte("a"))
	<-b.Ready("l")
	b.Append("l", Event, noon, []byte("E"))
	b.Append("l", Attributes, noon, []byte("b"))
	if got := texts(peek(t, b, "l", 10)); got != "a" {
		t.Fatalf("with an event in front that is not on disk: %q", got)
	}
	for len(b.Ready("l")) > 0 {
		<-b.Ready("l")
	}
	set(false)
	<-b.Ready("l")
	if got := texts(peek(t, b, "l", 10)); got != "a E b" {
		t.Fatalf("with the event on disk: %q", got)
	}
	if b.Stats().Pending == 0 {
		t.Fatal("attributes were committed with the event before their time")
	}
	syncNow(t, b)
	if got := texts(peek(t, b, "l", 10)); got != "a E b" {
		t.Fatalf("with attributes committed after a later event: %q", got)
	}
}

func TestGoesOnWithYesterdaysFile(t *testing.T) {
	path := newPath(t)
	var last uint64
	var want []string
	for day := range 4 {
		b := open(t, path, Options{})
		if day > 0 && len(b.Ready("l")) != 1 {
			t.Fatal("a lane with a backlog isn't ready")
		}
		if got := texts(peek(t, b, "l", 100)); got != strings.Join(want, " ") {
			t.Fatalf("day %d: %q, want %q", day, got, want)
		}
		for i := range 3 {
			seq := b.Append("l", Class(i%2), noon, fmt.Appendf(nil, "%d.%d", day, i))
			if seq != last+1 {
				t.Fatalf("day %d: number %d after %d", day, seq, last)
			}
			last = seq
			want = append(want, fmt.Sprintf("%d.%d", day, i))
		}
		syncNow(t, b)
		b.Ack("l", peek(t, b, "l", 1)[0].Seq)
		want = want[1:]
		balanced(t, b)
		closeNow(t, b)
	}
}

func TestUnusableFileIsSetAside(t *testing.T) {
	write := func(content string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(content), 0o600) }
	}
	database := func(fill func(*bolt.Tx) error) func(string) error {
		return func(path string) error {
			db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true})
			if err != nil {
				return err
			}
			return errors.Join(db.Update(fill), db.Close())
		}
	}
	other := database(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte("bucket"))
		return err
	})
	newer := database(func(tx *bolt.Tx) error {
		m, err := tx.CreateBucket(metaBucket)
		return errors.Join(err, m.Put(formatKey, sealed(formatKey, key(99))))
	})
	old := database(func(tx *bolt.Tx) error {
		m, err := tx.CreateBucket(metaBucket)
		return errors.Join(err, m.Put(formatKey, key(1)))
	})
	tests := []struct {
		name, want string
		kind       error
		make       func(string) error
	}{
		{"empty", "heads are damaged", ErrDamaged, write("")},
		{"text", "heads are damaged", ErrDamaged, write("site:\n  name: x\n")},
		{"long", "heads are damaged", ErrDamaged, write(strings.Repeat("not a database ", 10000))},
		{"other database", "another program", ErrForeign, other},
		{"newer", "format 99, this program knows 2", ErrFormat, newer},
		{"older", "format 1, this program knows 2", ErrFormat, old},
	}
	for _, test := range tests {
		path := newPath(t)
		if err := test.make(path); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(path)
		var log bytes.Buffer
		b := open(t, path, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		aside := b.SetAside()
		if !errors.Is(aside.Err, test.kind) || !strings.Contains(aside.Err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, aside.Err)
		}
		if after, _ := os.ReadFile(aside.File); string(after) != string(before) {
			t.Errorf("%s: the file was changed", test.name)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), aside.File) {
			t.Errorf("%s: log %q", test.name, &log)
		}
		b.Append("l", Event, noon, []byte("x"))
		closeNow(t, b)
		b = open(t, path, Options{})
		if b.SetAside() != (SetAside{}) || texts(peek(t, b, "l", 1)) != "x" {
			t.Errorf("%s: the new file is not used", test.name)
		}
	}
	if _, err := Open(t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "no", "buffer.db"), Options{}); err == nil {
		t.Error("opened in a folder that doesn't exist")
	}
	if _, err := Open(newPath(t), Options{MaxSize: 1000}); err == nil {
		t.Error("opened with 1,000 bytes")
	}
}

func TestSecondProcessIsTold(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	open(t, path, Options{})
	_, err := Open(path, Options{}) // flock holds between two opens of one process too
	if err == nil || !strings.Contains(err.Error(), "is in use by another process") {
		t.Fatal(err)
	}
}

func TestOpenLeavesOneFile(t *testing.T) {
	path := newPath(t)
	closeNow(t, open(t, path, Options{}))
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v %v", entries, err)
	}
}

func TestStateIsKept(t *testing.T) {
	path := newPath(t)
	b := open(t, path, Options{})
	if v, err := b.Get("ids", "x"); v != nil || err != nil {
		t.Fatalf("%q %v", v, err)
	}
	for _, err := range []error{b.Put("ids", "x", []byte("1")), b.Put("ids", "x", []byte("2")), b.Put("ids", "y", []byte("3")), b.Put("ids", "y", nil)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put("ids", "", []byte("1")); err == nil {
		t.Fatal("empty key taken")
	}
	closeNow(t, b)
	if err := b.Put("ids", "x", nil); !errors.Is(err, errClosed) {
		t.Fatal(err)
	}
	b = open(t, path, Options{})
	x, _ := b.Get("ids", "x")
	y, _ := b.Get("ids", "y")
	if string(x) != "2" || y != nil {
		t.Fatalf("%q %q", x, y)
	}
}

func TestQuarantineKeepsRecordAside(t *testing.T) {
	path := newPath(t)
	b := open(t, path, Options{})
	var seqs []uint64
	for i := range 6 {
		seqs = append(seqs, b.Append("l", Attributes, noon, fmt.Appendf(nil, "%d", i)))
	}
	if err := b.Quarantine("l", seqs[1], "refused"); err != nil {
		t.Fatal(err)
	}
	syncNow(t, b)
	peek(t, b, "l", 3)
	if err := b.Quarantine("l", seqs[3], "too long"); err != nil {
		t.Fatal(err)
	}
	b.Ack("l", seqs[0])
	for _, seq := range []uint64{seqs[0], seqs[1], seqs[3], 1 << 50} {
		if err := b.Quarantine("l", seq, ""); !errors.Is(err, ErrNotFound) {
			t.Fatalf("%d: %v", seq, err)
		}
	}
	if err := b.Quarantine("unknown", 1, ""); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if got := texts(peek(t, b, "l", 10)); got != "2 4 5" || b.Len("l") != 3 {
		t.Fatalf("%q, len %d", got, b.Len("l"))
	}
	balanced(t, b)
	closeNow(t, b)
	b = open(t, path, Options{})
	if got := texts(peek(t, b, "l", 10)); got != "2 4 5" {
		t.Fatalf("after open: %q", got)
	}
	list, err := b.Quarantined()
	if err != nil || len(list) != 2 {
		t.Fatalf("%v %v", list, err)
	}
	if q := list[1]; q.Lane != "l" || q.Reason != "too long" || string(q.Data) != "3" || q.Seq != seqs[3] || !q.Time.Equal(noon) {
		t.Fatalf("%+v", q)
	}
}

func TestQuarantinedRecordGoesBackOrGoes(t *testing.T) {
	path := newPath(t)
	b := open(t, path, Options{})
	var seqs []uint64
	for i := range 6 {
		seqs = append(seqs, b.Append("l", Class(i%2), noon, fmt.Appendf(nil, "%d", i)))
	}
	for _, i := range []int{1, 2, 4} {
		if err := b.Quarantine("l", seqs[i], "x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.QuarantineRetry(seqs[1]); err != nil {
		t.Fatal(err)
	}
	if err := b.QuarantineDrop(seqs[2]); err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint64{seqs[1], seqs[2], seqs[0], 99} {
		_, err := b.QuarantineRetry(seq)
		if !errors.Is(err, ErrNotFound) || !errors.Is(b.QuarantineDrop(seq), ErrNotFound) {
			t.Fatalf("%d: %v", seq, err)
		}
	}
	for range 2 {
		balanced(t, b)
		list, err := b.Quarantined()
		if err != nil || len(list) != 1 || list[0].Seq != seqs[4] {
			t.Fatalf("%v %v", list, err)
		}
		r := peek(t, b, "l", 10)
		if texts(r) != "0 3 5 1" || r[3].Class != Event || !r[3].Time.Equal(noon) {
			t.Fatalf("%v", r)
		}
		closeNow(t, b)
		b = open(t, path, Options{})
	}
	if n := len(drain(t, b, "l")); n != 4 {
		t.Fatal(n)
	}
}

// TestALaneGoesOnAfterItsOnlyRecordWasPutAside, in a segment that was given up
// meanwhile.
func TestALaneGoesOnAfterItsOnlyRecordWasPutAside(t *testing.T) {
	b := open(t, newPath(t), Options{Gaps: true})
	for range 3 {
		if err := b.Quarantine("l", b.Append("l", Attributes, noon, []byte("bad")), "x"); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"a", "b", "c"} {
			b.Append("l", Attributes, noon, []byte(text))
		}
		syncNow(t, b)
		if got := texts(peek(t, b, "l", 10)); got != "a b c" {
			t.Errorf("in the lane is %q", got)
		}
		drain(t, b, "l")
		syncNow(t, b)
		if s := balanced(t, b); s.Dropped.Total() > 0 || s.Waiting > 0 {
			t.Errorf("%+v", s)
		}
	}
}

// TestARecordThatGoesBackIsNotPassed: while it is written, others come behind it and are confirmed.
func TestARecordThatGoesBackIsNotPassed(t *testing.T) {
	for _, fails := range []bool{false, true} {
		var b *Buffer
		others := 0
		o := Options{fail: func() error {
			if b == nil || others > 0 {
				return nil
			}
			b.Append("l", Attributes, noon, []byte("new"))
			others += len(drain(t, b, "l"))
			if others = max(others, 1); fails {
				return errDisk
			}
			return nil
		}}
		buffer := open(t, newPath(t), o)
		seq := buffer.Append("l", Attributes, noon, []byte("old"))
		if err := buffer.Quarantine("l", seq, "x"); err != nil {
			t.Fatal(err)
		}
		b = buffer
		if _, err := b.QuarantineRetry(seq); (err != nil) != fails {
			t.Fatal(err)
		}
		want := map[bool]string{false: "old new", true: "new"}[fails]
		if got := texts(peek(t, b, "l", 10)); got != want {
			t.Errorf("in the lane is %q, want %q", got, want)
		}
		if list, err := b.Quarantined(); err != nil || (len(list) == 1) != fails {
			t.Errorf("%d in quarantine, %v", len(list), err)
		}
		balanced(t, b)
	}
}

func TestQuarantineIsBounded(t *testing.T) {
	var log bytes.Buffer
	b := open(t, newPath(t), Options{Gaps: true, MaxSize: 1 << 20, MaxMemory: 1 << 20, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 40 {
		seq := b.Append("l", Attributes, noon, make([]byte, 10000))
		if err := b.Quarantine("l", seq, "x"); err != nil {
			t.Fatal(err)
		}
	}
	list, err := b.Quarantined()
	if s := balanced(t, b); err != nil || len(list) < 10 || len(list) > 13 || s.Evicted != uint64(40-len(list)) {
		t.Fatalf("%d in quarantine, %v, %+v", len(list), err, s)
	}
	var c counter
	c.drain(t, b, "l", 100)
	if c.total[CauseQuarantine] != uint64(40-len(list)) {
		t.Errorf("gaps tell of %v", c.total)
	}
	if said := strings.Count(log.String(), "quarantine is full, its oldest records are lost"); said != 40-len(list) {
		t.Errorf("said %d times:\n%s", said, log.String())
	}
}

func TestSeveralGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	path := newPath(t)
	b, err := Open(path, Options{Flush: time.Millisecond, MaxSize: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	const lanes, each = 4, 3000
	var producers, consumers sync.WaitGroup
	for i := range lanes {
		lane := fmt.Sprint("lane", i)
		for range 2 {
			producers.Go(func() {
				for n := range each {
					b.Append(lane, Class(n%3/2), noon, binary.BigEndian.AppendUint64(nil, uint64(n)))
				}
			})
		}
		consumers.Go(func() {
			var seqs []uint64
			for len(seqs) < 2*each {
				<-b.Ready(lane)
				seqs = append(seqs, drain(t, b, lane)...)
			}
			if !slices.IsSorted(seqs) {
				t.Errorf("%s out of order", lane)
			}
		})
	}
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := b.Put("s", fmt.Sprint(i%10), []byte("v")); err != nil {
				t.Error(err)
			}
			b.Stats()
			b.Len("lane0")
		}
	})
	producers.Wait()
	consumers.Wait()
	close(stop)
	others.Wait()
	balanced(t, b)
	closeNow(t, b)
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}
