package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/buffer"
)

// breakDisk makes every write to the buffer, or every sync of it, fail with EIO,
// until heal is called: strace does that to this process. What else runs in it
// would suffer too, so these tests are not parallel.
func breakDisk(t *testing.T, call string) (heal func()) {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace to make writes fail with")
	}
	var said bytes.Buffer
	strace := exec.Command(path, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call, "-e", "inject="+call+":error=EIO", "-p", fmt.Sprint(os.Getpid()))
	strace.Stderr = &said
	if err := strace.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = strace.Wait()
	}()
	heal = sync.OnceFunc(func() {
		_ = strace.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	t.Cleanup(heal)
	for !traced(t, strace.Process.Pid) {
		select {
		case <-ended:
			t.Skip("strace can't attach here: ", said.String())
		case <-time.After(time.Millisecond):
		}
	}
	return heal
}

// traced tells whether all threads of this process are followed by another.
func traced(t *testing.T, by int) bool {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		if err == nil && !strings.Contains(string(status), fmt.Sprintf("TracerPid:\t%d\n", by)) {
			return false
		}
	}
	return true
}

// cellar is a gateway with one reading every 20 ms, a cloud that can be away, and
// a buffer on a disk that is in trouble.
type cellar struct {
	shop
	away     atomic.Bool
	gaps     atomic.Int64 // events of gaps
	told     atomic.Int64 // records that they have told of
	events   atomic.Int64 // others
	underway atomic.Int64 // records that were dropped while reports were on their way, and may be among them
	dropped  atomic.Int64 // until these went on their way
	store    *buffer.Buffer
	gateway  *Gateway
	end      func()
}

// Await is where nothing is on its way.
func (c *cellar) Await(ctx context.Context, kind RecordKind, repeat bool) error {
	if kind != ReportRecord {
		return c.shop.Await(ctx, kind, repeat)
	}
	drops := func() int64 { return int64(c.store.Stats().Dropped.Total()) }
	c.underway.Add(drops() - c.dropped.Load())
	err := c.shop.Await(ctx, kind, repeat)
	c.dropped.Store(drops())
	return err
}

func (c *cellar) Publish(ctx context.Context, records []Record) (int, error) {
	for i, r := range records {
		switch {
		case r.Kind != EventRecord:
			if _, err := c.shop.Publish(ctx, records[i:i+1]); err != nil {
				return i, err
			}
		case !c.online():
			return i, ErrLost
		case r.Name == "gap":
			c.gaps.Add(1)
			c.told.Add(r.Values[0].Value.Int())
		default:
			c.events.Add(1)
		}
	}
	return len(records), nil
}

const cellarPoll = 20 * time.Millisecond

func newCellar(t *testing.T, dir string, o buffer.Options) *cellar {
	t.Helper()
	c := &cellar{}
	c.next, c.online = map[string]int64{}, func() bool { return !c.away.Load() }
	o.Gaps = true
	var err error
	if c.store, err = buffer.Open(filepath.Join(dir, "buffer.db"), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.store.Close() })
	bus := &Bus{Name: "b", Type: "field", Offline: Offline{After: 3, Probe: time.Second, ProbeMax: time.Second}}
	d := device("d", &Definition{ID: "n", Poll: cellarPoll})
	d.Bus, d.User, d.Profile, d.Unit = bus, "u", &Profile{}, 1
	site := &Site{Cloud: Cloud{Backlog: replay, OwnEvents: OwnEvents{"gap": true, "test": true}}, Buses: []*Bus{bus}, Devices: []*Device{d}}
	c.gateway, err = New(Config{Site: site, Log: slog.New(slog.DiscardHandler), Buffer: c.store, Uplinks: map[string]Uplink{"u": c},
		Adapters: map[string]NewAdapter{"field": func(Env, *Bus, []*Device) (Adapter, error) { return ticker{}, nil }}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { c.gateway.Run(ctx); close(ended) }()
	c.end = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(c.end)
	return c
}

// until waits for something about the buffer.
func (c *cellar) until(t *testing.T, what string, is func(buffer.Stats) bool) {
	t.Helper()
	for begin := time.Now(); !is(c.store.Stats()); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("not %s after 20 s: %+v", what, c.store.Stats())
		}
	}
}

func failing(s buffer.Stats) bool { return !s.FailingSince.IsZero() }
func onDisk(s buffer.Stats) bool  { return s.FailingSince.IsZero() && s.Pending == 0 }

// flows waits until what is measured from now on arrives.
func (c *cellar) flows(t *testing.T) {
	t.Helper()
	from := c.gateway.Stats.Reports.Load()
	c.until(t, "flowing", func(buffer.Stats) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.next["n"] > from
	})
}

// measures waits for some more readings: the field does not wait for the disk.
func (c *cellar) measures(t *testing.T) {
	t.Helper()
	from := c.gateway.Stats.Reports.Load()
	c.until(t, "measuring", func(buffer.Stats) bool { return c.gateway.Stats.Reports.Load() >= from+20 })
}

// check ends the gateway and gives its account: no reading is lost that is not
// counted and told of, and none comes twice, but for the one that stands after a
// gap. What was dropped while it was on its way is counted, and may have arrived.
func (c *cellar) check(t *testing.T) {
	t.Helper()
	c.flows(t)
	c.until(t, "told of what was dropped", func(s buffer.Stats) bool {
		return c.told.Load() >= int64(s.Dropped.Total())-c.underway.Load()
	})
	c.end()
	s := c.store.Stats()
	lost, told, dropped := int64(c.lost), c.told.Load(), int64(s.Dropped.Total())
	t.Logf("%d reports, %d lost, %d dropped, %d of them perhaps on their way, %d told of in %d gaps, %d doubled, %d commits failed, %d polls skipped",
		c.gateway.Stats.Reports.Load(), lost, dropped, c.underway.Load(), told, c.gaps.Load(), c.doubled, s.Failures, c.gateway.Stats.Overruns.Load())
	if lost > told || told > dropped || lost < dropped-c.underway.Load() || int64(c.doubled) > c.gaps.Load() {
		t.Errorf("%d lost, %d counted, %d told of, %d doubled", lost, dropped, told, c.doubled)
	}
}

// TestOneFailedWriteRepeatsNothing: the disk fails once while all goes well.
func TestOneFailedWriteRepeatsNothing(t *testing.T) {
	for _, call := range []string{"pwrite64", "fdatasync"} {
		t.Run(call, func(t *testing.T) {
			c := newCellar(t, t.TempDir(), buffer.Options{})
			c.flows(t)
			heal := breakDisk(t, call)
			if err := c.store.Put("test", "once", []byte("x")); !errors.Is(err, syscall.EIO) {
				t.Errorf("the control failed: the write gave %v", err)
			}
			heal()
			if err := c.store.Put("test", "once", []byte("x")); err != nil {
				t.Error(err)
			}
			c.check(t)
		})
	}
}

// TestDiskThatFailsForASecond: with the cloud away, so that there is something to
// write.
func TestDiskThatFailsForASecond(t *testing.T) {
	if os.Getenv("CI") == "" {
		t.Skip("takes 5 s: set CI=true")
	}
	for _, call := range []string{"pwrite64", "fdatasync"} {
		t.Run(call, func(t *testing.T) {
			c := newCellar(t, t.TempDir(), buffer.Options{Flush: 100 * time.Millisecond})
			c.flows(t)
			c.away.Store(true)
			heal := breakDisk(t, call)
			c.until(t, "failing", failing)
			time.Sleep(time.Second)
			c.measures(t)
			heal()
			c.until(t, "on disk", onDisk)
			if s := c.store.Stats(); s.Reopened == 0 || s.Dropped.Total() > 0 {
				t.Errorf("%+v", s)
			}
			c.away.Store(false)
			c.check(t)
		})
	}
}

// TestWithoutADiskTheUplinkGoesOn: the disk fails and stays so. What is measured
// waits in memory, within its bound, and goes out when the cloud is there, and so
// do events; what had to go is told of.
func TestWithoutADiskTheUplinkGoesOn(t *testing.T) {
	const most = 8 << 10
	c := newCellar(t, t.TempDir(), buffer.Options{Flush: 100 * time.Millisecond, MaxMemory: most})
	c.flows(t)
	c.away.Store(true)
	heal := breakDisk(t, "fdatasync")
	c.until(t, "failing", failing)
	c.until(t, "at the bound of memory", func(s buffer.Stats) bool {
		if s.PendingBytes > most {
			t.Fatalf("%d bytes in memory", s.PendingBytes)
		}
		return s.Dropped.Memory > 5
	})
	c.away.Store(false)
	c.flows(t)
	c.gateway.ownEvent("test", "test", Info, c.gateway.Site().Devices[0], nil)
	c.until(t, "told of an event", func(buffer.Stats) bool { return c.events.Load() == 1 })
	if !failing(c.store.Stats()) {
		t.Error("the control failed: the disk works")
	}
	heal()
	c.until(t, "on disk again", onDisk)
	c.check(t)
}

// TestFullDisk: others fill the disk while the cloud is away, and give it back
// later. A buffer that has its room reserved does not notice; the control, one
// that has not, keeps what is measured in memory until there is room again, or, as
// far as its file goes, the newest of it.
func TestFullDisk(t *testing.T) {
	for name, reserved := range map[string]bool{"reserved": true, "control": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
				t.Skip("mount:", err)
			}
			t.Cleanup(func() {
				if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
					t.Error("unmount:", err)
				}
			})
			c := newCellar(t, dir, buffer.Options{MaxSize: 4 << 20, Flush: 100 * time.Millisecond, Preallocate: reserved})
			c.flows(t)
			c.away.Store(true)
			others := filepath.Join(dir, "others")
			if err := os.WriteFile(others, make([]byte, 16<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			before := c.store.Stats()
			if reserved {
				c.until(t, "written", func(s buffer.Stats) bool { return s.Commits > before.Commits+10 })
			} else {
				c.until(t, "noticed", func(s buffer.Stats) bool { return failing(s) || s.Dropped.Disk > 0 })
			}
			c.measures(t)
			if reserved { // and it drains
				c.away.Store(false)
				c.flows(t)
			}
			if s := c.store.Stats(); reserved && (s.Failures > 0 || s.Dropped.Total() > 0) {
				t.Errorf("the full disk was noticed: %+v", s)
			}
			if err := os.Remove(others); err != nil {
				t.Fatal(err)
			}
			c.until(t, "on disk", onDisk)
			c.away.Store(false)
			c.check(t)
		})
	}
}

// TestFullBufferTellsTheCloudWhatIsMissing: far more waits than fits. The oldest
// go, the count is exact, the file keeps to its size, and an event of each gap
// reaches the cloud.
func TestFullBufferTellsTheCloudWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	c := newCellar(t, dir, buffer.Options{MaxSize: 1 << 20, Flush: 100 * time.Millisecond})
	c.flows(t)
	c.away.Store(true)
	c.until(t, "written", func(s buffer.Stats) bool { return s.Waiting > 50 })
	const more = 8000
	for i := range more { // as if it were away for some minutes more, in another lane of the file
		c.store.Append("other", buffer.Attributes, time.Now(), make([]byte, 200))
		if i%1000 == 0 {
			if err := c.store.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.until(t, "full", func(s buffer.Stats) bool { return s.Dropped.Full > 0 && s.FileSize <= 1<<20 })
	c.away.Store(false)
	c.flows(t)
	c.until(t, "told", func(buffer.Stats) bool { return c.gaps.Load() > 0 })
	c.end()
	if c.lost == 0 || int64(c.lost) != c.told.Load() || int64(c.doubled) > c.gaps.Load() || c.store.Stats().FileSize > 1<<20 {
		t.Errorf("%d readings are missing, %d were told of, %d came twice", c.lost, c.told.Load(), c.doubled)
	}
}

// TestWhatCanNotBePutAsideIsNotTheLastWord: what is held can't be put aside,
// since the disk fails: the newest value is still the last word.
func TestWhatCanNotBePutAsideIsNotTheLastWord(t *testing.T) {
	store, err := buffer.Open(newBuffer(t), buffer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	l := newTestLane(&platform{}, store, ReportRecord, 0, 0)
	l.account.backlog = latest
	put(store, values("other=1"))
	if !l.hold(values("temp=1"), 1) {
		t.Fatal("not held")
	}
	put(store, values("temp=2"))
	if err := store.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	heal := breakDisk(t, "pwrite64")
	done := l.putMessageAside(l.heldAlone()[0], othersAreAnswered)
	heal()
	if done {
		t.Skip("it worked")
	}
	got := ""
	for _, m := range l.takeLatest(t.Context()) {
		for _, v := range m.record.Values {
			got += v.Name + "=" + v.Value.String() + " "
		}
	}
	if got != "temp=2 " {
		t.Errorf("the message is %q, %d wait", got, store.Len("u"))
	}
}
