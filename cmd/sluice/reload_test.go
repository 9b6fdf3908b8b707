package main

import (
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/gateway"
)

// relay passes connections on to an address, and counts them.
func relay(t *testing.T, to string) (port string, count *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	count = new(atomic.Int64)
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			there, err := net.Dial("tcp", to)
			if err != nil {
				here.Close()
				continue
			}
			go func() { io.Copy(there, here); there.Close() }()
			go func() { io.Copy(here, there); here.Close() }()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port, count
}

// TestReload sends SIGHUP to the daemon: a bad site file changes nothing and is
// told with its line, a good one touches only what differs.
func TestReload(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	content, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	// Connections to the field and to the broker are counted on their way.
	_, after, _ := strings.Cut(text, "type: modbus-tcp, host: 127.0.0.1, port: ")
	was, _, _ := strings.Cut(after, " ")
	field, toField := relay(t, "127.0.0.1:"+was)
	broker, toBroker := relay(t, p.twin.Addr())
	text = strings.Replace(text, "port: "+was, "port: "+field, 1)
	text = strings.Replace(text, p.twin.URL(), "mqtt://127.0.0.1:"+broker, 1)
	write(t, p.path, text)

	var log syncBuffer
	run := sluice(t, "run", "--site", p.path)
	run.Stderr = &log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	said := func(want string) {
		t.Helper()
		for range 1000 {
			if strings.Contains(log.String(), want) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("the log never says %q:\n%s", want, log.String())
	}
	reload := func(old, new string) {
		t.Helper()
		write(t, p.path, strings.Replace(text, old, new, 1))
		if err := run.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	p.set(t, "a", "speed", gateway.UintValue(1))
	p.waitFor(t, "own", "speed", "1")
	p.set(t, "b", "speed", gateway.UintValue(7))
	p.waitFor(t, "gate", "b_speed", "7")

	reload("poll: 100ms", "pol: 100ms")
	said("at=" + p.path + ":21:5")
	said(`the gateway runs on as before`)
	p.set(t, "a", "speed", gateway.UintValue(2))
	p.waitFor(t, "own", "speed", "2")

	reload("type: modbus-rtu-over-tcp,", "type: modbus-rtu-over-tcp, timeout: 700ms,")
	said(`msg="site file taken" buses_started=rtu buses_stopped=rtu buses_kept=1 users_changed=""`)
	p.set(t, "b", "speed", gateway.UintValue(8))
	p.waitFor(t, "gate", "b_speed", "8")
	p.set(t, "a", "speed", gateway.UintValue(3))
	p.waitFor(t, "own", "speed", "3")
	if n := toField.Load(); n != 1 {
		t.Errorf("%d connections to the bus that was left alone", n)
	}
	if n := toBroker.Load(); n != 2 {
		t.Errorf("%d connections of the two users", n)
	}

	reload("confirm: puback", "confirm: puback\n  client_id: '{site}-{user}'")
	said(`users_changed="gate own"`)
	p.set(t, "a", "speed", gateway.UintValue(4))
	p.waitFor(t, "own", "speed", "4")
	if n := toBroker.Load(); n != 4 {
		t.Errorf("%d connections of the two users after both had changed", n)
	}
	if strings.Contains(log.String(), "bus lost") || strings.Contains(log.String(), "no connection") {
		t.Errorf("a reload looks like a fault:\n%s", log.String())
	}
	run.Process.Signal(syscall.SIGTERM)
	if err := run.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log.String())
	}
}
