package web

import (
	"encoding/json"
	"net/http"
	"time"

	"sluice/gateway"
)

// Written is what became of a write.
type Written struct {
	Result string `json:"result"` // done, refused, failed or unknown
	Old    string `json:"old,omitempty"`
	New    string `json:"new,omitempty"` // read back
	Reason string `json:"reason,omitempty"`
}

// write is the page's write test: through all the checks of a push, and only
// where the site wants it.
func (s *Server) write(r *http.Request) (any, error) {
	if !s.Site.Local.WriteTest {
		return nil, &Error{http.StatusForbidden, "writing from the page is off: local.write_test"}
	}
	return s.writeAs(gateway.ByPage, r)
}

// writeAs writes what a request asks for, in the name of who.
func (s *Server) writeAs(who string, r *http.Request) (any, error) {
	var asked struct{ Device, Point, Value string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		return nil, &Error{http.StatusBadRequest, `a write is {"device": "…", "point": "…", "value": "…"}: ` + err.Error()}
	}
	w, err := s.Gateway.Write(r.Context(), who, asked.Device, asked.Point, gateway.TextValue(asked.Value))
	out := Written{Result: w.Result, Old: s.told(asked.Device, asked.Point, w.Old), New: s.told(asked.Device, asked.Point, w.New)}
	if err != nil {
		out.Reason = err.Error()
	}
	return out, nil
}

// told is a value for people: "" where there is none, *** of a secret point.
func (s *Server) told(device, point string, v gateway.Value) string {
	if v.Kind() == gateway.None {
		return ""
	}
	for _, d := range s.Site.Devices {
		for _, p := range d.Points {
			if d.Name == device && p.ID == point && p.Secret {
				return "***"
			}
		}
	}
	return v.String()
}

const (
	auditLines = 300
	auditDays  = 30 * 24 * time.Hour // that are looked through
)

// audit is the last lines of the audit, oldest first.
func (s *Server) audit(*http.Request) (any, error) {
	lines := []gateway.Audit{}
	err := s.Gateway.Audit(time.Now().Add(-auditDays), func(line gateway.Audit) bool {
		if len(lines) == 2*auditLines { // rarely, so that it costs little
			lines = append(lines[:0], lines[auditLines:]...)
		}
		lines = append(lines, line)
		return true
	})
	return lines[max(0, len(lines)-auditLines):], err
}
