package gateway

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestTimesAreMendedOnceTheClockIsRight: whatever the clock on the wall shows
// while reports are made, they go out in order, with their true times, and none
// is dropped. The control shows what the clock alone would have said.
func TestTimesAreMendedOnceTheClockIsRight(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, steps := range map[string][3]time.Duration{ // how wrong the clock is, in each of three hours
		"a day back":                {0, -day, 0},
		"ten years forward":         {0, 3650 * day, 0},
		"1970 at boot":              {-30 * 365 * day, -30 * 365 * day, 0},
		"forth, back, and right":    {day, -day, 0},
		"control: a clock is right": {},
	} {
		for _, stamped := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				const away = 2*time.Hour + 30*time.Minute
				var mu sync.Mutex // over what follows
				wrong := time.Duration(0)
				p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > away }}
				truth := map[int64]time.Time{}
				next, wrongTimes := int64(0), 0
				p.refuse = func(_ time.Duration, r Record) error {
					mu.Lock()
					defer mu.Unlock()
					n := r.Values[0].Value.Int()
					if n < next {
						t.Errorf("%s: %d after %d", name, n, next-1)
					}
					if next = n + 1; r.Time.Sub(truth[n]).Abs() > time.Second {
						wrongTimes++
					}
					return nil
				}
				path := newBuffer(t)
				cloud := Cloud{Backlog: replay, MinInterval: time.Second, BacklogInterval: time.Second}
				r := newRig(t, path, cloud, p)
				r.clock.wrong = func() time.Duration {
					mu.Lock()
					defer mu.Unlock()
					return wrong
				}
				feed := func(from, to int64) func() {
					return func() {
						for n := from; n < to; n++ {
							now, off := time.Now(), steps[n/360]
							mu.Lock()
							wrong, truth[n] = off, now
							mu.Unlock()
							report := Record{Kind: ReportRecord, Time: now, Values: []Attribute{{"n", IntValue(n)}}}
							if !stamped {
								report.Time = report.Time.Add(off).UTC()
							}
							r.storeFor("u", report)
							time.Sleep(10 * time.Second)
						}
					}
				}
				r.play(t, 2*time.Hour, feed(0, 720))
				r.close(t)
				// The program begins again, in the same boot.
				r2 := newRig(t, path, cloud, p)
				defer r2.close(t)
				r2.clock.wrong, r2.clock.up = r.clock.wrong, r.clock.up+time.Since(r.clock.start)
				r = r2
				r.play(t, 4*time.Hour, feed(720, 1080))
				if next != 1080 || r.store.Len("u") > 0 || r.store.Stats().Dropped.Total() > 0 {
					t.Errorf("%s: the last one is %d, %d wait, %d dropped", name, next-1, r.store.Len("u"), r.store.Stats().Dropped.Total())
				}
				if right := steps == [3]time.Duration{}; (wrongTimes == 0) != (stamped || right) {
					t.Errorf("%s, stamped %v: %d times are wrong", name, stamped, wrongTimes)
				}
			})
		}
	}
}

// TestAnImpossibleTimeIsNotKnown and the state of the boot is kept.
func TestAnImpossibleTimeIsNotKnown(t *testing.T) {
	if r := (Record{Time: time.Unix(3600, 0)}); r.Known() {
		t.Error("1970 counts as a time")
	}
	path := newBuffer(t)
	r := newRig(t, path, Cloud{}, &platform{})
	first := r.clock.boot
	r.close(t)
	r = newRig(t, path, Cloud{}, &platform{})
	if r.clock.boot != first || first == 0 {
		t.Errorf("boot %d, then %d", first, r.clock.boot)
	}
	if err := r.store.Put("clock", "boot", append([]byte{byte(first)}, "another"...)); err != nil {
		t.Fatal(err)
	}
	r.close(t)
	r = newRig(t, path, Cloud{}, &platform{})
	defer r.close(t)
	if r.clock.boot != first+1 {
		t.Errorf("another boot is %d after %d", r.clock.boot, first)
	}
}
