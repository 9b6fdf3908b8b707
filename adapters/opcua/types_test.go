package opcua_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/awcullen/opcua/ua"
	"github.com/google/uuid"

	"sluice/adapters/opcua"
	"sluice/gateway"
)

// openPoints opens a session with points of one device.
func openPoints(t *testing.T, s *plantServer, definitions ...*gateway.Definition) (gateway.Session, []*gateway.Point) {
	t.Helper()
	return openEndpoint(t, "opc.tcp://"+s.address(), definitions...)
}

func openEndpoint(t *testing.T, endpoint string, definitions ...*gateway.Definition) (gateway.Session, []*gateway.Point) {
	t.Helper()
	bus := &gateway.Bus{Name: "plc", Type: "opcua", Endpoint: endpoint, Security: "None", Timeout: 30 * time.Second}
	d := &gateway.Device{Name: "line", Profile: &gateway.Profile{Protocol: "opcua", Namespace: plantURI, Mode: "poll"}, Bus: bus}
	for _, definition := range definitions {
		definition.Poll = time.Second
		if definition.Access == "" {
			definition.Access = "r"
		}
		d.Points = append(d.Points, &gateway.Point{Definition: definition, Device: d, Name: definition.ID})
	}
	adapter, err := opcua.New(gateway.Env{Log: slog.New(slog.DiscardHandler)}, bus, []*gateway.Device{d})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	session, err := adapter.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session, d.Points
}

// readPoints reads points by their names.
func readPoints(t *testing.T, session gateway.Session, points []*gateway.Point) map[string]gateway.Sample {
	t.Helper()
	all := make(map[string]gateway.Sample)
	for _, group := range session.Plan(points) {
		samples, err := session.Read(t.Context(), group)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range samples {
			all[s.Point.ID] = s
		}
	}
	return all
}

func TestEveryTypeIsReadExactly(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverOptions{limit: 10})
	noon := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	id := uuid.MustParse("09087e75-8e5e-499b-954f-f2a9603db28a")
	var definitions []*gateway.Definition
	want := make(map[string]string)
	add := func(name string, value any, dataType ua.NodeID, typ gateway.Type, expect string, more ...func(*gateway.Definition)) {
		s.variable(t, ua.ObjectIDObjectsFolder, name, name, value, dataType)
		d := &gateway.Definition{ID: name, Node: "s=" + name, Type: typ}
		for _, change := range more {
			change(d)
		}
		definitions = append(definitions, d)
		want[name] = expect
	}
	count := func(n int) func(*gateway.Definition) { return func(d *gateway.Definition) { d.Count = n } }
	add("bool", true, ua.DataTypeIDBoolean, gateway.Bool, "true")
	add("sbyte", int8(-128), ua.DataTypeIDSByte, gateway.Int8, "-128")
	add("byte", uint8(255), ua.DataTypeIDByte, gateway.Uint8, "255")
	add("int16", int16(-32768), ua.DataTypeIDInt16, gateway.Int16, "-32768")
	add("uint16", uint16(65535), ua.DataTypeIDUInt16, gateway.Uint16, "65535")
	add("int32", int32(math.MinInt32), ua.DataTypeIDInt32, gateway.Int32, "-2147483648")
	add("uint32", uint32(math.MaxUint32), ua.DataTypeIDUInt32, gateway.Uint32, "4294967295")
	add("int64", int64(math.MinInt64), ua.DataTypeIDInt64, gateway.Int64, "-9223372036854775808")
	add("uint64", uint64(math.MaxUint64), ua.DataTypeIDUInt64, gateway.Uint64, "18446744073709551615")
	add("float", float32(230.1), ua.DataTypeIDFloat, gateway.Float32, "230.1")
	add("double", 0.1, ua.DataTypeIDDouble, gateway.Float64, "0.1")
	add("string", "grüße", ua.DataTypeIDString, gateway.String, "grüße")
	add("time", noon, ua.DataTypeIDDateTime, gateway.Time, "2026-11-26T12:00:00.000Z")
	add("guid", id, ua.DataTypeIDGUID, gateway.String, "09087e75-8e5e-499b-954f-f2a9603db28a")
	add("bytes", ua.ByteString("\x01\xff"), ua.DataTypeIDByteString, gateway.Bytes, "01ff")
	add("xml", ua.XMLElement("<a/>"), ua.DataTypeIDXMLElement, gateway.String, "<a/>")
	add("node", ua.NodeID(ua.NewNodeIDNumeric(0, 85)), ua.DataTypeIDNodeID, gateway.String, "i=85")
	add("status", ua.BadTimeout, ua.DataTypeIDStatusCode, gateway.String, "BadTimeout")
	add("name", ua.NewQualifiedName(1, "axis"), ua.DataTypeIDQualifiedName, gateway.String, "axis")
	add("text", ua.NewLocalizedText("Öl niedrig", "de"), ua.DataTypeIDLocalizedText, gateway.String, "Öl niedrig")
	add("list", []float32{1.5, 2.5}, ua.DataTypeIDFloat, gateway.Float32, "[1.5, 2.5]", count(2))
	add("texts", []string{"a", "b"}, ua.DataTypeIDString, gateway.String, "[a, b]", count(2))
	add("words", uint16(0b101), ua.DataTypeIDUInt16, gateway.Flags, "oil,bit2", func(d *gateway.Definition) { d.Flags = map[int]string{0: "oil"} })
	add("wide", uint16(7), ua.DataTypeIDUInt16, gateway.Int64, "7")
	add("enum", int32(1), ua.DataTypeIDInt32, gateway.Int32, "auto", func(d *gateway.Definition) { d.Enum = gateway.Enum{{Raw: 1, Label: "auto"}} })
	definitions = append(definitions,
		&gateway.Definition{ID: "element", Node: "s=list[1]", Type: gateway.Float32},
		&gateway.Definition{ID: "label", Node: "ns=0;i=2259", Type: gateway.String},
		&gateway.Definition{ID: "number", Browse: "/Objects/Server/ServerStatus/State", Type: gateway.Int32})
	want["element"], want["label"], want["number"] = "2.5", "Running", "0"

	session, points := openPoints(t, s, definitions...)
	for name, sample := range readPoints(t, session, points) {
		if sample.Quality != gateway.Good || sample.Value.String() != want[name] {
			t.Errorf("%s is %v (%v %s), want %s", name, sample.Value, sample.Quality, sample.Reason, want[name])
		}
	}
}

func TestWhatAPointCanNotHoldIsBad(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverOptions{})
	folder := ua.ObjectIDObjectsFolder
	s.variable(t, folder, "large", "large", int32(40000), ua.DataTypeIDInt32)
	s.variable(t, folder, "half", "half", 1.5, ua.DataTypeIDDouble)
	s.variable(t, folder, "text", "text", "7", ua.DataTypeIDString)
	s.variable(t, folder, "list", "list", []int32{1, 2, 3}, ua.DataTypeIDInt32)
	s.variable(t, folder, "never", "never", time.Time{}, ua.DataTypeIDDateTime)
	s.variable(t, folder, "doubtful", "doubtful", int32(1), ua.DataTypeIDInt32).SetReadValueHandler(nil)
	s.node(t, "doubtful").SetValue(ua.NewDataValue(int32(1), ua.UncertainLastUsableValue, time.Now(), 0, time.Now(), 0))
	session, points := openPoints(t, s,
		&gateway.Definition{ID: "large", Node: "s=large", Type: gateway.Int16}, &gateway.Definition{ID: "half", Node: "s=half", Type: gateway.Int32},
		&gateway.Definition{ID: "text", Node: "s=text", Type: gateway.Int32}, &gateway.Definition{ID: "list", Node: "s=list", Type: gateway.Int32},
		&gateway.Definition{ID: "short", Node: "s=list", Type: gateway.Int32, Count: 4}, &gateway.Definition{ID: "never", Node: "s=never", Type: gateway.Time},
		&gateway.Definition{ID: "structure", Node: "ns=0;i=2256", Type: gateway.String}, &gateway.Definition{ID: "missing", Node: "s=missing", Type: gateway.Int32},
		&gateway.Definition{ID: "nowhere", Browse: "/Objects/Server/Nowhere/State", Type: gateway.Int32},
		&gateway.Definition{ID: "elsewhere", Node: "nsu=http://nobody.test;s=a", Type: gateway.Int32},
		&gateway.Definition{ID: "doubtful", Node: "s=doubtful", Type: gateway.Int32})
	want := map[string]string{
		"large": "the whole number 40000, the point is int16", "half": "the float 1.5, the point is int32", "text": "the text 7", "list": "array of 3 values: write count: 3",
		"short": "3 values, the point says count: 4", "never": "no value", "structure": "structure", "missing": "BadNodeIDUnknown", "nowhere": "there is no Nowhere below i=2253",
		"elsewhere": "no namespace http://nobody.test", "doubtful": "UncertainLastUsableValue",
	}
	for name, sample := range readPoints(t, session, points) {
		quality := gateway.Bad
		if name == "doubtful" {
			quality = gateway.Uncertain
		}
		if sample.Quality != quality || !strings.Contains(sample.Reason, want[name]) {
			t.Errorf("%s is %v: %q, want %q", name, sample.Quality, sample.Reason, want[name])
		}
	}
}

// Namespaces have other numbers in another server, and a path may cross them.
func TestNodesAreFoundByURIAndPath(t *testing.T) {
	t.Parallel()
	for _, before := range [][]string{nil, {"http://sluice.test/a", "http://sluice.test/b"}} {
		s := startServer(t, serverOptions{before: before, limit: 10})
		var definitions []*gateway.Definition
		for _, name := range []string{"one", "two", "three"} {
			folder := s.folder(t, ua.ObjectIDObjectsFolder, name)
			s.variable(t, folder, name+".v", "value", name, ua.DataTypeIDString)
			s.variable(t, folder, name+`."x"[3]`, "x", name+" literal", ua.DataTypeIDString)
			definitions = append(definitions, &gateway.Definition{ID: name, Browse: "/Objects/" + name + "/value", Type: gateway.String},
				&gateway.Definition{ID: name + " literal", Node: "s=" + name + `."x"[3]`, Type: gateway.String})
		}
		session, points := openPoints(t, s, definitions...)
		for name, sample := range readPoints(t, session, points) {
			if sample.Value.Text() != name {
				t.Errorf("%s is %v: %s", name, sample.Value, sample.Reason)
			}
		}
	}
}

func TestWritesHaveTheNodesOwnType(t *testing.T) {
	t.Parallel()
	s := startServer(t, serverOptions{})
	held := map[string]any{
		"float": float32(0), "sbyte": int8(0), "uint64": uint64(0), "double": 0.0, "text": ua.NewLocalizedText("", ""), "time": time.Now(), "bytes": ua.ByteString("x"),
		"guid": uuid.UUID{}, "list": []int16{0, 0}, "string": "",
	}
	types := map[string]ua.NodeID{
		"float": ua.DataTypeIDFloat, "sbyte": ua.DataTypeIDSByte, "uint64": ua.DataTypeIDUInt64, "double": ua.DataTypeIDDouble, "text": ua.DataTypeIDLocalizedText, "time": ua.DataTypeIDDateTime,
		"bytes": ua.DataTypeIDByteString, "guid": ua.DataTypeIDGUID, "list": ua.DataTypeIDInt16, "string": ua.DataTypeIDString,
	}
	noon := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	id := "09087e75-8e5e-499b-954f-f2a9603db28a"
	writes := []struct {
		node  string
		typ   gateway.Type
		value gateway.Value
		want  any // nil: it is refused
	}{
		{"float", gateway.Float64, gateway.FloatValue(1.5), float32(1.5)},
		{"sbyte", gateway.Int32, gateway.IntValue(-128), int8(-128)},
		{"sbyte", gateway.Int32, gateway.IntValue(-129), nil},
		{"uint64", gateway.Uint64, gateway.UintValue(math.MaxUint64), uint64(math.MaxUint64)},
		{"uint64", gateway.Int64, gateway.IntValue(-1), nil},
		{"double", gateway.Float32, gateway.FloatValue(2.5), 2.5},
		{"text", gateway.String, gateway.TextValue("Öl"), ua.NewLocalizedText("Öl", "")},
		{"time", gateway.Time, gateway.TimeValue(noon), noon},
		{"bytes", gateway.Bytes, gateway.BlobValue([]byte{1, 255}), ua.ByteString("\x01\xff")},
		{"guid", gateway.String, gateway.TextValue(id), uuid.MustParse(id)},
		{"guid", gateway.String, gateway.TextValue("x"), nil},
		{"string", gateway.String, gateway.TextValue("order 7"), "order 7"},
		{"string", gateway.Int32, gateway.IntValue(7), nil},
		{"float", gateway.Float64, gateway.FloatValue(1e300), nil},
	}
	var definitions []*gateway.Definition
	for name, value := range held {
		s.variable(t, ua.ObjectIDObjectsFolder, name, name, value, types[name])
	}
	for _, w := range writes {
		definitions = append(definitions, &gateway.Definition{ID: w.node, Node: "s=" + w.node, Type: w.typ, Access: "rw"})
	}
	definitions = append(definitions, &gateway.Definition{ID: "list", Node: "s=list", Type: gateway.Int16, Count: 2, Access: "rw"}, &gateway.Definition{ID: "element", Node: "s=list[1]", Type: gateway.Int16, Access: "rw"})
	session, points := openPoints(t, s, definitions...)
	for i, w := range writes {
		before := s.node(t, w.node).Value().Value
		err := session.Write(t.Context(), points[i], w.value)
		var refusal *gateway.WriteError
		if got := s.node(t, w.node).Value().Value; w.want == nil && (!errors.As(err, &refusal) || got != before) {
			t.Errorf("write %v to %s: %v, it holds %v", w.value, w.node, err, got)
		} else if w.want != nil && (err != nil || got != w.want) {
			t.Errorf("write %v to %s: %v, it holds %v (%T)", w.value, w.node, err, got, got)
		}
	}
	list, element := points[len(writes)], points[len(writes)+1]
	if err := session.Write(t.Context(), list, gateway.ListValue([]gateway.Value{gateway.IntValue(3), gateway.IntValue(-4)})); err != nil {
		t.Error(err)
	}
	if err := session.Write(t.Context(), element, gateway.IntValue(5)); err != nil {
		t.Error(err)
	}
	if got := s.node(t, "list").Value().Value.([]int16); got[0] != 3 || got[1] != 5 {
		t.Errorf("the list holds %v", got)
	}
}
