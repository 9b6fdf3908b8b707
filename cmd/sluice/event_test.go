package main

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
	"sluice/gateway/cloud/twin"
)

// withRules gives the devices of a plant events, a computed point and streams.
func (p *plant) withRules(t *testing.T) {
	t.Helper()
	content, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.path, strings.Replace(string(content), "devices:\n", `    computed:
      kilowatts: { value: power / 1000 }
    events:
      hot:  { when: power > 2000, clear: power < 1500, for: 2 samples, severity: alarm, params: [power], clear_event: cooled }
      step: { each: changed(speed), params: [speed] }
    streams:
      steps:  { format: json, each: step, body: { speed: speed } }
      lots:   { format: json, each: step, body: { speed: speed }, batch: { within: 1h, rows: 3 } }
      raw:    { format: modbus-rtu, every: 1s, raw: { at: 10, count: 1 } }
      plain:  { format: binary, every: 1s, raw: { at: 10, count: 1 } }
      modbus: { format: modbus-rtu, downlink: modbus-read }
devices:
`, 1))
}

// report is an event as the cloud got it.
type report struct {
	Method string
	Params map[string]any
}

func (p *plant) events(t *testing.T, user string) []report {
	t.Helper()
	var events []report
	for _, m := range p.messages("event_report/" + user) {
		var r report
		if err := json.Unmarshal(m.Payload, &r); err != nil {
			t.Fatalf("%s: %v", m.Payload, err)
		}
		events = append(events, r)
	}
	return events
}

// messages are those of a topic, in the order of their arrival.
func (p *plant) messages(topic string) []twin.Message {
	var messages []twin.Message
	user := strings.Split(topic, "/")[1]
	for _, m := range p.twin.Received(user) {
		if m.Topic == topic {
			messages = append(messages, m)
		}
	}
	return messages
}

// waitEvents gives the cloud time to get events of these names.
func (p *plant) waitEvents(t *testing.T, user, names string) []report {
	t.Helper()
	var got []string
	for range 1500 {
		events := p.events(t, user)
		got = got[:0]
		for _, e := range events {
			got = append(got, e.Method)
		}
		if strings.Join(got, " ") == names {
			return events
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("after 15 s the cloud has the events %v, want %s", got, names)
	return nil
}

// TestEventsOutliveAnOutageAndARestart: an alarm that is raised and cleared while the broker
// is away arrives once, in order, with its id and its time; one that stands
// when the daemon is killed is not raised again, and rows that wait for others go
// on waiting.
func TestEventsOutliveAnOutageAndARestart(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.withRules(t)
	p.set(t, "a", "power", gateway.Float32Value(1000))
	p.set(t, "a", "speed", gateway.UintValue(1))
	start := func() func() {
		run := sluice(t, "run", "--site", p.path)
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		return func() {
			_ = run.Process.Signal(syscall.SIGKILL)
			_ = run.Wait()
		}
	}
	kill := start()
	p.waitFor(t, "own", "kilowatts", "1")
	p.set(t, "a", "power", gateway.Float32Value(2500))
	first := p.waitEvents(t, "own", "hot")[0]
	if first.Params["power"] != 2500.0 || first.Params["event_id"] == "" || first.Params["ts"] != nil {
		t.Errorf("the first event has %v", first.Params)
	}
	time.Sleep(2 * time.Second) // what stands is on disk after a second
	kill()
	kill = start()
	p.set(t, "a", "speed", gateway.UintValue(2))
	p.waitEvents(t, "own", "hot step")

	p.twin.Stop()
	gone := time.Now()
	p.set(t, "a", "power", gateway.Float32Value(1200))
	time.Sleep(time.Second)
	p.set(t, "a", "power", gateway.Float32Value(2600))
	time.Sleep(2 * time.Second)
	kill()
	kill = start()
	defer func() { kill() }()
	time.Sleep(4 * time.Second)
	if err := p.twin.Restart(); err != nil {
		t.Fatal(err)
	}
	late := p.waitEvents(t, "own", "hot step cooled hot")
	ids := map[any]bool{}
	for i, e := range late {
		ids[e.Params["event_id"]] = true
		if i < 2 {
			continue
		}
		if ts, _ := e.Params["ts"].(float64); time.UnixMilli(int64(ts)).Sub(gone).Abs() > 3*time.Second {
			t.Errorf("%s happened at %v, the broker went at %v", e.Method, time.UnixMilli(int64(ts)), gone)
		}
	}
	if len(ids) != 4 {
		t.Errorf("of 4 events the ids are %v", ids)
	}
	for i, steps := range []string{"step", "step step"} {
		p.set(t, "a", "speed", gateway.UintValue(uint64(3+i)))
		p.waitEvents(t, "own", "hot step cooled hot "+steps)
	}
	for range 1000 {
		if len(p.messages("data/own/lots")) > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	var lots struct{ Rows []struct{ TS, Speed int64 } }
	messages := p.messages("data/own/lots")
	if len(messages) != 1 || json.Unmarshal(messages[0].Payload, &lots) != nil || len(lots.Rows) != 3 {
		t.Fatalf("got %v, want one message of 3 rows", messages)
	}
	for i, row := range lots.Rows {
		if row.Speed != int64(2+i) || i == 0 && row.TS > gone.UnixMilli() || i > 0 && row.TS < gone.UnixMilli() {
			t.Errorf("row %d is %+v", i, row)
		}
	}
}

// TestStreamsReachTheCloud: a body of JSON for each event, a frame that its decoder
// takes, and the answer to a read request of the cloud.
func TestStreamsReachTheCloud(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.withRules(t)
	p.set(t, "a", "speed", gateway.UintValue(0x1234))
	run := sluice(t, "run", "--site", p.path)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = run.Process.Signal(syscall.SIGTERM)
		_ = run.Wait()
	}()
	p.waitFor(t, "own", "speed", "4660")
	p.set(t, "a", "speed", gateway.UintValue(0x1235))
	p.waitMessage(t, "data/own/steps", `{"speed":4661}`)
	p.waitMessage(t, "data/own/raw", string(wire.AppendRTU(nil, 1, []byte{3, 2, 0x12, 0x35})))
	p.waitMessage(t, "data/own/plain", "\x12\x35")
	ask := wire.AppendRTU(nil, 1, []byte{3, 0, 10, 0, 1})
	write := wire.AppendRTU(nil, 1, []byte{6, 0, 10, 0, 1})
	for _, frame := range [][]byte{write, ask} {
		if err := p.twin.Send("data_set/own/modbus", frame); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond) // a stream has one request at a time
	}
	p.waitMessage(t, "data/own/modbus", string(wire.AppendRTU(nil, 1, []byte{3, 2, 0x12, 0x35})))
	p.waitFor(t, "own", "speed", "4661")
	if n := len(p.messages("data/own/modbus")); n != 1 {
		t.Errorf("%d answers: a request to write has none", n)
	}
}

func (p *plant) waitMessage(t *testing.T, topic, want string) {
	t.Helper()
	for range 1000 {
		for _, m := range p.messages(topic) {
			if string(m.Payload) == want {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("after 10 s there is no %q on %s: %v", want, topic, p.messages(topic))
}
