package web

import (
	"fmt"
	"net/http"
	"time"

	"sluice/gateway"
)

// Health is the answer of /healthz and /readyz.
type Health struct {
	OK      bool     `json:"ok"`
	Reasons []string `json:"reasons"` // what is wrong; with OK, what is wrong and bearable
}

// healthz tells whether the process turns: no loop is stuck, and a snapshot can
// be taken, which asks all of them.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	s.Gateway.Snapshot(r.Context())
	h := Health{OK: true, Reasons: []string{}}
	if s.Stuck != nil {
		for _, loop := range s.Stuck() {
			h.OK = false
			h.Reasons = append(h.Reasons, loop+" does not turn")
		}
	}
	h.answer(w)
}

// readyz tells whether the gateway can measure and can store: a bus answers,
// and the buffer is written.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	snap := s.Gateway.Snapshot(r.Context())
	h := Health{OK: len(snap.Buses) == 0, Reasons: []string{}}
	for _, b := range snap.Buses {
		switch b.State {
		case gateway.BusUp:
			h.OK = true
		case gateway.BusDown:
			h.Reasons = append(h.Reasons, fmt.Sprintf("bus %s is down: %s", b.Bus.Name, b.Error))
		default:
			h.Reasons = append(h.Reasons, fmt.Sprintf("bus %s is %s", b.Bus.Name, b.State))
		}
	}
	if since := snap.Buffer.FailingSince; !since.IsZero() {
		h.OK = false
		h.Reasons = append(h.Reasons, "the buffer can't be written since "+since.UTC().Format(time.RFC3339))
	}
	h.answer(w)
}

func (h *Health) answer(w http.ResponseWriter) {
	status := http.StatusOK
	if !h.OK {
		status = http.StatusServiceUnavailable
	}
	answerJSON(w, status, h)
}
