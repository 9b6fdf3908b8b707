package site

import (
	"reflect"
	"strings"
	"sync"
	"time"

	"sluice/gateway"
)

// field is a key of a struct of the language.
type field struct {
	name  string
	index []int
	oneof []string // the words it takes
	keyed string   // the field of its elements that takes the key
}

// record is a struct of the language.
type record struct {
	fields []field
	byName map[string]int
	names  []string
}

var records sync.Map // reflect.Type → *record

// recordOf lists the keys of a struct; those of an inlined struct come first,
// and are hidden by a key of the same name outside of it or after it.
func recordOf(t reflect.Type) *record {
	if r, ok := records.Load(t); ok {
		return r.(*record)
	}
	r := &record{byName: map[string]int{}}
	r.collect(t, nil)
	for _, f := range r.fields {
		r.names = append(r.names, f.name)
	}
	records.Store(t, r)
	return r
}

func (r *record) collect(t reflect.Type, index []int) {
	for i := range t.NumField() {
		sf := t.Field(i)
		at := append(append([]int(nil), index...), i)
		name, option, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		if option == "inline" {
			r.collect(sf.Type, at)
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		f := field{name: name, index: at, oneof: strings.Fields(sf.Tag.Get("oneof")), keyed: sf.Tag.Get("keyed")}
		if have, ok := r.byName[name]; ok {
			r.fields[have] = f
			continue
		}
		r.byName[name] = len(r.fields)
		r.fields = append(r.fields, f)
	}
}

// Defaults that are not Go's zero value. unset marks a duration whose default
// depends on others.
const unset = time.Duration(-1)

var defaults = map[reflect.Type]any{
	reflect.TypeFor[gateway.Bus](): gateway.Bus{
		RS485: "driver", Echo: "none", Retries: 1, Timeout: unset, Connections: 1, Pipeline: 1, Security: "auto",
		SessionTimeout: time.Minute, Offline: gateway.Offline{After: 3, Probe: 10 * time.Second, ProbeMax: time.Minute},
	},
	reflect.TypeFor[gateway.Profile](): defaultProfile,
	reflect.TypeFor[Device]():          Device{Profile: defaultProfile},
	reflect.TypeFor[gateway.Verify]():  gateway.Verify{Readback: true},
	reflect.TypeFor[gateway.WriteRule](): gateway.WriteRule{
		Function: "auto",
	},
	reflect.TypeFor[gateway.Event]():     gateway.Event{Severity: "info"},
	reflect.TypeFor[gateway.Command]():   gateway.Command{Timeout: 30 * time.Second},
	reflect.TypeFor[gateway.Stream]():    gateway.Stream{Format: "json", Downlink: "none"},
	reflect.TypeFor[gateway.Heartbeat](): gateway.Heartbeat{While: "gateway"},
}

var defaultProfile = gateway.Profile{
	MaxRegisters: 125, MaxWrite: 123, WriteFunction: "auto", Mode: "subscribe", Poll: time.Second,
	Report: gateway.Reporting{Mode: "change", AtLeastEvery: 4 * time.Minute},
}

// defaultFile is a site file in which nothing is written.
func defaultFile() *File {
	return &File{
		Site: gateway.Identity{Timezone: "UTC", Writes: "locked"},
		Cloud: gateway.Cloud{
			ClientID: "{user}", Keepalive: 15 * time.Second, Confirm: "auto", ConfirmTimeout: 5 * time.Second,
			MinInterval: time.Second, BacklogInterval: unset, History: "reported", OnConnect: "report",
			EventID: "event_id", LateTS: "sample_ts", Quality: "bad_points", Status: gateway.StatusReport{Every: time.Minute},
		},
		Buffer: gateway.BufferSettings{
			Path: "/var/lib/sluice/buffer.db", MaxSize: 512e6, MaxAge: 30 * 24 * time.Hour, MinFreeDisk: 200e6,
			WhenFull: "drop-oldest", Flush: 2 * time.Second,
		},
		Local: gateway.Local{HTTP: "127.0.0.1:8470", History: 2 * time.Hour},
		Log:   map[string]string{"level": "info"},
	}
}

// newPoint is a point of the profile in which nothing is written yet.
func newPoint(p *gateway.Profile) gateway.Definition {
	return gateway.Definition{
		Order: p.Order, Poll: p.Poll, Report: p.Report,
		Pad: "nul", Implausible: "drop", Kind: "value", Access: "r",
	}
}
