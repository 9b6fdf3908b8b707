package gateway

import "time"

// Learnt is something that a device taught about itself by what it refuses to
// answer. Plans keep to it, also after a restart.
type Learnt struct {
	Device string    `json:"device"`
	Range  string    `json:"range"`  // input 12 to 19
	What   string    `json:"what"`   // what follows for the requests: not read, at most 40 registers in one request
	Reason string    `json:"reason"` // the device's answer
	Since  time.Time `json:"since"`
}

// Learner is an Adapter that learns what its devices can't do.
type Learner interface {
	// Learnt is what they taught, also in earlier runs. Any goroutine may call it.
	Learnt() []Learnt
}
