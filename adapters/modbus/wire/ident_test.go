package wire

import (
	"errors"
	"slices"
	"testing"
)

// identified answers 43/14 with one object a reply.
func identified(f *fakeUnit, values []string, next func(i byte) byte) func(byte, []byte, []byte) []piece {
	return func(unit byte, req, _ []byte) []piece {
		i := req[3]
		more := byte(0)
		if int(i) < len(values)-1 {
			more = 0xFF
		}
		pdu := append([]byte{43, 14, req[2], 0x81, more, next(i), 1, i, byte(len(values[i]))}, values[i]...)
		return []piece{{0, f.frame(f.tid, unit, pdu)}}
	}
}

func TestReadDeviceIdentification(t *testing.T) {
	for _, rtu := range []bool{false, true} {
		inBubble(t, rtu, Options{}, func(t *testing.T, f *fakeUnit, c *Client) {
			f.ask(1, identified(f, []string{"Acme", "P-100", ""}, func(i byte) byte { return i + 1 }))
			got, err := c.ReadDeviceIdentification(t.Context(), 1, IdentBasic, 0)
			if err != nil || !slices.Equal(got, []Object{{0, "Acme"}, {1, "P-100"}, {2, ""}}) {
				t.Errorf("%v, %v", got, err)
			}
			got, err = c.ReadDeviceIdentification(t.Context(), 1, IdentOne, 1)
			if err != nil || !slices.Equal(got, []Object{{1, "P-100"}}) {
				t.Errorf("%v, %v", got, err)
			}
			f.ask(2, identified(f, []string{"Acme", "P-100"}, func(byte) byte { return 0 }))
			if got, err := c.ReadDeviceIdentification(t.Context(), 1, IdentBasic, 0); err == nil || Broken(err) {
				t.Errorf("a unit that never ends: %v, %v", got, err)
			}
			f.ask(3, nil)
			if _, err := c.ReadDeviceIdentification(t.Context(), 1, IdentBasic, 0); !errors.Is(err, IllegalFunction) {
				t.Error(err)
			}
		})
	}
}
