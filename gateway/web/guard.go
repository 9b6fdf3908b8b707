package web

import (
	"mime"
	"net"
	"net/http"
	"os"
	"strings"
)

// guard lets only requests through that a person at this gateway can have
// meant: addressed to it by a name that it has, from its own page.
func (s *Server) guard(next http.Handler) http.Handler {
	csrf := http.NewCrossOriginProtection()
	csrf.SetDenyHandler(refuse(http.StatusForbidden, "this request comes from another site's page"))
	protected := csrf.Handler(next)
	names := ownNames()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setHeaders(w.Header())
		switch {
		case !allowedHost(r.Host, names):
			refuse(http.StatusMisdirectedRequest, "this gateway is reached by its address, or by the name "+strings.Join(names, " or ")).ServeHTTP(w, r)
		case r.Method == http.MethodPost && !isJSON(r):
			refuse(http.StatusUnsupportedMediaType, "a request must be application/json").ServeHTTP(w, r)
		default:
			protected.ServeHTTP(w, r)
		}
	})
}

// headers of all answers: nothing from elsewhere, nothing inline, in no frame.
var headers = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; manifest-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	"X-Frame-Options":              "DENY",
	"X-Content-Type-Options":       "nosniff",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), geolocation=(), microphone=(), usb=(), serial=()",
}

func setHeaders(h http.Header) {
	for name, value := range headers {
		h.Set(name, value)
	}
}

// allowedHost keeps DNS rebinding out: a page of elsewhere can point its own
// name to this machine, but then that name is what the browser sends. An
// address can't be pointed anywhere.
func allowedHost(host string, names []string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if net.ParseIP(strings.Trim(host, "[]")) != nil {
		return true
	}
	for _, name := range names {
		if host == name {
			return true
		}
	}
	return false
}

// ownNames are the names of this machine.
func ownNames() []string {
	names := []string{"localhost"}
	if name, err := os.Hostname(); err == nil && name != "" {
		name = strings.ToLower(name)
		names = append(names, name)
		if !strings.Contains(name, ".") {
			names = append(names, name+".local")
		}
	}
	return names
}

func isJSON(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && kind == "application/json"
}

// refuse answers with an error.
func refuse(status int, text string) http.Handler {
	return JSON(func(*http.Request) (any, error) { return nil, &Error{status, text} })
}
