package gateway

import "time"

// Profile is what one model of device looks like. It holds no address of a
// bus, unit id, password or topic.
type Profile struct {
	// Name of the profile: the key in the site file.
	Name string `yaml:"-"`
	// modbus or opcua.
	Protocol string `yaml:"protocol" oneof:"modbus opcua"`
	// Text for people: maker and model.
	Label string `yaml:"label"`
	// Where the numbers come from, with the revision.
	Manual string `yaml:"manual"`
	// How the manual counts registers (Modbus, required): modicon, one-based or protocol.
	Addressing string `yaml:"addressing" oneof:"modicon one-based protocol"`
	// Table of bare numbers under one-based and protocol: holding, input, coil or discrete.
	Table string `yaml:"table" oneof:"holding input coil discrete"`
	// Order of the bytes of values of two registers or more: ABCD, CDAB, BADC or DCBA; A is the most significant, in wire order.
	Order Order `yaml:"order" oneof:"ABCD CDAB BADC DCBA"`
	// Most registers in one read request; default 125.
	MaxRegisters int `yaml:"max_registers"`
	// Registers that may be read for nothing to save a request: auto, or 0 to 125. Default auto on input registers and discrete inputs, 0 on holding registers and coils.
	MaxGap *Gap `yaml:"max_gap"`
	// Addresses never touched by a merged read, as the manual prints them: [30100..30199].
	Forbid []string `yaml:"forbid"`
	// auto (default), single (FC 5, 6) or multiple (FC 15, 16).
	WriteFunction string `yaml:"write_function" oneof:"auto single multiple"`
	// Most registers in one write request; default 123.
	MaxWrite int `yaml:"max_write"`
	// How long to wait for this model's answer, where it is slower than its bus.
	Timeout time.Duration `yaml:"timeout"`
	// Silence that this model needs before a request.
	Quiet time.Duration `yaml:"quiet"`
	// Time that this model needs after a write.
	AfterWrite time.Duration `yaml:"after_write"`
	// Point that tells whether the unit is there; default its first.
	Probe string `yaml:"probe"`
	// What is written before a point with needs: unlock.
	Unlock *Unlock `yaml:"unlock"`
	// OPC UA namespace URI of the nodes.
	Namespace string `yaml:"namespace"`
	// Default poll interval of the points; for OPC UA the sampling interval.
	Poll time.Duration `yaml:"poll"`
	// OPC UA: subscribe (default) or poll.
	Mode string `yaml:"mode" oneof:"subscribe poll"`
	// When points are reported; a point may say otherwise.
	Report Reporting `yaml:"report"`
	// The points of the model, by name, in the order of the file.
	Points []*Definition `yaml:"points" keyed:"ID"`
	// Values worked out from points, by name; reported like points.
	Computed []*Computed `yaml:"computed" keyed:"ID"`
	// Events, by name.
	Events []*Event `yaml:"events" keyed:"ID"`
	// Commands that the cloud may call, by method name.
	Commands []*Command `yaml:"commands" keyed:"ID"`
	// Data streams, by identifier.
	Streams []*Stream `yaml:"streams" keyed:"ID"`
}

// Unlock is written once per bus slot before a write of a point with needs: unlock.
type Unlock struct {
	// Points and their values: { password: secret:drive }.
	Write map[string]*Secret `yaml:"write"`
}

// Computed is a value worked out from points.
type Computed struct {
	// Name of the value: the key in the profile.
	ID string `yaml:"-"`
	// Expression that gives the value: energy_in - energy_out, delta(energy_in, "day"), good(a) ? a : b.
	Value *Expression `yaml:"value"`
	// Name in the cloud, where it differs from the key.
	As string `yaml:"as"`
	// Text for people.
	Label string `yaml:"label"`
	// Engineering unit, such as kWh or °C.
	Unit string `yaml:"unit"`
	// Decimal places that the value is rounded to.
	Decimals *int `yaml:"decimals"`
	// Smallest change that is reported: 0.5, or 2% of the last reported value.
	Deadband *Deadband `yaml:"deadband"`
}

// Event is something worth telling the cloud once when it begins.
type Event struct {
	// Name of the event: the key in the profile.
	ID string `yaml:"-"`
	// Text for people.
	Label string `yaml:"label"`
	// Condition: the event is raised once when it becomes true.
	When *Expression `yaml:"when"`
	// Condition that ends it, for hysteresis; default: not when.
	Clear *Expression `yaml:"clear"`
	// How long a condition must hold: 3s, 3 samples, or { raise: 3s, clear: 30s }.
	For Hold `yaml:"for"`
	// Instead of when: one event per edge, as changed(x) or increase(x), with any condition: changed(fault) and fault != 0.
	Each *Expression `yaml:"each"`
	// Instead of when: one event per bit and direction of these points.
	EachFlag []string `yaml:"each_flag"`
	// Instead of when: the OPC UA server's own events and alarms.
	OPCUA *ServerEvents `yaml:"opcua"`
	// Points whose values go with the event.
	Params []string `yaml:"params"`
	// info (default), warning or alarm.
	Severity string `yaml:"severity" oneof:"info warning alarm"`
	// Name of the event that is reported when it clears.
	ClearEvent string `yaml:"clear_event"`
	// Reported again after this time while it lasts.
	Repeat time.Duration `yaml:"repeat"`
	// Most reports in a time, as 10/min; the next one tells how many were held back.
	AtMost *Rate `yaml:"at_most"`
}

// ServerEvents chooses the events of an OPC UA server.
type ServerEvents struct {
	// Node that notifies: i=2253 for all of the server's.
	Source string `yaml:"source"`
	// Lowest severity (1 to 1000) that is reported.
	Severity int `yaml:"severity"`
}

// Command is a method that the cloud may call: steps on the field.
type Command struct {
	// Name of the method: the key in the profile.
	ID string `yaml:"-"`
	// Text for people.
	Label string `yaml:"label"`
	// Parameters: { hz: { type: float, min: 20, max: 50 } }, or a list of points, which give type and limits.
	Params []*Param `yaml:"params" keyed:"ID"`
	// Condition that must hold before the command and before each of its writes.
	Guard *Expression `yaml:"guard"`
	// A stop: ends the running command of the device at the next bus slot.
	Preempt bool `yaml:"preempt"`
	// Most calls in a time, as 6/h.
	AtMost *Rate `yaml:"at_most"`
	// What is done, in order.
	Steps []*Step `yaml:"steps"`
	// What is done when a step fails.
	OnFail []*Step `yaml:"on_fail"`
	// Longest time for all steps; default 30s.
	Timeout time.Duration `yaml:"timeout"`
	// Points whose values go with the reply.
	Reply []string `yaml:"reply"`
}

// Param is a parameter of a command. One written in a list has no type: it is
// a point's name, and takes that point's type and limits.
type Param struct {
	// Name of the parameter: the key in the command.
	ID string `yaml:"-"`
	// float, int, bool or string.
	Type string `yaml:"type" oneof:"float int bool string"`
	// Smallest value.
	Min *Decimal `yaml:"min"`
	// Largest value.
	Max *Decimal `yaml:"max"`
	// Value where the call gives none; without it the parameter is required.
	Default string `yaml:"default"`
	// The values it may have.
	Values []string `yaml:"values"`
}

// Step is one thing that a command does; it has one of write, pulse, wait,
// expect and call.
type Step struct {
	// Points and their values, written in this order: { setpoint: $hz }, or params for all parameters that are points.
	Write *Assignments `yaml:"write"`
	// Writes a value and then writes it back.
	Pulse *Pulse `yaml:"pulse"`
	// Time to wait; polls go on.
	Wait time.Duration `yaml:"wait"`
	// Condition that must come true; its points are read anew.
	Expect *Expression `yaml:"expect"`
	// Time that expect may take.
	Within time.Duration `yaml:"within"`
	// OPC UA method to call.
	Call *Call `yaml:"call"`
}

// Pulse writes a value for a time, or until something happens, and then writes
// it back.
type Pulse struct {
	// Point that is written.
	Point string `yaml:"point"`
	// Value of the pulse.
	Value string `yaml:"value"`
	// Value after the pulse.
	BackTo string `yaml:"back_to"`
	// Length of the pulse.
	For time.Duration `yaml:"for"`
	// Condition that ends the pulse, instead of for.
	Until *Expression `yaml:"until"`
	// Longest time that until may take.
	Within time.Duration `yaml:"within"`
}

// Call is a call of an OPC UA method.
type Call struct {
	// Node of the object.
	Object string `yaml:"object"`
	// Node of the method.
	Method string `yaml:"method"`
	// Arguments: constants and $parameters.
	Args []string `yaml:"args"`
}

// Stream is a data stream of the device.
type Stream struct {
	// Identifier of the stream: the key in the profile.
	ID string `yaml:"-"`
	// json (default), text, binary or modbus-rtu.
	Format string `yaml:"format" oneof:"json text binary modbus-rtu"`
	// Time between two messages.
	Every time.Duration `yaml:"every"`
	// Instead of every: the event that sends a message.
	Each string `yaml:"each"`
	// Content: { key: expression }, or text with {point}.
	Body *Body `yaml:"body"`
	// Several bodies in one message, with their times (json): { within: 10m, rows: 60 }.
	Batch *Batch `yaml:"batch"`
	// Registers sent as they are read (binary).
	Raw *RawBlock `yaml:"raw"`
	// What a message from the cloud does: none (default), write:<point>, params:<command> or modbus-read.
	Downlink string `yaml:"downlink"`
}

// Batch collects the bodies of a stream: one message is
// {"batch":17,"rows":[{"ts":1750234507181, …},…]}, with ts in ms UTC and at most 64 KB.
type Batch struct {
	// Longest time that a body waits for others.
	Within time.Duration `yaml:"within"`
	// Most bodies of a message, 1 to 1000 (default as many as fit).
	Rows int `yaml:"rows"`
}

// RawBlock is a block of Modbus registers.
type RawBlock struct {
	// Table: holding, input, coil or discrete; default the profile's.
	Table string `yaml:"table" oneof:"holding input coil discrete"`
	// First address, as the manual prints it.
	At string `yaml:"at"`
	// Number of registers or bits.
	Count int `yaml:"count"`
}

// Heartbeat is a value written again and again, so that the PLC can fall back
// when it stays away.
type Heartbeat struct {
	// Point that is written.
	Point string `yaml:"point"`
	// Time between two writes.
	Every time.Duration `yaml:"every"`
	// Values written in turn: [0, 1].
	Values []string `yaml:"values"`
	// While what is alive it is written: gateway (default) or cloud.
	While string `yaml:"while" oneof:"gateway cloud"`
}
