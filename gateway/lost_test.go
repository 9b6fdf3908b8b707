package gateway

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/buffer"
)

// TestWhatStandsIsSentAgainAfterALoss: of points that are sent when they change,
// and not refreshed, the only reports are among those that the full buffer drops.
// Once the backlog is sent they come again: what stands at once, what is bad when
// it is good again, and the state of the device. The control loses nothing.
func TestWhatStandsIsSentAgainAfterALoss(t *testing.T) {
	for reports, want := range map[int]string{
		1000: "2m12s one=7 bad_points=sick:no answer online=true\n3m0s sick=7 bad_points= online=true",
		1:    "2m0.1s one=7 sick=7 bad_points= online=true\n3m0s bad_points= online=true",
	} {
		synctest.Test(t, func(t *testing.T) {
			const dark, back = time.Minute, 2 * time.Minute
			f := &field{start: time.Now(), answer: func(elapsed time.Duration, p *Point) (Value, string) {
				if p.ID == "sick" && elapsed > dark && elapsed < back+time.Minute {
					return Value{}, "no answer"
				}
				return IntValue(7), ""
			}}
			cloud := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > back }}
			p := newPlant(t, f, device("d", &Definition{ID: "one", Poll: time.Second}, &Definition{ID: "sick", Poll: time.Second}))
			p.options = buffer.Options{MaxSize: 1 << 20, Gaps: true}
			p.uplinks = map[string]Uplink{"u": cloud, "gw": cloud}
			p.site.Cloud.Quality, p.site.Cloud.Backlog = "bad_points", replay
			p.begins = func(g *Gateway) {
				time.AfterFunc(dark, func() {
					for range reports {
						g.storeFor("u", Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"other", TextValue(strings.Repeat("x", 2000))}}})
					}
				})
			}
			p.run(10 * time.Minute)
			if lost := strings.Contains(p.log.String(), "records were lost"); lost != (reports > 1) {
				t.Fatalf("lost: %v", lost)
			}
			got := slices.DeleteFunc(cloud.got, func(line string) bool {
				return strings.Contains(line, "other=") || strings.HasSuffix(line, " bad_points=sick:no answer online=true") && !strings.Contains(line, "one=")
			})
			wantLines(t, got, want)
		})
	}
}

// TestALossOutlivesAReload that comes before the backlog is sent.
func TestALossOutlivesAReload(t *testing.T) {
	for _, reload := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > 1000*time.Second }}
			fresh := &platform{start: p.start}
			d := device("d", &Definition{ID: "one", Poll: time.Second})
			plant := newPlant(t, &field{start: time.Now(), answer: func(time.Duration, *Point) (Value, string) { return IntValue(7), "" }}, d)
			plant.options = buffer.Options{MaxSize: 1 << 20, Gaps: true}
			plant.uplinks = map[string]Uplink{"u": p, "gw": p}
			plant.site.Cloud.Backlog, plant.site.Cloud.MinInterval, plant.site.Cloud.BacklogInterval = replay, time.Second, time.Second
			plant.begins = func(g *Gateway) {
				go func() {
					for range 1000 {
						g.storeFor("u", Record{Kind: ReportRecord, Time: time.Now(), Values: []Attribute{{"other", TextValue(strings.Repeat("x", 2000))}}})
						sleep(t.Context(), time.Second)
					}
					sleep(t.Context(), time.Minute)
					if g.config.Buffer.Len("u") == 0 {
						t.Error("the control failed: there is no backlog any more")
					}
					if reload {
						if _, err := g.Reload(t.Context(), g.Site(), map[string]Uplink{"u": fresh, "gw": p}); err != nil {
							t.Error(err)
						}
					}
				}()
			}
			plant.run(time.Hour)
			if !strings.Contains(strings.Join(append(p.got, fresh.got...), "\n"), " one=7") {
				t.Errorf("reload %v: what stands is not reported anew", reload)
			}
		})
	}
}

// TestAPartThatIsNeverAnsweredIsPutAside: a part of a refused report that is
// never answered, or ends each connection, must not stop the lane for ever.
func TestAPartThatIsNeverAnsweredIsPutAside(t *testing.T) {
	for name, what := range map[string]error{"never answered": ErrUnanswered, "ends connections": ErrLost} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &platform{start: time.Now()}
				p.refuse = func(_ time.Duration, r Record) error {
					bad, mute := false, false
					for _, a := range r.Values {
						bad = bad || a.Name == "bad"
						mute = mute || a.Name == "mute"
					}
					switch {
					case bad:
						return &Refusal{Code: 7, Reason: "no"}
					case mute:
						return what
					}
					return nil
				}
				r := newRig(t, newBuffer(t), second(replay), p)
				defer r.close(t)
				r.play(t, 6*time.Hour, func() {
					r.storeFor("u", values("a=1 bad=1 mute=1 b=1"))
					time.Sleep(time.Minute)
					r.counted(100)()
				})
				if r.store.Len("u") > 0 || p.when("n=99", false) == 0 {
					t.Errorf("after six hours %d reports wait; got:\n%s", r.store.Len("u"), strings.Join(p.got, "\n"))
				}
			})
		})
	}
}

// TestAProbeThatEndsConnectionsIsPutAside: the first record is never answered,
// the second ends each connection.
func TestAProbeThatEndsConnectionsIsPutAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now()}
		p.refuse = func(_ time.Duration, r Record) error {
			switch r.Name {
			case "mute":
				return ErrUnanswered
			case "killer":
				return ErrLost
			}
			return nil
		}
		r := newRig(t, newBuffer(t), second(replay), p)
		defer r.close(t)
		r.play(t, 6*time.Hour, func() {
			for _, n := range []string{"mute", "killer", "fine", "good"} {
				e := event(n, Info)
				r.storeFor("u", e)
			}
		})
		if n := r.store.Len("u/events"); n > 0 {
			t.Errorf("after six hours %d events wait; got:\n%s", n, strings.Join(p.got, "\n"))
		}
	})
}

func silentThenStrict(until time.Duration) func(time.Duration, Record) error {
	return func(e time.Duration, r Record) error {
		if e < until {
			return ErrUnanswered
		}
		for _, a := range r.Values {
			if a.Name == "poison" {
				return &Refusal{Code: 7, Reason: "no"}
			}
		}
		return nil
	}
}

func asideNames(t *testing.T, r *rig) map[string]string {
	q, err := r.store.Quarantined()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, x := range q {
		rec, err := ParseRecord(x.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range rec.Values {
			names[v.Name] = x.Reason
		}
	}
	return names
}

// TestDoubtOfTheLaneIsNoneOfWhatWentAhead: a platform that is silent for a
// minute; then it refuses one attribute of a read-back that goes ahead. The other
// one is good and must not be put aside without having been sent.
func TestDoubtOfTheLaneIsNoneOfWhatWentAhead(t *testing.T) {
	for _, at := range []time.Duration{55, 58, 59} {
		t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &platform{start: time.Now()}
				p.refuse = silentThenStrict(time.Minute)
				r := newRig(t, newBuffer(t), second(replay), answering{p})
				defer r.close(t)
				r.play(t, 10*time.Minute, func() {
					r.storeFor("u", values("a=1"))
					time.Sleep(at * time.Second)
					r.readBack(&Device{User: "u"}, values("setpoint=20 poison=1"))
				})
				names := asideNames(t, r)
				if reason, ok := names["setpoint"]; ok {
					t.Errorf("a good value is in quarantine: %s", reason)
				}
			})
		})
	}
}

// TestDoubtOfTheReportIsNoneOfItsParts: the same of a record of the lane: the one
// behind it comes after the third refusal.
func TestDoubtOfTheReportIsNoneOfItsParts(t *testing.T) {
	for at := 60500 * time.Millisecond; at < 68*time.Second; at += 500 * time.Millisecond {
		t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &platform{start: time.Now()}
				p.refuse = silentThenStrict(time.Minute)
				r := newRig(t, newBuffer(t), second(replay), answering{p})
				defer r.close(t)
				r.play(t, 10*time.Minute, func() {
					r.storeFor("u", values("a=1 poison=1"))
					time.Sleep(at)
					r.storeFor("u", values("b=1"))
				})
				names := asideNames(t, r)
				if reason, ok := names["a"]; ok {
					t.Errorf("second report at %v: a good value is in quarantine: %s; %v", at, reason, p.got)
				}
			})
		})
	}
}
