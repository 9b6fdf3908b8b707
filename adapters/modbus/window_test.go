package modbus

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/gateway"
)

// atListener opens a session to a device behind a listener, whose connections
// are served by serve.
func atListener(t testing.TB, d *gateway.Device, serve func(net.Conn)) *session {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() { defer conn.Close(); serve(conn) })
		}
	})
	d.Bus.Host, d.Bus.Port = "127.0.0.1", itoa(listener.Addr().(*net.TCPAddr).Port)
	a, err := New(gateway.Env{}, d.Bus, []*gateway.Device{d})
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); listener.Close(); open.Wait() })
	return s.(*session)
}

// islands are n runs of points that no request can join.
func islands(n int) (spans [][2]int) {
	for i := range n {
		spans = append(spans, [2]int{100 * i, 2}, [2]int{100*i + 2, 1})
	}
	return spans
}

func TestWindow(t *testing.T) {
	for _, tt := range []struct{ pipeline, connections, requests, groups, flying int }{
		{1, 1, 5, 5, 1}, {4, 1, 10, 3, 4}, {1, 3, 10, 4, 3}, {4, 3, 30, 3, 12}, {64, 1, 10, 1, 10},
	} {
		t.Run(fmt.Sprintf("%d in flight on %d", tt.pipeline, tt.connections), func(t *testing.T) {
			d := learner("holding", 5*time.Second, islands(tt.requests)...)
			d.Bus.Pipeline, d.Bus.Connections = tt.pipeline, tt.connections
			m := &meter{refuse: nothing, delay: 20 * time.Millisecond}
			s := atListener(t, d, m.serve)
			groups := s.Plan(d.Points)
			if len(groups) != tt.groups {
				t.Errorf("%d groups, want %d", len(groups), tt.groups)
			}
			if bad := cycle(t, s, groups); len(bad) != 0 || len(m.take()) != tt.requests {
				t.Errorf("bad are %v", bad)
			}
			if m.most > tt.flying || tt.flying > 1 && m.most == 1 {
				t.Errorf("%d requests at once, want %d", m.most, tt.flying)
			}
			m.set(touches(4, 0))
			if bad := cycle(t, s, groups); len(bad) != 2 || bad["p0"] != "exception 4: server device failure" || len(m.take()) != tt.requests {
				t.Errorf("bad are %v", bad)
			}
			m.set(touches(2, 102))
			for range 2 {
				cycle(t, s, groups)
			}
			m.take()
			if bad := cycle(t, s, groups); len(bad) != 1 || bad["p3"] != "exception 2: illegal data address" || len(m.take()) != tt.requests {
				t.Errorf("bad are %v, learnt %v", bad, saidLearnt(s.Adapter))
			}
		})
	}
}

func TestSilenceInAWindow(t *testing.T) {
	d := learner("holding", 100*time.Millisecond, islands(8)...)
	d.Bus.Pipeline, d.Bus.Retries = 8, 1
	m := &meter{refuse: nothing}
	s := atListener(t, d, m.serve)
	groups := s.Plan(d.Points)
	cycle(t, s, groups)
	m.take()
	once := true
	m.set(func(first, _ int) byte {
		if first == 300 && once {
			once = false
			return silent
		}
		return 0
	})
	if bad, got := cycle(t, s, groups), m.take(); len(bad) != 0 || len(got) != 9 || got[8] != "300+3" {
		t.Errorf("bad are %v, asked %v", bad, got)
	}
	m.set(touches(silent, 300))
	samples, err := s.Read(t.Context(), groups[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range samples {
		lost := x.Point.ID == "p6" || x.Point.ID == "p7"
		if (x.Quality == gateway.Bad) != lost || x.Silent != lost {
			t.Errorf("%s: %+v", x.Point.ID, x)
		}
	}
	m.set(touches(silent, 0, 100, 200, 300, 400, 500, 600, 700))
	m.take()
	if _, err := s.Read(t.Context(), groups[0]); err != nil || len(m.take()) != 9 {
		t.Errorf("%v; a unit that is mute is asked once more, not for each of its requests", err)
	}
	for n := 1; ; n++ {
		if _, err = s.Read(t.Context(), groups[0]); err != nil {
			break
		}
		if n > deafAfter {
			t.Fatal("a connection on which nobody answers is kept")
		}
	}
	if !strings.Contains(err.Error(), "nobody answered") {
		t.Error(err)
	}
}

func TestWindowEndsWithItsContextAndItsConnection(t *testing.T) {
	d := learner("holding", time.Minute, islands(8)...)
	d.Bus.Pipeline, d.Bus.Connections = 2, 4
	m := &meter{refuse: touches(silent, 500)}
	s := atListener(t, d, m.serve)
	groups := s.Plan(d.Points)
	within, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Read(within, groups[0]); err != context.DeadlineExceeded {
		t.Errorf("%v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { s.Close() })
	if _, err := s.Read(t.Context(), groups[0]); err == nil {
		t.Error("a read of a closed session is no error")
	}
}

// answering serves reads of registers with as little work as can be.
func answering(conn net.Conn) {
	in, out := make([]byte, 0, 4096), make([]byte, 0, 4096)
	for {
		n, err := conn.Read(in[len(in):cap(in)])
		if err != nil {
			return
		}
		in, out = in[:len(in)+n], out[:0]
		for len(in) >= 12 {
			bytes := 2 * int(binary.BigEndian.Uint16(in[10:]))
			at := len(out)
			out = append(out, in[:9]...)
			binary.BigEndian.PutUint16(out[at+4:], uint16(3+bytes))
			out[at+8] = byte(bytes)
			out = append(out, noData[:bytes]...)
			in = in[:copy(in, in[12:])]
		}
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

var noData = make([]byte, 250)

// blocks is a device of so many registers in blocks of 20 with holes of 10.
func blocks(bus *gateway.Bus, registers int) *gateway.Device {
	d := fleet(bus, 1, registers)[0]
	d.Profile.MaxGap = &gateway.Gap{}
	return d
}

// BenchmarkRead is what one value costs: 10 devices of 1,000 registers in
// blocks of 20 with holes of 10, on loopback. The server runs in the same
// process; "wire" is the same requests without samples, so that the difference
// is ours.
func BenchmarkRead(b *testing.B) {
	for _, pipeline := range []int{1, 8} {
		var sessions []*session
		var groups [][][]*gateway.Point
		for range 10 {
			bus := &gateway.Bus{Name: "tcp", Type: "modbus-tcp", Timeout: time.Second, Pipeline: pipeline}
			d := blocks(bus, 1000)
			s := atListener(b, d, answering)
			sessions, groups = append(sessions, s), append(groups, s.Plan(d.Points))
		}
		b.Run(fmt.Sprintf("pipeline=%d", pipeline), func(b *testing.B) {
			readAllOf(b, sessions, groups, func(s *session, g []*gateway.Point) error {
				_, err := s.Read(context.Background(), g)
				return err
			})
		})
		b.Run(fmt.Sprintf("pipeline=%d/wire", pipeline), func(b *testing.B) {
			readAllOf(b, sessions, groups, func(s *session, g []*gateway.Point) error { return s.bare(s.batches[&g[0]]) })
		})
	}
}

// readAllOf reads 10,000 values a loop and says what one takes of the processor.
func readAllOf(b *testing.B, sessions []*session, groups [][][]*gateway.Point, read func(*session, []*gateway.Point) error) {
	b.ReportAllocs()
	begin := processorTime()
	for b.Loop() {
		for i, s := range sessions {
			for _, g := range groups[i] {
				if err := read(s, g); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.ReportMetric(float64(processorTime()-begin)/float64(b.N*10*1000), "cpu-ns/value")
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// bare makes the requests of a group and nothing else.
func (s *session) bare(b *batch) error {
	w := s.windows[0]
	w.requests = w.requests[:0]
	for _, r := range b.requests {
		w.requests = append(w.requests, requestOf(r))
	}
	return w.client.DoWindow(context.Background(), w.requests, func(int, []byte, error) {})
}

func TestReadDoesNotAllocate(t *testing.T) {
	d := blocks(&gateway.Bus{Name: "tcp", Type: "modbus-tcp", Timeout: time.Second}, 1000)
	s := atListener(t, d, answering)
	groups := s.Plan(d.Points)
	if n := testing.AllocsPerRun(20, func() {
		for _, g := range groups {
			if _, err := s.Read(context.Background(), g); err != nil {
				t.Fatal(err)
			}
		}
	}); n > 5 { // a request in ten may
		t.Errorf("%v allocations for %d requests", n, len(groups))
	}
}
