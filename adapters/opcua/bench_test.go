package opcua_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/awcullen/opcua/ua"

	"sluice/gateway"
)

// processor is the time that this process has used of the processors.
func processor(t testing.TB) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// TestLoadServer is the server of TestLoad, in a process of its own.
func TestLoadServer(t *testing.T) {
	count, err := strconv.Atoi(os.Getenv("SLUICE_LOAD_SERVER"))
	if err != nil {
		t.Skip("it is started by TestLoad")
	}
	s := startServer(t, serverOptions{})
	var set []func(int64)
	for i := range count {
		v := s.variable(t, ua.ObjectIDObjectsFolder, fmt.Sprintf("c%d", i), fmt.Sprintf("c%d", i), int64(0), ua.DataTypeIDInt64)
		v.SetReadValueHandler(nil)
		set = append(set, func(n int64) { v.SetValue(ua.NewDataValue(n, ua.Good, time.Now(), 0, time.Now(), 0)) })
	}
	fmt.Println("serves", s.address())
	commands := make(chan string)
	go func() {
		defer close(commands)
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			commands <- lines.Text()
		}
	}()
	for n, counts := int64(0), false; ; {
		select {
		case command, ok := <-commands:
			if !ok {
				return
			}
			counts = command == "go"
		case <-time.After(time.Second): // each value stands for two samplings at least, however busy the machine is
			if n++; counts {
				for _, f := range set {
					f(n)
				}
			}
		}
	}
}

// startLoad starts the server of TestLoad, and gives its commands.
func startLoad(t *testing.T, count int) (endpoint string, commands io.Writer) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLoadServer$", "-test.v")
	cmd.Env = append(os.Environ(), fmt.Sprintf("SLUICE_LOAD_SERVER=%d", count))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if address, ok := strings.CutPrefix(lines.Text(), "serves "); ok {
			go io.Copy(io.Discard, out)
			return "opc.tcp://" + address, in
		}
	}
	t.Fatal("the server does not start")
	return "", nil
}

// TestLoad measures what package doc says: 10,000 points that change each
// second, and 50,000 that are subscribed. It takes a minute, so it is asked
// for: SLUICE_LOAD=1.
func TestLoad(t *testing.T) {
	if os.Getenv("SLUICE_LOAD") == "" {
		t.Skip("asked for by SLUICE_LOAD=1")
	}
	for _, count := range []int{10000, 50000} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			endpoint, commands := startLoad(t, count)
			var points strings.Builder
			for i := range count {
				fmt.Fprintf(&points, "      c%d: { node: s=c%d, type: int64 }\n", i, i)
			}
			site, _, _ := strings.Cut(strings.Replace(counters, "poll: 10ms", "poll: 500ms", 1), "      count:")
			site += points.String() + "devices:\n  - { name: line, profile: line, bus: field }\n"
			w := prepareSite(t, site, endpoint)
			w.tallies = make(map[*gateway.Point]*tally)
			for _, p := range w.points {
				w.tallies[p] = &tally{}
			}
			before, begin := processor(t), time.Now()
			w.start(t)
			for w.total() < count {
				if time.Sleep(20 * time.Millisecond); time.Since(begin) > 2*time.Minute {
					t.Fatalf("%d points subscribed in two minutes", w.total())
				}
			}
			took := time.Since(begin)
			t.Logf("%d points subscribed and told in %s, %s of the processor", count, took, processor(t)-before)
			if took > 30*time.Second {
				t.Errorf("it took %s", took)
			}
			if count == 10000 {
				w.measure(t, count, commands)
			}
		})
	}
}

// measure lets all points change each second for a while.
func (w *watcher) measure(t *testing.T, count int, commands io.Writer) {
	t.Helper()
	fmt.Fprintln(commands, "go")
	time.Sleep(3 * time.Second)
	before, begin, first := processor(t), time.Now(), w.total()
	time.Sleep(20 * time.Second)
	busy, values, lasted := processor(t)-before, w.total()-first, time.Since(begin)
	t.Logf("%d values in %s, %.1f %% of a core, %s a value", values, lasted, 100*busy.Seconds()/lasted.Seconds(), busy/time.Duration(values))
	fmt.Fprintln(commands, "stop")
	time.Sleep(2 * time.Second)
	for p, x := range w.tallies {
		if x.missed > 0 || x.values < 20 {
			t.Fatalf("%s: %d values, %d missed", p.ID, x.values, x.missed)
		}
	}
	if w.lost() > 0 {
		t.Errorf("the session was lost %d times", w.lost())
	}
}

// tally counts the values of a point, and what is missing between them.
type tally struct{ values, missed, last int64 }

func (x *tally) note(n int64) {
	if x.values > 1 && n != x.last+1 { // the first is of before the counting
		x.missed++
	}
	x.values++
	x.last = n
}

// total is how many samples there are of all points.
func (w *watcher) total() (n int) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for _, x := range w.tallies {
		n += int(x.values)
	}
	return n
}
