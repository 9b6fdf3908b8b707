package web

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"sluice/gateway"
)

// PointsOf is a device with its points.
type PointsOf struct {
	Device string  `json:"device"`
	Points []Point `json:"points"`
}

// Point is one point with its latest sample.
type Point struct {
	Name    string    `json:"name"`
	Label   string    `json:"label,omitempty"`
	Unit    string    `json:"unit,omitempty"`
	Access  string    `json:"access"`          // r, rw or w
	Value   string    `json:"value,omitempty"` // as in logs; "" where there is none
	Quality string    `json:"quality"`         // good, uncertain or bad
	Reason  string    `json:"reason,omitempty"`
	Time    time.Time `json:"time,omitzero"` // of the sample; zero: not read yet
}

func (s *Server) points(r *http.Request) (any, error) {
	name := r.URL.Query().Get("device")
	out := []PointsOf{}
	for _, b := range s.Gateway.Snapshot(r.Context()).Buses {
		for i := range b.Devices {
			if d := &b.Devices[i]; name == "" || d.Device.Name == name {
				out = append(out, pointsOf(d))
			}
		}
	}
	if name != "" && len(out) == 0 {
		return nil, &Error{http.StatusNotFound, "there is no device " + name}
	}
	return out, nil
}

// Raw is what devices sent for points.
type Raw struct {
	Raw []string `json:"raw"` // "" where that is not known
}

// mostRaw is more points than a screen shows.
const mostRaw = 200

func (s *Server) raw(r *http.Request) (any, error) {
	points := r.URL.Query()["point"]
	if len(points) > mostRaw {
		return nil, &Error{http.StatusBadRequest, fmt.Sprintf("%d points at once are too many: ask for %d at most", len(points), mostRaw)}
	}
	return Raw{s.Gateway.Raw(r.Context(), points)}, nil
}

func pointsOf(d *gateway.DeviceSnapshot) PointsOf {
	out := PointsOf{Device: d.Device.Name, Points: make([]Point, len(d.Points))}
	for i := range d.Points {
		s := &d.Points[i]
		p := Point{Name: s.Point.ID, Label: s.Point.Label, Unit: s.Point.Unit, Access: s.Point.Access, Quality: s.Quality.String(), Reason: s.Reason, Time: s.Time.UTC()}
		if s.Quality != gateway.Bad {
			p.Value = shown(s)
		}
		out.Points[i] = p
	}
	return out
}

// shown is a value with its decimals: 50.0 keeps its zero, so that the digits
// of a column stand still.
func shown(s *gateway.Sample) string {
	if d := s.Point.Decimals; d != nil && s.Value.Numeric() {
		return strconv.FormatFloat(s.Value.Float(), 'f', *d, 64)
	}
	return s.Value.String()
}
