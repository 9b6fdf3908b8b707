package wire

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// udpUnit answers on a real socket until the end of the test, with what answer makes of each request and the right reply to it.
func udpUnit(t *testing.T, answer func(request, reply []byte) [][]byte) net.Conn {
	t.Helper()
	far, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := far.ReadFrom(b)
			if err != nil {
				return
			}
			request := bytes.Clone(b[:n])
			reply := appendMBAP(nil, uint16(word(request)), request[6], honest(request[6], request[7:], 1))
			for _, d := range answer(request, reply) {
				_, _ = far.WriteTo(d, from)
			}
		}
	}()
	near, err := net.Dial("udp", far.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close(); _ = far.Close(); <-done })
	return near
}

func TestUDPOverARealSocket(t *testing.T) {
	var held []byte
	asked := 0
	near := udpUnit(t, func(request, reply []byte) [][]byte {
		switch asked++; asked % 5 {
		case 0:
			held = reply
			return nil // behind the next one, if there is one
		case 1:
			return [][]byte{held, reply, reply, []byte("garbage"), {}}
		case 2:
			return [][]byte{append(bytes.Clone(reply), 0), reply[:8], append(reply, reply...), reply}
		case 3:
			return [][]byte{bytes.Repeat([]byte{0}, 2000), reply}
		}
		return [][]byte{reply}
	})
	c := NewUDP(near, Options{Timeout: 2 * time.Second, Pipeline: 4})
	lost := 0
	for range 5 {
		requests := reads(4)
		for i := range requests {
			requests[i].Timeout = 300 * time.Millisecond
		}
		err := c.DoWindow(t.Context(), requests, func(i int, pdu []byte, err error) {
			switch {
			case errors.Is(err, ErrTimeout):
				lost++
			case err != nil || !bytes.Equal(pdu, honest(requests[i].Unit, requests[i].PDU, 1)):
				t.Errorf("request %d: % x, %v", i, pdu, err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if lost != 1 {
		t.Errorf("%d lost, want the last one", lost)
	}
}

func TestUDPPortWhereNobodyListensIsBroken(t *testing.T) {
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	near, err := net.Dial("udp", free.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := NewUDP(near, Options{Timeout: 10 * time.Second})
	defer func() { _ = c.Close() }()
	if _, err := c.ReadHoldingRegisters(t.Context(), 1, 0, 1); !Broken(err) {
		t.Errorf("error %v", err)
	}
}

func TestUDPFrameThatDoesNotFitItsDatagramIsGarbage(t *testing.T) {
	good := appendMBAP(nil, 1, 1, []byte{3, 2, 0, 7})
	for name, d := range map[string][]byte{
		"too short": good[:10], "too long": append(bytes.Clone(good), 0), "two frames": append(bytes.Clone(good), good...),
		"protocol": {0, 1, 0, 1, 0, 5, 1, 3, 2, 0, 7}, "header alone": good[:6], "one byte": {0},
	} {
		synctest.Test(t, func(t *testing.T) {
			near, done := newScripted(d, good)
			c := NewUDP(near, Options{})
			defer func() { _ = c.Close(); done() }()
			if data, err := c.ReadHoldingRegisters(t.Context(), 1, 0, 1); err != nil || data[1] != 7 {
				t.Errorf("%s: % x, %v", name, data, err)
			}
		})
	}
}
