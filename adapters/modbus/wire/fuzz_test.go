package wire

import (
	"bufio"
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

var fuzzRequests = [][]byte{
	AppendRead(nil, 1, 5, 9), AppendRead(nil, 2, 5, 16), AppendRead(nil, 3, 5, 2), AppendRead(nil, 4, 5, 125), AppendWriteCoil(nil, 5, true),
	AppendWriteRegister(nil, 5, 6), AppendWriteCoils(nil, 5, 3, []byte{7}), AppendWriteRegisters(nil, 5, []byte{1, 2}), AppendMaskWrite(nil, 5, 1, 2),
	AppendReadWrite(nil, 5, 2, 6, []byte{1, 2}), {43, 14, 1, 0}, {7}, {8, 0, 0, 1, 2}, {11}, {12}, {17}, {24, 0, 5}, {0x41, 1},
}

func seeds(f *testing.F, frame func(pdu []byte) []byte) {
	for i, req := range fuzzRequests {
		f.Add(byte(i), frame(honest(1, req, 0)))
		f.Add(byte(i), frame([]byte{req[0] | 0x80, 2}))
	}
	f.Add(byte(10), frame([]byte{43, 14, 1, 1, 0, 0, 2, 0, 2, 'a', 'b', 1, 200, 'c'}))
	f.Add(byte(10), frame([]byte{43, 14, 1, 1, 255, 9, 255}))
	f.Add(byte(3), []byte{})
}

func FuzzTCPReply(f *testing.F) {
	seeds(f, func(pdu []byte) []byte { return appendMBAP(nil, 1, 1, pdu) })
	f.Fuzz(func(t *testing.T, which byte, reply []byte) {
		synctest.Test(t, func(t *testing.T) { fuzzReply(t, NewTCP, which, reply) })
	})
}

func FuzzRTUReply(f *testing.F) {
	seeds(f, func(pdu []byte) []byte { return AppendRTU(nil, 1, pdu) })
	f.Fuzz(func(t *testing.T, which byte, reply []byte) {
		if len(reply)%2 == 1 { // bytes alone hardly ever have a checksum
			reply = AppendRTU(nil, 1, reply[1:])
		}
		synctest.Test(t, func(t *testing.T) { fuzzReply(t, NewRTU, which, reply) })
	})
}

// fuzzReply asks and gets the bytes in two pieces. What is accepted must have come, and be of the length that was asked for.
func fuzzReply(t *testing.T, open func(io.ReadWriteCloser, Options) *Client, which byte, reply []byte) {
	req := fuzzRequests[int(which)%len(fuzzRequests)]
	near, done := newScripted(reply[:len(reply)/2], reply[len(reply)/2:])
	c := open(near, Options{Timeout: time.Second})
	defer func() { _ = c.Close(); done() }()
	pdu, err := c.Do(t.Context(), Request{Unit: 1, PDU: req})
	if err != nil {
		return
	}
	if !bytes.Contains(reply, pdu) || pdu[0] != req[0] {
		t.Fatalf("% x accepted from % x", pdu, reply)
	}
	if size := len(honest(1, req, 0)); size > 2 && len(pdu) != size {
		t.Fatalf("%d bytes accepted for % x, want %d", len(pdu), req, size)
	}
}

func FuzzPDU(f *testing.F) {
	for _, req := range fuzzRequests {
		f.Add(req, honest(1, req, 0))
	}
	f.Fuzz(func(t *testing.T, req, reply []byte) {
		if checkRequest(req) != nil {
			return
		}
		h := headOf(req)
		if size := ReplySize(req); size < 2 || size > maxPDU {
			t.Fatalf("reply size %d for % x", size, req)
		}
		if !h.answers(reply) {
			return
		}
		if _, refused := exceptionOf(reply); !refused && req[0] == FuncEncapsulated && bytes.HasPrefix(reply, []byte{43, 14}) {
			parseIdentification(reply)
		}
	})
}

func FuzzRTURequest(f *testing.F) {
	for _, req := range fuzzRequests {
		f.Add(AppendRTU(nil, 1, req))
		f.Add(AppendRTU([]byte{1, 16, 0}, 1, req))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		for {
			unit, pdu, err := ReadRTURequest(r)
			if err != nil {
				return
			}
			if !bytes.Contains(in, AppendRTU(nil, unit, pdu)) {
				t.Fatalf("% x is not in % x", pdu, in)
			}
		}
	})
}
