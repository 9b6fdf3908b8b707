package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"sluice/buffer"
	"sluice/gateway"
	"sluice/gateway/web"
)

// fieldRequest names a point, and what is to be written to it.
type fieldRequest struct {
	Device string  `json:"device"`
	Point  string  `json:"point"`
	Value  *string `json:"value,omitempty"`
}

// fieldAnswer is what became of a reading or a write.
type fieldAnswer struct {
	Value   string    `json:"value,omitempty"` // of a reading
	Unit    string    `json:"unit,omitempty"`
	Quality string    `json:"quality,omitempty"`
	Time    time.Time `json:"time,omitzero"`
	Old     string    `json:"old,omitempty"` // of a write: directly before
	New     string    `json:"new,omitempty"` // read back
	Result  string    `json:"result,omitempty"`
	Reason  string    `json:"reason,omitempty"`
}

// handleRead adds reading a point out of turn.
func handleRead(g *gateway.Gateway, add func(pattern string, h http.Handler)) {
	add("POST /api/read", web.JSON(func(r *http.Request) (any, error) {
		q, err := readField(r)
		if err != nil {
			return nil, err
		}
		s, err := g.Read(r.Context(), q.Device, q.Point)
		if err != nil {
			return nil, &web.Error{Status: http.StatusConflict, Text: "read " + q.Device + "/" + q.Point + ": " + err.Error()}
		}
		return fieldAnswer{Value: text(s.Value), Unit: s.Point.Unit, Quality: s.Quality.String(), Time: s.Time.UTC(), Reason: s.Reason}, nil
	}))
}

// handleWrite adds writing, for a gateway that has no page: that brings its own.
func handleWrite(g *gateway.Gateway, add func(pattern string, h http.Handler)) {
	add("POST /api/write", web.JSON(func(r *http.Request) (any, error) {
		q, err := readField(r)
		if err != nil {
			return nil, err
		}
		if q.Value == nil {
			return nil, &web.Error{Status: http.StatusBadRequest, Text: "a write needs a value"}
		}
		w, err := g.Write(r.Context(), gateway.ByCommandLine, q.Device, q.Point, gateway.TextValue(*q.Value))
		answer := fieldAnswer{Old: text(w.Old), New: text(w.New), Result: w.Result}
		if err != nil {
			answer.Reason = err.Error()
		}
		return answer, nil
	}))
}

func readField(r *http.Request) (q fieldRequest, err error) {
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Device == "" {
		return q, &web.Error{Status: http.StatusBadRequest, Text: `write {"device": …, "point": …}`}
	}
	return q, nil
}

// text is a value in words, "" for none.
func text(v gateway.Value) string {
	if v.Kind() == gateway.None {
		return ""
	}
	return v.String()
}

// mostAudit bounds an answer.
const mostAudit = 10_000

// handleAudit adds the audit: the newest lines, oldest first.
func handleAudit(read func(since time.Time, fn func(gateway.Audit) bool) error, look func(pattern string, h http.Handler)) {
	look("GET /api/audit", web.JSON(func(r *http.Request) (any, error) {
		query, limit, since := r.URL.Query(), mostAudit, time.Time{}
		if text := query.Get("limit"); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				return nil, &web.Error{Status: http.StatusBadRequest, Text: fmt.Sprintf("limit %q is no number", text)}
			}
			limit = min(n, mostAudit)
		}
		if text := query.Get("since"); text != "" {
			var err error
			if since, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return nil, &web.Error{Status: http.StatusBadRequest, Text: fmt.Sprintf("since %q is no time such as 2026-01-31T12:00:00Z", text)}
			}
		}
		lines := []gateway.Audit{}
		err := read(since, func(a gateway.Audit) bool {
			if device := query.Get("device"); device != "" && a.Device != device {
				return true
			}
			if lines = append(lines, a); len(lines) >= 2*limit {
				lines = slices.Delete(lines, 0, len(lines)-limit)
			}
			return true
		})
		return lines[max(0, len(lines)-limit):], err
	}))
}

// locker holds the locks of a running gateway, or of a buffer file.
type locker interface {
	Lock(who, device, reason string) error
	Unlock(who, device string) error
	Locks() ([]gateway.Lock, error)
}

// lockRequest asks to lock or unlock a device, or all with "".
type lockRequest struct {
	Device string `json:"device,omitempty"`
	User   string `json:"user,omitempty"` // who asks, as the system knows them
	Reason string `json:"reason,omitempty"`
}

// handleLocks adds the locks, and what changes them.
func handleLocks(l locker, look, change func(pattern string, h http.Handler)) {
	look("GET /api/locks", web.JSON(func(*http.Request) (any, error) {
		all, err := l.Locks()
		return append([]gateway.Lock{}, all...), err
	}))
	for path, do := range map[string]func(who string, q *lockRequest) error{
		"/api/lock":   func(who string, q *lockRequest) error { return l.Lock(who, q.Device, q.Reason) },
		"/api/unlock": func(who string, q *lockRequest) error { return l.Unlock(who, q.Device) },
	} {
		change("POST "+path, web.JSON(func(r *http.Request) (any, error) {
			var q lockRequest
			if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
				return nil, &web.Error{Status: http.StatusBadRequest, Text: `write {"device": …}, or {} for all`}
			}
			who := gateway.ByCommandLine
			if q.User != "" {
				who += " (" + q.User + ")"
			}
			if err := do(who, &q); err != nil {
				return nil, &web.Error{Status: http.StatusConflict, Text: err.Error()}
			}
			return struct{}{}, nil
		}))
	}
}

// runningLocks are those of a gateway.
type runningLocks struct{ *gateway.Gateway }

func (r runningLocks) Locks() ([]gateway.Lock, error) { return r.Gateway.Locks(), nil }

// storedLocks are those of a buffer file that no gateway has open.
type storedLocks struct {
	buffer *buffer.Buffer
	site   *gateway.Site
}

func (s storedLocks) Lock(who, device, reason string) error {
	return s.put(gateway.Lock{Device: device, Who: who, Reason: reason}, true)
}

func (s storedLocks) Unlock(who, device string) error {
	return s.put(gateway.Lock{Device: device, Who: who}, false)
}

func (s storedLocks) Locks() ([]gateway.Lock, error) { return gateway.ReadLocks(s.buffer) }

func (s storedLocks) put(lock gateway.Lock, on bool) error {
	known := func(d *gateway.Device) bool { return d.Name == lock.Device }
	if lock.Device != "" && !slices.ContainsFunc(s.site.Devices, known) {
		return fmt.Errorf("there is no device %s", lock.Device)
	}
	lock.Since = time.Now()
	return gateway.StoreLock(s.buffer, lock, on)
}
