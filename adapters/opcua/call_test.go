package opcua_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/awcullen/opcua/server"
	"github.com/awcullen/opcua/ua"

	"sluice/adapters/opcua"
	"sluice/gateway"
)

// method adds a method that takes arguments of these types to an object.
func (s *plantServer) method(t *testing.T, object ua.NodeID, name string, call func([]ua.Variant) ([]ua.Variant, ua.StatusCode), types ...ua.NodeID) {
	t.Helper()
	id := ua.NewNodeIDString(s.space, name)
	node := server.NewMethodNode(s.Server, id, ua.NewQualifiedName(s.space, name), ua.NewLocalizedText(name, ""), ua.NewLocalizedText("", ""), nil,
		[]ua.Reference{ua.NewReference(ua.ReferenceTypeIDHasComponent, true, ua.NewExpandedNodeID(object))}, true)
	node.SetCallMethodHandler(func(_ *server.Session, r ua.CallMethodRequest) ua.CallMethodResult {
		outputs, status := call(r.InputArguments)
		return ua.CallMethodResult{StatusCode: status, OutputArguments: outputs}
	})
	if err := s.NamespaceManager().AddNode(node); err != nil {
		t.Fatal(err)
	}
	if len(types) == 0 {
		return
	}
	arguments := make([]ua.ExtensionObject, len(types))
	for i, typ := range types {
		arguments[i] = ua.Argument{Name: string(rune('a' + i)), DataType: typ, ValueRank: ua.ValueRankScalar}
	}
	property := server.NewVariableNode(s.Server, ua.NewNodeIDString(s.space, name+".in"), ua.NewQualifiedName(0, "InputArguments"), ua.NewLocalizedText("InputArguments", ""), ua.NewLocalizedText("", ""), nil,
		[]ua.Reference{ua.NewReference(ua.ReferenceTypeIDHasProperty, true, ua.NewExpandedNodeID(id))},
		ua.NewDataValue(arguments, ua.Good, time.Now(), 0, time.Now(), 0), ua.NewNodeIDNumeric(0, 296), ua.ValueRankOneDimension, nil, ua.AccessLevelsCurrentRead, 0, false, nil)
	if err := s.NamespaceManager().AddNode(property); err != nil {
		t.Fatal(err)
	}
}

func TestMethodsAreCalledWithTheirOwnTypes(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverOptions{})
	object := s.folder(t, ua.ObjectIDObjectsFolder, "Press3")
	var got []ua.Variant
	s.method(t, object, "Press3.load", func(args []ua.Variant) ([]ua.Variant, ua.StatusCode) {
		got = args
		return []ua.Variant{uint32(7), "accepted"}, ua.Good
	}, ua.DataTypeIDUInt16, ua.DataTypeIDString, ua.DataTypeIDBoolean)
	calls := 0
	s.method(t, object, "Press3.stop", func([]ua.Variant) ([]ua.Variant, ua.StatusCode) {
		calls++
		return nil, ua.BadInvalidState
	})
	session, points := openPoints(t, s, &gateway.Definition{ID: "time", Node: "ns=0;i=2258", Type: gateway.Time})
	caller, d := session.(gateway.Caller), points[0].Device
	d.Vars = map[string]string{"db": "Press3"}
	call := func(method string, args ...gateway.Value) ([]gateway.Value, error) {
		return caller.Call(t.Context(), d, "s=folder.{db}", "s={db}."+method, args)
	}
	for range 2 {
		results, err := call("load", gateway.IntValue(65535), gateway.TextValue("order"), gateway.BoolValue(true))
		if err != nil || len(results) != 2 || results[0].Int() != 7 || results[1].Text() != "accepted" {
			t.Errorf("results %v, %v", results, err)
		}
		if len(got) != 3 || got[0] != uint16(65535) || got[1] != "order" || got[2] != true {
			t.Errorf("the method got %v", got)
		}
	}
	got = nil
	for _, tt := range []struct {
		method string
		args   []gateway.Value
		want   string
	}{
		{"load", []gateway.Value{gateway.IntValue(65536), gateway.TextValue(""), gateway.BoolValue(true)}, "argument a is of type UInt16, which 65536 does not fit"},
		{"load", []gateway.Value{gateway.IntValue(1)}, "takes 3 arguments, not 1"},
		{"stop", nil, "BadInvalidState"},
		{"start", nil, "BadNodeIDUnknown"},
	} {
		var refusal *gateway.WriteError
		if _, err := call(tt.method, tt.args...); !errors.As(err, &refusal) || refusal.Unknown || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %s", tt.method, err, tt.want)
		}
	}
	if got != nil || calls != 1 {
		t.Errorf("what was refused here reached the server: %v, %d", got, calls)
	}
}

func TestInProcessServerEventsArrive(t *testing.T) {
	withoutRaces(t)
	t.Parallel()
	s := startServer(t, serverOptions{})
	s.line(t)
	loaded := parse(t, strings.Replace(counters, "    points:", "    events: { trouble: { opcua: { source: i=2253, severity: 500 }, severity: alarm } }\n    points:", 1))
	p := startProxy(t, s.address())
	bus := loaded.Buses[0]
	bus.Endpoint, bus.Timeout = p.endpoint(), 2*time.Second
	adapter, err := opcua.New(gateway.Env{Log: slog.New(slog.DiscardHandler)}, bus, loaded.Devices)
	if err != nil {
		t.Fatal(err)
	}
	var mutex sync.Mutex
	var told []gateway.FieldEvent
	w := &watcher{adapter: adapter, points: loaded.Devices[0].Points, samples: make(map[string][]gateway.Sample), events: loaded.Devices, occur: func(events []gateway.FieldEvent) {
		mutex.Lock()
		defer mutex.Unlock()
		told = append(told, events...)
	}}
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { w.run(ctx) })
	defer wait.Wait()
	defer cancel()
	w.until(t, "first value", "count", 5*time.Second, isGood)
	target, _ := s.NamespaceManager().FindObject(ua.ObjectIDServer)
	raise := func(severity uint16, message string) {
		event := &ua.AlarmCondition{EventID: ua.ByteString(message), EventType: ua.ObjectTypeIDAlarmConditionType, SourceName: "hydraulics", Time: time.Now(), Message: ua.NewLocalizedText(message, "en"), Severity: severity, ActiveState: true}
		if err := s.NamespaceManager().OnEvent(target, event); err != nil {
			t.Fatal(err)
		}
	}
	wanted := func(n int) {
		t.Helper()
		for begin := time.Now(); time.Since(begin) < recovered; time.Sleep(10 * time.Millisecond) {
			mutex.Lock()
			enough := len(told) >= n
			mutex.Unlock()
			if enough {
				return
			}
		}
		t.Fatalf("%d events, not %d", len(told), n)
	}
	raise(499, "not worth it")
	raise(500, "oil low")
	wanted(1)
	p.cut()
	p.restore()
	w.until(t, "values after a cut", "count", recovered, isGood)
	time.Sleep(time.Second) // three messages go to the connection that is gone
	raise(900, "oil gone")
	wanted(2)
	mutex.Lock()
	defer mutex.Unlock()
	first := told[0]
	if len(told) != 2 || first.Message != "oil low" || first.Source != "hydraulics" || first.Severity != 500 || !first.Active.Bool() || first.Event.ID != "trouble" || time.Since(first.Time) > recovered {
		t.Errorf("told %+v", told)
	}
}
