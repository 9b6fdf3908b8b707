package web

import (
	"net/http"
	"time"

	"sluice/gateway"
)

// Status is the first screen of the page.
type Status struct {
	Site    string    `json:"site"`
	Version string    `json:"version"`
	Writes  string    `json:"writes"` // whether the cloud may write: locked or enabled
	Time    time.Time `json:"time"`
	Started time.Time `json:"started"`
	Buses   []Bus     `json:"buses"`
	Devices []Device  `json:"devices"`
	Cloud   []Cloud   `json:"cloud"`
	Buffer  Buffer    `json:"buffer"`

	Locks []gateway.Lock `json:"locks"` // that people have set
}

// Bus is one bus.
type Bus struct {
	Name        string           `json:"name"`
	Type        string           `json:"type"`
	Place       string           `json:"place"` // host and port, serial device or endpoint
	State       gateway.BusState `json:"state"`
	Since       time.Time        `json:"since,omitzero"`
	Error       string           `json:"error,omitempty"` // why it is down
	LastError   string           `json:"last_error,omitempty"`
	LastErrorAt time.Time        `json:"last_error_at,omitzero"`
	Requests    int64            `json:"requests"` // since the start, as the following
	Values      int64            `json:"values"`
	Overruns    int64            `json:"overruns"`
	BusySeconds float64          `json:"busy_seconds"`
	RequestRate float64          `json:"requests_per_second"` // over the last 10 to 20 s, as the following
	ValueRate   float64          `json:"values_per_second"`
	Utilisation float64          `json:"utilisation"` // share of the time spent in requests: 1 is all of it
	Devices     int              `json:"devices"`
	Online      int              `json:"online"`
	Learnt      []gateway.Learnt `json:"learnt,omitempty"` // what devices refuse, and what follows for the requests
}

// Device is one device.
type Device struct {
	Name    string    `json:"name"`
	Label   string    `json:"label,omitempty"`
	Profile string    `json:"profile,omitempty"`
	Bus     string    `json:"bus"`
	Unit    int       `json:"unit"`
	User    string    `json:"user"`             // reports as this cloud device
	Online  bool      `json:"online"`           // at least one point has a value
	Health  string    `json:"health,omitempty"` // what is wrong, in words
	Since   time.Time `json:"since,omitzero"`   // of what is wrong
	Points  int       `json:"points"`
	Bad     int       `json:"bad"`
}

// Cloud is one cloud device: its session and what waits for it.
type Cloud struct {
	CloudSession
	Waiting int       `json:"waiting"`
	Oldest  time.Time `json:"oldest,omitzero"` // of the records that wait
	PaceMS  int64     `json:"pace_ms"`         // shortest time between two messages now
	DrainMS int64     `json:"drain_ms"`        // until nothing older waits; 0 where nothing does, -1 while it does not get less
}

// Buffer is the store-and-forward buffer.
type Buffer struct {
	Path         string    `json:"path"`
	Waiting      int       `json:"waiting"`
	Pending      int       `json:"pending"` // of them, not on disk yet
	FileSize     int64     `json:"file_bytes"`
	MaxSize      int64     `json:"max_bytes"`
	DrainMS      int64     `json:"drain_ms"` // of the cloud device that takes longest
	Appended     uint64    `json:"appended"` // since the start, as the following
	Acked        uint64    `json:"acked"`
	Dropped      uint64    `json:"dropped"`
	Quarantined  uint64    `json:"quarantined"`
	FailingSince time.Time `json:"failing_since,omitzero"` // the disk can't be written
}

func (s *Server) status(r *http.Request) (any, error) {
	return s.statusOf(s.Gateway.Snapshot(r.Context())), nil
}

// statusOf puts a snapshot into the words of the API.
func (s *Server) statusOf(snap *gateway.Snapshot) Status {
	out := Status{
		Site: s.Site.Name, Version: s.Version, Writes: s.Site.Writes, Time: snap.Time.UTC(), Started: snap.Started.UTC(),
		Buses: []Bus{}, Devices: []Device{}, Cloud: s.cloudOf(snap), Buffer: s.bufferOf(snap),
		Locks: append([]gateway.Lock{}, s.Gateway.Locks()...),
	}
	for _, b := range snap.Buses {
		bus := busOf(b)
		for i := range b.Devices {
			d := deviceOf(&b.Devices[i])
			if d.Online {
				bus.Online++
			}
			out.Devices = append(out.Devices, d)
		}
		out.Buses = append(out.Buses, bus)
	}
	return out
}

func busOf(b *gateway.BusSnapshot) Bus {
	return Bus{
		Name: b.Bus.Name, Type: b.Bus.Type, Place: b.Bus.Place(), State: b.State, Since: b.Since.UTC(), Error: b.Error,
		LastError: b.LastError, LastErrorAt: b.LastErrorAt.UTC(), Requests: b.Requests, Values: b.Samples, Overruns: b.Overruns,
		BusySeconds: b.Busy.Seconds(), RequestRate: b.RequestRate, ValueRate: b.SampleRate, Utilisation: b.Utilisation, Devices: len(b.Devices),
		Learnt: b.Learnt,
	}
}

func deviceOf(d *gateway.DeviceSnapshot) Device {
	out := Device{
		Name: d.Device.Name, Label: d.Device.Label, Unit: d.Device.Unit, User: d.Device.User,
		Online: d.Online, Health: d.Health, Since: d.Since.UTC(), Points: len(d.Points), Bad: d.Bad,
	}
	if d.Device.Bus != nil {
		out.Bus = d.Device.Bus.Name
	}
	if p := d.Device.Profile; p != nil {
		out.Profile = p.Name
		if p.Label != "" {
			out.Profile = p.Label
		}
	}
	return out
}

// cloudOf joins the sessions and the lanes of each username.
func (s *Server) cloudOf(snap *gateway.Snapshot) []Cloud {
	out := []Cloud{}
	if s.Cloud == nil {
		return out
	}
	for _, session := range s.Cloud() {
		c := Cloud{CloudSession: session}
		for _, l := range snap.Lanes {
			if l.User == session.User {
				c.add(&l)
			}
		}
		out = append(out, c)
	}
	return out
}

// add takes a lane into account.
func (c *Cloud) add(l *gateway.LaneSnapshot) {
	c.Waiting += l.Waiting
	c.PaceMS = max(c.PaceMS, l.Pace.Milliseconds())
	c.DrainMS = longer(c.DrainMS, l)
	if c.Oldest.IsZero() || !l.Oldest.IsZero() && l.Oldest.Before(c.Oldest) {
		c.Oldest = l.Oldest.UTC()
	}
}

// longer is the longer of two times to drain, in ms; -1 is for ever.
func longer(ms int64, l *gateway.LaneSnapshot) int64 {
	if l.Grows || ms < 0 {
		return -1
	}
	return max(ms, l.Drain.Milliseconds())
}

func (s *Server) bufferOf(snap *gateway.Snapshot) Buffer {
	b, drain := snap.Buffer, int64(0)
	for i := range snap.Lanes {
		drain = longer(drain, &snap.Lanes[i])
	}
	return Buffer{
		DrainMS: drain, Path: s.Site.Buffer.Path, Waiting: b.Waiting, Pending: b.Pending, FileSize: b.FileSize, MaxSize: int64(s.Site.Buffer.MaxSize),
		Appended: b.Appended, Acked: b.Acked, Dropped: b.Dropped.Total(), Quarantined: b.Quarantined, FailingSince: b.FailingSince.UTC(),
	}
}

// Well tells whether nothing is down, bad or held back.
func (s *Status) Well() bool {
	for _, b := range s.Buses {
		if b.State != gateway.BusUp {
			return false
		}
	}
	for _, d := range s.Devices {
		if d.Health != "" {
			return false
		}
	}
	for _, c := range s.Cloud {
		if c.Connected.IsZero() {
			return false
		}
	}
	return s.Buffer.FailingSince.IsZero()
}
