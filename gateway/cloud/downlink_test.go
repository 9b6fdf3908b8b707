package cloud_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/cloud/twin"
)

var _ gateway.Downlinker = (*cloud.Session)(nil)

// say puts a downlink into words.
func say(d gateway.Downlink) string {
	var b strings.Builder
	if d.Kind == gateway.CommandDownlink {
		fmt.Fprintf(&b, "%s id %s", d.Method, d.ID)
	}
	for _, v := range d.Values {
		fmt.Fprintf(&b, " %s=%d:%s", v.Name, v.Value.Kind(), v.Value)
	}
	if d.Err != nil {
		fmt.Fprintf(&b, " (%v)", d.Err)
	}
	return strings.TrimSpace(b.String())
}

func TestPushesAreReadStrictly(t *testing.T) {
	for payload, want := range map[string]string{
		`{}`:                                     ``,
		`{"switch":false,"hz":35}`:               `switch=1:false hz=2:35`,
		` { "a" : "ON" , "b" : "25.50" } `:       `a=6:ON b=6:25.50`,
		`{"a":18446744073709551615}`:             `a=3:18446744073709551615`,
		`{"a":-9223372036854775808,"b":1.50}`:    `a=2:-9223372036854775808 b=5:1.5`,
		`{"a":1e400,"b":null,"c":{"d":1}}`:       `a=0:- b=0:- c=0:-`,
		`{"a":[1,2.5,true,"x"],"b":[],"c":[[]]}`: `a=9:[1, 2.5, true, x] b=9:[] c=0:-`,
		`{"a":"\u00fc\ud83d\ude00\n/\/"}`:        "a=6:ü😀\n//",
		`{"a":1,"a":2}`:                          `a=2:1 ("a" stands there twice)`,
		`{"a":1,"\u0061":2}`:                     `a=2:1 ("a" stands there twice)`,
		`{"a":{"b":1,"b":2}}`:                    `("b" stands there twice)`,
		``:                                       `(the JSON ends early)`,
		`null`:                                   `('n' instead of '{' at byte 0 of the JSON)`,
		`[{"a":1}]`:                              `('[' instead of '{' at byte 0 of the JSON)`,
		`{"a":1}{"b":2}`:                         `a=2:1 (more behind the end of the JSON, at byte 7)`,
		"{\"a\":1}\x00":                          "a=2:1 (more behind the end of the JSON, at byte 7)",
		`{"a":1,}`:                               `a=2:1 ('}' instead of '"' at byte 7 of the JSON)`,
		`{"a":1`:                                 `a=2:1 (the JSON ends early)`,
		`{"a":NaN}`:                              `('N' is no JSON, at byte 5)`,
		`{"a":-Infinity}`:                        `(a number that is none at byte 5 of the JSON)`,
		`{"a":0x10}`:                             `a=2:0 ('x' instead of ',' at byte 6 of the JSON)`,
		`{"a":007}`:                              `(a number that is none at byte 5 of the JSON)`,
		`{"a":+1}`:                               `('+' is no JSON, at byte 5)`,
		`{"a":1.}`:                               `(a number without digits behind its point at byte 5 of the JSON)`,
		`{"a":1e}`:                               `(a number without an exponent at byte 5 of the JSON)`,
		`{"a":"\u0000"}`:                         `(a bad character in a string of the JSON)`,
		`{"a":"\ud800"}`:                         `(a bad character in a string of the JSON)`,
		"{\"a\":\"\x00\"}":                       `(a control character in a string at byte 6 of the JSON)`,
		"{\"a\":\"\xff\"}":                       `(no UTF-8 at byte 6 of the JSON)`,
		"\xef\xbb\xbf{}":                         `('ï' instead of '{' at byte 0 of the JSON)`,
		`{'a':1}`:                                `('\'' instead of '"' at byte 1 of the JSON)`,
		`{"a":` + strings.Repeat("[", 9):         `(JSON nested deeper than 8)`,
		`{"a":` + strings.Repeat("1", 65) + `}`:  `(a number of more than 64 characters)`,
	} {
		d := gateway.Downlink{Kind: gateway.PushDownlink}
		d.Err = cloud.ParseDownlink(&d, []byte(payload))
		if got := say(d); got != want {
			t.Errorf("%q is read as %s, want %s", payload, got, want)
		}
	}
}

func TestCommandsKeepTheTokenOfTheirID(t *testing.T) {
	for payload, want := range map[string]string{
		`{"method":"start","params":{"hz":35},"id":"7"}`:                 `start id "7" hz=2:35`,
		`{"method":"start","params":{},"id":7}`:                          `start id 7`,
		`{"id":7.0,"method":"start","command_name":"Go","x":{"y":[{}]}}`: `start id 7.0`,
		`{"method":"start","params":null}`:                               `start id`,
		`{"method":"start","id":null}`:                                   `start id`,
		`{"method":"start","id":"\u0041"}`:                               `start id "\u0041"`,
		`{"method":"start","id":[1]}`:                                    `start id  (id is [1], not a number or a text)`,
		`{"method":"start","id":{}}`:                                     `start id  (id is {}, not a number or a text)`,
		`{"method":7,"id":1}`:                                            `id 1 (method is 7, not a name)`,
		`{"id":1}`:                                                       `id 1 (the command has no method)`,
		`{"id":1,"method":"a","params":{"p":1,"p":2}}`:                   `a id 1 p=2:1 ("p" stands there twice)`,
		`{"id":1,"method":"a","params":[1]}`:                             `a id 1 ('[' instead of '{' at byte 30 of the JSON)`,
		`{"id":1,"method":"a","params":{"p":{"q":1}}}`:                   `a id 1 p=0:-`,
	} {
		d := gateway.Downlink{Kind: gateway.CommandDownlink}
		d.Err = cloud.ParseDownlink(&d, []byte(payload))
		if got := say(d); got != want {
			t.Errorf("%s is read as %s, want %s", payload, got, want)
		}
	}
}

// FuzzDownlink holds the reader against the standard library's: what it takes
// is valid JSON, each name once, with the same values. And each payload goes all
// the way down, as each kind of message, to a machine that takes only what fits.
func FuzzDownlink(f *testing.F) {
	for _, seed := range []string{
		`{"switch":false}`, `{"method":"start","params":{"hz":35},"id":"7"}`, `{"a":[1,2.5e3,"x"],"b":{"c":null}}`, `{"a":1e400}`,
		`{"a":1,"a":2}`, strings.Repeat("[", 100), "{\"a\":\"\x00\"}", `{"a":"\ud83d\ude00"}`, `{"error_code":0,"attributes":{"a":1}}`, `{"a":NaN}`, `{"a":35,"b":"x","list":[21,22,23]}`, `{"word":"stop"}`, `{"hz":40}`, `35`, `{"method":"start","params":{"hz":51},"id":7}`,
	} {
		f.Add([]byte(seed))
	}
	p := startMachine(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, kind := range []gateway.DownlinkKind{gateway.PushDownlink, gateway.CommandDownlink, gateway.StateDownlink} {
			d := gateway.Downlink{Kind: kind}
			err := cloud.ParseDownlink(&d, payload)
			if err == nil && !json.Valid(payload) {
				t.Fatalf("%q is taken, and is no JSON", payload)
			}
			for _, v := range d.Values {
				checkAsked(t, v)
			}
			if err == nil && kind == gateway.PushDownlink {
				var all map[string]json.RawMessage
				if err := json.Unmarshal(payload, &all); err != nil || len(all) != len(d.Values) {
					t.Fatalf("%q gives %d names, want %d: %v", payload, len(d.Values), len(all), err)
				}
			}
			reply := gateway.Reply{Method: d.Method, ID: d.ID, Params: d.Values, Err: err}
			if text := new(cloud.Session).EncodeReply(&reply); !json.Valid(text) || len(text) > cloud.MaxMessage {
				t.Fatalf("the reply to %q is %q", payload, text)
			}
		}
		for _, d := range cloud.Arrivals(payload, "params", "write", "none") {
			p.send(t, d)
		}
	})
}

func checkAsked(t *testing.T, v gateway.Asked) {
	var want any
	decoder := json.NewDecoder(bytes.NewReader([]byte(v.Raw)))
	decoder.UseNumber()
	if err := decoder.Decode(&want); err != nil {
		t.Fatalf("%s: %q is no JSON", v.Name, v.Raw)
	}
	switch want := want.(type) {
	case string:
		if v.Value.Text() != want {
			t.Fatalf("%q is read as %q", v.Raw, v.Value.Text())
		}
	case bool:
		if v.Value.Kind() != gateway.Boolean || v.Value.Bool() != want {
			t.Fatalf("%q is read as %s", v.Raw, v.Value)
		}
	case json.Number:
		if f, err := want.Float64(); err == nil && v.Value.Float() != f {
			t.Fatalf("%q is read as %s", v.Raw, v.Value)
		} else if err != nil && v.Value.Kind() != gateway.None {
			t.Fatalf("%q, which no float64 holds, is read as %s", v.Raw, v.Value)
		}
	}
}

// TestHostileDownlinksCostNothing is scoreboard S1: nothing is written, and what
// 10,000 messages leave behind is bounded.
func TestHostileDownlinksCostNothing(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) }
	hostile := []string{deep(5_000_000), deep(60_000), `{"a":` + deep(60_000), `{"a":1e400}`, `{"a":35,"a":36}`, "{\"a\":\"\x00\"}", "{\"a\":35}\x00", strings.Repeat(`{"a":`, 10_000), `{"a":NaN}`, `{"a":"NaN"}`, `{"a":"Infinity"}`,
		`{` + strings.Repeat(`"a":1,`, 10_000) + `"b":1}`, `"` + strings.Repeat(`\u0041`, 10_000) + `"`, `{"` + strings.Repeat("a", 60_000) + `":1}`, "", "\x00", `{"method":"` + strings.Repeat(`\\`, 30_000),
		`{"a":[35]}`, `{"a":true}`, `{"a":-0}`, `{"a":null}`, `{"a":{}}`, `{"a":35,"nothing":1}`, `{"switch":2}`, `{"method":"start","params":{"hz":1e400},"id":%d}`, `{"method":"start","params":{"hz":40,"hz":41},"id":%d}`,
		`{"method":"start","params":{"hz":[40]},"id":%d}`, `{"method":"start","params":{"hz":40,"x":1},"id":%d}`, `{"method":"start","params":[40],"id":%d}`, `{"method":"start","params":{"hz":40},"id":{"a":%d}}`, `{"method":["start"],"params":{"hz":40},"id":%d}`}
	p := startMachine(t)
	var took []time.Duration
	var payloads [][]byte
	for _, text := range hostile {
		payloads = append(payloads, []byte(text))
	}
	before := heap()
	for i := range 10_000 {
		payload := payloads[i%len(hostile)]
		switch {
		case len(payload) > 1024 && i/len(hostile)%10 != 0:
			payload = payload[:1024] // mostly the beginning of a long one, for time's sake
		case len(payload) < 100:
			payload = bytes.Replace(payload, []byte("%d"), []byte(fmt.Sprint(i)), 1)
		}
		begin := time.Now()
		all := cloud.Arrivals(payload)
		took = append(took, time.Since(begin)/time.Duration(len(all)))
		for _, d := range all {
			p.send(t, d)
		}
	}
	p.send(t, gateway.Downlink{Kind: gateway.PushDownlink, Arrived: time.Now()})
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	t.Logf("10,000 hostile messages: median %v, p99 %v, longest %v; %d KiB more of memory", took[len(took)/2], p99, took[len(took)-1], (heap()-before)/1024)
	if p99 > 250*time.Millisecond { // 1 ms on a machine that has nothing else to do
		t.Errorf("p99 is %v", p99)
	}
	if n := p.writes.Load(); n != 0 {
		t.Errorf("%d writes", n)
	}
	if more := heap() - before; more > 16<<20 {
		t.Errorf("%d bytes of memory more", more)
	}
	// The control: what is not hostile is written.
	for _, d := range cloud.Arrivals([]byte(`{"a":35}`))[:1] {
		p.send(t, d)
	}
	eventually(t, "a write", func() bool { return p.writes.Load() > 0 })
}

// heap is how much memory is in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func receive(t *testing.T, s *cloud.Session) gateway.Downlink {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	d, err := s.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDownlinksArrive(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	s, _ := run(t, settings(tw.URL(), "puback", func(c *cloud.Config) { c.Streams = []string{"recipe"} }), nil)
	eventually(t, "connected", connected(s))
	for topic, payload := range map[string]string{
		"attributes_push/plant1":         `{"switch":"OFF"}`,
		"command_send/plant1":            `{"method":"start","params":{},"id":9}`,
		"attributes_get_response/plant1": `{"error_code":0,"error_msg":"","attributes":{"switch":true},"ts":1}`,
		"data_set/plant1/recipe":         "\x00\x01 free of form",
	} {
		if err := tw.Send(topic, []byte(payload)); err != nil {
			t.Fatal(err)
		}
		d := receive(t, s)
		got := fmt.Sprintf("%d %s %s%s", d.Kind, say(d), d.Stream, d.Body)
		want := map[gateway.DownlinkKind]string{
			gateway.PushDownlink: "1 switch=6:OFF ", gateway.CommandDownlink: "2 start id 9 ",
			gateway.StreamDownlink: "3  recipe\x00\x01 free of form", gateway.StateDownlink: "4 switch=1:true ",
		}[d.Kind]
		if got != want || d.Stalled || time.Since(d.Arrived) > time.Minute {
			t.Errorf("%s %q arrives as %q, want %q (stalled %v)", topic, payload, got, want, d.Stalled)
		}
	}
}

func TestOneMegabyteIsNotRead(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	s, _ := run(t, settings(tw.URL(), "puback", nil), nil)
	eventually(t, "connected", connected(s))
	if err := tw.Send("command_send/plant1", bytes.Repeat([]byte("["), 1<<20)); err != nil {
		t.Fatal(err)
	}
	if d := receive(t, s); d.Err == nil || d.Err.Error() != "a message of 1048576 bytes, the most is 65536" || d.Body != nil {
		t.Errorf("it is read as %s", say(d))
	}
}

func TestAFloodOfDownlinksIsBounded(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	s, _ := run(t, settings(tw.URL(), "puback", nil), nil)
	eventually(t, "connected", connected(s))
	const sent = 1000
	for range sent {
		if err := tw.Send("attributes_push/plant1", []byte(`{"a":1}`)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the rest is counted", func() bool { return s.Status().Dropped >= sent-256-64 }) // the broker drops some itself
	for range 256 {
		receive(t, s)
	}
}

func TestRepliesAreSentAndEchoTheID(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	s, _ := run(t, settings(tw.URL(), "puback", nil), nil)
	r := gateway.Reply{Method: "start", ID: `"0x7"`, Params: []gateway.Asked{{Name: "hz", Raw: "35.0"}, {Name: "note", Raw: `"a\u0062"`}, {Name: "result", Raw: `1`}}}
	r.Values = []gateway.Attribute{{Name: "note", Value: gateway.TextValue("real")}, {Name: "output_hz", Value: gateway.Float32Value(34.9)}}
	if err := s.SendReply(t.Context(), s.EncodeReply(&r)); err != nil {
		t.Fatal(err)
	}
	r = gateway.Reply{Method: "stop", ID: "7", Err: errors.New(`guard: "remote" does not hold`)}
	if err := s.SendReply(t.Context(), s.EncodeReply(&r)); err != nil {
		t.Fatal(err)
	}
	r.ID = ""
	if err := s.SendReply(t.Context(), s.EncodeReply(&r)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`{"method":"start","params":{"hz":35.0,"note":"real","output_hz":34.9,"result":true},"id":"0x7"}`,
		`{"method":"stop","params":{"result":false,"error":"guard: \"remote\" does not hold"},"id":7}`,
		`{"method":"stop","params":{"result":false,"error":"guard: \"remote\" does not hold"}}`,
	}
	for i, m := range tw.Received(user) {
		if m.Topic != "command_reply/plant1" || string(m.Payload) != want[i] {
			t.Errorf("%s %s, want %s", m.Topic, m.Payload, want[i])
		}
	}
}

// TestWhatAStalledLineHeldBackIsMarked holds a connection for longer than a
// packet of ours may be unanswered. Fresh messages before are the control.
func TestWhatAStalledLineHeldBackIsMarked(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	c := settings(tw.URL(), "puback", nil)
	c.Log = slog.New(slog.DiscardHandler)
	s, err := cloud.New(c) // with its usual times
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { s.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	eventually(t, "connected", connected(s))
	if err := tw.Send("command_send/plant1", []byte(`{"method":"fresh"}`)); err != nil {
		t.Fatal(err)
	}
	if d := receive(t, s); d.Stalled {
		t.Error("a message of a good line counts as held back")
	}
	tw.SetFaults(twin.Faults{BlackHole: true})
	go s.Publish(t.Context(), numbered(0, 1)) // a packet that nobody answers
	if err := tw.Send("command_send/plant1", []byte(`{"method":"old"}`)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3500 * time.Millisecond)
	tw.SetFaults(twin.Faults{})
	if d := receive(t, s); d.Method != "old" || !d.Stalled {
		t.Errorf("%s, stalled %v", say(d), d.Stalled)
	}
	time.Sleep(1100 * time.Millisecond)
	if err := tw.Send("command_send/plant1", []byte(`{"method":"fresh"}`)); err != nil {
		t.Fatal(err)
	}
	if d := receive(t, s); d.Stalled {
		t.Error("the line counts as stalled for ever")
	}
}
