package gateway

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

// lanes runs the lanes of one username for a time, on a buffer that fill has
// filled before, and gives the buffer when they have ended.
func lanes(t *testing.T, p *platform, o buffer.Options, interval, duration time.Duration, fill func(*buffer.Buffer), kinds ...RecordKind) *buffer.Buffer {
	t.Helper()
	store, err := buffer.Open(filepath.Join(t.TempDir(), "buffer.db"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	fill(store)
	if err := store.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.start = time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	shared := &bucket{pace: pace{interval: interval}, backlog: interval}
	var wait sync.WaitGroup
	for _, kind := range kinds {
		l := newTestLane(p, store, kind, interval, interval)
		l.bucket, l.gaps = shared, newGapEvent
		wait.Go(func() { l.run(ctx) })
	}
	wait.Wait()
	return store
}

func put(store *buffer.Buffer, r Record) {
	class := buffer.Attributes
	if r.Kind == EventRecord {
		class = buffer.Event
	}
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	store.Append(LaneName("u", r.Kind), class, r.Time, AppendRecord(nil, &r))
}

func event(name string, severity Severity) Record {
	return Record{Kind: EventRecord, Name: name, ID: name, Severity: severity}
}

func report(name string, value int) Record {
	return Record{Kind: ReportRecord, Values: []Attribute{{name, IntValue(int64(value))}}}
}

// names are those of what arrived, in order.
func (p *platform) names() (names []string) {
	for _, line := range p.got {
		_, name, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	return names
}

func TestAlarmsGoFirstAndEventsStayInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{}
		lanes(t, p, buffer.Options{}, time.Second, 20*time.Second, func(store *buffer.Buffer) {
			put(store, event("e1", Info))
			put(store, event("e2", Alarm))
			put(store, event("e3", Info))
			put(store, report("p", 1))
			put(store, Record{Kind: StreamRecord, Name: "s", Body: []byte("x")})
		}, ReportRecord, EventRecord, StreamRecord)
		if got := strings.Join(p.names()[:2], " "); len(p.got) != 5 || !(strings.Contains(got, "e1") || strings.Contains(p.got[2], "e1")) {
			t.Errorf("got %v", p.got)
		}
		var events []string
		for _, name := range p.names() {
			if strings.HasPrefix(name, "e") {
				events = append(events, name)
			}
		}
		if !slices.Equal(events, []string{"e1", "e2", "e3"}) || slices.Index(p.names(), "e3") < slices.Index(p.names(), "p=1") {
			t.Errorf("got %v", p.got)
		}
	})
}

func TestARefusedEventIsPutAsideAfterThreeTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		p := &platform{refuse: func(_ time.Duration, r Record) error {
			if r.Name == "bad" {
				tries++
				return &Refusal{Code: 400, Reason: "no such event"}
			}
			return nil
		}}
		store := lanes(t, p, buffer.Options{}, time.Second, time.Minute, func(store *buffer.Buffer) {
			for _, name := range []string{"a", "bad", "b"} {
				put(store, event(name, Warning))
			}
		}, EventRecord)
		if held, _ := store.Quarantined(); tries != 3 || len(held) != 1 || !slices.Equal(p.names(), []string{"a", "b"}) {
			t.Errorf("%d tries, %d in quarantine, got %v", tries, len(held), p.got)
		}
	})
}

// TestARecordThatKillsConnectionsIsPutAside: a broker that drops the connection
// when it sees one attribute. Six lost connections in a row name it, and those
// around it arrive.
func TestARecordThatKillsConnectionsIsPutAside(t *testing.T) {
	for _, interval := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			p := &platform{refuse: func(_ time.Duration, r Record) error {
				for _, a := range r.Values {
					if a.Name == "deadly" {
						return fmt.Errorf("EOF: %w", ErrLost)
					}
				}
				return nil
			}}
			store := lanes(t, p, buffer.Options{}, interval, time.Minute, func(store *buffer.Buffer) {
				for _, name := range []string{"a", "b", "deadly", "c"} {
					put(store, report(name, 1))
				}
			}, ReportRecord)
			held, _ := store.Quarantined()
			got := strings.Join(p.names(), " ")
			if len(held) != 1 || held[0].Seq != 3 || !strings.Contains(got, "a=1") || !strings.Contains(got, "b=1") || !strings.Contains(got, "c=1") {
				t.Errorf("every %v: in quarantine %v, got %s", interval, held, got)
			}
		})
	}
}

// TestABadLinePutsNothingAside: five connections in a row are lost with the same
// record in flight, again and again.
func TestABadLinePutsNothingAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := &platform{refuse: func(time.Duration, Record) error {
			if n++; n%6 != 0 {
				return ErrLost
			}
			return nil
		}}
		store := lanes(t, p, buffer.Options{}, 0, time.Minute, func(store *buffer.Buffer) {
			for i := range 20 {
				put(store, report("p", i))
			}
		}, ReportRecord)
		if held, _ := store.Quarantined(); len(held) > 0 || len(p.got) != 20 {
			t.Errorf("%d in quarantine, %d arrived", len(held), len(p.got))
		}
	})
}

// TestOnlyConnectionsLostInARowCount: another fault between them begins anew.
func TestOnlyConnectionsLostInARowCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := &platform{refuse: func(time.Duration, Record) error {
			switch n++; {
			case n > 20:
				return nil
			case n%5 == 0:
				return ErrUnanswered
			}
			return ErrLost
		}}
		store := lanes(t, p, buffer.Options{}, 0, time.Minute, func(store *buffer.Buffer) { put(store, report("p", 1)) }, ReportRecord)
		if held, _ := store.Quarantined(); len(held) > 0 || len(p.got) != 1 {
			t.Errorf("%d in quarantine, %d arrived", len(held), len(p.got))
		}
	})
}

// TestALostReportGoesOutAsItWas, although others could be merged with it by now:
// then an answer to either copy is an answer to it.
func TestALostReportGoesOutAsItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries []string
		var store *buffer.Buffer
		p := &platform{refuse: func(_ time.Duration, r Record) error {
			tries = append(tries, fmt.Sprint(r.Values))
			if len(tries) == 1 {
				put(store, report("b", 2))
				return ErrLost
			}
			return nil
		}}
		lanes(t, p, buffer.Options{}, time.Second, time.Minute, func(b *buffer.Buffer) { store = b; put(b, report("a", 1)) }, ReportRecord)
		if len(tries) != 3 || tries[0] != tries[1] {
			t.Errorf("sent were %v", tries)
		}
	})
}

func TestARecordThatIsNeverAnsweredIsPutAsideOnlyWhenOthersAre(t *testing.T) {
	for _, dead := range []bool{false, true} { // the whole platform
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			p := &platform{refuse: func(elapsed time.Duration, r Record) error {
				if r.Name == "mute" {
					tries++
				}
				if r.Name == "mute" || dead && elapsed < time.Minute {
					return ErrUnanswered
				}
				return nil
			}}
			store := lanes(t, p, buffer.Options{}, time.Second, 3*time.Minute, func(store *buffer.Buffer) {
				for _, name := range []string{"a", "mute", "b", "c"} {
					put(store, event(name, Info))
				}
			}, EventRecord)
			held, _ := store.Quarantined()
			if len(held) != 1 || held[0].Seq != 2 || !slices.Equal(p.names(), []string{"a", "b", "c"}) {
				t.Errorf("dead: %v, in quarantine %v, got %v", dead, held, p.got)
			}
			if !dead && tries != 10 {
				t.Errorf("put aside after %d silences", tries)
			}
		})
	}
}

// TestNothingIsPutAsideWhileThePlatformIsSilent for an hour.
func TestNothingIsPutAsideWhileThePlatformIsSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &platform{refuse: func(elapsed time.Duration, r Record) error {
			if elapsed < time.Hour {
				return ErrUnanswered
			}
			return nil
		}}
		store := lanes(t, p, buffer.Options{}, time.Second, 2*time.Hour, func(store *buffer.Buffer) {
			for i := range 50 {
				put(store, event(fmt.Sprint("e", i), Info))
			}
		}, EventRecord)
		if held, _ := store.Quarantined(); len(held) > 0 || len(p.got) != 50 {
			t.Errorf("%d in quarantine, %d arrived", len(held), len(p.got))
		}
	})
}

// TestWhatIsLostIsToldExactlyOnce: a full buffer loses its oldest reports; the
// cloud gets an event that counts them, and the ones that were kept.
func TestWhatIsLostIsToldExactlyOnce(t *testing.T) {
	const size, n = 1 << 20, 20_000
	synctest.Test(t, func(t *testing.T) {
		p := &platform{}
		var told, events int
		p.refuse = func(_ time.Duration, r Record) error {
			if r.Kind == EventRecord {
				events++
				told += int(r.Values[0].Value.Int())
				if r.Name != "gap" || r.Values[2].Value.Text() != "full" || r.ID == "" {
					return errors.New("not the event that was expected")
				}
			}
			return nil
		}
		store := lanes(t, p, buffer.Options{MaxSize: size, Gaps: true}, 0, time.Minute, func(store *buffer.Buffer) {
			for i := range n {
				put(store, Record{Kind: ReportRecord, Values: []Attribute{{"p", IntValue(int64(i))}, {"text", TextValue(strings.Repeat("x", 100))}}})
				if i%1000 == 0 {
					store.Sync(t.Context())
				}
			}
		}, ReportRecord, EventRecord)
		dropped := int(store.Stats().Dropped.Full)
		arrived := len(p.got) - events
		if events == 0 || told != dropped || arrived+dropped != n || store.Stats().Waiting != 0 {
			t.Errorf("%d events tell of %d, dropped are %d, %d arrived of %d, %d wait", events, told, dropped, arrived, n, store.Stats().Waiting)
		}
	})
}
