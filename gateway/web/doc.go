// Package web is what people and programs near the gateway see of it: the local
// page with its metrics, and the same handlers on a unix socket, the control
// socket, for the command line.
//
// Everything it shows comes from gateway.Snapshot and from what cmd hands in;
// it never touches a field or the cloud itself. The page listens on loopback
// without a password, elsewhere with one; the control socket needs no password,
// its file mode says who may use it. No request may cost the gateway more than
// a copy of its state: bodies, times and connections are bounded.
//
// The API is JSON. An error is {"error": "what was tried on what: why"} with a
// status of 400 and up. Times are RFC 3339 in UTC, durations end in _ms.
//
//	GET  /api/hello                          site, version, pid, path of the buffer: who answers here?
//	GET  /api/status                         Status: buses, devices, cloud sessions, buffer
//	GET  /api/points[?device=NAME]           []PointsOf: the points of each device with their latest samples
//	GET  /api/stream[?points=1]              server-sent events: what changes, see Server.stream
//	GET  /api/trend?device=NAME&point=NAME   Trend: the last local.history, thinned to lows and highs
//	GET  /api/raw?point=DEVICE/POINT&…       Raw: what the devices sent for up to 200 points last
//	GET  /api/history                        Depths: how full the buffer was
//	GET  /api/events                         []Event: the last ones, oldest first
//	GET  /api/site                           the site file without secrets, and its findings
//	GET  /metrics · /healthz · /readyz       for Prometheus and supervisors
//	GET  /api/buffer                         what waits by lane, figures of the file
//	GET  /api/buffer/quarantine              what the cloud refused
//	GET  /api/buffer/quarantine/{number}     one of these as it would be sent
//	GET  /api/audit                          []gateway.Audit: the last 300 lines of 30 days, oldest first; on the socket with ?since, limit and device
//	POST /api/write                          {"device", "point", "value"}, the value as text → Written; on the page only with local.write_test
//	POST /api/read                           {"device", "point"}: one reading out of turn, on the control socket
//	GET  /api/locks                          []gateway.Lock: who has locked what
//	POST /api/lock · /api/unlock             {"device", "user", "reason"}, without device for all, on the control socket
//	POST /api/buffer/quarantine/{number}/retry · …/drop      only on the control socket
//
// cmd adds what it knows with Server.Handle (page and socket) and
// Server.HandleControl (socket only), best by JSON.
package web
