package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/buffer"
	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/web"
)

// bufferView is what a buffer holds.
type bufferView struct {
	Lanes      []laneView `json:"lanes"`
	Quarantine int        `json:"quarantine"` // records in it
	Path       string     `json:"path"`
	FileSize   int64      `json:"file_bytes"`
	MaxSize    int64      `json:"max_bytes"`
}

type laneView struct {
	Lane     string    `json:"lane"`
	Waiting  int       `json:"waiting"`
	Oldest   time.Time `json:"oldest,omitzero"`
	Stranded bool      `json:"stranded,omitempty"` // its user is not in the site file: nobody sends it
}

// heldRecord is a record in quarantine. Topic and message are those of one record
// that is asked for.
type heldRecord struct {
	Number   uint64          `json:"number"`
	Lane     string          `json:"user"`
	Measured time.Time       `json:"measured"`
	Reason   string          `json:"reason"`
	Topic    string          `json:"topic,omitempty"`
	Message  json.RawMessage `json:"message,omitempty"`
}

// bufferAPI is the part of the API that is about a buffer.
type bufferAPI struct {
	buffer *buffer.Buffer
	site   *gateway.Site
}

// handleBuffer adds the handlers of a buffer: those that only look, and those
// that change something.
func handleBuffer(b *buffer.Buffer, s *gateway.Site, look, change func(pattern string, h http.Handler)) {
	api := bufferAPI{b, s}
	look("GET /api/buffer", web.JSON(api.view))
	look("GET /api/buffer/quarantine", web.JSON(api.held))
	look("GET /api/buffer/quarantine/{number}", web.JSON(api.show))
	change("POST /api/buffer/quarantine/{number}/retry", web.JSON(api.change(func(seq uint64) error {
		_, err := b.QuarantineRetry(seq)
		return err
	})))
	change("POST /api/buffer/quarantine/{number}/drop", web.JSON(api.change(b.QuarantineDrop)))
}

func (api bufferAPI) view(*http.Request) (any, error) {
	view := bufferView{Path: api.site.Buffer.Path, FileSize: api.buffer.Stats().FileSize, MaxSize: int64(api.site.Buffer.MaxSize)}
	logins := api.site.Logins()
	names := api.buffer.Lanes()
	for user := range logins {
		if !slices.Contains(names, user) {
			names = append(names, user)
		}
	}
	for _, name := range names {
		l := laneView{Lane: name, Waiting: api.buffer.Len(name)}
		_, there := logins[userOf(name)]
		l.Stranded = !there
		head, err := api.buffer.Peek(name, 1)
		if err != nil {
			return nil, err
		}
		if len(head) > 0 {
			l.Oldest = head[0].Time.UTC()
		}
		view.Lanes = append(view.Lanes, l)
	}
	slices.SortFunc(view.Lanes, func(a, b laneView) int { return strings.Compare(a.Lane, b.Lane) })
	held, err := api.buffer.Quarantined()
	view.Quarantine = len(held)
	return view, err
}

// userOf is the user whose lane it is.
func userOf(lane string) string {
	user, _, _ := strings.Cut(lane, "/")
	return user
}

func (api bufferAPI) held(*http.Request) (any, error) {
	held, err := api.buffer.Quarantined()
	if err != nil {
		return nil, err
	}
	list := make([]heldRecord, len(held))
	for i, q := range held {
		list[i] = heldRecord{Number: q.Seq, Lane: q.Lane, Measured: q.Time.UTC(), Reason: q.Reason}
	}
	return list, nil
}

func (api bufferAPI) show(r *http.Request) (any, error) {
	seq, err := number(r)
	if err != nil {
		return nil, err
	}
	held, err := api.buffer.Quarantined()
	if err != nil {
		return nil, err
	}
	for _, q := range held {
		if q.Seq == seq {
			return api.heldOf(q)
		}
	}
	return nil, notHeld(seq)
}

// heldOf is a record with its message as it would be sent; one that is no JSON
// is shown as a string.
func (api bufferAPI) heldOf(q buffer.Quarantined) (heldRecord, error) {
	r, err := gateway.ParseRecord(q.Data)
	if err != nil {
		return heldRecord{}, err
	}
	topic, message := cloud.Show(api.site.Cloud, userOf(q.Lane), &r)
	if !json.Valid(message) {
		message = gateway.AppendJSONString(nil, string(message))
	}
	return heldRecord{Number: q.Seq, Lane: q.Lane, Measured: q.Time.UTC(), Reason: q.Reason, Topic: topic, Message: message}, nil
}

func (api bufferAPI) change(do func(seq uint64) error) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		seq, err := number(r)
		if err != nil {
			return nil, err
		}
		if err := do(seq); errors.Is(err, buffer.ErrNotFound) {
			return nil, notHeld(seq)
		} else if err != nil {
			return nil, err
		}
		return struct{}{}, nil
	}
}

func number(r *http.Request) (uint64, error) {
	seq, err := strconv.ParseUint(r.PathValue("number"), 10, 64)
	if err != nil {
		return 0, &web.Error{Status: http.StatusBadRequest, Text: fmt.Sprintf("%q is no number of a record", r.PathValue("number"))}
	}
	return seq, nil
}

func notHeld(seq uint64) error {
	return &web.Error{Status: http.StatusNotFound, Text: fmt.Sprintf("record %d is not in quarantine", seq)}
}
