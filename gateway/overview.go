package gateway

import "time"

// Overview is what an adapter plans to do on a bus, for check -v.
type Overview struct {
	Points   []PointOverview   `json:"points"`
	Requests []RequestOverview `json:"requests"`
	// Busy is the share of its time that the bus needs for its polls: 0.61 is
	// 61 %, more than 1 can't be kept up.
	Busy float64 `json:"busy"`
	// Cycle is the shortest poll interval, and PerCycle what all polls need of
	// it on average.
	Cycle    time.Duration `json:"cycle_ns"`
	PerCycle time.Duration `json:"per_cycle_ns"`
	// Estimated: the speed of the line is not known (TCP, converters).
	Estimated bool `json:"estimated"`
	// AutoGap is what max_gap: auto would make of it where it would save
	// something; nil where not.
	AutoGap *Saving `json:"auto_gap,omitempty"`
}

// Saving is the polls of a bus, planned in another way.
type Saving struct {
	Requests int     `json:"requests"`
	Busy     float64 `json:"busy"`
}

// PointOverview is one point.
type PointOverview struct {
	Device  string        `json:"device"`
	Point   string        `json:"point"`
	Printed string        `json:"address"`         // as in the site file
	Full    string        `json:"reference"`       // the same, complete: input:53, or 30053
	Wire    string        `json:"wire"`            // as the device gets it: input 52 (0x0034)
	Size    int           `json:"size"`            // in registers or bits
	Type    Type          `json:"type"`            // on the wire
	Order   Order         `json:"order,omitempty"` // "" where it means nothing
	Poll    time.Duration `json:"poll_ns"`         // 0 for points that are only written
}

// RequestOverview is one planned read.
type RequestOverview struct {
	Device string        `json:"device"` // several that share a unit: joined by "+"
	Reads  string        `json:"reads"`  // unit 3, input 52 to 79
	Points int           `json:"points"`
	Every  time.Duration `json:"every_ns"`
	Takes  time.Duration `json:"takes_ns"`
}
