package modbus

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
)

// locked is a drive whose speed needs two points to be written before.
func locked(code string) *gateway.Profile {
	p := drive()
	p.Points[0].Needs = "unlock"
	p.Points = append(p.Points,
		&gateway.Definition{ID: "user", At: "40", Type: "uint16", Access: "w"},
		&gateway.Definition{ID: "code", At: "41", Type: "string", Length: 4, Access: "w"})
	user, secret := gateway.Secret("7"), gateway.Secret(code)
	p.Unlock = &gateway.Unlock{Write: map[string]*gateway.Secret{"code": &secret, "user": &user}}
	return p
}

func TestUnlockGoesBeforeAWrite(t *testing.T) {
	bus := serialBus(100 * time.Millisecond)
	bus.Retries = 3
	d := device(bus, locked("AB"), "d", 1)
	d.Points = d.Points[:len(d.Points)-2] // dropped on this unit, but written all the same
	s, unit := onSlave(t, bus, d)
	speed, unlocking := point(t, d, "speed"), []string{"0600280007", "1000290002" + "04" + "41420000"}
	if err := s.Write(t.Context(), speed, gateway.FloatValue(50)); err != nil {
		t.Fatal(err)
	}
	if got := unit.take(); !slices.Equal(got, append(slices.Clone(unlocking), "06000101F4")) {
		t.Errorf("sent %v", got)
	}
	if err := s.Write(t.Context(), point(t, d, "elsewhere"), gateway.IntValue(1)); err != nil || len(unit.take()) != 1 {
		t.Errorf("a point that needs none: %v", err)
	}
	if err := s.Write(t.Context(), speed, gateway.FloatValue(9999)); err == nil || len(unit.take()) != 0 {
		t.Errorf("a value that does not fit: %v", err)
	}
	for _, tt := range []struct {
		answer []byte
		want   string
	}{
		{nil, "unlock by user: no valid answer"},
		{[]byte{6, 0, 0x28, 0, 8}, "unlock by user: no valid answer"},
		{[]byte{0x86, 3}, "unlock by user: exception 3: illegal data value"},
	} {
		s, unit := onSlave(t, bus, d)
		unit.script(func([]byte) []byte { return tt.answer })
		err := s.Write(t.Context(), speed, gateway.FloatValue(50))
		var refused *gateway.WriteError
		if !errors.As(err, &refused) || refused.Unknown || err.Error() != tt.want {
			t.Errorf("%#v, want %s", err, tt.want)
		}
		if sent := unit.take(); len(sent) != 1 {
			t.Errorf("sent %v", sent)
		}
	}
}

func TestUnlockTellsNoSecret(t *testing.T) {
	for _, code := range []string{"GEHEIM", "\xFF"} {
		bus := serialBus(time.Second)
		d := device(bus, locked(code), "d", 1)
		s, _ := onSlave(t, bus, d)
		err := s.Write(t.Context(), point(t, d, "speed"), gateway.FloatValue(50))
		if code == "GEHEIM" && (err == nil || err.Error() != "unlock by code: the secret does not fit the point") {
			t.Errorf("%v", err)
		}
		if err != nil && strings.Contains(fmt.Sprintf("%#v %v", err, err), code) {
			t.Errorf("%v", err)
		}
	}
	bus := serialBus(time.Second)
	profile := locked("AB")
	profile.Unlock = nil
	d := device(bus, profile, "d", 1)
	s, _ := onSlave(t, bus, d)
	if err := s.Write(t.Context(), point(t, d, "speed"), gateway.FloatValue(50)); err == nil || err.Error() != "the point needs unlock, and the profile does not say how" {
		t.Errorf("%v", err)
	}
}

func TestSecretsAsValues(t *testing.T) {
	for _, tt := range []struct {
		typ  gateway.Type
		text string
		want string // "" is refused
	}{
		{gateway.String, "AB 7", "AB 7"}, {gateway.Bytes, "0aFF", "0aff"}, {gateway.Bytes, "xx", ""}, {gateway.Bool, "true", "true"}, {gateway.Bool, "1", ""},
		{gateway.Uint16, "0x10", "16"}, {gateway.Int16, "-5", "-5"}, {gateway.Float32, "1.5", "1.5"}, {gateway.Uint32, "one", ""},
	} {
		v, err := secretValue(tt.typ, tt.text)
		if tt.want == "" && err != errSecret || tt.want != "" && (err != nil || v.String() != tt.want) {
			t.Errorf("%s %q: %v, %v", tt.typ, tt.text, v, err)
		}
	}
}

func TestModelsHaveTheirOwnTimes(t *testing.T) {
	bus := serialBus(20 * time.Second)
	profile := drive()
	profile.Timeout, profile.Quiet, profile.AfterWrite = 50*time.Millisecond, 2*time.Millisecond, 10*time.Second
	slow, quick, own := device(bus, profile, "slow", 1), device(bus, drive(), "quick", 2), device(bus, profile, "own", 3)
	own.Timeout, own.Quiet = 70*time.Millisecond, 5*time.Millisecond
	s, unit := onSlave(t, bus, slow, quick, own)
	for d, want := range map[*gateway.Device][2]time.Duration{slow: {50 * time.Millisecond, 2 * time.Millisecond}, quick: {20 * time.Second, 0}, own: {70 * time.Millisecond, 5 * time.Millisecond}} {
		r := s.batch(s.Plan(d.Points)[0]).requests[0]
		if r.timeout != want[0] || r.quiet != want[1] {
			t.Errorf("%s: timeout %v, quiet %v", d.Name, r.timeout, r.quiet)
		}
	}
	for _, d := range []*gateway.Device{slow, quick} {
		if err := s.Write(t.Context(), point(t, d, "elsewhere"), gateway.IntValue(1)); err != nil {
			t.Fatal(err)
		}
	}
	if rest := s.Rest(slow); rest < 5*time.Second || s.Rest(quick) != 0 || s.Rest(own) != 0 {
		t.Errorf("rests %v, %v, %v", rest, s.Rest(quick), s.Rest(own))
	}
	unit.script(func([]byte) []byte { return nil })
	if samples, err := s.Read(t.Context(), []*gateway.Point{point(t, own, "speed")}); err != nil || samples[0].Reason != "no answer within 70ms" {
		t.Errorf("%v, %v", samples, err)
	}
}

// TestPartsOfOneUnit: two devices of ours in one unit are read by one request,
// each at its shift, with an array and a scale factor each.
func TestPartsOfOneUnit(t *testing.T) {
	bus := serialBus(time.Second)
	profile := &gateway.Profile{Name: "part", Addressing: "protocol", Table: "holding", Order: "ABCD"}
	profile.Points = []*gateway.Definition{
		{ID: "exponent", At: "0", Type: "int16"},
		{ID: "curve", At: "1", Type: "int16", Count: 3, ScaleFrom: "exponent"},
	}
	one, two := device(bus, profile, "one", 1), device(bus, profile, "two", 1)
	one.SameUnit, two.SameUnit, two.Shift = true, true, 4
	s, unit := onSlave(t, bus, one, two)
	copy(unit.regs[:], []uint16{0, 1, 2, 0xFFFF, 0xFFFF, 15, 25, 35})
	groups := s.Plan([]*gateway.Point{one.Points[1], two.Points[1], two.Points[0]})
	if len(groups) != 1 {
		t.Fatalf("%d groups", len(groups))
	}
	samples, err := s.Read(t.Context(), groups[0])
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, x := range samples {
		got[x.Point.Device.Name+"."+x.Point.ID] = x.Value.String()
	}
	if got["one.curve"] != "[1, 2, -1]" || got["two.curve"] != "[1.5, 2.5, 3.5]" || got["two.exponent"] != "-1" {
		t.Errorf("%v", got)
	}
	if sent := unit.take(); !slices.Equal(sent, []string{"0300000008"}) {
		t.Errorf("sent %v", sent)
	}
}
