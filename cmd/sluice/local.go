package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	"sluice/buffer"
	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/web"
)

// newLocal makes the server of the page and the control socket. What other
// rooms add to its API is added here.
func newLocal(s *gateway.Site, g *gateway.Gateway, store *buffer.Buffer, sessions map[string]*cloud.Session, log *slog.Logger) *web.Server {
	server := web.New(web.Config{
		Site: s, Gateway: g, Log: log, Version: version(),
		Cloud: func() []web.CloudSession { return cloudSessions(sessions) },
	})
	handleBuffer(store, s, server.Handle, server.HandleControl)
	return server
}

// runLocal answers on the control socket until ctx ends.
func runLocal(ctx context.Context, s *gateway.Site, server *web.Server, log *slog.Logger) {
	runControl(ctx, s, server, log)
}

// cloudSessions is how the connections to the cloud are, by user.
func cloudSessions(sessions map[string]*cloud.Session) []web.CloudSession {
	var all []web.CloudSession
	for _, user := range slices.Sorted(maps.Keys(sessions)) {
		status := sessions[user].Status()
		s := web.CloudSession{User: user, Connected: status.Connected.UTC(), Confirmed: status.Confirmed, Mode: status.Mode}
		if status.Err != nil && status.Connected.IsZero() {
			s.Error = status.Err.Error()
		}
		all = append(all, s)
	}
	return all
}
