package opcua_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	client "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
)

// peer is a node-opcua server: another maker's, in another process and
// language. testdata/node-opcua/server.js says what it can do.
type peer struct {
	t        *testing.T
	endpoint string
	commands io.Writer
	answers  chan map[string]any // closed when it has ended
	errors   *bytes.Buffer       // what it printed, once answers is closed
}

// startPeer starts a server until the end of the test, which is skipped where
// node or its packages are missing; in CI that is an error.
func startPeer(t *testing.T, options ...string) *peer {
	t.Helper()
	home, _ := os.UserHomeDir()
	modules := cmp.Or(os.Getenv("SLUICE_NODE_MODULES"), filepath.Join(home, ".cache", "sluice", "node_modules"))
	node, err := exec.LookPath("node")
	if err == nil {
		_, err = os.Stat(filepath.Join(modules, "node-opcua-server"))
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("node-opcua is missing: %v", err)
		}
		t.Skipf("node-opcua is missing: %v", err)
	}
	cmd := exec.Command(node, append([]string{filepath.Join("testdata", "node-opcua", "server.js"), "--pki", t.TempDir()}, options...)...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	p := &peer{t: t, answers: make(chan map[string]any, 1), errors: new(bytes.Buffer)}
	cmd.Stderr = p.errors
	commands, err := cmd.StdinPipe()
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
	p.commands = commands
	go p.listen(out, cmd)
	t.Cleanup(func() { p.end(commands, cmd.Process) })
	p.endpoint, _ = p.answer("start")["endpoint"].(string)
	return p
}

// listen hands on what the server says, until it has ended.
func (p *peer) listen(out io.Reader, cmd *exec.Cmd) {
	defer close(p.answers)
	for lines := json.NewDecoder(out); ; {
		var line map[string]any
		if lines.Decode(&line) != nil {
			break
		}
		p.answers <- line
	}
	_ = cmd.Wait()
}

// end lets the server end by itself, or ends it.
func (p *peer) end(commands io.Closer, process *os.Process) {
	commands.Close()
	late := time.AfterFunc(5*time.Second, func() { process.Kill() })
	defer late.Stop()
	for range p.answers {
	}
}

// do gives the server a command and returns what it said.
func (p *peer) do(command string) map[string]any {
	p.t.Helper()
	if _, err := io.WriteString(p.commands, command+"\n"); err != nil {
		p.t.Fatalf("%s: %v", command, err)
	}
	return p.answer(command)
}

func (p *peer) answer(command string) map[string]any {
	p.t.Helper()
	select {
	case line, ok := <-p.answers:
		if !ok {
			p.t.Fatalf("%s: the server has ended: %s", command, p.errors)
		}
		if line["error"] != nil {
			p.t.Fatalf("%s: %v", command, line["error"])
		}
		return line
	case <-time.After(2 * time.Minute): // a busy machine
		p.t.Fatalf("%s: no answer", command)
	}
	return nil
}

// count is what all counters of the server hold.
func (p *peer) count() int {
	p.t.Helper()
	n, _ := p.do("count")["n"].(float64)
	return int(n)
}

// dialPeer is a session of the library alone, with nothing of ours.
func dialPeer(t *testing.T, endpoint string) *client.Client {
	t.Helper()
	c, err := client.NewClient(endpoint, client.SecurityMode(ua.MessageSecurityModeNone), client.AutoReconnect(false))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(t.Context()) })
	return c
}

// TestPeerServesEveryScalar: what the other tests take from node-opcua is what
// the library reads there by itself.
func TestPeerServesEveryScalar(t *testing.T) {
	t.Parallel()
	p := startPeer(t, "--conformance")
	c := dialPeer(t, p.endpoint)
	namespace, err := c.FindNamespace(t.Context(), "urn://node-opcua-simulator")
	if err != nil {
		t.Fatal(err)
	}
	scalars := map[string]any{
		"Boolean": false, "SByte": int8(0), "Byte": uint8(0), "Int16": int16(0), "UInt16": uint16(0), "Int32": int32(0), "UInt32": uint32(0),
		"Int64": int64(0), "UInt64": uint64(0), "Float": float32(0), "Double": float64(0), "String": "OPCUA", "DateTime": time.Time{},
		"Guid": new(ua.GUID), "ByteString": []byte("OPCUA"), "XmlElement": ua.XMLElement(""), "NodeId": new(ua.NodeID),
		"QualifiedName": new(ua.QualifiedName), "LocalizedText": new(ua.LocalizedText),
		"Duration": float64(0), "Number": uint16(0), "Integer": int64(0), "UInteger": uint64(0), "UtcTime": time.Time{}, "LocaleId": "",
		"ImageBMP": []byte{}, "ImageGIF": []byte{}, "ImageJPG": []byte{}, "ImagePNG": []byte{},
	}
	var names []string
	read := &ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth}
	for name := range scalars {
		names = append(names, name)
		read.NodesToRead = append(read.NodesToRead, &ua.ReadValueID{NodeID: ua.NewStringNodeID(namespace, "Static_Scalar_"+name), AttributeID: ua.AttributeIDValue})
	}
	r, err := c.Read(t.Context(), read)
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range r.Results {
		want := scalars[names[i]]
		if got.Status != ua.StatusOK || reflect.TypeOf(got.Value.Value()) != reflect.TypeOf(want) {
			t.Errorf("%s: %v (%T), want %T", names[i], got.Status, got.Value.Value(), want)
		}
	}
}

// TestPeerDoesWhatItIsTold: counters count, and each command has its effect.
func TestPeerDoesWhatItIsTold(t *testing.T) {
	t.Parallel()
	p := startPeer(t, "--counters", "2", "--every", "50", "--limits", "10")
	c := dialPeer(t, p.endpoint)
	status := func(nodes int) error {
		read := &ua.ReadRequest{}
		for range nodes {
			read.NodesToRead = append(read.NodesToRead, &ua.ReadValueID{NodeID: ua.NewStringNodeID(1, "counter1"), AttributeID: ua.AttributeIDValue})
		}
		r, err := c.Read(t.Context(), read)
		if err != nil {
			return err
		}
		return cmp.Or(r.Results[0].Status, ua.StatusOK)
	}
	if err := status(10); err != ua.StatusOK {
		t.Errorf("10 nodes: %v", err)
	}
	if err := status(11); err != ua.StatusBadTooManyOperations {
		t.Errorf("11 nodes, the limit is 10: %v", err)
	}
	if before := p.count(); !eventually(func() bool { return p.count() > before+2 }) {
		t.Error("the counters stand still")
	}
	t.Run("a deadband", func(t *testing.T) { leavesOut(t, p.endpoint) })
	p.do("hold")
	if before := p.count(); slices.Max([]int{p.count(), p.count()}) != before {
		t.Error("the counters do not stand still")
	}
	p.do("remove s=counter1")
	if err := status(1); err != ua.StatusBadNodeIDUnknown {
		t.Errorf("a removed node: %v", err)
	}
	p.do("add s=counter1")
	if err := status(1); err != ua.StatusOK {
		t.Errorf("a node that is back: %v", err)
	}
	notes := make(chan *client.PublishNotificationData, 100)
	if _, err := c.Subscribe(t.Context(), &client.SubscriptionParameters{Interval: 100 * time.Millisecond}, notes); err != nil {
		t.Fatal(err)
	}
	if got := p.do("unsubscribe")["subscriptions"]; got != 1.0 {
		t.Errorf("%v subscriptions deleted", got)
	}
	if got := p.do("drop")["sessions"]; got != 1.0 {
		t.Errorf("%v sessions dropped", got)
	}
	if err := status(1); err != ua.StatusBadSessionIDInvalid && err != ua.StatusBadSessionClosed {
		t.Errorf("a dropped session: %v", err)
	}
	before := p.count()
	p.do("restart")
	c = dialPeer(t, p.endpoint)
	if err := status(1); err != ua.StatusOK || p.count() < before {
		t.Errorf("after a restart: %v, count %d after %d", err, p.count(), before)
	}
}

// eventually waits for what comes soon.
func eventually(holds func() bool) bool {
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(20 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return false
}

// leavesOut checks that a counting server leaves out what is within a deadband.
func leavesOut(t *testing.T, endpoint string) {
	w := watchSite(t, strings.Replace(faultSite(1), "type: uint32 }", "type: uint32, scale: 0.1, deadband: 0.5 }", 1), endpoint)
	if !eventually(func() bool { return len(w.of("c0")) >= 4 }) {
		t.Fatalf("%d values", len(w.of("c0")))
	}
	all := w.of("c0")
	for i, x := range all[1:] {
		if step := x.Value.Float() - all[i].Value.Float(); step < 0.5-1e-9 {
			t.Errorf("after %v comes %v", all[i].Value, x.Value)
		}
	}
}
