package modbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
)

func TestReadTriesAgainAfterSilence(t *testing.T) {
	bus := serialBus(50 * time.Millisecond)
	bus.Retries = 1
	d := device(bus, drive(), "d", 1)
	s, unit := onSlave(t, bus, d)
	unit.regs[1] = 500
	group := []*gateway.Point{point(t, d, "speed")}
	unit.script(func([]byte) []byte { return nil })
	if samples, err := s.Read(t.Context(), group); err != nil || !samples[0].Silent || len(unit.take()) != 1 {
		t.Errorf("a unit that never answered: %v, %v", samples, err)
	}
	unit.script(nil)
	if samples, err := s.Read(t.Context(), group); err != nil || samples[0].Silent || samples[0].Quality != gateway.Good {
		t.Errorf("%v, %v", samples, err)
	}
	silent := 1
	unit.script(func(pdu []byte) []byte {
		if silent > 0 {
			silent--
			return nil
		}
		return unit.reply(pdu)
	})
	samples, err := s.Read(t.Context(), group)
	if err != nil || samples[0].Quality != gateway.Good || samples[0].Value.String() != "50" {
		t.Errorf("%v, %v", samples, err)
	}
	unit.script(func([]byte) []byte { return nil })
	samples, err = s.Read(t.Context(), group)
	if err != nil || samples[0].Quality != gateway.Bad || samples[0].Reason != "no answer within 50ms" || samples[0].Value.Kind() != gateway.None {
		t.Errorf("%v, %v", samples, err)
	}
	unit.script(nil)
	if samples, err = s.Read(t.Context(), group); err != nil || samples[0].Quality != gateway.Good {
		t.Errorf("%v, %v", samples, err)
	}
	unit.script(func(pdu []byte) []byte { return []byte{pdu[0] | 0x80, 2} })
	samples, err = s.Read(t.Context(), group)
	if err != nil || samples[0].Reason != "exception 2: illegal data address" {
		t.Errorf("%v, %v", samples, err)
	}
}

func TestReadOfScaledAndBrokenValues(t *testing.T) {
	bus := serialBus(time.Second)
	d := device(bus, drive(), "d", 1)
	s, unit := onSlave(t, bus, d)
	group := []*gateway.Point{point(t, d, "scaled")} // its exponent comes along unasked
	read := func() gateway.Sample {
		t.Helper()
		samples, err := s.Read(t.Context(), group)
		if err != nil || len(samples) != 1 {
			t.Fatal(samples, err)
		}
		return samples[0]
	}
	unit.regs[13], unit.regs[14] = 0xFFFE, 125
	if v := read(); v.Value.String() != "1.25" {
		t.Error(v)
	}
	if got := unit.take(); !slices.Equal(got, []string{"03000D0002"}) {
		t.Errorf("sent %v", got)
	}
	unit.regs[13] = 0x8000
	if v := read(); v.Quality != gateway.Bad || v.Reason != "scale factor exponent is -32768, not a power of ten" {
		t.Error(v)
	}
	unit.regs[6], unit.regs[7] = 0x5678, 0x1234
	group[0] = point(t, d, "high") // the same slice with another point is another request
	if v := read(); v.Value.String() != "4" {
		t.Error(v)
	}
}

func TestReadOfAPointThatIsTooLongIsBad(t *testing.T) {
	bus := serialBus(time.Second)
	d := device(bus, profileOf("holding", [2]int{0, 126}), "d", 1)
	s, unit := onSlave(t, bus, d)
	groups := s.Plan(d.Points)
	samples, err := s.Read(t.Context(), groups[0])
	if err != nil || len(samples) != 1 || samples[0].Reason != "126 registers at holding 0 are more than the 125 of one request" {
		t.Errorf("%v, %v", samples, err)
	}
	if got := unit.take(); len(got) != 0 {
		t.Errorf("sent %v", got)
	}
}

func TestSessionAgainstTheLibrary(t *testing.T) {
	l := &library{broken: 50}
	profile := drive()
	profile.Points = append(profile.Points, &gateway.Definition{ID: "beyond", At: "60", Type: "uint16"}, &gateway.Definition{ID: "door", At: "discrete:100", Type: "bool"})
	s, d, server := onLibrary(t, l, time.Second, profile)
	l.mu.Lock()
	l.bits[100], l.word[13], l.word[5] = true, 1, 0x00A8
	l.mu.Unlock()
	for id, v := range map[string]gateway.Value{
		"speed": gateway.FloatValue(49.9), "power": gateway.FloatValue(-1.5), "enable": gateway.BoolValue(true),
		"lamps": gateway.ListValue([]gateway.Value{gateway.BoolValue(false), gateway.BoolValue(true), gateway.BoolValue(true)}),
		"mode":  gateway.TextValue("run"), "scaled": gateway.IntValue(120), "name": gateway.TextValue("abc"),
	} {
		if err := s.Write(t.Context(), point(t, d, id), v); err != nil {
			t.Errorf("write %s: %v", id, err)
		}
	}
	got := readAll(t, s, d)
	for id, want := range map[string]string{
		"speed": "49.9", "power": "-1.5", "enable": "true", "lamps": "[false, true, true]", "bit": "true", "bare": "false", "rmw": "10",
		"mode": "run", "scaled": "120", "name": "abc", "measured": "499", "door": "true",
		"beyond": "!exception 2: illegal data address",
	} {
		if got[id] != want {
			t.Errorf("%s is %s, want %s", id, got[id], want)
		}
	}
	server.Stop()
	group := s.Plan(d.Points)[0]
	var err error
	for range 2 {
		if _, err = s.Read(t.Context(), group); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("reads go on without a server")
	}
}

func TestLateAnswerOnTCPIsNoValue(t *testing.T) {
	l := &library{broken: 256, delay: 150 * time.Millisecond}
	s, d, _ := onLibrary(t, l, 50*time.Millisecond, profileOf("holding", [2]int{0, 1}, [2]int{10, 1}))
	l.mu.Lock()
	l.word[0], l.word[10] = 1, 2
	l.mu.Unlock()
	if got := readAll(t, s, d); got["p0"] != "!no answer within 50ms" {
		t.Errorf("%v", got)
	}
	l.mu.Lock()
	l.delay = 0
	l.mu.Unlock()
	for range 20 {
		got := readAll(t, s, d)
		if v := got["p0"]; v != "0001" && v[0] != '!' {
			t.Errorf("p0 is %s", v)
		}
		if v := got["p1"]; v != "0002" && v[0] != '!' {
			t.Errorf("p1 is %s", v)
		}
	}
	for begin := time.Now(); ; {
		got := readAll(t, s, d)
		if got["p0"] == "0001" && got["p1"] == "0002" {
			break
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%v", got)
		}
	}
}

func TestDeafConnectionIsGivenUp(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	bus := &gateway.Bus{Name: "tcp", Type: "modbus-tcp", Host: "127.0.0.1", Port: itoa(listener.Addr().(*net.TCPAddr).Port), Timeout: 5 * time.Millisecond}
	d := device(bus, profileOf("holding", [2]int{0, 1}), "d", 1)
	a, err := New(gateway.Env{}, bus, []*gateway.Device{d})
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for n := 1; n < deafAfter; n++ {
		if samples, err := s.Read(t.Context(), d.Points); err != nil || samples[0].Reason != "no answer within 5ms" {
			t.Fatalf("read %d: %v, %v", n, samples, err)
		}
	}
	if _, err := s.Read(t.Context(), d.Points); err == nil || !strings.Contains(err.Error(), "nobody answered the last 5 requests") {
		t.Error(err)
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	bus := serialBus(time.Minute)
	d := device(bus, drive(), "d", 1)
	s, unit := onSlave(t, bus, d)
	unit.script(func([]byte) []byte { return nil })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := s.Read(ctx, []*gateway.Point{point(t, d, "speed")}); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func TestOpenSaysWhatItTried(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	for _, tt := range []struct {
		bus  *gateway.Bus
		want string
	}{
		{&gateway.Bus{Type: "modbus-tcp", Host: "127.0.0.1", Port: itoa(free.Addr().(*net.TCPAddr).Port)}, "dial tcp 127.0.0.1:"},
		{&gateway.Bus{Type: "modbus-rtu", Port: "/dev/serial/by-id/none", Line: "9600 8N1"}, "open /dev/serial/by-id/none (9600 8N1): no such file"},
	} {
		a, err := New(gateway.Env{}, tt.bus, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Open(t.Context()); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	profile := profileOf("holding", [2]int{0, 1})
	profile.Points[0].At = "x"
	for _, tt := range []struct {
		bus  *gateway.Bus
		unit int
		want string
	}{
		{&gateway.Bus{Type: "opcua"}, 1, `bus type "opcua" is not a Modbus bus`},
		{&gateway.Bus{Type: "modbus-rtu", Line: "9600"}, 1, `line "9600" is not a baud rate and a format`},
		{tcp, 300, "device d: unit 300 is not a number from 0 to 255"},
		{tcp, 1, `device d: point p0: at: address "x" is not a number`},
	} {
		_, err := New(gateway.Env{}, tt.bus, []*gateway.Device{device(tt.bus, profile, "d", tt.unit)})
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}

// TestTimeoutWhereNobodySaysAny: a converter waits for its own serial side first.
func TestTimeoutWhereNobodySaysAny(t *testing.T) {
	for _, tt := range []struct {
		bus   gateway.Bus
		units []int
		want  time.Duration
	}{
		{gateway.Bus{Type: "modbus-tcp", Host: "h"}, []int{1}, 500 * time.Millisecond},
		{gateway.Bus{Type: "modbus-tcp", Host: "h"}, []int{1, 1}, 500 * time.Millisecond}, // same_unit
		{gateway.Bus{Type: "modbus-tcp", Host: "h"}, []int{1, 2}, 3 * time.Second},
		{gateway.Bus{Type: "modbus-rtu-over-tcp", Host: "h"}, []int{1, 2}, 3 * time.Second},
		{gateway.Bus{Type: "modbus-tcp", Host: "h", Timeout: time.Second}, []int{1, 2}, time.Second},
		{gateway.Bus{Type: "modbus-rtu", Line: "9600 8N1"}, []int{1, 2}, 500 * time.Millisecond},
	} {
		var devices []*gateway.Device
		for i, unit := range tt.units {
			devices = append(devices, device(&tt.bus, profileOf("holding", [2]int{0, 1}), fmt.Sprint("d", i), unit))
		}
		a, err := New(gateway.Env{}, &tt.bus, devices)
		if err != nil {
			t.Fatal(err)
		}
		if got := deviceTimeout(a.(*Adapter).bus, devices[0]); got != tt.want {
			t.Errorf("%s with units %v: %v, want %v", tt.bus.Type, tt.units, got, tt.want)
		}
	}
}

// reading of a full request from bytes to engineering units.
func fullRequest(b testing.TB, typ gateway.Type) (*request, []byte) {
	return fullRequestOf(b, &gateway.Definition{Type: typ})
}

func fullRequestOf(b testing.TB, like *gateway.Definition) (*request, []byte) {
	profile := &gateway.Profile{Name: "p", Addressing: "protocol", Table: "input", Order: "CDAB"}
	words := typeWords[like.Type]
	for i := range 120 / words {
		d := *like
		d.ID, d.At = fmt.Sprintf("p%d", i), itoa(i*words)
		profile.Points = append(profile.Points, &d)
	}
	d := device(tcp, profile, "d", 1)
	groups, p := planOf(b, tcp, d)
	places := make([]*place, len(groups[0]))
	for i, point := range groups[0] {
		places[i] = p.atlas.places[point]
	}
	r, err := newRequest(tcp, places)
	if err != nil || len(groups) != 1 {
		b.Fatal(len(groups), err)
	}
	return r, make([]byte, 2*r.count)
}

func TestReadingNumbersDoesNotAllocate(t *testing.T) {
	for _, typ := range numberTypes {
		r, data := fullRequest(t, typ)
		if n := testing.AllocsPerRun(10, func() {
			for i := range r.readings {
				_, _, _ = r.value(&r.readings[i], data)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", typ, n)
		}
	}
}

func BenchmarkReadPoint(b *testing.B) {
	for _, typ := range []gateway.Type{"uint16", "float32"} {
		r, data := fullRequest(b, typ)
		b.Run(string(typ), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_, _, _ = r.value(&r.readings[i%len(r.readings)], data)
			}
		})
	}
}

// BenchmarkFill makes the samples of an answer; one operation is one of them.
func BenchmarkFill(b *testing.B) {
	for _, scale := range []float64{0, 0.01} {
		d := &gateway.Definition{Type: "uint16"}
		if scale > 0 {
			d.Scale = &gateway.Decimal{Float: scale, Places: 2}
		}
		r, data := fullRequestOf(b, d)
		samples := make([]gateway.Sample, len(r.readings))
		now := time.Now()
		b.Run(fmt.Sprintf("scale=%v", scale), func(b *testing.B) {
			b.ReportAllocs()
			for done := 0; done < b.N; done += len(samples) {
				r.fill(samples, data, now)
			}
		})
	}
}

func BenchmarkReadOverTCP(b *testing.B) {
	l := &library{broken: 256}
	profile := &gateway.Profile{Name: "p", Addressing: "protocol", Table: "holding", Order: "ABCD"}
	for i := range 120 {
		profile.Points = append(profile.Points, &gateway.Definition{ID: fmt.Sprintf("p%d", i), At: itoa(i), Type: "uint16"})
	}
	s, d, _ := onLibrary(b, l, time.Second, profile)
	group := s.Plan(d.Points)[0]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Read(context.Background(), group); err != nil {
			b.Fatal(err)
		}
	}
}
