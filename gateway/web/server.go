package web

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"sluice/gateway"
)

// Config is what a Server shows.
type Config struct {
	Site    *gateway.Site
	Gateway *gateway.Gateway
	Log     *slog.Logger
	Version string
	Cloud   func() []CloudSession // may be nil
	Stuck   func() []string       // loops that should turn and don't; may be nil
}

// CloudSession is the connection of one username to the cloud.
type CloudSession struct {
	User      string    `json:"user"`
	Connected time.Time `json:"connected,omitzero"` // since when; zero while there is no connection
	Error     string    `json:"error,omitempty"`    // why there is none
	Confirmed uint64    `json:"confirmed"`          // records since the start
	Mode      string    `json:"mode"`               // what counts as delivered: puback, response, or auto while that is open
}

// Server answers on the page's address and on the control socket.
type Server struct {
	Config
	page    *http.ServeMux
	control *http.ServeMux
	door    *door // nil without a password
	depths  *depths
	streams chan struct{} // one for each that is open

	mu   sync.Mutex
	last *gateway.Snapshot // of the streams
}

// New makes a server; RunPage and RunControl let it answer.
func New(c Config) (*Server, error) {
	s := &Server{
		Config: c, page: http.NewServeMux(), control: http.NewServeMux(), depths: newDepths(c.Site.Local.History), streams: make(chan struct{}, mostStreams),
	}
	if secret := c.Site.Local.Password; secret != "" {
		var err error
		if s.door, err = newDoor(string(secret)); err != nil {
			return nil, err
		}
		s.page.HandleFunc("POST /api/login", s.door.login)
		s.page.HandleFunc("POST /api/logout", s.door.logout)
	}
	s.Handle("GET /api/hello", JSON(s.hello))
	s.Handle("GET /api/status", JSON(s.status))
	s.Handle("GET /api/points", JSON(s.points))
	s.Handle("GET /api/raw", JSON(s.raw))
	s.page.Handle("GET /api/audit", JSON(s.audit)) // the socket has one with since and device
	s.page.Handle("POST /api/write", JSON(s.write))
	s.HandleControl("POST /api/write", JSON(func(r *http.Request) (any, error) { return s.writeAs(gateway.ByCommandLine, r) }))
	s.Handle("GET /api/trend", JSON(s.trend))
	s.Handle("GET /api/events", JSON(s.events))
	s.Handle("GET /api/history", JSON(s.history))
	s.Handle("GET /api/stream", http.HandlerFunc(s.stream))
	s.Handle("GET /metrics", s.metrics())
	s.Handle("GET /healthz", http.HandlerFunc(s.healthz))
	s.Handle("GET /readyz", http.HandlerFunc(s.readyz))
	s.page.Handle("GET /{$}", http.HandlerFunc(index))
	s.page.Handle("GET /assets/", assetServer())
	return s, nil
}

// Handle adds a handler to the page and to the control socket. A pattern is
// one of http.ServeMux.
func (s *Server) Handle(pattern string, h http.Handler) {
	s.page.Handle(pattern, h)
	s.control.Handle(pattern, h)
}

// HandleControl adds a handler to the control socket only.
func (s *Server) HandleControl(pattern string, h http.Handler) { s.control.Handle(pattern, h) }

// RunControl answers on the control socket until ctx ends.
func (s *Server) RunControl(ctx context.Context, l net.Listener) { s.serve(ctx, l, s.control) }

// RunPage answers on the page's address until ctx ends. While the address is
// taken it waits for it: the gateway works without a page, too.
func (s *Server) RunPage(ctx context.Context) {
	for said := ""; ; {
		l, err := net.Listen("tcp", s.Site.Local.HTTP)
		if err == nil {
			s.Log.Info("page is served", "address", "http://"+l.Addr().String())
			s.serve(ctx, netutil.LimitListener(l, mostConnections), s.pageHandler())
			return
		}
		if said != err.Error() {
			s.Log.Warn("page is not served", "error", err)
			said = err.Error()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(listenAgain):
		}
	}
}

const (
	mostConnections = 64
	listenAgain     = 5 * time.Second
)

// pageHandler is the page with its guards, the outermost first.
func (s *Server) pageHandler() http.Handler {
	h := http.Handler(s.page)
	if s.door != nil {
		h = s.door.keep(h)
	}
	return s.guard(h)
}

// serve answers until ctx ends; requests under way end with it.
func (s *Server) serve(ctx context.Context, l net.Listener, h http.Handler) {
	server := &http.Server{
		Handler: h, BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		<-ctx.Done()
		server.Close()
	})
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		s.Log.Error("page or control socket is not served any more", "address", l.Addr(), "error", err)
	}
	wait.Wait()
}

// Error is an answer other than 200.
type Error struct {
	Status int
	Text   string
}

// Error is the text.
func (e *Error) Error() string { return e.Text }

// maxBody bounds what anybody may send.
const maxBody = 64 << 10

// JSON makes a handler of a function: its value is the answer, its error is
// {"error": …} with the status of an *Error, else 500.
func JSON(answer func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		value, err := answer(r)
		if err != nil {
			fail(w, err)
			return
		}
		answerJSON(w, http.StatusOK, value)
	})
}

func answerJSON(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"this can't be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // nobody is left to hear of an error
}

// Hello tells which gateway answers.
type Hello struct {
	Site    string `json:"site"`
	Version string `json:"version"`
	PID     int    `json:"pid"`
	Buffer  string `json:"buffer"`            // path of its file
	Refusal string `json:"refusal,omitempty"` // why no stream can be opened now: a page does not see what a stream was refused with
}

func (s *Server) hello(*http.Request) (any, error) {
	h := Hello{Site: s.Site.Name, Version: s.Version, PID: os.Getpid(), Buffer: s.Site.Buffer.Path}
	if len(s.streams) == cap(s.streams) {
		h.Refusal = tooMany
	}
	return h, nil
}
