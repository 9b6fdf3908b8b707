package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/gateway"
)

// heldLine passes TCP on, and stands still while it is held.
type heldLine struct {
	listener net.Listener
	gate     sync.RWMutex // locked while it is held
}

func holdable(t *testing.T, to string) *heldLine {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	line := &heldLine{listener: l}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go line.pass(near, to)
		}
	}()
	t.Cleanup(func() { l.Close() })
	return line
}

func (h *heldLine) pass(near net.Conn, to string) {
	defer near.Close()
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	move := func(dst, src net.Conn) {
		defer dst.Close()
		for b := make([]byte, 4096); ; {
			n, err := src.Read(b)
			h.gate.RLock()
			_, failed := dst.Write(b[:n])
			h.gate.RUnlock()
			if err != nil || failed != nil {
				return
			}
		}
	}
	go move(far, near)
	move(near, far)
}

// TestWhatAStalledLineDeliversIsNotWritten holds the line to the broker, sends a
// command and a push meanwhile, and lets go. It holds for a little longer than a
// packet may be unanswered; SLUICE_STALL=60s go test -run StalledLine ./cmd/sluice
// holds for as long as that says, in which the connection ends by itself: then
// what was sent may also be lost.
func TestWhatAStalledLineDeliversIsNotWritten(t *testing.T) {
	t.Parallel()
	hold := 4 * time.Second
	if text := os.Getenv("SLUICE_STALL"); text != "" {
		var err error
		if hold, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	p := newDriven(t)
	broker := strings.TrimPrefix(p.twin.URL(), "mqtt://")
	line := holdable(t, broker)
	p.configure(t, broker, line.listener.Addr().String())
	runPlant(t, p.plant)
	p.waitForReply(t, "1", `"set"`, 1)

	line.gate.Lock()
	held := time.Now()
	p.set(t, "a", "remote", gateway.UintValue(2)) // a report of it goes out, and gets no answer
	time.Sleep(time.Second)                       // its poll
	p.set(t, "a", "remote", gateway.UintValue(1))
	p.send(t, "command_send", `{"method":"set","params":{"word":1111},"id":2}`)
	p.send(t, "attributes_push", `{"setpoint":33}`)
	time.Sleep(hold - time.Since(held))
	line.gate.Unlock()

	time.Sleep(1500 * time.Millisecond) // what comes right behind counts as held back, too
	p.waitForReply(t, "3", `"set"`, 3)
	time.Sleep(200 * time.Millisecond)
	if p.counter.count("11=1111") != 0 || p.counter.count("10=3300") != 0 {
		t.Errorf("written: %v", p.counter.writes)
	}
	replies, refused := p.replies("2"), false
	for _, m := range p.twin.Received("own") {
		refused = refused || strings.Contains(string(m.Payload), "write_refused") && strings.Contains(string(m.Payload), "line was stalled")
	}
	lost := hold > 15*time.Second && len(replies) == 0
	if !lost && (!refused || replies[`{"method":"set","params":{"word":1111,"result":false,"error":"line was stalled"},"id":2}`] != 1) {
		t.Errorf("the push was refused: %v, the replies: %v", refused, replies)
	}
	t.Logf("held for %v: the command was lost: %v; replies %v", hold, lost, replies)
}

// TestFloodOfCommandsInRealTime is scoreboard C3 with a process of its own: 1,000
// commands a second against a bus that polls all the time. It counts what the
// field sees. It takes a machine that does nothing else:
//
//	SLUICE_FLOOD=10s go test -run FloodOfCommandsInRealTime -v ./cmd/sluice
func TestFloodOfCommandsInRealTime(t *testing.T) {
	flood, err := time.ParseDuration(os.Getenv("SLUICE_FLOOD"))
	if err != nil {
		t.Skip("SLUICE_FLOOD says for how long, as 10s")
	}
	p := newDriven(t)
	p.configure(t, "poll: 500ms", "poll: 10ms")
	run := sluice(t, "run", "--site", p.path)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = run.Process.Kill(); _ = run.Wait() }()
	p.waitForReply(t, "1", `"set"`, 1)
	time.Sleep(2 * time.Second)
	polls := func(during func()) float64 {
		begin, before := time.Now(), p.counter.polled()
		during()
		return float64(p.counter.polled()-before) / time.Since(begin).Seconds()
	}
	quiet := polls(func() { time.Sleep(flood) })
	memory := anonymous(t, run.Process.Pid)
	sent := 0
	loud := polls(func() {
		for end, tick := time.Now().Add(flood), time.NewTicker(time.Millisecond); time.Now().Before(end); sent++ {
			p.send(t, "command_send", fmt.Sprintf(`{"method":"set","params":{"word":%d},"id":%d}`, sent%60_000, 10_000+sent))
			<-tick.C
		}
	})
	grown := anonymous(t, run.Process.Pid)
	time.Sleep(2 * time.Second)
	words := map[string]int{}
	for _, m := range p.twin.Received("own") {
		var reply struct{ Params map[string]any }
		if strings.HasPrefix(m.Topic, "command_reply/") && json.Unmarshal(m.Payload, &reply) == nil {
			text := fmt.Sprint(reply.Params["error"])
			words[strings.SplitN(text, ":", 2)[0]]++
		}
	}
	t.Logf("%d commands in %v: %.1f polls a second, with the flood %.1f (%.1f %%); replies: %v; anonymous memory %d kB, then %d kB", sent, flood, quiet, loud, 100*loud/quiet, words, memory, grown)
	if loud < 0.9*quiet || words["busy"] == 0 || words["<nil>"] < 2 || grown > 64<<10 {
		t.Error("the flood is felt")
	}
}

// anonymous is what a process takes of memory, in kB.
func anonymous(t *testing.T, pid int) (kb int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "RssAnon: %d kB", &kb)
	}
	return kb
}
