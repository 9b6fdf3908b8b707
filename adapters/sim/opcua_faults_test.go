package sim_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	client "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"sluice/adapters/sim"
	"sluice/gateway"
)

func TestSubscriptionsSeeWhatMoves(t *testing.T) {
	t.Parallel()
	devices, b := startHall(t, loadHall(t))
	n := open(t, b)
	notes := make(chan *client.PublishNotificationData, 100)
	sub, err := n.Subscribe(t.Context(), &client.SubscriptionParameters{Interval: 50 * time.Millisecond}, notes)
	if err != nil {
		t.Fatal(err)
	}
	item := client.NewMonitoredItemCreateRequestWithDefaults(n.id(`s="3"."Numbers"."I32"`), ua.AttributeIDValue, 1)
	item.RequestedParameters.SamplingInterval = 20
	if _, err := sub.Monitor(t.Context(), ua.TimestampsToReturnBoth, item); err != nil {
		t.Fatal(err)
	}
	do(t, devices.Set("m1", "i32", gateway.IntValue(4711)))
	for deadline := time.After(10 * time.Second); ; {
		select {
		case note := <-notes:
			data, ok := note.Value.(*ua.DataChangeNotification)
			if ok && data.MonitoredItems[len(data.MonitoredItems)-1].Value.Value.Value() == int32(4711) {
				return
			}
		case <-deadline:
			t.Fatal("no notification of the new value")
		}
	}
}

func TestServerFaults(t *testing.T) {
	t.Parallel()
	devices, b := startHall(t, loadHall(t))
	n := open(t, b)
	mode := n.id(`s="3"."Mode"`)
	do(t, devices.Fail("m1", "mode", uint32(ua.StatusBadDeviceFailure)))
	if got := n.read(mode, ""); got.Status != ua.StatusBadDeviceFailure {
		t.Errorf("failing: %v", got.Status)
	}
	if got := n.write(mode, "", byte(1)); got != ua.StatusBadDeviceFailure {
		t.Errorf("written while failing: %v", got)
	}
	do(t, devices.Fail("m1", "mode", 0))
	if got := n.read(mode, ""); got.Status != ua.StatusOK {
		t.Errorf("failing no more: %v", got.Status)
	}

	before, _ := devices.Requests("plc")
	do(t, devices.Delay("plc", 200*time.Millisecond))
	begin := time.Now()
	n.read(mode, "")
	if took := time.Since(begin); took < 200*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
	if after, _ := devices.Requests("plc"); after != before+1 {
		t.Errorf("%d requests counted for one", after-before)
	}
	do(t, devices.Delay("plc", 0))

	do(t, devices.Silent("plc", 0, true))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := n.Read(ctx, &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{{NodeID: mode, AttributeID: ua.AttributeIDValue}}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent: %v", err)
	}
	do(t, devices.Silent("plc", 0, false))
	if got := n.read(mode, ""); got.Status != ua.StatusOK {
		t.Errorf("silent no more: %v", got.Status)
	}
	if devices.Silent("plc", 1, true) == nil || devices.Shuffle("plc", true) == nil {
		t.Error("an OPC UA server was taken for a Modbus unit")
	}
}

func TestServersGoAndComeBack(t *testing.T) {
	t.Parallel()
	devices, b := startHall(t, loadHall(t))
	do(t, devices.Set("m1", "i32", gateway.IntValue(5)))
	do(t, devices.StopBus("plc"))
	if c, err := client.NewClient(b.Endpoint); err == nil {
		if err := c.Connect(t.Context()); err == nil {
			t.Error("it answers while it is stopped")
		}
	}
	do(t, devices.StartBus("plc"))
	n := open(t, b)
	do(t, devices.RestartBus("plc"))
	if _, err := n.Read(t.Context(), &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{{NodeID: n.id("i=317"), AttributeID: ua.AttributeIDValue}}}); err == nil {
		t.Error("a session outlives a restart")
	}
	n = open(t, b)
	if got := n.read(n.id(`s="3"."Numbers"."I32"`), "").Value.Value(); got != int32(5) {
		t.Errorf("after the restart it holds %v", got)
	}
}

func TestEventsOfTheServer(t *testing.T) {
	t.Parallel()
	devices, b := startHall(t, loadHall(t))
	n := open(t, b)
	notes := make(chan *client.PublishNotificationData, 100)
	sub, err := n.Subscribe(t.Context(), &client.SubscriptionParameters{Interval: 50 * time.Millisecond}, notes)
	if err != nil {
		t.Fatal(err)
	}
	var fields []*ua.SimpleAttributeOperand
	for _, name := range []string{"SourceName", "Message", "Severity"} {
		fields = append(fields, &ua.SimpleAttributeOperand{
			TypeDefinitionID: ua.NewNumericNodeID(0, id.BaseEventType), BrowsePath: []*ua.QualifiedName{{Name: name}}, AttributeID: ua.AttributeIDValue,
		})
	}
	item := client.NewMonitoredItemCreateRequestWithDefaults(ua.NewNumericNodeID(0, id.Server), ua.AttributeIDEventNotifier, 1)
	item.RequestedParameters.Filter = &ua.ExtensionObject{
		EncodingMask: ua.ExtensionObjectBinary, TypeID: &ua.ExpandedNodeID{NodeID: ua.NewNumericNodeID(0, id.EventFilter_Encoding_DefaultBinary)},
		Value: ua.EventFilter{SelectClauses: fields, WhereClause: &ua.ContentFilter{}},
	}
	if _, err := sub.Monitor(t.Context(), ua.TimestampsToReturnBoth, item); err != nil {
		t.Fatal(err)
	}
	do(t, devices.Raise("plc", 700, "mould", "oil is low"))
	select {
	case note := <-notes:
		list, ok := note.Value.(*ua.EventNotificationList)
		if !ok || len(list.Events) != 1 {
			t.Fatalf("got %v", note.Value)
		}
		var got []any
		for _, f := range list.Events[0].EventFields {
			got = append(got, f.Value())
		}
		if s, ok := got[1].(*ua.LocalizedText); got[0] != "mould" || !ok || s.Text != "oil is low" || got[2] != uint16(700) {
			t.Errorf("event %v", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("no event came")
	}
}

// TestServerSecurity: a site that asks for more than loopback needs gets it.
func TestServerSecurity(t *testing.T) {
	t.Parallel()
	_, b := startHall(t, loadHall(t, `endpoint: "opc.tcp://192.0.2.1:4840"`,
		`endpoint: "opc.tcp://192.0.2.1:4840", security: Basic256Sha256/SignAndEncrypt, trust: "file:plc.pem", login: { user: anna, password: file:pass }`))
	endpoints, err := client.GetEndpoints(t.Context(), b.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := os.ReadFile(strings.TrimPrefix(b.Trust, "file:"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(pinned)
	for _, e := range endpoints {
		if e.SecurityMode == ua.MessageSecurityModeNone {
			t.Error("it can be had without security")
		}
		if !bytes.Equal(e.ServerCertificate, block.Bytes) {
			t.Error("the certificate is not the one to trust")
		}
	}
	dir := filepath.Dir(strings.TrimPrefix(b.Trust, "file:"))
	own := []client.Option{client.CertificateFile(filepath.Join(dir, "opcua-plc.pem")), client.PrivateKeyFile(filepath.Join(dir, "opcua-key.pem")), client.AutoReconnect(false)}
	for password, want := range map[string]bool{string(b.Login.Password): true, "wrong": false} {
		endpoint, err := client.SelectEndpoint(endpoints, "Basic256Sha256", ua.MessageSecurityModeSignAndEncrypt)
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.NewClient(b.Endpoint, append(own, client.AuthUsername("anna", password), client.SecurityFromEndpoint(endpoint, ua.UserTokenTypeUserName))...)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Connect(t.Context()); (err == nil) != want {
			t.Errorf("password %q: %v", password, err)
		}
		c.Close(t.Context())
	}
}

func TestServersEndWithClose(t *testing.T) {
	before := runtime.NumGoroutine()
	devices, s, err := sim.Start(loadHall(t), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.NewClient(s.Buses[0].Endpoint, client.AutoReconnect(false))
	if err != nil {
		t.Fatal(err)
	}
	do(t, c.Connect(t.Context()))
	do(t, devices.Close())
	c.Close(t.Context())
	for begin := time.Now(); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
	}
}
