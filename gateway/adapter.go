package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Quality tells how far a sample can be trusted.
type Quality uint8

// Good samples are reported; Uncertain ones (implausible, unlabelled) only
// where the point says so; Bad ones hold no value.
const (
	Bad Quality = iota
	Uncertain
	Good
)

// String is the quality's name in logs and on the page.
func (q Quality) String() string { return [...]string{"bad", "uncertain", "good"}[q] }

// Sample is what the field said about a point at a time.
type Sample struct {
	Point   *Point
	Time    time.Time
	Value   Value  // in engineering units
	Reason  string // why it is not good: "no answer within 500ms", "invalid"
	Quality Quality
	Silent  bool // the unit gave no answer at all
	Busy    bool // the unit said that it is at work: it may answer when it is asked again

	withheld bool // computed from a value that may not be sent
}

// Env is what an adapter gets from its surroundings.
type Env struct {
	Log   *slog.Logger // with the bus's name
	State State
	// Dir is where an adapter may keep files that people use too, such as
	// certificates: that of the buffer file. "" is nowhere.
	Dir string
	// Shared is for what the buses of one gateway can have in common, such as
	// compiled definitions. It is used only while adapters are made; may be nil.
	Shared map[any]any
}

// State keeps small facts that an adapter learnt across restarts; it may be nil.
type State interface {
	Get(bucket, key string) ([]byte, error)
	Put(bucket, key string, value []byte) error
}

// NewAdapter makes the adapter of one bus and the devices on it.
type NewAdapter func(Env, *Bus, []*Device) (Adapter, error)

// Adapter speaks one field protocol on one bus. It outlives its sessions and
// keeps what the next one can use.
type Adapter interface {
	// Open connects. It returns when the bus can be used, or with the reason
	// why not; it never tries again by itself.
	Open(ctx context.Context) (Session, error)
}

// Session is one connection to a bus: alive by existing, or gone. All its
// methods are called by one goroutine, Close also while another runs.
type Session interface {
	// Plan divides the points into groups, one request each. It leaves none
	// out and sends nothing.
	Plan(points []*Point) [][]*Point
	// Read asks for one group and gives a sample for each of its points, in
	// their order. What is wrong with one point or one unit (silence, an exception) is in the
	// samples; an error means that the connection is lost. The samples are
	// valid until the next Read. Ends soon when ctx does.
	Read(ctx context.Context, group []*Point) ([]Sample, error)
	// Write writes one value, in engineering units, once: no retries. A
	// *WriteError says that the device or the point refused; any other error
	// means that the connection is lost and the outcome unknown.
	Write(ctx context.Context, point *Point, value Value) error
	Close() error
}

// BlockWriter is a Session that writes several points with one request.
type BlockWriter interface {
	// WriteBlock writes values to points of one block, once, with one request; it
	// refuses those that one request can't hold. Errors are those of Session.Write.
	WriteBlock(ctx context.Context, points []*Point, values []Value) error
}

// Prober is a Session that can ask cheaply whether a silent unit is back.
type Prober interface {
	// Probe reads one point once: no retries, and no longer than the unit ever
	// took to answer, times three. A unit that never answered gets its timeout.
	Probe(ctx context.Context, p *Point) (Sample, error)
}

// Pacer is a Session whose devices need rest: after a write, or after they said
// that they are busy. A device that rests does not hold the bus.
type Pacer interface {
	// Rest is how long the device must not be asked now; 0 for not at all.
	Rest(d *Device) time.Duration
}

// Rereader is a Session that notices answers which repeat the last ones, and
// then makes no samples of them.
type Rereader interface {
	// Reread reads a group as Read does. Where all that the devices sent is what
	// they sent at its last Read or Reread, and all its samples were good then, it
	// gives none, but the time at which they are as they were.
	Reread(ctx context.Context, group []*Point) (samples []Sample, same time.Time, err error)
}

// Gatherer is a Session that can have requests of several groups in flight. It
// is a Prober too: a Probe leaves the samples of the last ReadAll alone.
type Gatherer interface {
	// Room is how many requests can be in flight; 1 is one after the other. Flights
	// is how many of them a group makes.
	Room() int
	Flights(group []*Point) int
	// ReadAll makes several readings at a time, each of which gets what Read or
	// Reread would have given.
	ReadAll(ctx context.Context, readings []Reading) error
}

// Reading is one group of a ReadAll, and what comes of it.
type Reading struct {
	Group []*Point
	Again bool // as Reread, not as Read

	Samples []Sample
	Same    time.Time
}

// Replanner is a Session whose plans get out of date, as it learns what its
// devices can't do.
type Replanner interface {
	// Planned is a number that changes when plans should be made anew. Groups of
	// older plans can still be read.
	Planned() int
}

// Subscriber is a Session whose device tells what changes by itself. Its points are
// watched, not polled, unless their profile says mode: poll.
type Subscriber interface {
	// Subscribe begins to watch points and returns. From then on deliver gets
	// samples, first one of every point, until the session is closed; deliver
	// takes the slice over, and blocks while the bus is busy. Samples of one point
	// are in order. When the subscription can't go on, the session is lost.
	Subscribe(ctx context.Context, points []*Point, deliver func([]Sample)) error
	// Lost is closed when the session is over by itself, and Err says why.
	Lost() <-chan struct{}
	Err() error
}

// EventSource is a Subscriber whose devices tell events of their own: those that
// profiles choose by opcua:. TellEvents comes before Subscribe; deliver takes
// the slice over, and blocks while the bus is busy.
type EventSource interface {
	TellEvents(devices []*Device, deliver func([]FieldEvent))
}

// FieldEvent is an event that a device told by itself.
type FieldEvent struct {
	Device   *Device
	Event    *Event // that chose it
	Time     time.Time
	Source   string // its name in the device
	Message  string
	Severity int    // 1 to 1000
	Active   Value  // of an alarm: whether it is on; None for other events
	Subject  string // which alarm it is, "" for other events
}

// Teller is a Session that remembers what its devices sent.
type Teller interface {
	// Raw is what a device sent for a point last, before it was decoded, for
	// people: registers in hexadecimal. "" where that is not known.
	Raw(p *Point) string
}

// Caller is a Session whose devices have methods (OPC UA).
type Caller interface {
	// Call calls a method once. Errors are those of Session.Write.
	Call(ctx context.Context, d *Device, object, method string, args []Value) ([]Value, error)
}

// BlockReader is a Session that gives data as they are on the wire. A *ReadError
// says that there are none while the connection is fine; any other error means that it
// is lost. The slices belong to the caller.
type BlockReader interface {
	// ReadBlock reads a block of registers or bits; framed gives the whole answer
	// as a Modbus RTU frame.
	ReadBlock(ctx context.Context, d *Device, b *RawBlock, framed bool) ([]byte, error)
	// ReadFrame carries out a request that is a Modbus RTU frame, and gives the
	// frame of the answer. It refuses all that is not addressed to the device, is
	// damaged, or does more than read.
	ReadFrame(ctx context.Context, d *Device, frame []byte) ([]byte, error)
}

// ReadError says that data could not be read, while the connection is fine.
type ReadError struct{ Err error }

// Error is the reason.
func (e *ReadError) Error() string { return e.Err.Error() }

// Unwrap gives the reason.
func (e *ReadError) Unwrap() error { return e.Err }

// WriteError says that a value was not written, while the connection is fine.
type WriteError struct {
	Err     error
	Unknown bool // the request went out, and may have been carried out
	Once    bool // the device has taken it, and is at work or failed at it: never again, not even where the point says again: true
	Busy    bool // the device said that it is busy and took nothing: it may be asked again
}

// Error is the reason.
func (e *WriteError) Error() string { return e.Err.Error() }

// Unwrap gives the reason.
func (e *WriteError) Unwrap() error { return e.Err }

// Uplink hands records of one username to the cloud.
type Uplink interface {
	// Publish sends the records in order, waits until each is confirmed and
	// tells how many were, counted from the first. While there is no connection
	// it waits for one, for a few seconds. The error is about the first record
	// that was not confirmed: a *Refusal, ErrTooFast, ErrUnanswered, ErrLost, or
	// another one when it was not sent. Unless it was refused, it may be sent again.
	Publish(ctx context.Context, records []Record) (int, error)
	// Await returns when a record of that kind can be sent at once: there is a
	// connection, and an answer that comes from then on would be its own. repeat
	// is for the record that the last Publish of its kind has left unconfirmed.
	Await(ctx context.Context, kind RecordKind, repeat bool) error
}

// ErrTooFast is the cloud's word that a record was not stored because it came
// too soon after the one before.
var ErrTooFast = errors.New("the cloud ignores reports that come too fast")

// What can happen to a record on its way, apart from a refusal.
var (
	ErrUnanswered = errors.New("the broker has it, the platform does not answer")
	ErrLost       = errors.New("the connection was lost with it in flight")
)

// Refusal says that the cloud read a record and will not store it.
type Refusal struct {
	Code   int
	Reason string
}

// Error is the cloud's reason.
func (r *Refusal) Error() string { return "refused by the cloud: " + r.Reason }

// Severity of a Finding, or of an event.
type Severity string

// A site with an error does not run; a warning is said and left. Events are
// information, warnings or alarms.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Info    Severity = "info"
	Alarm   Severity = "alarm"
)

// Finding is something wrong in a site. Path leads to it in the resolved
// model, with names for list entries: buses.rs485-1.line,
// devices.em-press3.points.power.at, devices.em-press3.unit.
type Finding struct {
	Path       string
	Severity   Severity
	Text       string
	Suggestion string // "did you mean …" or what to write instead; may be empty
}
