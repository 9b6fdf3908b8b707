package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
)

// FuzzPage: whatever is asked for is answered, without a panic and without a
// fault of the server's own; without a session nothing shows.
func FuzzPage(f *testing.F) {
	f.Add("GET", "/api/points?device=press", "", "localhost", "")
	f.Add("GET", "/api/trend?device=press&point=speed", "", "127.0.0.1:8470", "")
	f.Add("POST", "/api/login", `{"password": "x"}`, "localhost", "sluice_session=x")
	f.Add("POST", "/api/write", `{"device": "press", "point": "speed", "value": "1e400"}`, "[::1]", "")
	f.Add("GET", "/assets/../../etc/passwd", "", "localhost", "")
	f.Add("GET", "/api/stream?points=1", "", "localhost:80:80", "")
	locked := newRig(f, gateway.Local{Password: "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$MTIzNDU2Nzg5MDEyMzQ1Njc4OTA"}, nil).pageHandler()
	open := newRig(f, gateway.Local{}, nil).pageHandler()
	f.Fuzz(func(t *testing.T, method, target, body, host, cookie string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(u.Path, "/") || strings.ContainsAny(method, " \t\r\n/") || method == "" {
			return
		}
		for name, handler := range map[string]http.Handler{"open": open, "locked": locked} {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			r := httptest.NewRequestWithContext(ctx, "GET", "/", strings.NewReader(body))
			r.Method, r.URL, r.Host, r.RequestURI = method, u, host, target
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Cookie", cookie)
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			cancel()
			if w.Code == 500 {
				t.Errorf("%s: %s %s: %s", name, method, target, w.Body)
			}
			if name == "locked" && strings.Contains(w.Body.String(), "press") {
				t.Errorf("%s %s shows something without a session: %s", method, target, w.Body)
			}
		}
	})
}
