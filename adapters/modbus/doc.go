// Package modbus is the south window to Modbus devices: the address parser,
// the codec between registers and values, the plan that merges points into
// requests, the session that sends them, and the checks of a site's Modbus
// parts.
//
// What it guarantees: a value is never made of bytes that a unit did not send
// for exactly this request. An exception or silence makes the points of that
// request bad, with the reason, and no others; a connection that can no longer
// be trusted ends the session. Reading and writing go through one Codec, so
// what was written is what is read back. A number that does not fit its
// registers is refused, never wrapped. A write request goes out once.
//
// A Plan leaves no point out, never splits one, never touches a forbidden
// register and keeps every limit of the profile; within that it is the
// cheapest there is by the cost of the bus (dynamic programming over the
// sorted points, see plan.go and cost.go).
package modbus
