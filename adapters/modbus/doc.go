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
// sorted points, see plan.go and cost.go). On 300 random maps of 150 points it
// is the optimum at 9,600, 19,200 and 115,200 Bd and on TCP, as another exact
// algorithm finds it; no gaps at all would cost 1.20, 1.29, 2.08 and 2.67 times
// as much. A window (pipeline, connections) joins requests of one unit to a
// group.
//
// What a unit refuses is learnt (learn.go, seek.go): a request that gets
// exception 2 or 3, or twice in a row no answer or a wrong one while the unit
// answers others, is cut into halves until it is known which point is refused,
// which hole or border can't be read over, or how many registers are too many
// for one request. A Read goes on with that for at most 100 ms of the bus, or
// one request that takes longer; what works is read meanwhile. One search a
// unit at a time; nothing is learnt before it failed twice, nor from a unit
// that answers nothing. The plan keeps to what was learnt, also after a
// restart, and tries it again: after a minute, then ever more rarely, at last
// once a day. A hole in 20 points takes 4 requests more than knowing it, a
// point in 32 takes 10, a limit of 40 registers 8.
//
// A unit that is busy, or was just written, rests without holding the bus; one
// that never answered is asked once, not again.
//
// Measured with 10,000 values in blocks of 20 on loopback: a value takes 50 ns
// of the processor beside the requests with 8 in flight, 60 to 80 ns with one,
// and no allocation. Following pointers to codec, conversion and definition of
// each point took 400 ns, which is why plain numbers have a way of their own
// (quick.go).
package modbus
