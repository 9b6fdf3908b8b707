package web

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// door lets those in who know the password. Who guesses wrong is locked out,
// for longer each time.
type door struct {
	password *password

	mu       sync.Mutex
	sessions map[[32]byte]time.Time // hash of a cookie: when it ends
	guesses  map[string]*guesses    // by address
	all      guesses                // of everybody
}

// guesses are wrong passwords in a row.
type guesses struct {
	wrong  int
	locked time.Time // until then
	last   time.Time
}

const (
	cookieName   = "sluice_session"
	sessionTime  = 12 * time.Hour // since the last request
	mostSessions = 100
	mostGuessers = 1000

	freeGuesses    = 5   // of one address, before it is locked out
	freeGuessesAll = 100 // of all addresses together
	firstLock      = 30 * time.Second
	longestLock    = 15 * time.Minute
)

func newDoor(secret string) (*door, error) {
	p, err := newPassword(secret)
	return &door{password: p, sessions: make(map[[32]byte]time.Time), guesses: make(map[string]*guesses)}, err
}

// open are the paths that need no password: what the login page is made of, and
// what a supervisor asks.
func open(path string) bool {
	switch path {
	case "/", "/healthz", "/readyz", "/api/login":
		return true
	}
	return strings.HasPrefix(path, "/assets/")
}

// keep lets only those through who may come in.
func (d *door) keep(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if open(r.URL.Path) || d.inside(r) {
			next.ServeHTTP(w, r)
			return
		}
		// A scraper has no cookie.
		if r.URL.Path == "/metrics" {
			if _, guess, ok := r.BasicAuth(); ok {
				if err := d.guess(address(r), guess); err != nil {
					fail(w, err)
				} else {
					next.ServeHTTP(w, r)
				}
				return
			}
			w.Header().Set("WWW-Authenticate", `Basic realm="sluice"`)
		}
		refuse(http.StatusUnauthorized, "the password of this gateway is asked for").ServeHTTP(w, r)
	})
}

// inside tells whether the request has a session, and prolongs it.
func (d *door) inside(r *http.Request) bool {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return false
	}
	key, now := sha256.Sum256([]byte(cookie.Value)), time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	end, ok := d.sessions[key]
	if !ok || now.After(end) {
		delete(d.sessions, key)
		return false
	}
	d.sessions[key] = now.Add(sessionTime)
	return true
}

// login takes the password and gives a session.
func (d *door) login(w http.ResponseWriter, r *http.Request) {
	var asked struct{ Password string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&asked); err != nil {
		fail(w, &Error{http.StatusBadRequest, "a login is {\"password\": \"…\"}"})
		return
	}
	if err := d.guess(address(r), asked.Password); err != nil {
		fail(w, err)
		return
	}
	token := rand.Text()
	d.mu.Lock()
	if len(d.sessions) >= mostSessions {
		d.dropOldest()
	}
	d.sessions[sha256.Sum256([]byte(token))] = time.Now().Add(sessionTime)
	d.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: cookieName, Value: token, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: int(30 * 24 * time.Hour / time.Second)})
	answerJSON(w, http.StatusOK, struct{}{})
}

// logout ends the session.
func (d *door) logout(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(cookieName); err == nil {
		d.mu.Lock()
		delete(d.sessions, sha256.Sum256([]byte(cookie.Value)))
		d.mu.Unlock()
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1})
	answerJSON(w, http.StatusOK, struct{}{})
}

// dropOldest ends the session that was used least recently. The caller holds mu.
func (d *door) dropOldest() {
	var oldest [32]byte
	var end time.Time
	for key, at := range d.sessions {
		if end.IsZero() || at.Before(end) {
			oldest, end = key, at
		}
	}
	delete(d.sessions, oldest)
}

// guess checks a password that an address tries.
func (d *door) guess(from string, guess string) error {
	now := time.Now()
	d.mu.Lock()
	g := d.guesserOf(from, now)
	wait := max(g.locked.Sub(now), d.all.locked.Sub(now))
	if wait <= 0 { // counted before the check, so that guesses at the same time don't slip through
		g.take(now, freeGuesses)
		d.all.take(now, freeGuessesAll)
	}
	d.mu.Unlock()
	if wait > 0 {
		return &lockedOut{wait}
	}
	if !d.password.check(guess) {
		return &Error{http.StatusForbidden, "wrong password"}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.guesses, from)
	d.all.wrong-- // it was right
	return nil
}

// guesserOf finds the guesses of an address; those of an hour ago are
// forgotten. The caller holds mu.
func (d *door) guesserOf(from string, now time.Time) *guesses {
	if len(d.guesses) >= mostGuessers {
		for address, g := range d.guesses {
			if now.Sub(g.last) > time.Hour || len(d.guesses) >= 2*mostGuessers {
				delete(d.guesses, address)
			}
		}
	}
	g := d.guesses[from]
	if g == nil || now.Sub(g.last) > time.Hour {
		g = &guesses{}
		d.guesses[from] = g
	}
	if now.Sub(d.all.last) > 10*time.Minute {
		d.all = guesses{}
	}
	return g
}

// take counts a guess, and locks out when there were too many.
func (g *guesses) take(now time.Time, free int) {
	g.last = now
	if g.wrong++; g.wrong >= free {
		g.locked = now.Add(min(longestLock, firstLock<<min(g.wrong-free, 10)))
	}
}

// lockedOut is the answer to one more guess after too many.
type lockedOut struct{ wait time.Duration }

// Error tells how long the lock-out lasts.
func (e *lockedOut) Error() string {
	return fmt.Sprintf("too many wrong passwords: try again in %s", e.wait.Round(time.Second))
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch e := err.(type) {
	case *lockedOut:
		status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", strconv.Itoa(int(e.wait.Seconds())+1))
	case *Error:
		status = e.Status
	}
	answerJSON(w, status, map[string]string{"error": err.Error()})
}

// address is where a request comes from.
func address(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}
