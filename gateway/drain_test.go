package gateway

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestTheTimeToDrainIsAFigure: ten minutes into an outage of an hour the lane
// grows; when it drains, the figure is right within a fifth.
func TestTheTimeToDrainIsAFigure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &platform{start: time.Now(), online: func(elapsed time.Duration) bool { return elapsed > time.Hour }}
		r := newRig(t, newBuffer(t), Cloud{Backlog: replay, MinInterval: time.Second, BacklogInterval: time.Second}, p)
		defer r.close(t)
		lane := func() LaneSnapshot { return r.Snapshot(t.Context()).Lanes[0] }
		var at time.Time
		var said time.Duration
		r.play(t, 3*time.Hour, func() {
			go r.counted(3 * 3600)()
			time.Sleep(10 * time.Minute)
			if l := lane(); !l.Grows || l.Waiting < 600 || l.Waiting > 601 || time.Since(l.Oldest).Round(time.Minute) != 10*time.Minute {
				t.Errorf("in the outage: %+v", l)
			}
			time.Sleep(55 * time.Minute)
			at, said = time.Now(), lane().Drain
			for l := lane(); l.Drain > 0; l = lane() {
				if time.Sleep(10 * time.Second); time.Since(at) > 2*time.Hour {
					t.Fatalf("never: %+v", l)
				}
			}
			if took := time.Since(at); said < took*4/5 || said > took*6/5 {
				t.Errorf("said to take %v, took %v", said, took)
			}
			time.Sleep(time.Minute)
			if l := lane(); l.Drain != 0 || l.Grows {
				t.Errorf("later: %+v", l)
			}
		})
	})
}
