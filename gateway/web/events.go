package web

import (
	"net/http"
	"time"
)

// Event is an event that was raised, cleared, or happened.
type Event struct {
	Time     time.Time         `json:"time"`
	Device   string            `json:"device,omitempty"` // "" for the gateway's own
	Event    string            `json:"event"`
	Severity string            `json:"severity"`
	State    string            `json:"state"` // raised, cleared or happened
	Params   map[string]string `json:"params,omitempty"`
}

func (s *Server) events(*http.Request) (any, error) {
	out := []Event{}
	for _, e := range s.Gateway.RecentEvents() {
		event := Event{Time: e.Time.UTC(), Device: e.Device, Event: e.Event, Severity: string(e.Severity), State: string(e.State)}
		for _, p := range e.Params {
			if event.Params == nil {
				event.Params = make(map[string]string)
			}
			event.Params[p.Name] = p.Value.String()
		}
		out = append(out, event)
	}
	return out, nil
}
