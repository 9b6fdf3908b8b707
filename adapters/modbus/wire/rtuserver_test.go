package wire

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

func TestReadRTURequestFindsEveryFrame(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var stream []byte
	var sent [][]byte
	for range 500 {
		for range rng.IntN(4) {
			stream = append(stream, 0) // what a line adapter adds when it switches direction
		}
		req := fuzzRequests[rng.IntN(len(fuzzRequests)-1)] // the last one is of no known function
		sent = append(sent, req)
		stream = AppendRTU(stream, 7, req)
	}
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(stream), "bytewise": iotest.OneByteReader(bytes.NewReader(stream))} {
		b := bufio.NewReader(r)
		for i, want := range sent {
			unit, pdu, err := ReadRTURequest(b)
			if err != nil || unit != 7 || !bytes.Equal(pdu, want) {
				t.Fatalf("%s, request %d: unit %d, % x, %v, want % x", name, i, unit, pdu, err, want)
			}
		}
		if _, _, err := ReadRTURequest(b); err != io.EOF {
			t.Errorf("%s: %v at the end", name, err)
		}
	}
}

func TestReadRTURequestPassesOverGarbage(t *testing.T) {
	request := AppendRTU(nil, 7, AppendRead(nil, 3, 0, 1))
	stream := append(bytes.Repeat([]byte{0x41}, 5000), request...)
	unit, pdu, err := ReadRTURequest(bufio.NewReader(bytes.NewReader(stream)))
	if err != nil || unit != 7 || len(pdu) != 5 {
		t.Errorf("unit %d, % x, %v", unit, pdu, err)
	}
}
