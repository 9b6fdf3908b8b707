// Package wire is a Modbus client (master) with MBAP and RTU framing over any connection.
//
// It never gives a wrong value. A reply counts only if transaction (MBAP) or checksum (RTU), unit, function and byte count, or
// what a write echoes, fit the request. Half a million late, doubled, cut, flipped, swapped and forged answers on each framing, and
// in windows of 1 to 16 requests on TCP and UDP, gave none; without the throw-away reads below, RTU takes 424 in 20,000, and a
// plain reader 50 in 2,000.
//
// RTU has no transaction id, so a late reply looks like that to a later request of the same unit, function and byte count. After
// an unanswered request the line stays silent until its time is over; what comes late, or twice, is dropped before each
// request, which needs a silence of 3.5 characters first. Then, before a request that an unanswered one could be taken for, the unit has
// to answer a throw-away read of another size or function: units and lines answer in order, so nothing older can follow. Do
// makes it by itself, also where the late answer would fit only because it is shorter than was asked; prefers what the unit has
// answered before; and returns a timeout where it is not answered. What is not guaranteed: a path that changes the order of
// replies, a second copy that comes later than the silence, a reply later than 30 s, a frame forged or damaged with a good
// checksum, or one to another master on the same line. None of these can be told from the truth.
//
// DoWindow has several requests in flight, matched by transaction id. A stream whose answers are cut ends: the bytes behind an
// answer must begin like one, and none may have the header of another one in it. Not guaranteed there: an answer with the
// transaction of another request that it also fits; an answer short of its last few bytes, where of the next one just as
// many come by themselves. NewUDP takes one frame in each datagram. Lost, doubled, foreign and damaged ones cost their request
// its time and no more; only a port where nobody listens is broken. What a network does twice, such as a write, is done twice.
//
// A Tap sees what is sent and received, with what was wrong with it and what nobody waited for.
//
// On Linux a request on TCP is two system calls, one that sends and one that reads what has come, and its share of one that waits.
//
// Measured on loopback with 125 registers a read and the server in the same process, on one and two cores: MBAP 15 and 18 us a request,
// bare reading and writing 16 and 16, github.com/simonvetter/modbus 17 and 17 with 9 allocations; RTU over TCP without silence
// 17 and 26. In windows of 16 requests with a pipeline of 1, 2, 4, 8 and 16: 15, 11.5, 8.3, 6.6 and 5.7 on one core, the server's
// share in it; what a window gains on a real network is the round trip. There are no allocations in steady state.
package wire
