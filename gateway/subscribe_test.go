package gateway

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// teller is a bus whose devices say by themselves what changes.
type teller struct {
	field
	says    func(elapsed time.Duration, p *Point) []Value // each 100 ms; nothing for most
	dies    time.Duration                                 // when the session is lost, if it is
	speaks  time.Duration                                 // when the device tells an event
	watched [][]*Point
}

type tellerSession struct {
	*teller
	tell   func()
	lost   chan struct{}
	closed chan struct{}
	ended  chan struct{}
}

func (f *teller) Open(ctx context.Context) (Session, error) {
	if _, err := f.field.Open(ctx); err != nil {
		return nil, err
	}
	return &tellerSession{teller: f, lost: make(chan struct{}), closed: make(chan struct{}), ended: make(chan struct{})}, nil
}

func (s *tellerSession) Subscribe(_ context.Context, points []*Point, deliver func([]Sample)) error {
	s.teller.watched = append(s.teller.watched, points)
	go func() {
		defer close(s.ended)
		deliver(s.samples(points, func(p *Point) []Value { return []Value{IntValue(0)} }))
		for {
			select {
			case <-s.closed:
				return
			case <-time.After(100 * time.Millisecond):
			}
			elapsed := time.Since(s.start)
			if s.dies > 0 && elapsed >= s.dies {
				s.dies = 0
				close(s.lost)
				return
			}
			if s.speaks > 0 && elapsed == s.speaks {
				s.tell()
			}
			if told := s.samples(points, func(p *Point) []Value { return s.says(elapsed, p) }); len(told) > 0 {
				deliver(told)
			}
		}
	}()
	return nil
}

func (s *tellerSession) samples(points []*Point, values func(*Point) []Value) (told []Sample) {
	for _, p := range points {
		for _, v := range values(p) {
			told = append(told, Sample{Point: p, Time: time.Now(), Value: v, Quality: Good})
		}
	}
	return told
}

func (s *tellerSession) TellEvents(devices []*Device, deliver func([]FieldEvent)) {
	s.tell = func() {
		var events []FieldEvent
		for _, alarm := range []string{"pump on", "fan on", "fan off", "pump off"} {
			source, state, _ := strings.Cut(alarm, " ")
			events = append(events, FieldEvent{Device: devices[0], Event: devices[0].Events[0], Time: time.Now(), Source: source, Message: "oil low", Severity: 600, Active: BoolValue(state == "on"), Subject: source})
		}
		deliver(events)
	}
}

func (s *tellerSession) Lost() <-chan struct{} { return s.lost }
func (s *tellerSession) Err() error            { return errors.New("silent for 3 keep-alives") }
func (s *tellerSession) Close() error {
	close(s.closed)
	<-s.ended
	return nil
}

// run runs the bus for a time.
func (f *teller) run(t *testing.T, duration time.Duration, devices ...*Device) (reports []string, log string) {
	t.Helper()
	var out logBuffer
	f.start = time.Now()
	take := func(d *Device, r Record) {
		line := time.Since(f.start).String() + " " + d.Name
		if r.Kind == EventRecord {
			line += " " + r.Name + " " + string(r.Severity)
			if r.ID == "" {
				t.Error("an event without an id")
			}
		}
		for _, a := range r.Values {
			line += " " + a.Name + "=" + a.Value.String()
		}
		reports = append(reports, line)
	}
	b := newBusLoop(&Bus{Name: "b"}, devices, f, out.logger(), &Stats{}, take)
	book, err := newRulebook(&Site{}, out.logger())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range b.reporter.devices {
		if d.rules, err = newRules(book, d, take); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	b.run(ctx)
	if b.load.Samples == 0 || b.load.Samples != b.stats.Samples.Load() {
		t.Errorf("the bus counts %d values, the gateway %d", b.load.Samples, b.stats.Samples.Load())
	}
	return reports, out.String()
}

// telling makes a device of a profile with a mode.
func telling(name, mode string, definitions ...*Definition) *Device {
	d := device(name, definitions...)
	d.Profile = &Profile{Mode: mode}
	return d
}

// at says values at one time.
func at(when time.Duration, values ...int64) func(time.Duration, *Point) []Value {
	return func(elapsed time.Duration, _ *Point) (list []Value) {
		if elapsed == when {
			for _, v := range values {
				list = append(list, IntValue(v))
			}
		}
		return list
	}
}

func TestWhatIsToldIsReportedAtOnceAndTheRestIsPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &teller{field: field{answer: counting}, says: at(2200*time.Millisecond, 7)}
		reports, log := f.run(t, 3500*time.Millisecond,
			telling("told", "subscribe", &Definition{ID: "p", Poll: time.Second}, &Definition{ID: "w", Poll: time.Second, Access: "w"}),
			telling("asked", "poll", &Definition{ID: "q", Poll: time.Second}))
		slices.Sort(reports)
		wantLines(t, reports, "0s asked q=0\n0s told p=0\n1s asked q=1\n2.2s told p=7\n2s asked q=2\n3s asked q=3")
		if len(f.watched) != 1 || len(f.watched[0]) != 1 || log != "" {
			t.Errorf("watched %v, log %s", f.watched, log)
		}
	})
}

func TestSeveralValuesOfAPointAreSeveralReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &teller{says: at(time.Second, 1, 2, 2, 3)}
		reports, _ := f.run(t, 2*time.Second, telling("d", "subscribe", &Definition{ID: "a", Poll: time.Second}, &Definition{ID: "b", Poll: time.Second}))
		wantLines(t, reports, "0s d a=0 b=0\n1s d a=1\n1s d a=2\n1s d a=3 b=1\n1s d b=2\n1s d b=3")
	})
}

func TestAWatchedValueStandsUntilTheSessionIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &teller{says: at(0), dies: 9 * time.Minute}
		f.openErr = func(elapsed time.Duration) error {
			if elapsed > time.Minute {
				return errors.New("connection refused")
			}
			return nil
		}
		reports, log := f.run(t, 20*time.Minute, telling("d", "subscribe", &Definition{ID: "p", Poll: time.Second, Report: Reporting{AtLeastEvery: 4 * time.Minute}}))
		if len(reports) != 3 || !strings.HasPrefix(reports[1], "4m") || !strings.HasPrefix(reports[2], "8m") {
			t.Errorf("reports: %v", reports)
		}
		if !strings.HasPrefix(log, `WARN msg="bus lost" error="silent for 3 keep-alives"`) {
			t.Errorf("log: %s", log)
		}
	})
}

func TestALostSubscriptionIsOpenedAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &teller{says: at(0), dies: 2 * time.Second}
		_, log := f.run(t, 4*time.Second, telling("d", "subscribe", &Definition{ID: "p", Poll: time.Second}))
		if len(f.opened) != 2 || f.opened[1] != 2*time.Second {
			t.Errorf("opened at %v", f.opened)
		}
		if !strings.Contains(log, `msg="bus is back"`) {
			t.Errorf("log: %s", log)
		}
	})
}

func TestTheLastValueIsNotHeldBackForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &teller{says: at(time.Second, 1, 2, 3)}
		reports, _ := f.run(t, 10*time.Second, telling("d", "subscribe", &Definition{ID: "p", Poll: time.Second, Report: Reporting{AtMostEvery: 3 * time.Second}}))
		if len(reports) != 2 || !strings.HasSuffix(reports[1], "p=3") {
			t.Errorf("reports: %v", reports)
		}
	})
}

// TestAnEventOfADeviceIsAnEventRecord: with params and a flood brake like any other.
func TestAnEventOfADeviceIsAnEventRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &teller{says: at(0), speaks: time.Second}
		d := telling("d", "subscribe", &Definition{ID: "p", Poll: time.Second}, &Definition{ID: "q", Poll: time.Second})
		d.Prefix = "d_"
		d.Points[1].Name = "d_q"
		d.Events = []*Event{{ID: "trouble", Severity: "alarm", OPCUA: &ServerEvents{}, Params: []string{"q"}, AtMost: &Rate{Count: 1, Per: 400 * time.Millisecond}}}
		reports, _ := f.run(t, 2*time.Second, d)
		wantLines(t, reports, `
0s d p=0 d_q=0
1s d d_trouble alarm q=0 message=oil low source=pump severity=600 active=true
1.4s d d_trouble alarm q=0 message=oil low source=fan severity=600 active=false held_back=1
1.8s d d_trouble alarm q=0 message=oil low source=pump severity=600 active=false`)
	})
}
