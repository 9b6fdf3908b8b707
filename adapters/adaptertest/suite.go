// Package adaptertest is what every adapter promises: one suite of tests for
// the contract of gateway.Adapter and gateway.Session, run against real
// simulated devices by each adapter's own tests.
//
// A Harness says how to make the adapter and how to start a field for it. Each
// promise gets a fresh field, so that none can spoil another, and looks at the
// adapter through the contract alone: nothing here knows a protocol.
//
// The suite counts goroutines and therefore runs its promises one after the
// other. Times are generous; a promise about time is kept or missed by a lot.
package adaptertest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"sluice/gateway"
)

// Harness is one kind of bus and the adapter for it.
type Harness struct {
	New gateway.NewAdapter
	// Start starts a field that ends with the test, and whose devices may take
	// that long to answer before they count as silent. It must have two units
	// or more, points that are read by more than one request, and a writable
	// number that a float64 can be too large for.
	Start func(t *testing.T, timeout time.Duration) Field
	// Window is how many requests the bus may have in flight, and a group may
	// be; 0 is 1.
	Window int
}

// Field is simulated devices on one bus, and the hands in them. Its functions
// end the test when they can't do what they are for.
type Field struct {
	Bus     *gateway.Bus
	Devices []*gateway.Device

	// Set makes a device hold a value, in engineering units; Get is the value
	// that it holds. A value that was set stays.
	Set func(*gateway.Point, gateway.Value)
	Get func(*gateway.Point) gateway.Value
	// Fail makes the device refuse all that touches a point, or not.
	Fail func(p *gateway.Point, fails bool)
	// Silence makes a device and those in the same unit stop answering, or not.
	Silence func(d *gateway.Device, silent bool)
	// Cut takes the bus away, with its connections; Restore brings it back.
	Cut     func()
	Restore func()
	// Requests is how many requests the devices got.
	Requests func() int
}

const (
	answerTime = 500 * time.Millisecond // of healthy devices, far more than they need
	longTime   = 20 * time.Second       // a timeout that no promise about cancelling waits for
	limit      = 10 * time.Second       // what is too long for anything else
	soon       = 2 * time.Second        // 200 ms promised, on a machine with other work
)

// Run tests all promises.
func Run(t *testing.T, h Harness) {
	for _, promise := range []struct {
		name string
		test func(*testing.T, Harness)
	}{
		{"open of a dead bus is an error", deadBus},
		{"plan keeps every point once and sends nothing", plan},
		{"read gives a good sample for each point", read},
		{"a failing point makes only its group bad", failingPoint},
		{"a silent unit is bad until it answers again", silentUnit},
		{"groups that are read at a time are as read one after the other", together},
		{"a cut connection is an error and can be opened anew", cutConnection},
		{"what is written is what is read", write},
		{"what does not fit is refused before it is sent", refuse},
		{"a write that the device refuses is a WriteError", refusedWrite},
		{"read ends soon when its context does", cancelRead},
		{"close ends a read under way", closeRead},
		{"close leaves no goroutine", goroutines},
	} {
		t.Run(promise.name, func(t *testing.T) { promise.test(t, h) })
	}
}

// rig is an adapter in front of a field.
type rig struct {
	Field
	adapter gateway.Adapter
	points  []*gateway.Point // that can be read
}

func newRig(t *testing.T, h Harness, timeout time.Duration) *rig {
	t.Helper()
	r := &rig{Field: h.Start(t, timeout)}
	adapter, err := h.New(gateway.Env{Log: slog.New(slog.DiscardHandler)}, r.Bus, r.Devices)
	if err != nil {
		t.Fatalf("make the adapter: %v", err)
	}
	r.adapter = adapter
	for _, d := range r.Devices {
		for _, p := range d.Points {
			if p.Access != "w" {
				r.points = append(r.points, p)
			}
		}
	}
	return r
}

// hold makes every point keep the value that it has, so that a reading can be
// compared.
func (r *rig) hold() map[*gateway.Point]gateway.Value {
	values := make(map[*gateway.Point]gateway.Value)
	for _, p := range r.points {
		v := r.Get(p)
		r.Set(p, v)
	}
	for _, p := range r.points {
		values[p] = r.Get(p)
	}
	return values
}

func (r *rig) open(t *testing.T) gateway.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	session, err := r.adapter.Open(ctx)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

// read reads one group and checks what holds for every answer: a sample for
// each point, in order, of now, with a reason where it is bad.
func (r *rig) read(t *testing.T, session gateway.Session, group []*gateway.Point) []gateway.Sample {
	t.Helper()
	before := time.Now()
	samples, err := session.Read(t.Context(), group)
	if err != nil {
		t.Fatalf("read %s: %v", names(group), err)
	}
	if len(samples) != len(group) {
		t.Fatalf("read %s: %d samples for %d points", names(group), len(samples), len(group))
	}
	for i, s := range samples {
		if s.Point != group[i] {
			t.Fatalf("read %s: sample %d is not of %s", names(group), i, group[i].ID)
		}
		if s.Time.Before(before) || s.Time.After(time.Now()) {
			t.Errorf("%s: the sample's time %v is not that of the read", s.Point.ID, s.Time)
		}
		if s.Quality != gateway.Good && s.Reason == "" {
			t.Errorf("%s: %v without a reason", s.Point.ID, s.Quality)
		}
		if s.Quality == gateway.Bad && s.Value.Kind() != gateway.None && s.Value.Kind() != gateway.List {
			t.Errorf("%s: bad, but with the value %v", s.Point.ID, s.Value)
		}
	}
	return samples
}

// readAll reads groups and gives the samples of all points.
func (r *rig) readAll(t *testing.T, session gateway.Session, groups [][]*gateway.Point) map[*gateway.Point]gateway.Sample {
	t.Helper()
	all := make(map[*gateway.Point]gateway.Sample)
	for _, group := range groups {
		for _, s := range r.read(t, session, group) {
			all[s.Point] = s
		}
	}
	return all
}

func names(points []*gateway.Point) (s string) {
	for i, p := range points {
		if i > 0 {
			s += " "
		}
		s += p.Device.Name + "." + p.ID
	}
	return s
}

// good checks that a point was read well.
func good(t *testing.T, s gateway.Sample) {
	t.Helper()
	if s.Quality != gateway.Good {
		t.Errorf("%s.%s is %v: %s", s.Point.Device.Name, s.Point.ID, s.Quality, s.Reason)
	}
}
