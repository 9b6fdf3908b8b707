package cloud_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/cloud/twin"
)

var _ gateway.Uplink = (*cloud.Session)(nil)

func TestReportsArriveInOrderAndAreConfirmed(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	s, _ := run(t, settings(tw.URL(), "puback", nil), nil)
	n, err := s.Publish(t.Context(), numbered(0, 550))
	if n != 550 || err != nil {
		t.Fatalf("%d confirmed, %v", n, err)
	}
	got, repeated := payloads(tw)
	checkNumbered(t, got, 550)
	if topic := tw.Received(user)[0].Topic; topic != "attributes/plant1" || repeated > 0 {
		t.Errorf("topic is %s, %d repeated", topic, repeated)
	}
	if status := s.Status(); status.Confirmed != 550 || status.Mode != "puback" || status.Err != nil || status.Connected.IsZero() {
		t.Errorf("status is %+v", status)
	}
}

func TestNothingIsLostOrReorderedWhileTheBrokerComesAndGoes(t *testing.T) {
	const count = 3000
	var received atomic.Int64
	tw := startTwin(t, twin.Options{OnMessage: func(string, string, []byte) { received.Add(1) }})
	s, book := run(t, settings(tw.URL(), "puback", nil), nil)
	done := make(chan error)
	go func() { done <- publishAll(t.Context(), s, numbered(0, count)) }()
	for i := range int64(3) {
		eventually(t, "progress", func() bool { return received.Load() > 500*(i+1) })
		tw.Stop()
		eventually(t, "the loss is noticed", func() bool { return s.Status().Err != nil })
		if err := tw.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got, repeated := payloads(tw)
	checkNumbered(t, got, count)
	if repeated > 3*100 {
		t.Errorf("%d repeated, want no more than what was in flight", repeated)
	}
	if !strings.Contains(book.String(), "no connection to the cloud") || !strings.Contains(book.String(), " down=") {
		t.Errorf("the log does not tell of the outages:\n%s", book)
	}
}

func TestConnectionThatDiesInTheMiddleConfirmsOnlyWhatHadAPuback(t *testing.T) {
	const before = 37
	var received atomic.Int64
	var tw *twin.Twin
	started := make(chan struct{})
	tw = startTwin(t, twin.Options{OnMessage: func(string, string, []byte) {
		<-started
		if received.Add(1) == before {
			tw.Cut() // it has the message; its PUBACK cannot go out
		}
	}})
	close(started)
	s, _ := run(t, settings(tw.URL(), "puback", nil), nil)
	n, err := s.Publish(t.Context(), numbered(0, 200))
	if n >= before || err == nil || !strings.Contains(err.Error(), "publish to attributes/plant1: connection lost") {
		t.Fatalf("%d confirmed, %v", n, err)
	}
	if err := publishAll(t.Context(), s, numbered(n, 200-n)); err != nil {
		t.Fatal(err)
	}
	got, repeated := payloads(tw)
	checkNumbered(t, got, 200)
	if repeated != before-n {
		t.Errorf("%d repeated, want the %d that had arrived and were not confirmed", repeated, before-n)
	}
}

func TestNoPubackNoConfirmation(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	tw.SetFaults(twin.Faults{NoPuback: true})
	s, book := run(t, settings(tw.URL(), "puback", nil), nil)
	if n, err := s.Publish(t.Context(), numbered(0, 3)); n != 0 || err == nil || !strings.Contains(err.Error(), "no PUBACK within 1s") {
		t.Errorf("%d confirmed, %v", n, err)
	}
	eventually(t, "the loss is said", says(book, "no PUBACK within 1s"))
	tw.SetFaults(twin.Faults{})
	if err := publishAll(t.Context(), s, numbered(0, 3)); err != nil {
		t.Fatal(err)
	}
}

func TestPublishWaitsForAConnection(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	tw.Stop()
	s, _ := run(t, settings(tw.URL(), "puback", nil), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if n, err := s.Publish(ctx, numbered(0, 1)); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d confirmed, %v", n, err)
	}
	if err := tw.Restart(); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Publish(t.Context(), numbered(0, 1)); n != 1 || err != nil {
		t.Errorf("%d confirmed, %v", n, err)
	}
}

func TestDeadLineIsNoticed(t *testing.T) {
	t.Parallel()
	tw := startTwin(t, twin.Options{})
	s, book := run(t, settings(tw.URL(), "puback", func(c *cloud.Config) { c.Cloud.Keepalive = 3 * time.Second }), nil)
	eventually(t, "connected", connected(s))
	tw.SetFaults(twin.Faults{BlackHole: true})
	eventually(t, "the loss is said", says(book, "pingresp not received"))
	tw.SetFaults(twin.Faults{})
	eventually(t, "connected", connected(s))
	if n, err := s.Publish(t.Context(), numbered(0, 1)); n != 1 || err != nil {
		t.Errorf("%d confirmed, %v", n, err)
	}
}

func TestEndIsQuickWhateverTheBrokerDoes(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	s, err := cloud.New(settings(tw.URL(), "puback", func(c *cloud.Config) { c.Log = quiet }))
	if err != nil {
		t.Fatal(err)
	}
	s.Hurry(nil)
	for _, fault := range []twin.Faults{{}, {BlackHole: true}} {
		tw.SetFaults(twin.Faults{})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { s.Run(ctx); close(ended) }()
		eventually(t, "connected", connected(s))
		tw.SetFaults(fault)
		published := make(chan error)
		go func() { _, err := s.Publish(ctx, numbered(0, 20000)); published <- err }()
		time.Sleep(20 * time.Millisecond)
		cancel()
		select {
		case <-ended:
		case <-time.After(2 * time.Second): // far below each timeout of the network
			t.Errorf("with %+v the session does not end", fault)
		}
		if err := <-published; !errors.Is(err, context.Canceled) {
			t.Errorf("with %+v: %v", fault, err)
		}
		if !s.Status().Connected.IsZero() {
			t.Error("still connected")
		}
	}
	tw.SetFaults(twin.Faults{})
}

func TestBadPasswordIsSaidOnceAndTriedSeldom(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	delays := make(chan bool, 1000)
	_, book := run(t, settings(tw.URL(), "puback", func(c *cloud.Config) { c.Login.Password = "wrong" }),
		func(refused bool) { delays <- refused })
	for range 3 {
		if refused := <-delays; !refused {
			t.Error("the delay is not that of a refused login")
		}
	}
	if text := book.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, `login refused by the broker: bad user name or password for user \"plant1\"`) {
		t.Errorf("the log says:\n%s", text)
	}
	if strings.Contains(book.String(), "wrong") {
		t.Error("the log shows the password")
	}
}

func TestRefusedSubscriptionIsNamed(t *testing.T) {
	tw := startTwin(t, twin.Options{Respond: true})
	tw.SetFaults(twin.Faults{DenySubscribe: "attributes_response/plant1"})
	delays := make(chan bool, 1000)
	_, book := run(t, settings(tw.URL(), "response", nil), func(refused bool) { delays <- refused })
	for range 2 {
		if refused := <-delays; !refused {
			t.Error("the delay is not that of a refusal")
		}
	}
	if text := book.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "subscription to attributes_response/plant1 refused by the broker") {
		t.Errorf("the log says:\n%s", text)
	}
	// Where answers are not needed, reports must not wait for a rule to be mended.
	s, book := run(t, settings(tw.URL(), "puback", func(c *cloud.Config) { c.Cloud.ClientID = "{site}-{user}" }), nil)
	if n, err := s.Publish(t.Context(), numbered(0, 1)); n != 1 || err != nil {
		t.Errorf("%d confirmed, %v", n, err)
	}
	if text := book.String(); !strings.Contains(text, "subscription refused by the broker") || !strings.Contains(text, "topics=attributes_response/plant1") {
		t.Errorf("the log says:\n%s", text)
	}
}

func TestLateReportsAndTheFirstLiveOneCarryTheirTime(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	s, _ := run(t, settings(tw.URL(), "puback", func(c *cloud.Config) { c.Cloud.LateTS = "sample_ts" }), nil)
	hourAgo := time.Now().Add(-time.Hour)
	records := numbered(0, 8)
	records[1].Time, records[2].Time, records[5].Time = hourAgo, hourAgo.Add(time.Second), hourAgo.Add(2*time.Second)
	for _, call := range [][]gateway.Record{records[:4], records[4:6], records[6:]} {
		if n, err := s.Publish(t.Context(), call); n != len(call) || err != nil {
			t.Fatal(n, err)
		}
	}
	got, _ := payloads(tw)
	timed := map[int]bool{1: true, 2: true, 3: true, 5: true, 6: true}
	for i := range records {
		want := fmt.Sprintf(`{"n":%d}`, i)
		if timed[i] {
			want = fmt.Sprintf(`{"n":%d,"sample_ts":%d}`, i, records[i].Time.UnixMilli())
		}
		if got[i] != want {
			t.Errorf("report %d is %s, want %s", i, got[i], want)
		}
	}
}

func TestLateTSNoneSendsNoTime(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	s, _ := run(t, settings(tw.URL(), "puback", nil), nil)
	records := numbered(0, 1)
	records[0].Time = time.Now().Add(-time.Hour)
	if n, err := s.Publish(t.Context(), records); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	got, _ := payloads(tw)
	checkNumbered(t, got, 1)
}

func TestLargeReportArrivesInSeveralMessages(t *testing.T) {
	tw := startTwin(t, twin.Options{Respond: true})
	for _, confirm := range []string{"puback", "response"} {
		s, _ := run(t, settings(tw.URL(), confirm, func(c *cloud.Config) { c.Cloud.ClientID = confirm }), nil)
		var large gateway.Record
		for i := range 3000 {
			name := fmt.Sprintf("%s_%04d", confirm, i)
			large.Values = append(large.Values, gateway.Attribute{Name: name, Value: gateway.TextValue(strings.Repeat("x", 20))})
		}
		large.Kind, large.Time = gateway.ReportRecord, time.Now()
		if n, err := s.Publish(t.Context(), []gateway.Record{large, one("after", gateway.BoolValue(true))}); n != 2 || err != nil {
			t.Fatalf("%s: %d confirmed, %v", confirm, n, err)
		}
		for _, m := range tw.Received(user) {
			if len(m.Payload) > cloud.MaxMessage || !json.Valid(m.Payload) {
				t.Errorf("%s: a message of %d bytes", confirm, len(m.Payload))
			}
		}
	}
	if stored := tw.Attributes(user); len(stored) != 6001 {
		t.Errorf("%d attributes are stored, want 6001", len(stored))
	}
}

func TestRecordWithoutAnythingToSendIsConfirmed(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	s, _ := run(t, settings(tw.URL(), "puback", nil), nil)
	records := []gateway.Record{one("n", gateway.IntValue(0)), {Kind: gateway.ReportRecord}, one("n", gateway.IntValue(1))}
	if n, err := s.Publish(t.Context(), records); n != 3 || err != nil {
		t.Errorf("%d confirmed, %v", n, err)
	}
	got, _ := payloads(tw)
	checkNumbered(t, got, 2)
}

func TestValueThatFitsNoMessageStopsThereAndConfirmsWhatIsBefore(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	s, _ := run(t, settings(tw.URL(), "puback", nil), nil)
	records := append(numbered(0, 3), one("huge", gateway.TextValue(strings.Repeat("x", 70000))), numbered(3, 1)[0])
	n, err := s.Publish(t.Context(), records)
	var refusal *gateway.Refusal
	if n != 3 || !errors.As(err, &refusal) {
		t.Errorf("%d confirmed, %v", n, err)
	}
	if n, err := s.Publish(t.Context(), []gateway.Record{{Kind: 99}}); n != 0 || !errors.As(err, &refusal) {
		t.Errorf("an unknown kind of record: %d confirmed, %v", n, err)
	}
}

func TestConfigThatCanNeverConnectIsRefused(t *testing.T) {
	for want, change := range map[string]func(*cloud.Config){
		"http://h: the scheme is none of": func(c *cloud.Config) { c.Cloud.URL = "http://h" },
		"names no host":                   func(c *cloud.Config) { c.Cloud.URL = "mqtt://" },
		"cloud address":                   func(c *cloud.Config) { c.Cloud.URL = ":" },
		`cloud user ""`:                   func(c *cloud.Config) { c.Login.User = "" },
		`cloud user "a/#"`:                func(c *cloud.Config) { c.Login.User = "a/#" },
	} {
		if _, err := cloud.New(settings("mqtt://127.0.0.1", "puback", change)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
	}
}

// TestTheBrokerKeepsNothingForASession: it would deliver stale commands.
func TestTheBrokerKeepsNothingForASession(t *testing.T) {
	t.Parallel()
	broker, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	run(t, settings("mqtt://"+broker.Addr().String(), "puback", nil), nil)
	for range 2 { // also when it comes again
		conn, err := broker.Accept()
		if err != nil {
			t.Fatal(err)
		}
		packet, err := packets.ReadPacket(conn)
		conn.Close()
		connect, ok := packet.(*packets.ConnectPacket)
		if !ok {
			t.Fatalf("the first packet is %v, %v", packet, err)
		}
		if !connect.CleanSession || connect.WillFlag || connect.ProtocolVersion != 4 || connect.ClientIdentifier != user || connect.Username != user || string(connect.Password) != password {
			t.Errorf("the broker is told %v", connect)
		}
	}
}

func TestSilentServerCostsOneAttempt(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, book := run(t, settings("mqtt://"+silent.Addr().String(), "puback", nil), nil)
	eventually(t, "the attempt ends", says(book, "connect: no answer within 3s"))
}
