package web

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"sluice/gateway"
)

const (
	streamEvery  = time.Second
	mostStreams  = 16
	writeTimeout = 10 * time.Second

	tooMany = "the page is open in too many windows"
)

// stream sends what changes, as server-sent events: "hello" with what the site
// is made of and "tick" once a second. With ?points=1 it has the points, too.
//
//	hello  {"status": Status, "write_test": bool, "points": [{"device", "name", "label", "unit", "access", …}]}
//	tick   {"time": ms, "buses"?, "devices"?, "cloud"?, "buffer"?, "locks"?, "points": [[index, value, quality, reason]], "times": [[from, to, ms]]}
//
// The sections of a Status are there when something in them changed, points
// when their value or quality did; times are the times of samples, for runs of
// points. quality is 0 bad, 1 uncertain, 2 good.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		refuse(http.StatusServiceUnavailable, tooMany).ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	f := &feed{server: s, out: w, control: http.NewResponseController(w)}
	if r.URL.Query().Get("points") != "" {
		f.known = make([]shownSample, 0)
	}
	err := f.hello(r.Context())
	tick := time.NewTicker(streamEvery)
	defer tick.Stop()
	for err == nil {
		select {
		case <-tick.C:
			err = f.tick(r.Context())
		case <-r.Context().Done():
			return
		}
	}
}

// feed is one open stream: what its page knows already.
type feed struct {
	server  *Server
	out     http.ResponseWriter
	control *http.ResponseController
	buffer  bytes.Buffer

	sections map[string][]byte
	known    []shownSample // nil: the page wants no points
}

// shownSample is what a page knows of a point.
type shownSample struct {
	value   gateway.Value
	quality gateway.Quality
	reason  string
	time    int64 // ms
}

// StreamPoint is a point as a page gets to know it.
type StreamPoint struct {
	Device string   `json:"device"`
	Name   string   `json:"name"`
	Label  string   `json:"label,omitempty"`
	Unit   string   `json:"unit,omitempty"`
	Access string   `json:"access"`
	Type   string   `json:"type"`
	Place  string   `json:"place,omitempty"` // address or node, as in the site file
	Min    string   `json:"min,omitempty"`
	Max    string   `json:"max,omitempty"`
	Enum   []string `json:"enum,omitempty"`
	Poll   int64    `json:"poll_ms"`
}

type hello struct {
	Status    Status        `json:"status"`
	WriteTest bool          `json:"write_test"`
	History   int64         `json:"history_ms"`
	Timezone  string        `json:"timezone,omitempty"`
	Points    []StreamPoint `json:"points,omitempty"`
}

func (f *feed) hello(ctx context.Context) error {
	snap := f.server.recent(ctx)
	h := hello{Status: f.server.statusOf(snap), WriteTest: f.server.Site.Local.WriteTest, History: f.server.Site.Local.History.Milliseconds(), Timezone: f.server.Site.Timezone}
	f.sections = make(map[string][]byte)
	if f.known != nil {
		for _, b := range snap.Buses {
			for i := range b.Devices {
				for k := range b.Devices[i].Points {
					h.Points = append(h.Points, streamPoint(b.Devices[i].Points[k].Point))
				}
			}
		}
		f.known = make([]shownSample, len(h.Points))
	}
	body, err := json.Marshal(h)
	if err != nil {
		return err
	}
	f.buffer.Reset()
	f.buffer.WriteString("event: hello\ndata: ")
	f.buffer.Write(body)
	f.buffer.WriteString("\n\n")
	if err := f.flush(); err != nil {
		return err
	}
	return f.tick(ctx)
}

func streamPoint(p *gateway.Point) StreamPoint {
	s := StreamPoint{Device: p.Device.Name, Name: p.ID, Label: p.Label, Unit: p.Unit, Access: p.Access, Type: string(p.Type), Poll: p.Poll.Milliseconds()}
	for _, place := range []string{p.At, p.Node, p.Browse} {
		if s.Place == "" {
			s.Place = place
		}
	}
	if p.Min != nil {
		s.Min = p.Min.Text
	}
	if p.Max != nil {
		s.Max = p.Max.Text
	}
	for _, l := range p.Enum {
		s.Enum = append(s.Enum, l.Label)
	}
	return s
}

// tick sends what changed since the last one.
func (f *feed) tick(ctx context.Context) error {
	snap := f.server.recent(ctx)
	if f.known != nil && pointsIn(snap) != len(f.known) {
		return f.hello(ctx) // a bus that was not seen yet has its computed points now
	}
	f.buffer.Reset()
	f.buffer.WriteString(`event: tick` + "\n" + `data: {"time":`)
	f.number(snap.Time.UnixMilli())
	status := f.server.statusOf(snap)
	for _, section := range []struct {
		name  string
		value any
	}{{"buses", status.Buses}, {"devices", status.Devices}, {"cloud", status.Cloud}, {"buffer", status.Buffer}, {"locks", status.Locks}} {
		body, err := json.Marshal(section.value)
		if err != nil {
			return err
		}
		if bytes.Equal(body, f.sections[section.name]) {
			continue
		}
		f.sections[section.name] = body
		f.buffer.WriteString(`,"` + section.name + `":`)
		f.buffer.Write(body)
	}
	if f.known != nil {
		f.points(snap)
	}
	f.buffer.WriteString("}\n\n")
	return f.flush()
}

// points writes the points that changed, and the times of all that were read.
func (f *feed) points(snap *gateway.Snapshot) {
	f.buffer.WriteString(`,"points":[`)
	var times runs
	i, first := 0, true
	for _, b := range snap.Buses {
		for d := range b.Devices {
			for k := range b.Devices[d].Points {
				s, known := &b.Devices[d].Points[k], &f.known[i]
				at := int64(0)
				if !s.Time.IsZero() {
					at = s.Time.UnixMilli()
				}
				if at != known.time {
					times.add(i, at)
				}
				if at != 0 && known.time == 0 || s.Quality != known.quality || s.Reason != known.reason || !s.Value.Equal(known.value) {
					if !first {
						f.buffer.WriteByte(',')
					}
					first = false
					f.point(i, s)
				}
				*known = shownSample{s.Value, s.Quality, s.Reason, at}
				i++
			}
		}
	}
	f.buffer.WriteString(`],"times":[`)
	for n, run := range times {
		if n > 0 {
			f.buffer.WriteByte(',')
		}
		f.buffer.WriteByte('[')
		f.number(int64(run.from))
		f.buffer.WriteByte(',')
		f.number(int64(run.to))
		f.buffer.WriteByte(',')
		f.number(run.at)
		f.buffer.WriteByte(']')
	}
	f.buffer.WriteByte(']')
}

func pointsIn(snap *gateway.Snapshot) (n int) {
	for _, b := range snap.Buses {
		for i := range b.Devices {
			n += len(b.Devices[i].Points)
		}
	}
	return n
}

func (f *feed) point(i int, s *gateway.Sample) {
	value := ""
	if s.Quality != gateway.Bad {
		value = shown(s)
	}
	f.buffer.WriteByte('[')
	f.number(int64(i))
	f.buffer.WriteByte(',')
	f.text(value)
	f.buffer.WriteByte(',')
	f.number(int64(s.Quality))
	if s.Reason != "" {
		f.buffer.WriteByte(',')
		f.text(s.Reason)
	}
	f.buffer.WriteByte(']')
}

func (f *feed) number(n int64) { f.buffer.Write(strconv.AppendInt(f.buffer.AvailableBuffer(), n, 10)) }

func (f *feed) text(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string can always be written
			f.buffer.Write(quoted)
			return
		}
	}
	f.buffer.WriteByte('"')
	f.buffer.WriteString(s)
	f.buffer.WriteByte('"')
}

// flush sends what is written. A page that does not take it in time is dropped.
func (f *feed) flush() error {
	if err := f.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := f.out.Write(f.buffer.Bytes()); err != nil {
		return err
	}
	return f.control.Flush()
}

// runs are the times of samples, the same ones of neighbours together: points of
// one request have one time.
type runs []run

type run struct {
	from, to int
	at       int64
}

func (r *runs) add(i int, at int64) {
	if n := len(*r); n > 0 && (*r)[n-1].to == i-1 && (*r)[n-1].at == at {
		(*r)[n-1].to = i
		return
	}
	*r = append(*r, run{i, i, at})
}

// recent is a snapshot that may be half a second old, so that many pages cost
// as much as one.
func (s *Server) recent(ctx context.Context) *gateway.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil || time.Since(s.last.Time) > streamEvery/2 {
		s.last = s.Gateway.Snapshot(ctx)
	}
	return s.last
}
