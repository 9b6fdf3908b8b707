package gateway

import (
	"bytes"
	"math"
	"reflect"
	"testing"
	"time"
)

func sampleRecord() Record {
	return Record{Kind: ReportRecord, Time: time.UnixMilli(1750234507181), Values: []Attribute{
		{"none", Value{}}, {"on", BoolValue(true)}, {"int", IntValue(math.MinInt64)}, {"uint", UintValue(math.MaxUint64)},
		{"single", Float32Value(230.1)}, {"double", FloatValue(-0.1)}, {"text", TextValue("Presse 3 \x00ü")}, {"blob", BlobValue([]byte{0, 255})},
		{"time", TimeValue(time.UnixMilli(-1))}, {"list", ListValue([]Value{IntValue(1), ListValue(nil)})},
	}}
}

func TestRecordSurvivesStorage(t *testing.T) {
	want := sampleRecord()
	got, err := ParseRecord(AppendRecord(nil, &want))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Time.Equal(want.Time) || got.Kind != want.Kind || len(got.Values) != len(want.Values) {
		t.Fatalf("got %+v", got)
	}
	for i := range want.Values {
		if got.Values[i].Name != want.Values[i].Name || !got.Values[i].Value.Equal(want.Values[i].Value) {
			t.Errorf("%s: got %s", want.Values[i].Name, got.Values[i].Value)
		}
	}
}

// TestStoredFormIsFixed: a buffer file of an older version must stay readable,
// so its bytes must not change without a new format number.
func TestStoredFormIsFixed(t *testing.T) {
	r := Record{Kind: ReportRecord, Time: time.UnixMilli(1000), Values: []Attribute{{"a", Float32Value(1)}, {"b", TextValue("x")}}}
	want := []byte{1, 1, 0xD0, 0x0F, 2, 1, 'a', 4, 0x3F, 0x80, 0, 0, 1, 'b', 6, 1, 'x'}
	if got := AppendRecord(nil, &r); !bytes.Equal(got, want) {
		t.Errorf("got % x, want % x", got, want)
	}
}

func TestEventsAndStreamsSurviveStorage(t *testing.T) {
	at := time.UnixMilli(1750234507181)
	for _, want := range []Record{
		{Kind: EventRecord, Time: at, Name: "press3_voltage_low", ID: "e-17", Severity: Alarm, Values: []Attribute{{"u", Float32Value(206.5)}}},
		{Kind: StreamRecord, Time: at, Boot: 300, Up: 90 * time.Minute, Name: "history", Body: []byte{0, 1, 0xFF}},
	} {
		stored := AppendRecord(nil, &want)
		got, err := ParseRecord(stored)
		if err != nil {
			t.Fatal(err)
		}
		got.Values = append([]Attribute(nil), got.Values...)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestDamagedRecordIsAnError(t *testing.T) {
	r := sampleRecord()
	good := AppendRecord(nil, &r)
	for n := range good {
		if _, err := ParseRecord(good[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were read", n, len(good))
		}
	}
	if _, err := ParseRecord(append(good, 0)); err == nil {
		t.Error("a byte too many was read")
	}
	if _, err := ParseRecord([]byte{3, 1}); err == nil || err.Error() != "record of format 3, this program knows 1 and 2" {
		t.Errorf("newer format: %v", err)
	}
}

func FuzzParseRecord(f *testing.F) {
	r := sampleRecord()
	f.Add(AppendRecord(nil, &r))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecord(data)
		if err != nil {
			return
		}
		again, err := ParseRecord(AppendRecord(nil, &r))
		if err != nil || !reflect.DeepEqual(AppendRecord(nil, &again), AppendRecord(nil, &r)) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

func TestAGatheringKeepsTheNewestOfEach(t *testing.T) {
	at := func(ms int64, values ...Attribute) Record {
		return Record{Kind: ReportRecord, Time: time.UnixMilli(ms), Values: values}
	}
	var g gathering
	first := at(1, Attribute{"a", IntValue(1)}, Attribute{"b", IntValue(1)})
	for _, r := range []Record{first, at(2, Attribute{"a", IntValue(2)}), at(3, Attribute{"c", IntValue(3)})} {
		g.add(&r)
	}
	if first.Values[0].Value.Int() != 1 {
		t.Error("the first one, which others look at, is changed")
	}
	got := g.record
	want := at(3, Attribute{"a", IntValue(2)}, Attribute{"b", IntValue(1)}, Attribute{"c", IntValue(3)})
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}
