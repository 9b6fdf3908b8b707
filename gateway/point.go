package gateway

import "time"

// Definition is what the site file says about one point of a model of device.
// Devices of one profile share it; an override makes a copy. It never changes
// after loading.
type Definition struct {
	// Name of the point: the key in the profile.
	ID string `yaml:"-"`
	// Name of the point in the cloud, where it differs from the key.
	As string `yaml:"as"`
	// Text for people.
	Label string `yaml:"label"`
	// Modbus address as the manual prints it: 30053, 0x2101, holding:0x0012, coil:17.
	At string `yaml:"at"`
	// OPC UA node in the profile's namespace: s="DB"."Var", i=5, g=… or b=…; elsewhere nsu=<uri>;s=… or, in the standard's, ns=0;i=2258. [3] behind it takes one element of an array.
	Node string `yaml:"node"`
	// OPC UA browse path: /Objects/Machine/Temp. A name may say the index of its namespace, as 3:Temp; [3] at the end takes one element of an array.
	Browse string `yaml:"browse"`
	// bool, int8 to int64, uint8 to uint64, float32, float64, bcd16, bcd32, string, bytes, flags or time.
	Type Type `yaml:"type" oneof:"bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 bcd16 bcd32 string bytes flags time"`
	// How a time is encoded: unix32, unix64ms, iec870, bcd6 or ymdhms.
	Format string `yaml:"format" oneof:"unix32 unix64ms iec870 bcd6 ymdhms"`
	// Time zone of an encoded time: utc, or Area/City.
	Zone string `yaml:"zone"`
	// Names of the bits of a flags point: { 0: oil_low, 17: overtemp }.
	Flags map[int]string `yaml:"flags"`
	// Number of values: an array, read in one request, reported as a JSON list.
	Count int `yaml:"count"`
	// Points of one block come from, and go in, one request.
	Block string `yaml:"block"`
	// Order of the bytes of values of two registers or more: ABCD, CDAB, BADC or DCBA; A is the most significant, in wire order.
	Order Order `yaml:"order" oneof:"ABCD CDAB BADC DCBA"`
	// How often the point is polled; for OPC UA its sampling interval.
	Poll time.Duration `yaml:"poll"`
	// When the point is reported.
	Report Reporting `yaml:"report"`
	// One bit of the decoded value: 0 is the least significant.
	Bit *int `yaml:"bit"`
	// A range of bits of the decoded value: 0..3.
	Bits *BitRange `yaml:"bits"`
	// Length in bytes of a string, bytes or flags value.
	Length int `yaml:"length"`
	// What fills a string up: nul (default) or space.
	Pad string `yaml:"pad" oneof:"nul space"`
	// value = raw × scale + offset.
	Scale *Decimal `yaml:"scale"`
	// value = raw × scale + offset.
	Offset *Decimal `yaml:"offset"`
	// Two raw values and what they mean: { raw: [4000, 20000], to: [0, 16] }.
	Map *LinearMap `yaml:"map"`
	// Point that holds the exponent x of a scale factor 10^x.
	ScaleFrom string `yaml:"scale_from"`
	// Engineering unit, such as kWh or °C.
	Unit string `yaml:"unit"`
	// Decimal places that the value is rounded to.
	Decimals *int `yaml:"decimals"`
	// Raw values that mean "no value": [0x8000, 0..3599].
	Invalid Ranges `yaml:"invalid"`
	// Range in engineering units outside of which a value is uncertain: 45..65.
	Plausible *Range `yaml:"plausible"`
	// Whether implausible values go to the cloud: drop (default) or send.
	Implausible string `yaml:"implausible" oneof:"drop send"`
	// Labels of raw values: { 0: stopped, 1: running }.
	Enum Enum `yaml:"enum"`
	// value (default), or counter for what only counts up.
	Kind string `yaml:"kind" oneof:"value counter"`
	// Raw value at which a counter starts again at 0.
	WrapsAt *Decimal `yaml:"wraps_at"`
	// Smallest change that is reported: 0.5, or 2% of the last reported value.
	Deadband *Deadband `yaml:"deadband"`
	// r (default), rw, or w for points that only commands write.
	Access string `yaml:"access" oneof:"r rw w"`
	// Whether a w point takes attribute pushes too, with its own guard.
	Push bool `yaml:"push"`
	// Whether on_connect: apply may write this rw point.
	Restore bool `yaml:"restore"`
	// Smallest value that may be written, in engineering units.
	Min *Decimal `yaml:"min"`
	// Largest value that may be written, in engineering units.
	Max *Decimal `yaml:"max"`
	// Written values must be min plus a multiple of this, in engineering units.
	Step *Decimal `yaml:"step"`
	// Allows a writable number without min and max.
	Unbounded bool `yaml:"unbounded"`
	// Expression that must hold at the moment of writing; it sees value, which is what is asked.
	Guard *Expression `yaml:"guard"`
	// How a write is checked.
	Verify *Verify `yaml:"verify"`
	// How and where the point is written.
	Write *WriteRule `yaml:"write"`
	// Shown as *** everywhere and never reported.
	Secret bool `yaml:"secret"`
	// What the point needs before it is written: unlock.
	Needs string `yaml:"needs" oneof:"unlock"`
}

// Reporting says when the samples of a point become reports.
type Reporting struct {
	// change (default), or always for every poll.
	Mode string `yaml:"mode" oneof:"change always"`
	// Longest time between two reports of a good point; default 4m. It keeps the device shown as online.
	AtLeastEvery time.Duration `yaml:"at_least_every"`
	// Shortest time between two reports of the point; default 0s.
	AtMostEvery time.Duration `yaml:"at_most_every"`
	// Default deadband of the points.
	Deadband *Deadband `yaml:"deadband"`
}

// LinearMap is a straight line through two points.
type LinearMap struct {
	// Two raw values.
	Raw [2]Decimal `yaml:"raw"`
	// What they mean in engineering units.
	To [2]Decimal `yaml:"to"`
}

// Verify says how a write is checked.
type Verify struct {
	// Whether the point is read back after a write; default true.
	Readback bool `yaml:"readback"`
	// Largest difference between written and read back, in engineering units; default half a raw step.
	Tolerance *Decimal `yaml:"tolerance"`
	// How long the device may take to show the new value.
	Within time.Duration `yaml:"within"`
	// Point that shows the written value, where it is not the point itself.
	From string `yaml:"from"`
}

// WriteRule says how a point is written.
type WriteRule struct {
	// Address that is written, where it is another than the one read.
	At string `yaml:"at"`
	// auto (default), single (FC 5, 6) or multiple (FC 15, 16).
	Function string `yaml:"function" oneof:"auto single multiple"`
	// How single bits of a register are written: fc22 (mask write) or rmw (read, modify, write).
	Mask string `yaml:"mask" oneof:"fc22 rmw"`
	// Most writes in a time: 1/1s.
	AtMost *Rate `yaml:"at_most"`
	// Whether a write with an unknown outcome may be sent again; default false.
	Again bool `yaml:"again"`
}

// Device is one field device of the site: a profile at an address.
type Device struct {
	Name    string
	Label   string
	Profile *Profile
	Bus     *Bus
	Unit    int // Modbus unit id
	// SameUnit: other devices of the site are in the same unit.
	SameUnit bool
	Shift    int               // added to every wire address
	Vars     map[string]string // fills {name} in node, browse and label
	User     string            // username of the cloud device that it reports as
	Login    *Login            // of that cloud device
	Prefix   string            // of its names in the cloud; "" with a login of its own
	Disabled bool
	Timeout  time.Duration // per device, else the profile's, else the bus's
	Quiet    time.Duration
	Points   []*Point // without the dropped ones

	// What the profile says beside its points, without what was dropped.
	Computed       []*Computed
	Events         []*Event
	Commands       []*Command
	Streams        []*Stream
	LockedCommands []string // refused on this unit
	Heartbeat      *Heartbeat
}

// Point is one named value of one device.
type Point struct {
	*Definition
	Device *Device
	Name   string // in the cloud, with the device's prefix
	Locked bool   // never written on this unit
}

// Site is the resolved model of a site file.
type Site struct {
	Identity
	Path    string // of the file
	Cloud   Cloud
	Buffer  BufferSettings
	Local   Local
	Log     map[string]string // level by "level", "bus.<name>" or "device.<name>"
	Buses   []*Bus
	Devices []*Device // also the disabled ones

	// Every reference to a secret, with the place where it is written.
	Secrets []SecretPlace
}

// SecretPlace is where a secret belongs in the model, and where its reference
// stands in a file.
type SecretPlace struct {
	Secret    *Secret
	Reference Secret // as it is written
	File      string
	Line      int
	Column    int // of the reference
	EndColumn int // behind it
	Source    string
}
