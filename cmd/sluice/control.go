package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"sluice/gateway"
	"sluice/gateway/web"
)

// runtimeDirectory is where the service keeps its control socket.
const runtimeDirectory = "/run/sluice"

// controlPaths are the places of a site's control socket, the better one first.
func controlPaths(s *gateway.Site) []string {
	return []string{filepath.Join(runtimeDirectory, "control.sock"), filepath.Join(filepath.Dir(s.Buffer.Path), "control.sock")}
}

// listenControl opens the control socket of a site: in the runtime directory
// where there is one and no other gateway has it, else beside the buffer file.
func listenControl(s *gateway.Site) (net.Listener, error) {
	var errs []error
	for _, path := range controlPaths(s) {
		l, err := listenUnix(path)
		if err == nil {
			return l, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func listenUnix(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("control socket %s: another gateway answers there", path)
	}
	// What a killed gateway left behind; where there is nothing, nothing is lost.
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// runControl answers on the control socket until ctx ends. A gateway works
// without one, too.
func runControl(ctx context.Context, s *gateway.Site, server *web.Server, log *slog.Logger) {
	l, err := listenControl(s)
	if err != nil {
		log.Warn("no control socket", "error", err)
		return
	}
	server.RunControl(ctx, l)
}

// control is the API of a running gateway.
type control struct{ http.RoundTripper }

// errNoGateway says that no gateway runs this site.
var errNoGateway = errors.New("no gateway runs this site here")

// dialControl finds the running gateway of a site by its control socket.
// errNoGateway where there is none.
func dialControl(ctx context.Context, s *gateway.Site) (*control, error) {
	var denied error
	for _, path := range controlPaths(s) {
		c := &control{&http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}}}
		var hello web.Hello
		err := c.call(ctx, http.MethodGet, "/api/hello", nil, &hello)
		if errors.Is(err, os.ErrPermission) {
			denied = fmt.Errorf("ask the running gateway: %w (members of the socket's group may)", err)
		}
		if err == nil && hello.Buffer == s.Buffer.Path {
			return c, nil
		}
	}
	if denied != nil {
		return nil, denied
	}
	return nil, errNoGateway
}

// call makes a request with a JSON body, where there is one, and reads the
// JSON answer into a pointer, unless that is nil.
func (c *control) call(ctx context.Context, method, path string, body, into any) error {
	answer, err := c.open(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	if into == nil {
		return nil
	}
	return json.NewDecoder(answer).Decode(into)
}

// open makes a request; an answer that is an error is one here.
func (c *control) open(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	content, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://sluice"+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := c.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode == http.StatusOK {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	var refusal struct{ Error string }
	if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<16)).Decode(&refusal); err != nil || refusal.Error == "" {
		return nil, fmt.Errorf("%s %s: %s", method, path, answer.Status)
	}
	return nil, &web.Error{Status: answer.StatusCode, Text: refusal.Error}
}

// inProcess is the API of a handler in this process, for what the command line
// does itself while no gateway runs.
func inProcess(h http.Handler) *control { return &control{handlerTransport{h}} }

type handlerTransport struct{ http.Handler }

func (t handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := &answerWriter{header: make(http.Header), status: http.StatusOK}
	t.ServeHTTP(w, r)
	return &http.Response{StatusCode: w.status, Status: http.StatusText(w.status), Header: w.header, Body: io.NopCloser(&w.body)}, nil
}

type answerWriter struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *answerWriter) Header() http.Header         { return w.header }
func (w *answerWriter) WriteHeader(status int)      { w.status = status }
func (w *answerWriter) Write(b []byte) (int, error) { return w.body.Write(b) }
