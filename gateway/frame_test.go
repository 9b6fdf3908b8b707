package gateway

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestTraceOfPoints: a bus whose adapter shows no frames is watched by its
// points; secrets don't show, and nothing is kept once nobody watches.
func TestTraceOfPoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &field{start: time.Now(), answer: counting, takes: 20 * time.Millisecond}
		d := device("d", &Definition{ID: "p", Poll: time.Second}, &Definition{ID: "pin", Poll: time.Second, Secret: true})
		var log logBuffer
		b := newBusLoop(&Bus{Name: "b", Type: "opcua"}, []*Device{d}, f, log.logger(), &Stats{}, func(*Device, Record) {})
		g := &Gateway{buses: []*busLoop{b}}
		watch, stop := context.WithCancel(t.Context())
		frames, err := g.Trace(watch, "b")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Trace(watch, "c"); err == nil || !strings.Contains(err.Error(), "there is no bus of this name") {
			t.Errorf("another bus: %v", err)
		}
		ctx, end := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer end()
		b.run(ctx)
		if n := len(frames); n != 2 {
			t.Errorf("%d frames in two polls", n)
		}
		<-frames
		if got := <-frames; got.What != "read 2 points" || got.Values != "p=1 pin=***" || got.Unit != "d" || got.Took != 20*time.Millisecond {
			t.Errorf("%+v", got)
		}
		stop()
		synctest.Wait()
		if b.watchers.some.Load() {
			t.Error("somebody watches still")
		}
	})
}
