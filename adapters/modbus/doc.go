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
// sorted points, see plan.go and cost.go); several units of one host count as
// behind a converter, with a line of 19,200 Bd. On 300 random maps of 150 points it
// is the optimum at 9,600, 19,200 and 115,200 Bd and on TCP, as another exact
// algorithm finds it; no gaps at all would cost 1.20, 1.29, 2.08 and 2.67 times
// as much. A window (pipeline, connections) joins requests of one unit to a
// group, and ReadAll groups of several units.
//
// What a unit refuses is learnt (learn.go, seek.go): a request that gets
// exception 1, 2 or 3, or twice in a row another one that is not "busy", or no
// answer or a wrong one while the unit answers others, is cut into halves until
// it is known which point is refused, which hole or border can't be read over,
// or how many registers are too many for one request. A Read goes on with that
// for at most 100 ms of the bus, or one request that takes longer; what works is
// read meanwhile. One search a unit at a time; nothing is learnt before it
// failed twice, nor from a unit that answers nothing. The plan keeps to what was
// learnt, also after a restart, and tries it again: after a minute, then ever
// more rarely, at last once a day (every ten minutes what may go by itself, such
// as exception 4). A hole in 20 points takes 4 requests more than knowing it, a
// point in 32 takes 10, a limit of 40 registers 8.
//
// A unit that is busy, or was just written, rests without holding the bus; one
// that never answered is asked once, not again.
//
// Measured with 10,000 values in blocks of 20 on loopback: a value takes 50 ns
// of the processor beside the requests with 8 in flight, 60 to 80 ns with one,
// and no allocation. Following pointers to codec, conversion and definition of
// each point took 400 ns, which is why numbers have a way of their own
// (quick.go), also scaled ones: 35 and 70 ns.
//
// The whole gateway ("sluice bench modbus", 10 devices × 1,000 registers at
// 100 ms) took 0.95 µs a value on a busy machine, 79 µs for each request of 83
// values. Where it went, by perf, and what became of it there: 45 µs of a
// request that comes alone are the process falling asleep and waking up, 17 µs
// where it shares that with others, so buses poll in waves (0.95 to 0.75 µs a
// value, 1.25 to 0.60 with 100 devices at 1 s, gateway.go); 5 to 9 µs were the
// scheduler's watchdog, woken by each system call after a pause (0.60 µs,
// wire/raw_linux.go); two thirds of taking a sample were looks at rules that
// can't matter (0.50 µs, gateway's pointState.repeats). With 16 requests in
// flight a value takes 0.21 µs. Then 22 % of what was left was still taking
// samples one by one, a read before there could be an answer was one system call
// of three, and a tenth collected a slice that each pass made. So an answer that
// is, byte for byte, the last one of its request makes no samples (Reread): its
// points learn the time when somebody looks (gateway's station.stamp); and a
// request is sent and waited for in one (wire's direct.ask). That made 0.56 of
// it, of two builds run in turn; 0.26 to 0.40 µs a value alone on the machine,
// two thirds of which are in the system's TCP. One poll of 83 values that is not
// as before costs what it did.
//
// Of values that change and are published, 40 % was garbage: 2.3 µs a value. A
// report is now parsed once on its way out, and encoded into memory that is used
// again: 1.6 to 1.7 µs, the poll included. A quarter of it is looking at what
// lives, since garbage is collected at 40 % for the sake of memory.
package modbus
