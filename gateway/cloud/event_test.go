package cloud_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/cloud/twin"
)

func overTemp(at time.Time) gateway.Record {
	return gateway.Record{Kind: gateway.EventRecord, Time: at, Name: "over_temp", ID: "k3v9", Severity: gateway.Alarm, Values: []gateway.Attribute{
		{Name: "temp", Value: gateway.Float32Value(91.5)}, {Name: "zone", Value: gateway.TextValue("3")},
	}}
}

func TestEventsCarryTheirIDAndTheirTimeWhenLate(t *testing.T) {
	long, sixSeconds := time.UnixMilli(1_750_234_507_181), time.Now().Add(-6*time.Second)
	for _, c := range []struct {
		name   string
		change func(*cloud.Config)
		at     time.Time
		want   string
	}{
		{"a second late", func(c *cloud.Config) { c.Cloud.LateTS = "sample_ts" }, time.Now().Add(-time.Second), `{"method":"over_temp","params":{"event_id":"k3v9","temp":91.5,"zone":"3"}}`},
		{"live", nil, time.Now(), `{"method":"over_temp","params":{"event_id":"k3v9","temp":91.5,"zone":"3"}}`},
		{"late", func(c *cloud.Config) { c.Cloud.LateTS = "sample_ts" }, long, `{"method":"over_temp","params":{"event_id":"k3v9","ts":1750234507181,"temp":91.5,"zone":"3"}}`},
		{"six seconds late", func(c *cloud.Config) { c.Cloud.LateTS = "sample_ts" }, sixSeconds, fmt.Sprintf(`{"method":"over_temp","params":{"event_id":"k3v9","ts":%d,"temp":91.5,"zone":"3"}}`, sixSeconds.UnixMilli())},
		{"no times", func(c *cloud.Config) { c.Cloud.LateTS = "none" }, long, `{"method":"over_temp","params":{"event_id":"k3v9","temp":91.5,"zone":"3"}}`},
		{"renamed", func(c *cloud.Config) { c.Cloud.EventID = "uid" }, time.Now(), `{"method":"over_temp","params":{"uid":"k3v9","temp":91.5,"zone":"3"}}`},
		{"a param of that name", func(c *cloud.Config) { c.Cloud.EventID = "zone" }, time.Now(), `{"method":"over_temp","params":{"zone":"k3v9","temp":91.5}}`},
		{"no ids", func(c *cloud.Config) { c.Cloud.EventID = "none" }, time.Now(), `{"method":"over_temp","params":{"temp":91.5,"zone":"3"}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			tw := startTwin(t, twin.Options{Respond: true})
			config, r := settings(tw.URL(), "response", c.change), overTemp(c.at)
			s, _ := run(t, config, nil)
			if n, err := s.Publish(t.Context(), []gateway.Record{r}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			got := tw.Received(user)
			if len(got) != 1 || got[0].Topic != "event_report/plant1" || string(got[0].Payload) != c.want {
				t.Errorf("got %s %s, want %s", got[0].Topic, got[0].Payload, c.want)
			}
			if _, shown := cloud.Show(config.Cloud, user, &r); !strings.Contains(c.want, `"ts"`) && string(shown) != c.want {
				t.Errorf("shown is %s", shown)
			}
		})
	}
}

func TestEventsAreConfirmedByTheirOwnAnswers(t *testing.T) {
	tw := startTwin(t, twin.Options{Respond: true})
	tw.SetFaults(twin.Faults{DropAnswers: true})
	s, _ := run(t, settings(tw.URL(), "response", impatient), nil)
	n, err := s.Publish(t.Context(), []gateway.Record{overTemp(time.Now())})
	if n != 0 || !errors.Is(err, gateway.ErrUnanswered) || !strings.Contains(err.Error(), "publish to event_report/plant1: no answer on event_response/plant1") {
		t.Errorf("%d confirmed, %v", n, err)
	}
	tw.SetFaults(twin.Faults{})
	if n, err := s.Publish(t.Context(), []gateway.Record{overTemp(time.Now())}); n != 1 || err != nil {
		t.Errorf("%d confirmed, %v", n, err)
	}
}

// TestEachTopicFindsOutForItselfWhetherItIsAnswered: the platform answers
// reports, and has no answers to events switched on.
func TestEachTopicFindsOutForItselfWhetherItIsAnswered(t *testing.T) {
	tw := startTwin(t, twin.Options{Respond: true})
	s, book := run(t, settings(tw.URL(), "auto", func(c *cloud.Config) { c.Cloud.ConfirmTimeout = 50 * time.Millisecond }), nil)
	if n, err := s.Publish(t.Context(), numbered(0, 1)); n != 1 || err != nil || s.Mode(gateway.ReportRecord) != "response" {
		t.Fatal(n, err, s.Mode(gateway.ReportRecord))
	}
	tw.SetRespond(false)
	for range 4 {
		if n, err := s.Publish(t.Context(), []gateway.Record{overTemp(time.Now())}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if s.Mode(gateway.ReportRecord) != "response" || s.Mode(gateway.EventRecord) != "puback" || !strings.Contains(book.String(), "topic=event_response/plant1") {
		t.Errorf("reports: %s, events: %s, log:\n%s", s.Mode(gateway.ReportRecord), s.Mode(gateway.EventRecord), book)
	}
}

func TestStreamsGoAsTheyAreAndNeedNoAnswer(t *testing.T) {
	tw := startTwin(t, twin.Options{Respond: true})
	s, _ := run(t, settings(tw.URL(), "response", nil), nil)
	var records []gateway.Record
	for i := range 150 {
		records = append(records, gateway.Record{Kind: gateway.StreamRecord, Time: time.Now(), Name: fmt.Sprint("s", i%2), Body: []byte{0, 0xff, byte(i)}})
	}
	if n, err := s.Publish(t.Context(), records); n != 150 || err != nil {
		t.Fatal(n, err)
	}
	for i, m := range tw.Received(user) {
		if m.Topic != fmt.Sprint("data/plant1/s", i%2) || string(m.Payload) != string(records[i].Body) {
			t.Fatalf("message %d is %s %x", i, m.Topic, m.Payload)
		}
	}
	for _, large := range []gateway.Record{
		{Kind: gateway.StreamRecord, Name: "s", Body: make([]byte, cloud.MaxMessage+1)},
		{Kind: gateway.EventRecord, Name: "e", Values: []gateway.Attribute{{Name: "text", Value: gateway.TextValue(strings.Repeat("x", cloud.MaxMessage))}}},
	} {
		var refusal *gateway.Refusal
		if n, err := s.Publish(t.Context(), []gateway.Record{large}); n != 0 || !errors.As(err, &refusal) || !strings.Contains(err.Error(), "a message holds") {
			t.Errorf("%s is too large: %d confirmed, %v", large.Name, n, err)
		}
	}
}

// TestHistoryGoesInBatchesWithItsTimes: as few messages as fit, each row once,
// numbers that rise.
func TestHistoryGoesInBatchesWithItsTimes(t *testing.T) {
	tw := startTwin(t, twin.Options{Respond: true})
	s, _ := run(t, settings(tw.URL(), "response", nil), nil)
	begin := time.UnixMilli(1_750_234_507_181)
	row := func(i int, size int) gateway.Record {
		return gateway.Record{Kind: gateway.ReportRecord, Time: begin.Add(time.Duration(i) * time.Second), Values: []gateway.Attribute{
			{Name: "n", Value: gateway.IntValue(int64(i))}, {Name: "s", Value: gateway.TextValue(strings.Repeat("x", size))},
		}}
	}
	small := gateway.Record{Kind: gateway.HistoryRecord, Name: "past", Number: 17, Rows: []gateway.Record{row(0, 1), {Kind: gateway.ReportRecord, Values: row(1, 0).Values}}}
	large := gateway.Record{Kind: gateway.HistoryRecord, Name: "past", Number: 100}
	for i := range 90 {
		large.Rows = append(large.Rows, row(i, 1000))
	}
	if n, err := s.Publish(t.Context(), []gateway.Record{small, large}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	got := tw.Received(user)
	if want := `{"batch":17,"rows":[{"ts":1750234507181,"attributes":{"n":0,"s":"x"}},{"ts":null,"attributes":{"n":1,"s":""}}]}`; string(got[0].Payload) != want || got[0].Topic != "data/plant1/past" {
		t.Errorf("%s %s, want %s", got[0].Topic, got[0].Payload, want)
	}
	body := func(text string) gateway.Record {
		return gateway.Record{Kind: gateway.StreamRecord, Time: begin, Body: []byte(text)}
	}
	batch := gateway.Record{Kind: gateway.HistoryRecord, Name: "curve", Number: 3, Rows: []gateway.Record{body(`{"x":1.5,"y":null}`), body(`{"x":2}`)}}
	if n, err := s.Publish(t.Context(), []gateway.Record{batch}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	last := tw.Received(user)[len(got)]
	if want := `{"batch":3,"rows":[{"ts":1750234507181,"x":1.5,"y":null},{"ts":1750234507181,"x":2}]}`; string(last.Payload) != want || last.Topic != "data/plant1/curve" {
		t.Errorf("%s %s, want %s", last.Topic, last.Payload, want)
	}
	rows, numbers := 0, []uint64{}
	for _, m := range got[1:] {
		var batch struct {
			Batch uint64
			Rows  []struct {
				TS         int64
				Attributes struct{ N int64 }
			}
		}
		if err := json.Unmarshal(m.Payload, &batch); err != nil || len(m.Payload) > cloud.MaxMessage {
			t.Fatalf("%d bytes, %v", len(m.Payload), err)
		}
		for _, r := range batch.Rows {
			if r.Attributes.N != int64(rows) || r.TS != begin.UnixMilli()+int64(rows)*1000 {
				t.Fatalf("row %d is %+v", rows, r)
			}
			rows++
		}
		numbers = append(numbers, batch.Batch)
	}
	if rows != 90 || !slices.Equal(numbers, []uint64{100, 145}) {
		t.Errorf("%d rows in batches %v", rows, numbers)
	}
}

// TestTheCloudIsAskedAfterEachConnect, before anything else is sent.
func TestTheCloudIsAskedAfterEachConnect(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	s, _ := run(t, settings(tw.URL(), "puback", func(c *cloud.Config) { c.Ask = []string{"n", "setpoint"} }), nil)
	for i := range 2 {
		if err := publishAll(t.Context(), s, numbered(i, 1)); err != nil {
			t.Fatal(err)
		}
		d, err := s.Receive(t.Context())
		if err != nil || d.Kind != gateway.StateDownlink || d.Err != nil {
			t.Fatalf("%+v, %v", d, err)
		}
		if i > 0 && (len(d.Values) != 1 || d.Values[0].Name != "n" || d.Values[0].Value.Int() != int64(i-1)) {
			t.Errorf("the state is %+v", d.Values)
		}
		tw.Cut()
		eventually(t, "the loss is noticed", func() bool { return s.Status().Err != nil || !connected(s)() })
	}
	got := tw.Received(user)
	if len(got) != 4 || got[0].Topic != "attributes_get/plant1" || string(got[0].Payload) != `{"keys":["n","setpoint"]}` || got[2].Topic != "attributes_get/plant1" {
		t.Errorf("got %v", got)
	}
}
