package modbus

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

func blockDevice(shift int) *gateway.Device {
	profile := drive()
	d := &gateway.Device{Name: "d", Profile: profile, Unit: 7, Shift: shift}
	for _, def := range profile.Points {
		d.Points = append(d.Points, &gateway.Point{Definition: def, Device: d, Name: def.ID})
	}
	return d
}

// TestABlockIsGivenAsItIsOnTheWire: no order of the profile touches it.
func TestABlockIsGivenAsItIsOnTheWire(t *testing.T) {
	d := blockDevice(2)
	s, unit := onSlave(t, serialBus(time.Second), d)
	unit.regs[12], unit.regs[13] = 0x1234, 0xABCD
	block := &gateway.RawBlock{Table: "holding", At: "0x0A", Count: 2}
	data, err := s.ReadBlock(t.Context(), d, block, false)
	if err != nil || fmt.Sprintf("%X", data) != "1234ABCD" {
		t.Errorf("got %X, %v", data, err)
	}
	// The checksum is the protocol's own: computed by hand for 07 03 04 12 34 AB CD.
	frame, err := s.ReadBlock(t.Context(), d, block, true)
	if err != nil || !strings.HasPrefix(fmt.Sprintf("%X", frame), "0703041234ABCD") || len(frame) != 9 || wire.CRC(frame) != 0 {
		t.Errorf("got %X, %v", frame, err)
	}
	for _, b := range []*gateway.RawBlock{{At: "0x0A", Count: 126}, {At: "65533", Count: 2}, {At: "x", Count: 1}, {At: "1", Count: 0}} {
		var refused *gateway.ReadError
		if _, err := s.ReadBlock(t.Context(), d, b, false); !errors.As(err, &refused) {
			t.Errorf("%+v: %v", b, err)
		}
	}
}

// TestFramesFromTheCloudOnlyRead: what is damaged, for another unit or writes
// does not reach the wire.
func TestFramesFromTheCloudOnlyRead(t *testing.T) {
	d := blockDevice(0)
	s, unit := onSlave(t, serialBus(50*time.Millisecond), d)
	unit.regs[3] = 0x0102
	good := wire.AppendRTU(nil, 7, []byte{3, 0, 3, 0, 1})
	answer, err := s.ReadFrame(t.Context(), d, good)
	if want := wire.AppendRTU(nil, 7, []byte{3, 2, 1, 2}); err != nil || string(answer) != string(want) {
		t.Errorf("got %X, %v", answer, err)
	}
	refusal := wire.AppendRTU(nil, 7, []byte{4, 0, 3, 0, 1})
	answer, err = s.ReadFrame(t.Context(), d, refusal)
	if want := wire.AppendRTU(nil, 7, []byte{0x84, 1}); err != nil || string(answer) != string(want) {
		t.Errorf("an exception is answered with %X, %v", answer, err)
	}
	unit.take()
	damaged := append([]byte(nil), good...)
	damaged[3] ^= 1
	for name, c := range map[string]struct {
		frame []byte
		says  string
	}{
		"empty":           {nil, "no RTU frame"},
		"checksum":        {damaged, "checksum"},
		"another unit":    {wire.AppendRTU(nil, 8, good[1:6]), "unit 8"},
		"broadcast":       {wire.AppendRTU(nil, 0, good[1:6]), "unit 0"},
		"write coil":      {wire.AppendRTU(nil, 7, []byte{5, 0, 3, 0xFF, 0}), "function 5"},
		"write register":  {wire.AppendRTU(nil, 7, []byte{6, 0, 3, 0, 1}), "function 6"},
		"write registers": {wire.AppendRTU(nil, 7, []byte{16, 0, 3, 0, 1, 2, 0, 1}), "function 16"},
		"read and write":  {wire.AppendRTU(nil, 7, []byte{23, 0, 3, 0, 1, 0, 3, 0, 1, 2, 0, 1}), "function 23"},
		"too many":        {wire.AppendRTU(nil, 7, []byte{3, 0, 3, 0, 126}), "126"},
		"none":            {wire.AppendRTU(nil, 7, []byte{3, 0, 3, 0, 0}), "0 registers"},
		"over the end":    {wire.AppendRTU(nil, 7, []byte{3, 0xFF, 0xFF, 0, 2}), "2 registers"},
		"longer":          {wire.AppendRTU(nil, 7, []byte{3, 0, 3, 0, 1, 0}), "9 bytes"},
	} {
		var refused *gateway.ReadError
		if _, err := s.ReadFrame(t.Context(), d, c.frame); !errors.As(err, &refused) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if sent := unit.take(); len(sent) > 0 {
		t.Errorf("on the wire: %v", sent)
	}
	unit.script(func([]byte) []byte { return nil })
	var refused *gateway.ReadError
	if _, err := s.ReadFrame(t.Context(), d, good); !errors.As(err, &refused) || err.Error() != "no answer within 50ms" {
		t.Errorf("silence: %v", err)
	}
}
