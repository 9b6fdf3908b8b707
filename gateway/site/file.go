package site

import (
	"time"

	"sluice/gateway"

	"go.yaml.in/yaml/v4"
)

// File is a site file as it is written.
type File struct {
	// Version of this language: 1.
	Version int `yaml:"version"`
	// Which site this is.
	Site gateway.Identity `yaml:"site"`
	// Where the values go.
	Cloud gateway.Cloud `yaml:"cloud"`
	// What keeps the values while the cloud is away.
	Buffer gateway.BufferSettings `yaml:"buffer"`
	// The page and the metrics for people in the plant.
	Local gateway.Local `yaml:"local"`
	// Log level: { level: info }; per bus or device: { level: info, bus.rs485-1: debug }.
	Log map[string]string `yaml:"log"`
	// The wires, by name.
	Buses []*gateway.Bus `yaml:"buses" keyed:"Name"`
	// What a model of device looks like, by name: a file, builtin:<name>, or written here.
	Profiles map[string]*yaml.Node `yaml:"profiles"`
	// What is really there.
	Devices []*yaml.Node `yaml:"devices"`
}

// Device is an entry of the list of devices: one device, or several of one
// profile as instances. It may hold what a profile holds: a profile of one.
type Device struct {
	gateway.Profile `yaml:",inline"`
	Placement       `yaml:",inline"`
	// Name of the profile.
	Model string `yaml:"profile"`
	// Name of the bus.
	Bus string `yaml:"bus"`
	// Several devices that differ in their name, unit, login, label …
	Instances []*yaml.Node `yaml:"instances"`
}

// Placement is what one device has of its own: where it is, whom it reports
// as, and how it differs from its profile. What stands beside instances counts
// for all of them; drop, lock, vars and override add up.
type Placement struct {
	// Name of the device, unique in the site.
	Name string `yaml:"name"`
	// Modbus unit id: 1 to 247; on modbus-tcp also 0 and 248 to 255.
	Unit *int `yaml:"unit"`
	// Other devices of the site are in the same unit: shared plan, offline state and write order.
	SameUnit bool `yaml:"same_unit"`
	// Added to every wire address.
	Shift int `yaml:"shift"`
	// Fills {name} in node, browse and label: { db: Press3 }.
	Vars map[string]string `yaml:"vars"`
	// Value written again and again, so that the PLC can fall back.
	Heartbeat *gateway.Heartbeat `yaml:"heartbeat"`
	// Its own cloud device. Without it, it reports as the gateway.
	Login *gateway.Login `yaml:"login"`
	// Put before its names in the cloud; default <device>_, and nothing with a login of its own.
	Prefix *string `yaml:"prefix"`
	// Text for people.
	Label string `yaml:"label"`
	// Neither read nor written.
	Disabled bool `yaml:"disabled"`
	// How long to wait for this unit's answer, where it is slower than its bus and profile.
	Timeout time.Duration `yaml:"timeout"`
	// Silence that this unit needs before a request.
	Quiet time.Duration `yaml:"quiet"`
	// Points that are not read on this unit; also computed points, events, commands and streams that it does not have.
	Drop []string `yaml:"drop"`
	// What is different on this unit: { power: { scale: 0.1 } }.
	Override map[string]*yaml.Node `yaml:"override"`
	// Points and commands that are never written on this unit.
	Lock []string `yaml:"lock"`
}
