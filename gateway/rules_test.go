package gateway

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/buffer"
)

// ruleDesk judges samples that a test hands in, without a bus or a clock.
type ruleDesk struct {
	t    *testing.T
	r    *reporter
	d    *deviceState
	now  time.Time
	said []string // what was reported, as "seconds name param=value …"
}

// newRuleDesk is for a device with points x, y, n, energy and alarms, and what the
// test gives it.
func newRuleDesk(t *testing.T, change func(d *Device)) *ruleDesk {
	t.Helper()
	w := &ruleDesk{t: t, now: formulaStart}
	device := formulaDevice()
	device.Profile = &Profile{}
	change(device)
	w.r = newReporter([]*Device{device}, w.take)
	w.d = w.r.devices[0]
	book, err := newRulebook(&Site{Identity: Identity{Timezone: "Europe/Berlin"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if w.d.rules, err = newRules(book, w.d, w.take); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *ruleDesk) take(_ *Device, r Record) {
	r.Values = slices.DeleteFunc(r.Values, func(a Attribute) bool { return a.Name == hidden })
	if r.Kind == ReportRecord && len(r.Values) == 0 {
		return
	}
	line := fmt.Sprintf("%v %s", w.now.Sub(formulaStart), r.Name)
	for _, a := range r.Values {
		line += fmt.Sprintf(" %s=%s", a.Name, a.Value)
	}
	w.said = append(w.said, line)
}

// at reads points at a time, as "x=1 y=timeout", and judges.
func (w *ruleDesk) at(at time.Duration, samples string) {
	w.now = formulaStart.Add(at)
	w.d.rules.tick(w.now)
	for sample := range strings.FieldsSeq(samples) {
		name, text, _ := strings.Cut(sample, "=")
		st := w.d.point(name)
		s := Sample{Point: st.latest.Point, Time: w.now, Quality: Good}
		var f float64
		switch _, err := fmt.Sscan(text, &f); {
		case st.latest.Point.Type == Flags:
			s.Value = TextValue(text)
		case err != nil:
			s.Quality, s.Reason = Bad, text
		default:
			s.Value = FloatValue(f)
			if st.latest.Point.Type == Uint16 {
				s.Value = UintValue(uint64(f))
			}
		}
		st.note(&s)
	}
	w.d.judge(w.now)
	w.r.flush(w.d)
}

// every hands in samples of one point, a second apart.
func (w *ruleDesk) every(point, samples string) {
	for i, text := range strings.Fields(samples) {
		w.at(time.Duration(i)*time.Second, point+"="+text)
	}
}

// events are the reports of events alone.
func (w *ruleDesk) events() []string {
	var events []string
	for _, line := range w.said {
		if !strings.Contains(line, "  ") { // a report has no name
			events = append(events, line)
		}
	}
	return events
}

func condition(text string) *Expression { return &Expression{text} }

const hidden = "-"

// quiet keeps the reports of points out of a test of events.
func quiet(d *Device) {
	for _, p := range d.Points {
		p.Name = hidden
	}
}

func eventDesk(t *testing.T, e *Event) *ruleDesk {
	return newRuleDesk(t, func(d *Device) {
		e.ID = "e"
		d.Events = []*Event{e}
	})
}

func TestAnEventIsRaisedOnceAndClearedOnce(t *testing.T) {
	w := eventDesk(t, &Event{When: condition("x < 207"), Clear: condition("x > 212"), ClearEvent: "e_over", Params: []string{"x", "y"}})
	w.every("x", "230 206 205 208 206 211 213 230 200")
	wantLines(t, w.events(), "1s e x=206\n6s e_over x=213\n8s e x=200")
}

func TestAnEventEndsWhereItsConditionDoes(t *testing.T) {
	for clearEvent, want := range map[string]string{"e_over": "1s e\n3s e_over\n4s e", "": "1s e\n4s e"} {
		w := eventDesk(t, &Event{When: condition("x > 5"), ClearEvent: clearEvent})
		w.every("x", "1 6 7 5 8")
		wantLines(t, w.events(), want)
	}
	// What clear remembers began before the event.
	w := eventDesk(t, &Event{When: condition("x > 5"), Clear: condition("increase(x)"), ClearEvent: "e_over"})
	w.every("x", "1 6 7 1 6")
	wantLines(t, w.events(), "1s e\n2s e_over\n4s e")
}

// TestAConditionMustHold: for takes two samples that far apart, none contrary
// between them; a bad one is not contrary.
func TestAConditionMustHold(t *testing.T) {
	for _, tt := range []struct {
		name    string
		hold    Hold
		samples string
		want    string
	}{
		{"a time", Hold{Raise: Span{Time: 3 * time.Second}}, "6 6 6 6 6", "3s e"},
		{"a contrary sample between", Hold{Raise: Span{Time: 3 * time.Second}}, "6 6 1 6 6 6 6", "6s e"},
		{"a bad sample between", Hold{Raise: Span{Time: 3 * time.Second}}, "6 6 timeout 6", "3s e"},
		{"one sample is not enough", Hold{Raise: Span{Time: time.Millisecond}}, "6 1 6 6", "3s e"},
		{"samples", Hold{Raise: Span{Samples: 3}}, "6 6 1 6 6 timeout 6", "6s e"},
		{"clearing too", Hold{Raise: Span{Samples: 1}, Clear: Span{Samples: 2}}, "6 1 6 1 1", "0s e\n4s e_over"},
		{"clearing by time", Hold{Clear: Span{Time: 2 * time.Second}}, "6 1 1 6 1 1 1", "0s e\n6s e_over"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := eventDesk(t, &Event{When: condition("x > 5"), For: tt.hold, ClearEvent: "e_over"})
			w.every("x", tt.samples)
			wantLines(t, w.events(), tt.want)
		})
	}
}

// TestOnlySamplesCount: a pass that reads other points is no sample of the
// event's.
func TestOnlySamplesCount(t *testing.T) {
	w := eventDesk(t, &Event{When: condition("x > 5"), For: Hold{Raise: Span{Samples: 2}}})
	w.at(0, "x=6")
	w.at(time.Second, "y=1")
	w.at(2*time.Second, "y=2")
	wantLines(t, w.events(), "")
	w.at(3*time.Second, "x=6")
	wantLines(t, w.events(), "3s e")
}

func TestBadAndStalePointsNeitherRaiseNorClear(t *testing.T) {
	w := eventDesk(t, &Event{When: condition("x < 5"), ClearEvent: "e_over"})
	w.every("x", "9 timeout timeout 9 4 timeout timeout 4 timeout 9")
	wantLines(t, w.events(), "4s e\n9s e_over")

	stale := eventDesk(t, &Event{When: condition("x < 5 and y > 1")})
	stale.at(0, "x=1")
	stale.at(4*time.Second, "y=2") // x is four polls old
	wantLines(t, stale.events(), "")
	stale.at(5*time.Second, "x=1")
	wantLines(t, stale.events(), "5s e")

	params := eventDesk(t, &Event{When: condition("x < 5"), Params: []string{"x", "y", "n"}})
	params.at(0, "x=9 y=1 n=2")
	params.at(4*time.Second, "x=1 n=timeout")
	wantLines(t, params.events(), "4s e x=1")

	spoken := eventDesk(t, &Event{When: condition("not good(x)"), ClearEvent: "e_over"})
	spoken.every("x", "9 timeout timeout 9")
	wantLines(t, spoken.events(), "1s e\n3s e_over")
}

func TestEdges(t *testing.T) {
	for _, tt := range []struct{ each, point, samples, want string }{
		{"changed(n) and n != 0", "n", "0 0 7 7 timeout 7 0 8", "2s e\n7s e"},
		{"increase(n)", "n", "5 5 6 timeout 9 3 4", "2s e by=1\n4s e by=3\n6s e by=1"},
		{"increase(energy)", "energy", "999.8 0.1 0.1 0.2", "1s e by=0.3\n3s e by=0.1"},
		{"increase(energy)", "energy", "500 0.1 0.2", "2s e by=0.1"},
	} {
		w := eventDesk(t, &Event{Each: condition(tt.each)})
		w.every(tt.point, tt.samples)
		wantLines(t, w.events(), tt.want)
	}
}

func TestEachFlagTellsBitAndDirection(t *testing.T) {
	w := eventDesk(t, &Event{EachFlag: []string{"alarms", "n"}, Severity: "alarm"})
	w.at(0, "alarms=oil_low n=1")
	w.at(time.Second, "alarms=oil_low,bit3 n=1")
	w.at(2*time.Second, "alarms=bit3,overtemp n=3")
	w.at(3*time.Second, "n=timeout")
	w.at(4*time.Second, "n=2")
	wantLines(t, w.events(), `
0s e flag=oil_low bit=0 word=alarms active=true
0s e flag=bit0 bit=0 word=n active=true
1s e flag=bit3 bit=3 word=alarms active=true
2s e flag=oil_low bit=0 word=alarms active=false
2s e flag=overtemp bit=17 word=alarms active=true
2s e flag=bit1 bit=1 word=n active=true
4s e flag=bit0 bit=0 word=n active=false`)

	// A signed word has its own bits only, and an implausible one tells nothing.
	for quality, want := range map[Quality]string{Good: "0s e flag=bit15 bit=15 word=n active=true", Uncertain: ""} {
		w := newRuleDesk(t, func(d *Device) {
			d.point("n").Type = Int16
			d.Events = []*Event{{ID: "e", EachFlag: []string{"n"}}}
		})
		st := w.d.point("n")
		st.note(&Sample{Point: st.latest.Point, Time: w.now, Value: IntValue(-32768), Quality: quality, Reason: reasonImplausible})
		w.d.judge(w.now)
		wantLines(t, w.events(), want)
	}
}

func TestAStandingEventIsRepeated(t *testing.T) {
	w := eventDesk(t, &Event{When: condition("x > 5"), Repeat: 4 * time.Second, ClearEvent: "e_over"})
	w.every("x", "6 6 6 6 6 6 6 6 6 1 1 1 1 1")
	wantLines(t, w.events(), "0s e\n4s e\n8s e\n9s e_over")
}

// TestTheFloodBrakeCountsAndKeepsTheLast: what is held back is counted in the
// next event, and the last transition is told as soon as there is room.
func TestTheFloodBrakeCountsAndKeepsTheLast(t *testing.T) {
	e := &Event{When: condition("x > 5"), ClearEvent: "e_over", AtMost: &Rate{Count: 3, Per: 10 * time.Second}}
	w := eventDesk(t, e)
	w.every("x", "6 1 6 1 6 1 6 6 6 6")
	wantLines(t, w.events(), "0s e\n1s e_over\n2s e")
	if due := w.d.rules.next; !due.Equal(formulaStart.Add(10 * time.Second)) {
		t.Errorf("due at %v", due.Sub(formulaStart))
	}
	w.at(10*time.Second, "x=6")
	w.at(11*time.Second, "x=6")
	// Four transitions came after the third: three gave way, the last one is told.
	wantLines(t, w.events(), "0s e\n1s e_over\n2s e\n10s e held_back=3")

	each := eventDesk(t, &Event{Each: condition("changed(n)"), Params: []string{"n"}, AtMost: &Rate{Count: 2, Per: 10 * time.Second}})
	each.every("n", "0 1 2 3 4 5")
	each.at(11*time.Second, "")
	wantLines(t, each.events(), "1s e n=1\n2s e n=2\n11s e n=5 held_back=2")

	// One bit does not take the place of another.
	bits := eventDesk(t, &Event{EachFlag: []string{"alarms"}, AtMost: &Rate{Count: 1, Per: 10 * time.Second}})
	bits.every("alarms", "oil_low oil_low,bit3,overtemp oil_low,overtemp")
	bits.at(10*time.Second, "")
	bits.at(20*time.Second, "")
	wantLines(t, bits.events(), `
0s e flag=oil_low bit=0 word=alarms active=true
10s e flag=overtemp bit=17 word=alarms active=true held_back=1
20s e flag=bit3 bit=3 word=alarms active=false`)
}

// TestAnEventThatIsHeldBackIsKeptSoon: also one that the device told by itself.
func TestAnEventThatIsHeldBackIsKeptSoon(t *testing.T) {
	e := &Event{ID: "trouble", OPCUA: &ServerEvents{}, AtMost: &Rate{Count: 1, Per: time.Hour}}
	w := eventDesk(t, e)
	for _, held := range []bool{false, true} {
		w.d.rules.dirty = false
		w.d.rules.occur(&FieldEvent{Event: e, Time: w.now}, w.now)
		if w.d.rules.dirty != held {
			t.Errorf("held back: %v, kept soon: %v", held, w.d.rules.dirty)
		}
	}
}

// TestEventsGoToTheDiskAtOnce: only attributes wait for the flush.
func TestEventsGoToTheDiskAtOnce(t *testing.T) {
	r := newRig(t, newBuffer(t), Cloud{Backlog: replay}, &platform{})
	defer r.close(t)
	r.storeFor("u", Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"p", IntValue(1)}}})
	r.storeFor("u", Record{Kind: EventRecord, Time: time.Now(), Name: "e", ID: NewEventID()})
	r.storeFor("u", Record{Kind: StreamRecord, Time: time.Now(), Name: "s", Body: []byte("x")})
	if err := r.store.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for lane, want := range map[string]buffer.Class{"u": buffer.Attributes, "u/events": buffer.Event, "u/streams": buffer.Attributes} {
		if got, err := r.store.Peek(lane, 1); err != nil || len(got) != 1 || got[0].Class != want {
			t.Errorf("%s: %v %v, want %v", lane, got, err, want)
		}
	}
}

// TestAFormulaIsSharedOnlyWherePointsAreTheSame: an override may give a device
// of the profile another type.
func TestAFormulaIsSharedOnlyWherePointsAreTheSame(t *testing.T) {
	profile := &Profile{}
	of := func(kind Type) *Device {
		d := device("d", &Definition{ID: "p", Type: kind})
		d.Profile = profile
		return d
	}
	book, err := newRulebook(&Site{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	compiled := func(kind Type, text string, want OperandKind) *formula {
		f, err := book.formula(of(kind), text, want)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	first := compiled(Uint16, "p", AnyOperand)
	if compiled(Uint16, "p", AnyOperand) != first {
		t.Error("the same formula is compiled twice")
	}
	if compiled(String, "p", AnyOperand) == first {
		t.Error("a text is taken for a number")
	}
	if compiled(Uint16, "p", NumberOperand) == first {
		t.Error("what may be anything serves where a number is wanted")
	}
}

func TestEventIDsAreUnique(t *testing.T) {
	ids := map[string]bool{}
	for range 2 {
		w := eventDesk(t, &Event{When: condition("x > 5"), ClearEvent: "e_over"})
		take := w.d.rules.events[0].take
		w.d.rules.events[0].take = func(d *Device, r Record) {
			if ids[r.ID] || r.ID == "" {
				t.Errorf("id %q twice", r.ID)
			}
			ids[r.ID] = true
			take(d, r)
		}
		w.every("x", "6 1 6 1")
	}
	if len(ids) != 8 {
		t.Errorf("%d ids", len(ids))
	}
}

// TestRulesSurviveARestart: an alarm that stands is not raised again, one that
// went meanwhile is cleared, a counter goes on from its baseline, and a day
// keeps its begin.
func TestRulesSurviveARestart(t *testing.T) {
	build := func(d *Device) {
		d.Computed = []*Computed{{ID: "today", Value: condition(`delta(energy, "day")`)}}
		d.Events = []*Event{
			{ID: "high", When: condition("x > 5"), ClearEvent: "high_over"},
			{ID: "low", When: condition("y < 5"), ClearEvent: "low_over"},
			{ID: "piece", Each: condition("increase(energy)")},
			{ID: "code", Each: condition("changed(n)")},
			{ID: "bit", EachFlag: []string{"alarms"}},
			{ID: "flutter", When: condition("n > 3"), ClearEvent: "steady", AtMost: &Rate{Count: 1, Per: time.Hour}},
		}
	}
	before := newRuleDesk(t, build)
	var state []byte
	before.d.rules.book.keep = func(_ string, data []byte) { state = data }
	before.at(0, "x=6 y=1 energy=100 n=7 alarms=oil_low")
	before.at(time.Second, "x=6 y=1 energy=110 n=3 alarms=oil_low,bit3")
	before.d.rules.save(before.now)

	after := newRuleDesk(t, build)
	if err := after.d.rules.restore(state); err != nil {
		t.Fatal(err)
	}
	after.at(10*time.Minute, "x=6 y=9 energy=115 n=3 alarms=bit3")
	wantLines(t, after.events(), `
10m0s low_over
10m0s piece by=5
10m0s bit flag=oil_low bit=0 word=alarms active=false`)
	if today := after.d.point("today").latest; today.Value.Float() != 15 || today.Quality != Good {
		t.Errorf("today is %s, %s", today.Value, today.Reason)
	}
	after.at(2*time.Hour, "n=3")
	if last := after.said[len(after.said)-1]; last != "2h0m0s steady" {
		t.Errorf("what was held back is told as %q", last)
	}

	// The negative control: without the state everything is told again.
	control := newRuleDesk(t, build)
	control.at(10*time.Minute, "x=6 y=9 energy=115 n=3 alarms=bit3")
	if got := strings.Join(control.events(), "\n"); !strings.Contains(got, "high") || strings.Contains(got, "piece") {
		t.Errorf("without state: %s", got)
	}
}

// TestAStandingAlarmTakesARepeatThatIsNew: one that is written into the site file
// while the alarm stands.
func TestAStandingAlarmTakesARepeatThatIsNew(t *testing.T) {
	alarm := func(repeat time.Duration) *ruleDesk {
		return eventDesk(t, &Event{When: condition("x > 5"), Repeat: repeat})
	}
	before, after := alarm(0), alarm(3*time.Second)
	var state []byte
	before.d.rules.book.keep = func(_ string, data []byte) { state = data }
	before.at(0, "x=6")
	before.d.rules.save(before.now)
	if err := after.d.rules.restore(state); err != nil {
		t.Fatal(err)
	}
	after.every("x", "6 6 6 6 6")
	wantLines(t, after.events(), "3s e")
}

// TestLongWindowsSurviveARestart: an hour's average and rate go on with what was
// seen before; a short window begins anew.
func TestLongWindowsSurviveARestart(t *testing.T) {
	build := func(d *Device) {
		d.Computed = []*Computed{
			{ID: "hour", Value: condition(`average(x, "1h")`)}, {ID: "speed", Value: condition(`rate(energy, "1h") * 60`)}, {ID: "short", Value: condition(`average(x, "5m")`)},
		}
	}
	before, after, control := newRuleDesk(t, build), newRuleDesk(t, build), newRuleDesk(t, build)
	var state []byte
	before.d.rules.book.keep = func(_ string, data []byte) { state = data }
	for i := range 3000 {
		before.at(time.Duration(i)*time.Second, fmt.Sprintf("x=10 energy=%d", 1000+i))
	}
	before.d.rules.save(before.now)
	if len(state) > 2500 {
		t.Errorf("%d bytes are kept of three windows: %s", len(state), state)
	}
	if err := after.d.rules.restore(state); err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]*ruleDesk{"with its state": after, "without": control} {
		for i := 3002; i < 3190; i++ {
			w.at(time.Duration(i)*time.Second, fmt.Sprintf("x=20 energy=%d", 1000+i))
		}
		hour, speed, short := w.d.point("hour").latest.Value.Float(), w.d.point("speed").latest.Value.Float(), w.d.point("short").latest.Value.Float()
		want := 20.0
		if w == after { // 50 minutes of 10, then 3 of 20, and 3 seconds unseen
			want = (2999*10 + 187*20 + 3*10) / 3189.0
		}
		if math.Abs(hour-want) > 0.05 || math.Abs(speed-60) > 0.01 || short != 20 {
			t.Errorf("%s: hour %v, not %v; speed %v; short %v", name, hour, want, speed, short)
		}
	}
}

func TestComputedPointsAreReportedLikePoints(t *testing.T) {
	w := newRuleDesk(t, func(d *Device) {
		quiet(d)
		d.Prefix = "d_"
		one := 1
		d.Computed = []*Computed{
			{ID: "double", Value: condition("2 * load"), Deadband: &Deadband{Value: 10}},
			{ID: "load", As: "pressure-load", Value: condition("100 * x / 16"), Decimals: &one},
			{ID: "best", Value: condition("good(x) ? x : y")},
			{ID: "rated", Value: condition("16")},
		}
		d.Events = []*Event{{ID: "overload", When: condition("load > 50"), Params: []string{"load"}}}
	})
	w.at(0, "x=1 y=3")
	w.at(time.Second, "x=1.001 y=3")
	w.at(2*time.Second, "x=9 y=3")
	w.at(3*time.Second, "x=timeout y=3")
	wantLines(t, w.said, `
0s  d_pressure-load=6.3 d_double=12.6 d_best=1 d_rated=16
1s  d_best=1.001
2s d_overload pressure-load=56.3
2s  d_pressure-load=56.3 d_double=112.6 d_best=9
3s  d_best=3`)
	if s := w.d.point("load").latest; s.Quality != Bad || s.Reason != "x: timeout" {
		t.Errorf("load is %s: %q", s.Quality, s.Reason)
	}
	if s := w.d.point("double").latest; s.Quality != Bad || s.Reason != "load: x: timeout" {
		t.Errorf("double is %s: %q", s.Quality, s.Reason)
	}
	if w.d.describe() != "2 of 3 points are bad" && w.d.bad != 1 {
		t.Errorf("computed points count as bad ones of the device: %s", w.d.describe())
	}
}

// TestWhatRestsOnASecretIsSecret: computed points, streams and bits tell nothing
// of it; conditions may look at it.
// TestComputedPointsTakePollAndReportOfWhatTheyRestOn: the slowest poll, and how
// the profile reports.
func TestComputedPointsTakePollAndReportOfWhatTheyRestOn(t *testing.T) {
	w := newRuleDesk(t, func(d *Device) {
		d.Profile.Report = Reporting{Mode: "always", AtLeastEvery: time.Minute}
		for i, p := range d.Points {
			p.Poll = time.Duration(i+1) * time.Second
		}
		d.Computed = []*Computed{{ID: "sum", Value: condition(d.Points[1].ID + " + " + d.Points[2].ID + " + " + d.Points[0].ID)}}
	})
	if p := w.d.point("sum").latest.Point; p.Poll != 3*time.Second || p.Report != w.d.device.Profile.Report {
		t.Errorf("poll %s, report %+v", p.Poll, p.Report)
	}
}

func TestWhatRestsOnASecretIsSecret(t *testing.T) {
	w := newRuleDesk(t, func(d *Device) {
		quiet(d)
		d.point("x").Secret, d.point("n").Secret = true, true
		d.Computed = []*Computed{{ID: "c", Value: condition("x + 1")}, {ID: "further", Value: condition("c * 2 + y")}}
		d.Events = []*Event{{ID: "e", When: condition("x > 5"), Params: []string{"x", "c", "y"}}, {ID: "bits", EachFlag: []string{"n"}}}
		d.Streams = []*Stream{
			{ID: "j", Format: "json", Each: "e", Body: &Body{Fields: []Field{{"x", Expression{"x"}}, {"x1", Expression{"x + 1"}}, {"c", Expression{"c"}}, {"y", Expression{"y"}}}}},
			{ID: "t", Format: "text", Each: "e", Body: &Body{Text: "{x} {further} {y}"}},
		}
	})
	var got []Record
	for _, s := range w.d.rules.streams {
		s.take = func(_ *Device, r Record) { got = append(got, r) }
	}
	w.at(0, "x=7 y=3 n=1")
	wantLines(t, w.said, "0s e y=3")
	wantLines(t, streams(got, formulaStart), `
0s j {"x":null,"x1":null,"c":null,"y":3}
0s t null null 3`)
}

// TestWhatRestsOnAWithheldValueIsWithheld: an implausible value that may not be
// sent does not reach the cloud through a computed point.
func TestWhatRestsOnAWithheldValueIsWithheld(t *testing.T) {
	for implausible, want := range map[string]string{"drop": "", "send": "0s  c=2 mean=1"} {
		w := newRuleDesk(t, func(d *Device) {
			quiet(d)
			d.Points[0].Implausible = implausible
			d.Streams = []*Stream{{ID: "s", Format: "json", Body: &Body{Fields: []Field{{"sum", Expression{"x + 1"}}}}}}
			d.Computed = []*Computed{{ID: "c", Value: condition("x + 1")}, {ID: "mean", Value: condition(`average(x, "1m")`)}}
		})
		st := w.d.point("x")
		st.note(&Sample{Point: st.latest.Point, Time: w.now, Value: FloatValue(1), Quality: Uncertain, Reason: reasonImplausible})
		w.d.judge(w.now)
		w.r.flush(w.d)
		wantLines(t, w.said, want)
		if body := string(w.d.rules.streams[0].body(w.now)); body != map[string]string{"drop": `{"sum":null}`, "send": `{"sum":2}`}[implausible] {
			t.Errorf("%s: the stream says %s", implausible, body)
		}
		if s := w.d.point("c").latest; s.Quality != Uncertain || s.Reason != "x: implausible" || s.Value.Float() != 2 {
			t.Errorf("%s: c is %s %s %q", implausible, s.Value, s.Quality, s.Reason)
		}
	}
}

// TestTraceJudgesAsTheGatewayDoes: devices that are not in use are left out, and
// an implausible value raises nothing.
func TestTraceJudgesAsTheGatewayDoes(t *testing.T) {
	used := device("used", &Definition{ID: "x", Type: Float64, Poll: time.Second, Plausible: &Range{*decimal("0"), *decimal("10")}})
	unused := device("unused", &Definition{ID: "x", Type: Float64, Poll: time.Second})
	unused.Disabled = true
	used.Events = []*Event{{ID: "high", When: condition("x > 5")}}
	for _, d := range []*Device{used, unused} {
		d.Profile = &Profile{}
	}
	trace, err := NewTrace(&Site{Devices: []*Device{unused, used}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(trace.Names(), trace.Knows("x"), trace.Knows("unused.x")); got != "[used.x] true false" {
		t.Error(got)
	}
	var said []string
	trace.Report = func(_ *Device, at time.Time, r Record) {
		if r.Kind == EventRecord {
			said = append(said, fmt.Sprint(at.Sub(formulaStart), " ", r.Name))
		}
	}
	for i, text := range []string{"1", "50", "1", "7"} {
		if err := trace.Add(formulaStart.Add(time.Duration(i)*time.Minute), "x", text); err != nil {
			t.Fatal(err)
		}
	}
	trace.Until(formulaStart.Add(time.Hour))
	wantLines(t, said, "3m0s high")
}
