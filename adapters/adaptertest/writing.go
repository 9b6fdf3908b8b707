package adaptertest

import (
	"errors"
	"testing"

	"sluice/gateway"
)

// tooLarge fits no number but a float64, whatever its scale.
var tooLarge = gateway.FloatValue(1e300)

func write(t *testing.T, h Harness) {
	r := newRig(t, h, answerTime)
	session := r.open(t)
	written := 0
	for _, p := range r.points {
		v, ok := another(p, r.Get(p))
		if p.Access != "rw" || !ok {
			continue
		}
		written++
		before := r.Requests()
		if err := session.Write(t.Context(), p, v); err != nil {
			t.Errorf("write %v to %s: %v", v, p.ID, err)
			continue
		}
		if r.Requests() == before {
			t.Errorf("write %v to %s sent nothing", v, p.ID)
		}
		if got := r.Get(p); !same(got, v) {
			t.Errorf("%v written to %s, the device holds %v", v, p.ID, got)
		}
		s := r.read(t, session, session.Plan([]*gateway.Point{p})[0])[0]
		if good(t, s); !same(s.Value, v) {
			t.Errorf("%v written to %s, read back %v", v, p.ID, s.Value)
		}
	}
	if written < 2 {
		t.Errorf("%d points written, the promise needs two", written)
	}
}

func refuse(t *testing.T, h Harness) {
	r := newRig(t, h, answerTime)
	held := r.hold()
	session := r.open(t)
	before, refused := r.Requests(), 0
	for _, p := range r.points {
		if p.Access != "rw" || !held[p].Numeric() || p.Type == gateway.Float64 || p.ScaleFrom != "" {
			continue
		}
		refused++
		err := session.Write(t.Context(), p, tooLarge)
		var refusal *gateway.WriteError
		if !errors.As(err, &refusal) {
			t.Errorf("write %v to %s: error %v is no *WriteError", tooLarge, p.ID, err)
		} else if refusal.Unknown {
			t.Errorf("write %v to %s: the outcome is said to be unknown", tooLarge, p.ID)
		}
		if got := r.Get(p); !got.Equal(held[p]) {
			t.Errorf("%s was %v and is %v after a write that was refused", p.ID, held[p], got)
		}
	}
	if refused == 0 {
		t.Error("no point for the promise")
	}
	if sent := r.Requests() - before; sent != 0 {
		t.Errorf("%d requests sent for writes that don't fit", sent)
	}
	for _, s := range r.readAll(t, session, session.Plan(r.points)) {
		good(t, s)
	}
}

func refusedWrite(t *testing.T, h Harness) {
	r := newRig(t, h, answerTime)
	session := r.open(t)
	for _, p := range r.points {
		v, ok := another(p, r.Get(p))
		if p.Access != "rw" || !ok {
			continue
		}
		r.Fail(p, true)
		err := session.Write(t.Context(), p, v)
		var refusal *gateway.WriteError
		if !errors.As(err, &refusal) {
			t.Errorf("write %v to %s: error %v is no *WriteError", v, p.ID, err)
		}
		r.Fail(p, false)
		s := r.read(t, session, session.Plan([]*gateway.Point{p})[0])[0]
		if good(t, s); same(s.Value, v) {
			t.Errorf("%s holds %v, though the device refused it", p.ID, v)
		}
	}
}

// another is a value for the point that it does not have yet, near to the one
// that it has.
func another(p *gateway.Point, v gateway.Value) (gateway.Value, bool) {
	switch {
	case len(p.Enum) > 1:
		label := p.Enum[0].Label
		if v.Text() == label {
			label = p.Enum[1].Label
		}
		return gateway.TextValue(label), true
	case v.Kind() == gateway.Boolean:
		return gateway.BoolValue(!v.Bool()), true
	case v.Kind() == gateway.Signed || v.Kind() == gateway.Unsigned:
		return gateway.IntValue(v.Int() + 1), true
	case v.Numeric():
		return gateway.FloatValue(v.Float() + 1), true
	case v.Kind() == gateway.Text && p.Type == gateway.String:
		return gateway.TextValue("other"), true
	}
	return gateway.Value{}, false
}

// same tells whether two values are the same to the eye: a number that was
// written as a float may come back as an integer.
func same(a, b gateway.Value) bool {
	if a.Numeric() && b.Numeric() {
		return float32(a.Float()) == float32(b.Float())
	}
	return a.Equal(b)
}
