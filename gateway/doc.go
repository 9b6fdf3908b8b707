// Package gateway is the living room of sluice: the vocabulary (site, bus,
// device, point, sample, report, record), the rules and the loops. It knows no
// field protocol and no cloud protocol; those are windows that look in through
// the interfaces of adapter.go and uplink.go.
//
// Up, field to cloud: one goroutine per bus opens a Session, reads the points
// that are due and keeps their latest samples; what changed becomes a report,
// and the report goes into the buffer. One goroutine per lane takes it from
// there, hands it to the cloud's Uplink and deletes it when it is confirmed.
// A field never waits for the cloud, and one bus never waits for another.
//
// What it guarantees: a report is remembered as reported only after the buffer
// took it, it leaves the buffer only after the cloud confirmed it, reports of
// one cloud device arrive in the order in which they were measured, and what
// had to be dropped is counted.
package gateway
