package modbus

import (
	"fmt"
	"strings"

	"sluice/gateway"
)

var _ gateway.Teller = (*session)(nil)

// keep remembers an answer's data, for Raw.
func (r *request) keep(data []byte) { r.last = append(r.last[:0], data...) }

// Raw is what the unit sent for a point last: its registers in hexadecimal, in
// wire order, or its bits.
func (s *session) Raw(p *gateway.Point) string {
	for _, batches := range []map[**gateway.Point]*batch{s.batches, s.others} {
		for _, b := range batches {
			for _, r := range b.requests {
				for i := range r.readings {
					if r.readings[i].point == p && len(r.last) > 0 {
						return r.rawText(&r.readings[i])
					}
				}
			}
		}
	}
	return ""
}

func (r *request) rawText(at *reading) string {
	var text strings.Builder
	for i := int(at.place.start) - r.start; i < int(at.place.end)-r.start; i++ {
		if text.Len() > 0 {
			text.WriteByte(' ')
		}
		switch {
		case r.table.Bits() && i/8 < len(r.last):
			fmt.Fprintf(&text, "%d", r.last[i/8]>>(i%8)&1)
		case !r.table.Bits() && 2*i+1 < len(r.last):
			fmt.Fprintf(&text, "0x%02X%02X", r.last[2*i], r.last[2*i+1])
		}
	}
	return text.String()
}
