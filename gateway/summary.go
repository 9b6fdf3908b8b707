package gateway

import "time"

// Summary is how a gateway is, in a few figures.
type Summary struct {
	Devices   int
	Up        int       // devices that give values
	Waiting   int       // records in the buffer
	Confirmed time.Time // when the cloud last confirmed something; zero for never
}

// Summary may be asked for at any time.
func (g *Gateway) Summary() Summary {
	s := Summary{Waiting: g.config.Buffer.Stats().Waiting}
	buses, _ := g.loops()
	for _, b := range buses {
		for _, d := range b.reporter.devices {
			s.Devices++
			if d.up.Load() {
				s.Up++
			}
		}
	}
	if at := g.Stats.LastConfirmed.Load(); at != 0 {
		s.Confirmed = time.Unix(0, at)
	}
	return s
}
