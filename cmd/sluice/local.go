package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"sluice/buffer"
	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/web"
)

// newLocal makes the server of the page and the control socket. What other
// rooms add to its API is added here.
func newLocal(s *gateway.Site, g *gateway.Gateway, store *buffer.Buffer, sessions map[string]*cloud.Session, stuck func() []string, log *slog.Logger) (*web.Server, error) {
	server, err := web.New(web.Config{
		Site: s, Gateway: g, Log: log, Version: version(),
		Cloud: func() []web.CloudSession { return cloudSessions(sessions) }, Stuck: stuck,
	})
	if err != nil {
		return nil, err
	}
	handleBuffer(store, s, server.Handle, server.HandleControl)
	handleAudit(g.Audit, server.HandleControl)
	handleLocks(runningLocks{g}, server.Handle, server.HandleControl)
	handleRead(g, server.HandleControl)
	server.Handle("GET /api/site", web.JSON(newSiteAPI(s).show))
	return server, nil
}

// runLocal answers on the page's address and the control socket until ctx ends.
func runLocal(ctx context.Context, s *gateway.Site, server *web.Server, log *slog.Logger) {
	var wait sync.WaitGroup
	if s.Local.HTTP != "none" {
		wait.Go(func() { server.RunPage(ctx) })
		wait.Go(func() { server.Watch(ctx) })
	}
	runControl(ctx, s, server, log)
	wait.Wait()
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
