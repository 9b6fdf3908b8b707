package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"sluice/gateway"
)

// TestBrokenDiskLeavesFieldAndCloudAlone: all syncs of the daemon's buffer fail
// with EIO. Polling, the uplink, writes from the cloud and events go on, and
// /readyz says what is wrong, until the disk works again.
func TestBrokenDiskLeavesFieldAndCloudAlone(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace to make syncs fail with")
	}
	p := newDriven(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	page := l.Addr().String()
	l.Close()
	content, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.path, strings.Replace(string(content), "http: none", fmt.Sprintf("http: %q", page), 1))
	var log syncBuffer
	run := sluice(t, "run", "--site", p.path)
	run.Stderr = &log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = run.Process.Kill() })
	p.waitFor(t, "own", "setpoint", "30")
	ready := func(status int, reason string) {
		t.Helper()
		eventually(t, func() error {
			answer, err := http.Get("http://" + page + "/readyz")
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			body, err := io.ReadAll(answer.Body)
			if err != nil || answer.StatusCode != status || !strings.Contains(string(body), reason) {
				return fmt.Errorf("/readyz: %d %s %v", answer.StatusCode, body, err)
			}
			return nil
		})
	}
	ready(http.StatusOK, `"ok":true`)

	var said bytes.Buffer
	strace := exec.Command(path, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO", "-p", fmt.Sprint(run.Process.Pid))
	strace.Stderr = &said
	if err := strace.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = strace.Wait() // it ends by a signal
	}()
	t.Cleanup(func() { _ = strace.Process.Kill(); <-ended })
	eventually(t, func() error {
		select {
		case <-ended:
			t.Skip("strace can't attach here: ", said.String())
		default:
		}
		p.send(t, "attributes_push", `{"setpoint":62}`) // refused: an event, which belongs on the disk
		if !strings.Contains(log.String(), "buffer can't be written") {
			return fmt.Errorf("the disk is not seen to fail:\n%s", log.String())
		}
		return nil
	})
	ready(http.StatusServiceUnavailable, "the buffer can't be written since")
	p.set(t, "a", "word", gateway.UintValue(5))
	p.waitFor(t, "own", "word", "5")
	p.send(t, "attributes_push", `{"setpoint":36.5}`)
	p.waitFor(t, "own", "setpoint", "36.5")
	if p.counter.count("10=3650") != 1 {
		t.Errorf("written: %v", p.counter.writes)
	}
	p.send(t, "attributes_push", `{"setpoint":63}`)
	eventually(t, func() error {
		for _, m := range p.twin.Received("own") {
			if strings.HasPrefix(m.Topic, "event_report/") && strings.Contains(string(m.Payload), "setpoint 63 is above max") {
				return nil
			}
		}
		return fmt.Errorf("no event of setpoint 63; %s", log.String())
	})

	if err := strace.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ended
	ready(http.StatusOK, `"ok":true`)
	if err := run.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := run.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log.String())
	}
	if !strings.Contains(log.String(), "buffer is written again") {
		t.Errorf("the log never says that it is well again:\n%s", log.String())
	}
}
