package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

// machine is a bus with one device whose memory holds values, and which does
// wrong what a test wants.
type machine struct {
	takes time.Duration // for a request

	mu     sync.Mutex
	memory map[string]Value
	wrote  []string  // "point=value"
	polls  int       // reads of many points
	frames int       // read requests of the cloud
	rests  time.Time // not to be asked before
	// Faults; nil is none.
	onWrite func(p *Point, v Value) error // in place of the write; errDone goes on with it
	onRead  func(p *Point) (reason string)
	onCall  func() error
	lost    error // of every request, and of Open
}

// errDone lets a write go on after a fault's hook has seen it.
var errDone = errors.New("go on")

func (m *machine) Open(context.Context) (Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m, m.lost
}

func (m *machine) Close() error                    { return nil }
func (m *machine) Plan(points []*Point) [][]*Point { return [][]*Point{points} }
func (m *machine) set(point string, v Value)       { m.mu.Lock(); m.memory[point] = v; m.mu.Unlock() }
func (m *machine) get(point string) Value          { m.mu.Lock(); defer m.mu.Unlock(); return m.memory[point] }
func (m *machine) fail(change func())              { m.mu.Lock(); change(); m.mu.Unlock() }

// Rest makes it a Pacer.
func (m *machine) Rest(*Device) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(0, time.Until(m.rests))
}

// work takes the time of a request.
func (m *machine) work() {
	m.mu.Lock()
	takes := m.takes
	m.mu.Unlock()
	time.Sleep(takes)
}

func (m *machine) Read(_ context.Context, group []*Point) ([]Sample, error) {
	m.work()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost != nil {
		return nil, m.lost
	}
	if len(group) > 4 {
		m.polls++
	}
	var samples []Sample
	for _, p := range group {
		s := Sample{Point: p, Time: time.Now(), Quality: Good, Value: m.memory[p.ID]}
		if m.onRead != nil {
			s.Reason = m.onRead(p)
		}
		switch s.Reason {
		case "":
		case reasonUnlabelled, reasonImplausible:
			s.Quality = Uncertain
		default:
			s.Quality, s.Value, s.Silent = Bad, Value{}, strings.HasPrefix(s.Reason, "no answer")
		}
		samples = append(samples, s)
	}
	return samples, nil
}

func (m *machine) Write(_ context.Context, p *Point, v Value) error {
	m.work()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost != nil {
		return m.lost
	}
	m.wrote = append(m.wrote, fmt.Sprintf("%s=%s", p.ID, v))
	if m.onWrite != nil {
		if err := m.onWrite(p, v); err != errDone {
			return err
		}
	}
	m.memory[p.ID] = v
	return nil
}

// WriteBlock notes what goes out together as "a=1+b=2".
func (m *machine) WriteBlock(ctx context.Context, points []*Point, values []Value) error {
	m.fail(func() { m.wrote = append(m.wrote, "") })
	var lost error
	for i, p := range points {
		if err := m.Write(ctx, p, values[i]); err != nil && lost == nil {
			lost = err
		}
	}
	m.fail(func() {
		n := len(m.wrote) - len(points)
		m.wrote = append(m.wrote[:n-1], strings.Join(m.wrote[n:], "+"))
	})
	return lost
}

func (m *machine) ReadBlock(context.Context, *Device, *RawBlock, bool) ([]byte, error) {
	return nil, nil
}

func (m *machine) ReadFrame(context.Context, *Device, []byte) ([]byte, error) {
	m.work()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frames++
	return []byte("answer"), nil
}

// Call notes a call as "Home()".
func (m *machine) Call(_ context.Context, _ *Device, _, method string, _ []Value) ([]Value, error) {
	m.work()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wrote = append(m.wrote, method+"()")
	if m.onCall != nil {
		return nil, m.onCall()
	}
	return nil, nil
}

// writes are the writes that came, in order.
func (m *machine) writes() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.wrote, " ")
}

// wire is the cloud's side of a test: what is sent down, and what came up.
type wire struct {
	down chan Downlink

	mu      sync.Mutex
	offline bool
	replies []string
	reports []string
	events  []string
}

func (w *wire) Receive(ctx context.Context) (Downlink, error) {
	select {
	case d := <-w.down:
		return d, nil
	case <-ctx.Done():
		return Downlink{}, ctx.Err()
	}
}

// ParseParams reads "name=value".
func (w *wire) ParseParams(body []byte) ([]Asked, error) {
	name, value, ok := strings.Cut(string(body), "=")
	if !ok {
		return nil, errors.New("no object")
	}
	return asked(name, value), nil
}

// EncodeReply writes "7 start ok a=1", or "7 start: reason".
func (w *wire) EncodeReply(r *Reply) []byte {
	text := r.ID + " " + r.Method + " ok"
	if r.Err != nil {
		text = r.ID + " " + r.Method + ": " + r.Err.Error()
	}
	for _, a := range r.Values {
		text += fmt.Sprintf(" %s=%s", a.Name, a.Value)
	}
	for _, p := range r.Params {
		if p.Raw == `"***"` {
			text += " " + p.Name + "=***"
		}
	}
	return []byte(text)
}

func (w *wire) SendReply(_ context.Context, payload []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.offline {
		return errors.New("offline")
	}
	w.replies = append(w.replies, string(payload))
	return nil
}

func (w *wire) Await(context.Context, RecordKind, bool) error { return nil }

func (w *wire) Publish(_ context.Context, records []Record) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range records {
		for _, a := range r.Values {
			if r.Kind == ReportRecord {
				w.reports = append(w.reports, fmt.Sprintf("%s=%s", a.Name, a.Value))
			}
		}
		if r.Kind == EventRecord {
			text := r.Name
			for _, a := range r.Values {
				text += fmt.Sprintf(" %s=%s", a.Name, a.Value)
			}
			w.events = append(w.events, text)
		}
	}
	return len(records), nil
}

func (w *wire) take(list *[]string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := strings.Join(*list, " | ")
	*list = nil
	return text
}

// hall is a running gateway between a machine and a wire.
type hall struct {
	*Gateway
	t       *testing.T
	machine *machine
	wire    *wire
	site    *Site
	path    string
	first   string // what was reported in the first second
	store   *buffer.Buffer
	log     logBuffer // to be read after stop
	stop    func()
}

// text makes an expression.
func text(s string) *Expression { return &Expression{Text: s} }

// pump is the pump drive of site-file.md, with what the tests need beside.
func pump() *Device {
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	state := Enum{{0, "stopped"}, {3, "running"}}
	defs := []*Definition{
		{ID: "fault_code", Type: Uint8, Access: "r"},
		{ID: "drive_state", Type: Uint8, Enum: state, Access: "r"},
		{ID: "remote", Type: Bool, Access: "r"},
		{ID: "setpoint", Type: Uint16, Scale: decimal("0.01"), Unit: "Hz", Access: "rw", Min: decimal("20"), Max: decimal("50"), Guard: text("remote"), Restore: true},
		{ID: "run_word", Type: Uint16, Access: "w", Enum: Enum{{1, "stop"}, {18, "run_forward"}}, Verify: &Verify{Readback: true, From: "word_seen"}},
		{ID: "word_seen", Type: Uint16, Access: "r", Enum: Enum{{1, "stop"}, {18, "run_forward"}}},
		{ID: "req", Type: Bool, Access: "rw"},
		{ID: "blind", Type: Bool, Access: "w"},
		{ID: "lamp", Type: Bool, Access: "rw", Write: &WriteRule{AtMost: &Rate{2, time.Minute}}},
		{ID: "code", Type: Uint16, Access: "rw", Min: decimal("0"), Max: decimal("9999"), Secret: true, Guard: text("value < 9000")},
		{ID: "again", Type: Uint16, Access: "rw", Min: decimal("0"), Max: decimal("9"), Write: &WriteRule{Again: true}},
		{ID: "ramp", Type: Uint16, Access: "rw", Min: decimal("0"), Max: decimal("9"), Verify: &Verify{Readback: true, Within: seconds(2)}},
		{ID: "valve", Type: Bool, Access: "w", Push: true, Guard: text("remote or value == false")},
		{ID: "fixed", Type: Bool, Access: "rw"},
		{ID: "batch", Type: Uint16, Access: "rw", Min: decimal("0"), Max: decimal("9999"), Block: "recipe", Write: &WriteRule{AtMost: &Rate{3, time.Minute}}},
		{ID: "weight", Type: Uint16, Access: "rw", Min: decimal("0"), Max: decimal("500"), Block: "recipe", Guard: text("value < 400 or remote")},
		{ID: "enter", Type: Bool, Access: "w", Block: "recipe"},
	}
	d := &Device{Name: "pump", User: "u", Bus: &Bus{Name: "b", Type: "test"}}
	for _, def := range defs {
		def.Poll = seconds(10)
		d.Points = append(d.Points, &Point{Definition: def, Device: d, Name: def.ID, Locked: def.ID == "fixed"})
	}
	hz := &Param{ID: "hz", Type: "float", Min: decimal("20"), Max: decimal("50"), Default: "35"}
	d.Commands = []*Command{
		{ID: "start", Params: []*Param{hz}, Guard: text("remote and fault_code == 0"), Timeout: seconds(30), Steps: []*Step{
			{Write: &Assignments{Values: []Assignment{{"setpoint", "$hz"}}}},
			{Write: &Assignments{Values: []Assignment{{"run_word", "run_forward"}}}},
			{Expect: text(`drive_state == "running"`), Within: seconds(5)},
		}, OnFail: []*Step{{Write: &Assignments{Values: []Assignment{{"run_word", "stop"}}}}}, Reply: []string{"drive_state"}},
		{ID: "stop", Preempt: true, Steps: []*Step{{Write: &Assignments{Values: []Assignment{{"run_word", "stop"}}}}}},
		{ID: "slow", Steps: []*Step{{Wait: seconds(3)}, {Write: &Assignments{Values: []Assignment{{"lamp", "true"}}}}}},
		{ID: "pulse", Steps: []*Step{{Pulse: &Pulse{Point: "req", Value: "true", BackTo: "false", For: 300 * time.Millisecond}}}},
		{ID: "hold", Timeout: seconds(8), Steps: []*Step{{Pulse: &Pulse{Point: "req", Value: "true", BackTo: "false", Until: text("fault_code == 7"), Within: seconds(20)}}}},
		{ID: "blink", Steps: []*Step{{Pulse: &Pulse{Point: "blind", Value: "true", BackTo: "false", For: 300 * time.Millisecond}}}},
		{ID: "rare", AtMost: &Rate{1, time.Hour}, Steps: []*Step{{Wait: time.Millisecond}}},
		{ID: "key", Params: []*Param{{ID: "code"}}, Steps: []*Step{{Write: &Assignments{Params: true}}}},
		{ID: "load", Params: []*Param{{ID: "batch"}, {ID: "weight"}}, Steps: []*Step{{Write: &Assignments{Params: true, Values: []Assignment{{"lamp", "true"}, {"enter", "true"}}}}}},
		{ID: "login", Params: []*Param{{ID: "pin", Type: "int", Min: decimal("0"), Max: decimal("9999")}}, Guard: text("pin < 8000"), Steps: []*Step{{Write: &Assignments{Values: []Assignment{{"code", "$pin"}}}}}},
		{ID: "home", Guard: text("remote"), Steps: []*Step{{Wait: time.Second}, {Call: &Call{Object: "Axis", Method: "Home", Args: []string{"1"}}}, {Expect: text("fault_code == 7"), Within: time.Second}},
			OnFail: []*Step{{Write: &Assignments{Values: []Assignment{{"run_word", "stop"}}}}}},
		{ID: "closed", Steps: []*Step{{Wait: time.Millisecond}}},
	}
	d.LockedCommands = []string{"closed"}
	return d
}

// newHall starts the hall; the test must run in a synctest bubble.
func newHall(t *testing.T, change func(*Site)) *hall {
	t.Helper()
	p := &hall{t: t, path: filepath.Join(t.TempDir(), "buffer.db"), wire: &wire{down: make(chan Downlink, 1000)}}
	p.machine = &machine{takes: 5 * time.Millisecond, memory: map[string]Value{
		"fault_code": IntValue(0), "drive_state": TextValue("stopped"), "remote": BoolValue(true), "setpoint": FloatValue(30),
		"word_seen": TextValue("stop"), "req": BoolValue(false), "lamp": BoolValue(false), "code": IntValue(1), "again": IntValue(1), "ramp": IntValue(1), "fixed": BoolValue(false),
		"batch": IntValue(1), "weight": IntValue(100),
	}}
	p.machine.onWrite = p.machine.follow
	d := pump()
	p.site = &Site{Buses: []*Bus{d.Bus}, Devices: []*Device{d}}
	p.site.Writes = "enabled"
	p.site.Cloud.OwnEvents = OwnEvents{"write_refused": true, "pulse_stuck": true}
	d.Bus.Offline = Offline{After: 3, Probe: 10 * time.Second, ProbeMax: time.Minute}
	if change != nil {
		change(p.site)
	}
	p.begin()
	return p
}

// follow lets the machine do what a drive does.
func (m *machine) follow(p *Point, v Value) error {
	if p.ID == "run_word" {
		m.memory["word_seen"] = v
		m.memory["drive_state"] = TextValue(map[string]string{"stop": "stopped", "run_forward": "running"}[v.Text()])
	}
	return errDone
}

// begin starts, or starts again, what a process is.
func (p *hall) begin() {
	p.t.Helper()
	store, err := buffer.Open(p.path, buffer.Options{MaxSize: 8 << 20})
	if err != nil {
		p.t.Fatal(err)
	}
	p.store = store
	config := Config{Site: p.site, Log: p.log.logger(), Buffer: store, Uplinks: map[string]Uplink{"u": p.wire},
		Adapters: map[string]NewAdapter{"test": func(Env, *Bus, []*Device) (Adapter, error) { return p.machine, nil }}}
	if p.Gateway, err = New(config); err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	p.stop = func() {
		cancel()
		<-ended
		if err := store.Close(); err != nil {
			p.t.Error(err)
		}
	}
	time.Sleep(time.Second) // the first poll
	p.first = p.wire.take(&p.wire.reports)
}

// asked are values as the cloud sends them: "hz", 35, "switch", "ON" …
func asked(pairs ...any) (all []Asked) {
	for i := 0; i+1 < len(pairs); i += 2 {
		a := Asked{Name: pairs[i].(string), Raw: fmt.Sprintf("%#v", pairs[i+1])}
		switch v := pairs[i+1].(type) {
		case int:
			a.Value = IntValue(int64(v))
		case float64:
			a.Value = FloatValue(v)
		case bool:
			a.Value = BoolValue(v)
		case string:
			a.Value = TextValue(v)
		}
		all = append(all, a)
	}
	return all
}

func (p *hall) push(pairs ...any) {
	p.wire.down <- Downlink{Kind: PushDownlink, Arrived: time.Now(), Values: asked(pairs...)}
}

func (p *hall) command(id, method string, pairs ...any) {
	p.wire.down <- Downlink{Kind: CommandDownlink, Arrived: time.Now(), ID: id, Method: method, Values: asked(pairs...)}
}

// replies waits and takes the replies.
func (p *hall) replies(after time.Duration) string {
	time.Sleep(after)
	synctest.Wait()
	return p.wire.take(&p.wire.replies)
}

// events takes the events that were reported.
func (p *hall) events() string {
	text := p.wire.take(&p.wire.events)
	waiting, err := p.store.Peek(LaneName("u", EventRecord), 100)
	if err != nil {
		p.t.Fatal(err)
	}
	for i := range waiting {
		r, err := ParseRecord(waiting[i].Data)
		if err != nil {
			p.t.Fatal(err)
		}
		_, _ = p.wire.Publish(context.Background(), []Record{r})
		p.store.Ack(LaneName("u", EventRecord), waiting[i].Seq)
	}
	return text + p.wire.take(&p.wire.events)
}

// lines is the audit in words, without the times.
func (p *hall) lines() (all []string) {
	p.t.Helper()
	err := p.Audit(time.Time{}, func(a Audit) bool {
		text := strings.TrimSpace(strings.Join([]string{a.Who, a.Command, a.Point, a.Asked, a.Old + "→" + a.New, a.Result, a.Reason}, " "))
		all = append(all, strings.Join(strings.Fields(text), " "))
		return true
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return all
}

func want(t *testing.T, what, got, wanted string) {
	t.Helper()
	if got != wanted {
		t.Errorf("%s:\n got  %s\n want %s", what, got, wanted)
	}
}

func copyFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	path += ".copy"
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
