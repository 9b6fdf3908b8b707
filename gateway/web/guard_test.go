package web

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/gateway"
)

// changing adds a handler that changes something, and counts how often it ran.
func changing(r *rig) *atomic.Int64 {
	var n atomic.Int64
	r.Handle("POST /api/change", JSON(func(q *http.Request) (any, error) {
		if _, err := io.ReadAll(q.Body); err != nil {
			return nil, &Error{http.StatusRequestEntityTooLarge, err.Error()}
		}
		n.Add(1)
		return struct{}{}, nil
	}))
	return &n
}

// TestForeignPagesAreRefused: what a page of elsewhere can make a browser send
// to the gateway changes nothing and shows nothing.
func TestForeignPagesAreRefused(t *testing.T) {
	r := newRig(t, gateway.Local{}, nil)
	changed := changing(r)
	host := strings.TrimPrefix(r.url, "http://")
	for _, tt := range []struct {
		name, method, path string
		headers            []string
		status             int
	}{
		{"form of another site", "POST", "/api/change", []string{"Origin: http://evil.example", "Content-Type: text/plain"}, 415},
		{"script of another site", "POST", "/api/change", []string{"Origin: http://evil.example", "Sec-Fetch-Site: cross-site"}, 403},
		{"script of another site, old browser", "POST", "/api/change", []string{"Origin: http://evil.example"}, 403},
		{"script of another port of this machine", "POST", "/api/change", []string{"Origin: http://127.0.0.1:1"}, 403},
		{"page behind a rebound name", "GET", "/api/points", []string{"Host: evil.example"}, 421},
		{"page behind a rebound name and our port", "POST", "/api/change", []string{"Host: evil.example:8470", "Origin: http://evil.example:8470"}, 421},
		{"name that begins as ours", "GET", "/", []string{"Host: localhost.evil.example"}, 421},
		{"no host", "GET", "/", []string{"Host: :80"}, 421},
		{"the page itself", "POST", "/api/change", []string{"Origin: " + r.url, "Sec-Fetch-Site: same-origin"}, 200},
		{"by name", "GET", "/api/points", []string{"Host: localhost:8470"}, 200},
		{"by IPv6", "GET", "/api/points", []string{"Host: [fe80::1]:8470"}, 200},
		{"by address", "GET", "/api/points", []string{"Host: " + host}, 200},
	} {
		before := changed.Load()
		status, body, _ := r.ask(t, tt.method, tt.path, "{}", tt.headers...)
		if status != tt.status {
			t.Errorf("%s: status %d: %s", tt.name, status, body)
		}
		if status != 200 && changed.Load() != before {
			t.Errorf("%s: it changed something", tt.name)
		}
	}
	if changed.Load() != 1 {
		t.Errorf("the page's own request changed %d things", changed.Load())
	}
}

// TestAnswersAllowNothingFromElsewhere: no frame, no inline script, on every answer.
func TestAnswersAllowNothingFromElsewhere(t *testing.T) {
	r := newRig(t, gateway.Local{Password: "long and random"}, nil)
	for _, path := range []string{"/", "/assets/vendor/htm.umd.js", "/assets/none", "/api/status", "/metrics", "/healthz", "/nothing"} {
		_, _, h := r.ask(t, "GET", path, "")
		policy := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: policy %q lacks %q", path, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") || h.Get("X-Frame-Options") != "DENY" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, h)
		}
	}
	status, page, _ := r.ask(t, "GET", "/", "")
	if status != 200 || strings.Contains(page, "<script>") || strings.Contains(page, "style=") || strings.Contains(page, "//") && strings.Contains(page, "http") {
		t.Errorf("the page has something inline or from elsewhere:\n%s", page)
	}
}

// TestLargeAndSlowRequests cost the gateway a bounded time and memory.
func TestLargeAndSlowRequests(t *testing.T) {
	r := newRig(t, gateway.Local{}, nil)
	changed := changing(r)
	if status, _, _ := r.ask(t, "POST", "/api/change", strings.Repeat("x", 10<<20)); status != http.StatusRequestEntityTooLarge || changed.Load() != 0 {
		t.Errorf("10 MB: status %d, changed %d", status, changed.Load())
	}
	slow, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprintf(slow, "GET /api/status HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
	begin := time.Now()
	_ = slow.SetReadDeadline(time.Now().Add(8 * time.Second))
	if _, err := bufio.NewReader(slow).ReadString('\n'); err == nil || time.Since(begin) > 7*time.Second {
		t.Errorf("a header that never ends was held for %v: %v", time.Since(begin), err)
	}
	if status, _, _ := r.ask(t, "GET", "/api/status", ""); status != 200 {
		t.Errorf("meanwhile others get %d", status)
	}
}

func TestPasswordKeepsEverythingButTheDoor(t *testing.T) {
	r := newRig(t, gateway.Local{Password: "long and random"}, nil)
	for path, want := range map[string]int{"/api/status": 401, "/api/points": 401, "/metrics": 401, "/api/hello": 401, "/": 200, "/healthz": 200, "/readyz": 200} {
		if status, body, _ := r.ask(t, "GET", path, ""); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _, _ := r.ask(t, "POST", "/api/login", `{"password": "short"}`); status != 403 {
		t.Errorf("wrong password: %d", status)
	}
	status, _, h := r.ask(t, "POST", "/api/login", `{"password": "long and random"}`)
	cookie := h.Get("Set-Cookie")
	if status != 200 || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Strict") {
		t.Fatalf("login: %d %s", status, cookie)
	}
	session := "Cookie: " + strings.Split(cookie, ";")[0]
	if status, _, _ := r.ask(t, "GET", "/api/status", "", session); status != 200 {
		t.Errorf("with the session: %d", status)
	}
	if status, _, _ := r.ask(t, "GET", "/api/status", "", session+"x"); status != 401 {
		t.Errorf("with another session: %d", status)
	}
	r.ask(t, "POST", "/api/logout", "{}", session)
	if status, _, _ := r.ask(t, "GET", "/api/status", "", session); status != 401 {
		t.Errorf("after logout: %d", status)
	}
	if status, _, _ := r.ask(t, "GET", "/metrics", "", "Authorization: Basic cHJvbTpsb25nIGFuZCByYW5kb20="); status != 200 {
		t.Errorf("scraper: %d", status)
	}
	if status, _, _ := r.ask(t, "GET", "/api/status", "", "Authorization: Basic cHJvbTpsb25nIGFuZCByYW5kb20="); status != 401 {
		t.Errorf("basic auth opens more than /metrics: %d", status)
	}
}

// TestGuessersAreLockedOut: of 1,000 guesses few are even looked at, and then
// the right password does not help either.
func TestGuessersAreLockedOut(t *testing.T) {
	r := newRig(t, gateway.Local{Password: "long and random"}, nil)
	looked := 0
	for i := range 1000 {
		switch status, body, h := r.ask(t, "POST", "/api/login", fmt.Sprintf(`{"password": "guess %d"}`, i)); status {
		case 403:
			looked++
		case 429:
			if h.Get("Retry-After") == "" || !strings.Contains(body, "try again in") {
				t.Fatalf("lock-out: %s %v", body, h)
			}
		default:
			t.Fatalf("guess %d: %d", i, status)
		}
	}
	if looked != freeGuesses {
		t.Errorf("%d guesses were looked at", looked)
	}
	if status, _, h := r.ask(t, "POST", "/api/login", `{"password": "long and random"}`); status != 429 || h.Get("Set-Cookie") != "" {
		t.Errorf("the right password while locked out: %d", status)
	}
}

// TestGuessingFromManyAddresses is bounded over all of them.
func TestGuessingFromManyAddresses(t *testing.T) {
	d, err := newDoor("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$MTIzNDU2Nzg5MDEyMzQ1Njc4OTA")
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for i := range 5000 {
		if e, ok := d.guess(fmt.Sprintf("10.0.%d.%d", i/250, i%250), "guess").(*Error); ok && e.Status == http.StatusForbidden {
			looked++
		}
	}
	if looked != freeGuessesAll || len(d.guesses) > 2*mostGuessers {
		t.Errorf("%d guesses were looked at, %d addresses remembered", looked, len(d.guesses))
	}
}

func TestPasswordHashes(t *testing.T) {
	// Made by the argon2 command: echo -n secret | argon2 somesalt1234 -id -t 2 -k 1024 -p 1 -e
	p, err := newPassword("$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQxMjM0$DQ9uPWsMpKhK5tEbzhihzWe4QLNYasLuSijyuEBRw+E")
	if err != nil || !p.check("secret") || p.check("Secret") || !p.check("secret") {
		t.Errorf("%v", err)
	}
	for _, wrong := range []string{"$argon2id$", "$argon2id$v=16$m=1024,t=2,p=1$c2FsdA$c2FsdA", "$argon2id$v=19$m=9999999,t=2,p=1$c2FsdHNhbHQ$MTIzNDU2Nzg5MDEyMzQ1Njc4OTA",
		"$argon2id$v=19$m=64,t=0,p=1$c2FsdHNhbHQ$MTIzNDU2Nzg5MDEyMzQ1Njc4OTA", "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$c2FsdA", "$argon2id$v=19$m=64,t=1,p=1$?$?"} {
		if _, err := newPassword(wrong); err == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
}
