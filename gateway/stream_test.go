package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

// blocks is a bus whose session gives raw blocks.
type blocks struct {
	*field
	refuse func(elapsed time.Duration) error
}

func (b *blocks) Open(ctx context.Context) (Session, error) {
	if _, err := b.field.Open(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *blocks) ReadBlock(_ context.Context, d *Device, block *RawBlock, framed bool) ([]byte, error) {
	if err := b.refuse(time.Since(b.start)); err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s %s+%d %v", d.Name, block.At, block.Count, framed), nil
}

func (b *blocks) ReadFrame(_ context.Context, _ *Device, frame []byte) ([]byte, error) {
	if string(frame) == "write" {
		return nil, &ReadError{errors.New("function 6 is refused")}
	}
	return append([]byte("answer to "), frame...), nil
}

// streams gives the stream records of a run as "seconds name body".
func streams(records []Record, start time.Time) []string {
	var lines []string
	for _, r := range records {
		if r.Kind == StreamRecord {
			lines = append(lines, fmt.Sprintf("%v %s %s", r.Time.Sub(start).Round(time.Second), r.Name, r.Body))
		}
	}
	return lines
}

func TestStreamsByTime(t *testing.T) {
	w := newRuleDesk(t, func(d *Device) {
		d.Prefix = "d_"
		d.Streams = []*Stream{
			{ID: "j", Format: "json", Every: 2 * time.Second, Body: &Body{Fields: []Field{{"x", Expression{"x"}}, {"half \"x\"", Expression{"x / 2"}}, {"big", Expression{"n"}}, {"zones", Expression{"zones"}}, {"d", Expression{"delta(x)"}}, {"fifth", Expression{"x * 0.2"}}}}},
			{ID: "t", Format: "text", Every: 3 * time.Second, Body: &Body{Text: "{x} bar, {text}/{n} {zones}."}},
		}
	})
	var got []Record
	for _, s := range w.d.rules.streams {
		s.take = func(_ *Device, r Record) { got = append(got, r) }
	}
	w.d.point("zones").note(&Sample{Point: w.d.point("zones").latest.Point, Time: w.now, Quality: Good, Value: ListValue([]Value{Float32Value(0.1), {}})})
	w.d.point("text").note(&Sample{Point: w.d.point("text").latest.Point, Time: w.now, Quality: Good, Value: TextValue("K\"7")})
	for i, samples := range []string{"x=1.5 n=7", "x=2", "x=timeout", "x=5", "x=0.3", "x=4", "x=4"} {
		w.at(time.Duration(i)*time.Second, samples) // what is due is sent before the samples are taken
	}
	w.at(time.Minute, "x=2") // what was missed is not made up for
	w.at(time.Minute+time.Second, "")
	wantLines(t, streams(got, formulaStart), `
1s d_j {"x":1.5,"half \"x\"":0.75,"big":7,"zones":[0.1,null],"d":0,"fifth":0.3}
1s d_t 1.5 bar, K"7/7 [0.1,null].
2s d_j {"x":2,"half \"x\"":1,"big":7,"zones":[0.1,null],"d":0.5,"fifth":0.4}
3s d_t null bar, K"7/7 [0.1,null].
4s d_j {"x":5,"half \"x\"":2.5,"big":null,"zones":null,"d":3,"fifth":1}
6s d_j {"x":4,"half \"x\"":2,"big":null,"zones":null,"d":3.7,"fifth":0.8}
6s d_t 4 bar, null/null null.
1m0s d_j {"x":null,"half \"x\"":null,"big":null,"zones":null,"d":null,"fifth":null}
1m0s d_t null bar, null/null null.`)
}

// TestStreamsByEvent: one message for each time that the event happens, also
// those that its flood brake holds back.
func TestStreamsByEvent(t *testing.T) {
	w := newRuleDesk(t, func(d *Device) {
		d.Events = []*Event{{ID: "shot", Each: condition("increase(n)"), AtMost: &Rate{Count: 1, Per: time.Hour}}, {ID: "high", When: condition("n > 3"), ClearEvent: "low"}}
		body := &Body{Fields: []Field{{"shot", Expression{"n"}}}}
		d.Streams = []*Stream{{ID: "curve", Format: "json", Each: "shot", Body: body}, {ID: "alarm", Format: "json", Each: "high", Body: body}}
	})
	var got []Record
	for _, s := range w.d.rules.streams {
		s.take = func(_ *Device, r Record) { got = append(got, r) }
	}
	w.every("n", "1 2 2 3 4 1")
	wantLines(t, streams(got, formulaStart), "1s curve {\"shot\":2}\n3s curve {\"shot\":3}\n4s curve {\"shot\":4}\n4s alarm {\"shot\":4}")
}

// TestRawBlocksAreReadBetweenPolls: at their times; what the device refuses is said
// once, and a lost connection ends the session.
func TestRawBlocksAreReadBetweenPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &blocks{field: &field{answer: counting, takes: 10 * time.Millisecond}}
		f.start = time.Now()
		lost := false
		f.refuse = func(elapsed time.Duration) error {
			if elapsed > 5*time.Second && elapsed < 9*time.Second {
				return &ReadError{errors.New("exception 2")}
			}
			if elapsed > 13*time.Second && !lost {
				lost = true
				return errors.New("connection reset")
			}
			return nil
		}
		d := device("d", &Definition{ID: "p", Poll: time.Second})
		d.Streams = []*Stream{
			{ID: "raw", Format: "binary", Every: 2 * time.Second, Raw: &RawBlock{At: "200", Count: 4}},
			{ID: "rtu", Format: "modbus-rtu", Every: 6 * time.Second, Raw: &RawBlock{At: "300", Count: 1}},
		}
		p := newPlant(t, f, d)
		p.run(16500 * time.Millisecond)
		wantLines(t, p.streams, `
0s raw d 200+4 false
0s rtu d 300+1 true
2s raw d 200+4 false
4s raw d 200+4 false
10s raw d 200+4 false
12s raw d 200+4 false
12s rtu d 300+1 true
16s raw d 200+4 false`)
		if log := p.log.String(); strings.Count(log, "stream is not sent") != 2 || strings.Count(log, "stream is sent again") != 2 || !strings.Contains(log, "connection reset") {
			t.Errorf("log:\n%s", log)
		}
	})
}

// silentBlocks is a bus with units that may be silent, whose session gives raw blocks.
type silentBlocks struct {
	*line
	blocks []string
	within func() // while a block is read
}

func (b *silentBlocks) Open(context.Context) (Session, error) { return b, nil }

func (b *silentBlocks) ReadBlock(_ context.Context, d *Device, _ *RawBlock, _ bool) ([]byte, error) {
	b.blocks = append(b.blocks, fmt.Sprint(time.Since(b.start).Round(time.Second), " ", d.Name))
	if b.within != nil {
		b.within()
	}
	return []byte("x"), nil
}

func (b *silentBlocks) ReadFrame(context.Context, *Device, []byte) ([]byte, error) { return nil, nil }

// TestARawBlockOfASilentUnitIsLeftOut: it would be a time limit for each.
func TestARawBlockOfASilentUnitIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &silentBlocks{line: &line{field: field{answer: counting, start: time.Now()}}}
		f.dead = func(elapsed time.Duration, d *Device) bool {
			return d.Name == "u01" && elapsed > 2500*time.Millisecond && elapsed < 20*time.Second
		}
		devices := units(2, time.Second)
		for _, d := range devices {
			d.Streams = []*Stream{{ID: "raw", Format: "binary", Every: 10 * time.Second, Raw: &RawBlock{At: "200", Count: 4}}}
		}
		newPlant(t, f, devices...).run(35 * time.Second)
		wantLines(t, f.blocks, "0s u00\n0s u01\n10s u00\n20s u00\n30s u00\n30s u01")
	})
}

// TestAWriteGoesBeforeEachRawBlock that is due with others.
func TestAWriteGoesBeforeEachRawBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &silentBlocks{line: &line{field: field{answer: counting, start: time.Now()}}}
		d := device("d", &Definition{ID: "p", Poll: time.Second})
		for _, id := range []string{"a", "b", "c"} {
			d.Streams = append(d.Streams, &Stream{ID: id, Format: "binary", Every: time.Minute, Raw: &RawBlock{At: "200", Count: 4}})
		}
		p := newPlant(t, f, d)
		var g *Gateway
		p.begins = func(made *Gateway) { g = made }
		var order []string
		f.within = func() {
			order = append(order, "block")
			if len(order) == 1 { // while the first block is read, somebody wants to write
				go g.buses[0].do(t.Context(), func(context.Context, *busLoop) error { order = append(order, "write"); return nil })
				sleep(t.Context(), 10*time.Millisecond)
			}
		}
		p.run(5 * time.Second)
		wantLines(t, order, "block\nwrite\nblock\nblock")
	})
}

// TestABatchIsCompleteByRowsBytesOrTime.
func TestABatchIsCompleteByRowsBytesOrTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			batch         Batch
			waiting, size int
			age           time.Duration
			want          bool
		}{
			"rows":         {Batch{Within: time.Hour, Rows: 3}, 3, 10, 0, true},
			"too few rows": {Batch{Within: time.Hour, Rows: 3}, 2, 10, 0, false},
			"bytes":        {Batch{Within: time.Hour}, 4, historyMax / 4, 0, true},
			"fewer bytes":  {Batch{Within: time.Hour}, 3, historyMax / 4, 0, false},
			"time":         {Batch{Within: time.Minute}, 1, 10, time.Minute, true},
			"too early":    {Batch{Within: time.Minute}, 1, 10, 59 * time.Second, false},
		} {
			store, err := buffer.Open(newBuffer(t), buffer.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for range c.waiting {
				store.Append("u/batch/s", buffer.Attributes, time.Now(), make([]byte, c.size))
			}
			l := &lane{name: "u/batch/s", buffer: store, batch: c.batch, clock: newClock(nil)}
			if got := l.complete(time.Now().Add(-c.age), c.size); got != c.want {
				t.Errorf("%s: complete is %v", name, got)
			}
			store.Close()
		}
	})
}

// TestDownlinksAreOfStreamsThatTakeThem, of devices that are in use.
func TestDownlinksAreOfStreamsThatTakeThem(t *testing.T) {
	stream := func(prefix string, disabled bool, downlink string) *Device {
		return &Device{User: "u", Prefix: prefix, Disabled: disabled, Streams: []*Stream{{ID: "s", Downlink: downlink}}}
	}
	s := &Site{Devices: []*Device{stream("a_", false, "write:p"), stream("b_", false, "none"), stream("c_", false, ""), stream("d_", true, "write:p")}}
	if got := fmt.Sprint(s.Downlinks()); got != "map[u:[a_s]]" {
		t.Errorf("got %s", got)
	}
}

// TestAReadRequestOfTheCloudIsAnsweredOnItsStream: on the bus's goroutine, also
// when the bus is down.
func TestAReadRequestOfTheCloudIsAnsweredOnItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &blocks{field: &field{answer: counting}}
		f.start = time.Now()
		f.openErr = func(elapsed time.Duration) error {
			if elapsed < 10*time.Second {
				return errors.New("connection refused")
			}
			return nil
		}
		d := device("d", &Definition{ID: "p", Poll: time.Second})
		d.Prefix = "d_"
		stream := &Stream{ID: "modbus", Downlink: "modbus-read"}
		var records []Record
		b := newBusLoop(&Bus{Name: "b"}, []*Device{d}, f, new(logBuffer).logger(), &Stats{}, func(_ *Device, r Record) { records = append(records, r) })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan struct{})
		go func() { defer close(done); b.run(ctx) }()
		time.Sleep(500 * time.Millisecond)
		if err := b.answerFrame(ctx, d, stream, []byte("read")); err == nil || err.Error() != "the bus is down" {
			t.Errorf("while the bus is down: %v", err)
		}
		time.Sleep(50 * time.Second)
		if err := b.answerFrame(ctx, d, stream, []byte("read")); err != nil {
			t.Error(err)
		}
		if err := b.answerFrame(ctx, d, stream, []byte("write")); err == nil || err.Error() != "function 6 is refused" {
			t.Errorf("a write: %v", err)
		}
		time.Sleep(5 * time.Second)
		cancel()
		<-done
		if got := streams(records, f.start); len(got) != 1 || !strings.HasSuffix(got[0], " d_modbus answer to read") {
			t.Errorf("got %v", got)
		}
		if len(f.opened) < 2 || f.opened[len(f.opened)-1] > 50*time.Second {
			t.Errorf("a refused frame ended the session: opened at %v", f.opened)
		}
	})
}

// TestWhatComesDownOnAStreamGoesThroughAllSteps: a value as a push does, parameters
// as a command does, and whatever is refused is in the audit.
func TestWhatComesDownOnAStreamGoesThroughAllSteps(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*hall, *Downlink)
		stream string
		body   string
		writes string
		said   string // events, replies and audit
	}{
		"a value":                     {stream: "d_value", body: " 35.5\n", writes: "setpoint=35.5", said: "cloud:u setpoint 35.5 30→35.5 done"},
		"a value out of limits":       {stream: "d_value", body: "62", said: "d_write_refused point=d_setpoint value=62 reason=setpoint 62 is above max 50 Hz\ncloud:u setpoint 62 → refused setpoint 62 is above max 50 Hz"},
		"no text":                     {stream: "d_value", body: "\xff", said: "d_write_refused point=d_setpoint value=\xff reason=setpoint takes a value, not null, an object or a number that is none\ncloud:u setpoint \ufffd → refused setpoint takes a value, not null, an object or a number that is none"},
		"a command":                   {stream: "d_job", body: "hz=42", writes: "setpoint=42 run_word=run_forward", said: " d_start ok setpoint=42 drive_state=running\ncloud:u start setpoint 42 30→42 done\ncloud:u start run_word run_forward →run_forward done\ncloud:u start → done"},
		"a command out of limits":     {stream: "d_job", body: "hz=62", said: " d_start: hz 62 is above max 50\ncloud:u d_start → refused hz 62 is above max 50"},
		"no parameters":               {stream: "d_job", body: "?", said: " d_start: not understood: no object\ncloud:u d_start → refused not understood: no object"},
		"a site that is locked":       {change: func(p *hall, _ *Downlink) { p.site.Writes = "locked" }, stream: "d_value", body: "35", said: "d_write_refused point=d_setpoint value=35 reason=site.writes is locked: nothing that the cloud sends is written\ncloud:u setpoint 35 → refused site.writes is locked: nothing that the cloud sends is written"},
		"a line that was stalled":     {change: func(_ *hall, m *Downlink) { m.Stalled = true }, stream: "d_value", body: "35", said: "d_write_refused point=d_setpoint value=35 reason=line was stalled\ncloud:u setpoint 35 → refused line was stalled"},
		"a value that is old":         {change: func(_ *hall, m *Downlink) { m.Arrived = m.Arrived.Add(-31 * time.Second) }, stream: "d_value", body: "35", said: "d_write_refused point=d_setpoint value=35 reason=expired: it arrived 31s ago\ncloud:u setpoint 35 → refused expired: it arrived 31s ago"},
		"a request that is old":       {change: func(_ *hall, m *Downlink) { m.Arrived = m.Arrived.Add(-31 * time.Second) }, stream: "d_modbus", body: "read", said: "cloud:u stream d_modbus → refused expired: it arrived 31s ago"},
		"a stream that nobody knows":  {stream: "value", body: "35", said: "cloud:u stream value → refused there is no stream value"},
		"a stream that only goes up":  {stream: "d_up", body: "35", said: "cloud:u stream d_up → refused the stream takes nothing from the cloud"},
		"a request before the answer": {change: func(p *hall, m *Downlink) { p.wire.down <- *m }, stream: "d_modbus", body: "read", said: "cloud:u stream d_modbus → refused the stream's last request is not answered yet"},
		"a bus that is down": {change: func(p *hall, m *Downlink) {
			p.machine.fail(func() { p.machine.lost = errors.New("no route to host") })
			time.Sleep(30 * time.Second)
			m.Arrived = time.Now()
		}, stream: "d_modbus", body: "read", said: "cloud:u stream d_modbus → refused the bus is down: no route to host"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newHall(t, func(s *Site) {
					d := s.Devices[0]
					d.Prefix = "d_"
					for _, pt := range d.Points {
						pt.Name = d.Prefix + pt.Name
					}
					d.Streams = []*Stream{{ID: "value", Downlink: "write:setpoint"}, {ID: "job", Downlink: "params:start"}, {ID: "modbus", Downlink: "modbus-read"}, {ID: "up", Downlink: "none"}}
				})
				defer p.stop()
				m := Downlink{Kind: StreamDownlink, Arrived: time.Now(), Stream: c.stream, Body: []byte(c.body)}
				if c.change != nil {
					c.change(p, &m)
				}
				p.wire.down <- m
				replies := p.replies(time.Second)
				want(t, "writes", p.machine.writes(), c.writes)
				said := append([]string{p.events(), replies}, p.lines()...)
				want(t, "said", strings.Join(slices.DeleteFunc(said, func(s string) bool { return s == "" }), "\n"), c.said)
			})
		})
	}
}

// TestAFloodOfReadRequestsIsRefused: they spend the same time as writes.
func TestAFloodOfReadRequestsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newHall(t, func(s *Site) {
			s.Devices[0].Streams = []*Stream{{ID: "raw", Downlink: "modbus-read"}}
			for _, pt := range s.Devices[0].Points {
				pt.Poll = 5 * time.Millisecond
			}
		})
		defer p.stop()
		for range 2000 {
			p.wire.down <- Downlink{Kind: StreamDownlink, Arrived: time.Now(), Stream: "raw", Body: []byte("read")}
			time.Sleep(5 * time.Millisecond)
		}
		p.machine.mu.Lock()
		defer p.machine.mu.Unlock()
		if n := p.machine.frames; n < 20 || n > 200 {
			t.Errorf("%d requests of 5 ms in 10 s", n)
		}
	})
}

// TestRowsOfAStreamThatIsGoneGoOut: rows of a stream that the site file has no
// more: they go out, or are named.
func TestRowsOfAStreamThatIsGoneGoOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := buffer.Open(newBuffer(t), buffer.Options{Gaps: true, Flush: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		p := &platform{start: time.Now()}
		site := func(streams ...*Stream) *Site {
			d := &Device{Name: "d", User: "u", Bus: &Bus{Name: "b"}, Streams: streams}
			return &Site{Cloud: second(replay), Devices: []*Device{d}}
		}
		make := func(s *Site) *rig {
			g, err := New(Config{Site: s, Log: slog.New(slog.DiscardHandler), Buffer: store, Uplinks: map[string]Uplink{"u": p}})
			if err != nil {
				t.Fatal(err)
			}
			return &rig{g, store, ""}
		}
		r := make(site(&Stream{ID: "s", Batch: &Batch{Within: time.Hour}}))
		r.play(t, time.Minute, func() {
			for range 5 {
				r.storeFor("u", Record{Kind: StreamRecord, Time: time.Now(), Name: "s", Body: []byte(`{"a":1}`), Row: true})
			}
		})
		r = make(site())
		r.play(t, 48*time.Hour, func() {})
		shown := 0
		for _, l := range r.lanes {
			shown += store.Len(l.name)
		}
		if n := store.Len(batchLane("u", "s")); n > 0 && shown == 0 {
			t.Errorf("%d rows wait for ever in a lane that nobody has; %d arrived, %d dropped", n, len(p.rows), store.Stats().Dropped.Total())
		}
	})
}
