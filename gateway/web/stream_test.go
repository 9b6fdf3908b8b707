package web

import (
	"bufio"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
)

// events reads a stream.
type events struct {
	t *testing.T
	r *bufio.Reader
}

func (r *rig) open(t *testing.T, query string) *events {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/api/stream"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := r.client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %s", answer.Status, answer.Header.Get("Content-Type"))
	}
	return &events{t, bufio.NewReader(answer.Body)}
}

// next is the data of the next event, which has to be of a name.
func (e *events) next(name string) string {
	e.t.Helper()
	var lines [3]string
	for i := range lines {
		line, err := e.r.ReadString('\n')
		if err != nil {
			e.t.Fatal(err)
		}
		lines[i] = strings.TrimSpace(line)
	}
	if lines[0] != "event: "+name || lines[2] != "" {
		e.t.Fatalf("want %s, got %q", name, lines)
	}
	return strings.TrimPrefix(lines[1], "data: ")
}

type tick struct {
	Time    int64    `json:"time"`
	Buses   []Bus    `json:"buses"`
	Devices []Device `json:"devices"`
	Cloud   []Cloud  `json:"cloud"`
	Buffer  *Buffer  `json:"buffer"`
	Locks   []gateway.Lock
	Points  [][]any    `json:"points"`
	Times   [][3]int64 `json:"times"`
}

// TestStreamSendsWhatChanged: all of it at first, then only what is news.
func TestStreamSendsWhatChanged(t *testing.T) {
	r := newRig(t, gateway.Local{WriteTest: true}, nil)
	e := r.open(t, "?points=1")
	h := decode[hello](t, e.next("hello"))
	if len(h.Points) != 3 || h.Points[0].Name != "speed" || h.Points[0].Access != "rw" || !h.WriteTest || h.Status.Site != "hall" {
		t.Fatalf("hello: %+v", h)
	}
	first := decode[tick](t, e.next("tick"))
	if len(first.Points) != 3 || len(first.Times) == 0 || len(first.Devices) != 1 || first.Buffer == nil {
		t.Fatalf("first tick: %+v", first)
	}
	second := decode[tick](t, e.next("tick"))
	if len(second.Devices) != 0 || len(second.Points) != 1 || len(second.Times) != 1 || second.Times[0][0] != 0 || second.Times[0][1] != 2 {
		t.Errorf("second tick: the bad point is no news, nor are the devices, and one request has one time: %+v", second)
	}
	if first.Points[2][1] != "***" {
		t.Errorf("the secret shows: %v", first.Points)
	}
	if err := r.Gateway.Lock(gateway.ByPage, "press", "belt off"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		if l := decode[tick](t, e.next("tick")).Locks; len(l) == 1 && l[0].Device == "press" && l[0].Reason == "belt off" && l[0].Who == gateway.ByPage {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the lock does not show")
		}
	}
	r.field.fail(errors.New(`it said "no"`))
	for deadline := time.Now().Add(5 * time.Second); ; {
		m := decode[tick](t, e.next("tick"))
		if len(m.Devices) == 1 && !m.Devices[0].Online && m.Buses[0].Error == `it said "no"` && len(m.Points) == 3 && m.Points[0][3] == `it said "no"` {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the outage does not show: %+v", m)
		}
	}
	plain := r.open(t, "")
	plain.next("hello")
	if m := decode[tick](t, plain.next("tick")); m.Points != nil || m.Times != nil {
		t.Errorf("points that nobody asked for: %+v", m)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	r := newRig(t, gateway.Local{}, nil)
	for range mostStreams {
		r.open(t, "").next("hello")
	}
	if status, body, _ := r.ask(t, "GET", "/api/stream", ""); status != http.StatusServiceUnavailable || !strings.Contains(body, "too many windows") {
		t.Errorf("%d %s", status, body)
	}
}

func TestDepthsAreBounded(t *testing.T) {
	d := newDepths(2 * time.Hour)
	for i := range 10_000 {
		d.add(time.UnixMilli(0).Add(time.Duration(i)*depthStep), i, 0)
	}
	if len(d.times) > 2*d.most || d.most != 1440 {
		t.Errorf("%d kept of at most %d", len(d.times), d.most)
	}
}

// TestTimeToDrainIsTheLongest of the lanes; one that grows takes for ever.
func TestTimeToDrainIsTheLongest(t *testing.T) {
	r := newRig(t, gateway.Local{}, nil)
	at := time.UnixMilli(1000)
	snap := &gateway.Snapshot{Lanes: []gateway.LaneSnapshot{
		{User: "press", Waiting: 3, Drain: 2 * time.Second, Oldest: at.Add(time.Second), Pace: time.Second},
		{User: "press", Waiting: 4, Drain: 5 * time.Second, Oldest: at}, {User: "other"}, {User: "press"},
	}}
	if c := r.cloudOf(snap)[0]; c.DrainMS != 5000 || c.Waiting != 7 || !c.Oldest.Equal(at) || c.PaceMS != 1000 {
		t.Errorf("%+v", c)
	}
	snap.Lanes[0].Grows = true
	if c, b := r.cloudOf(snap)[0], r.bufferOf(snap); c.DrainMS != -1 || b.DrainMS != -1 {
		t.Errorf("it grows: %+v %+v", c, b)
	}
}

// TestTrendAndHistoryAreServed as far as they go.
func TestTrendAndHistoryAreServed(t *testing.T) {
	r := newRig(t, gateway.Local{HTTP: "127.0.0.1:0", History: time.Hour}, nil)
	r.await(t, func() bool {
		_, body, _ := r.ask(t, "GET", "/api/trend?device=press&point=speed", "")
		trend := decode[Trend](t, body)
		for i := range trend.Times { // the first step may be too short for two values
			if trend.High[i] != nil && *trend.High[i] > *trend.Low[i] {
				return true
			}
		}
		return false
	})
	if _, body, _ := r.ask(t, "GET", "/api/trend?device=press&point=pin", ""); decode[Trend](t, body).Low[0] != nil {
		t.Errorf("a secret has a trend: %s", body)
	}
	if status, _, _ := r.ask(t, "GET", "/api/trend?device=press&point=none", ""); status != 404 {
		t.Errorf("trend of nothing: %d", status)
	}
	r.depths.add(time.UnixMilli(1000), 7, 8)
	if _, body, _ := r.ask(t, "GET", "/api/history", ""); !strings.Contains(body, `"times":[1000],"waiting":[7],"file_bytes":[8]`) {
		t.Errorf("history: %s", body)
	}
}
