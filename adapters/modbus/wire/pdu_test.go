package wire

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestRequestsOnTheWire(t *testing.T) {
	for _, c := range []struct{ got, want []byte }{ // the examples of the application protocol specification, section 6
		{AppendRead(nil, 1, 0x13, 0x13), []byte{1, 0, 0x13, 0, 0x13}},
		{AppendRead(nil, 3, 0x6B, 3), []byte{3, 0, 0x6B, 0, 3}},
		{AppendWriteCoil(nil, 0xAC, true), []byte{5, 0, 0xAC, 0xFF, 0}},
		{AppendWriteRegister(nil, 1, 3), []byte{6, 0, 1, 0, 3}},
		{AppendWriteCoils(nil, 0x13, 10, []byte{0xCD, 1}), []byte{15, 0, 0x13, 0, 10, 2, 0xCD, 1}},
		{AppendWriteRegisters(nil, 1, []byte{0, 10, 1, 2}), []byte{16, 0, 1, 0, 2, 4, 0, 10, 1, 2}},
		{AppendMaskWrite(nil, 4, 0xF2, 0x25), []byte{22, 0, 4, 0, 0xF2, 0, 0x25}},
		{AppendReadWrite(nil, 3, 6, 14, []byte{0, 255, 0, 255, 0, 255}), []byte{23, 0, 3, 0, 6, 0, 14, 0, 3, 6, 0, 255, 0, 255, 0, 255}},
	} {
		if !bytes.Equal(c.got, c.want) || checkRequest(c.got) != nil {
			t.Errorf("% x, want % x, %v", c.got, c.want, checkRequest(c.got))
		}
	}
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	for _, p := range [][]byte{
		nil, {0}, {0x83, 1}, make([]byte, 254), {3}, {3, 0, 0, 0, 0}, {3, 0, 0, 0, 126}, {3, 0xFF, 0xFF, 0, 2}, {1, 0, 0, 0x07, 0xD1},
		{3, 0, 0, 0, 1, 0}, {6, 0, 0}, {5, 0, 0, 0}, {15, 0, 0, 0, 9, 1, 0}, {15, 0, 0}, {16, 0, 0, 0, 2, 2, 0, 0}, {16, 0, 0, 0, 0, 0},
		AppendWriteRegisters(nil, 0, make([]byte, 248)), AppendWriteRegisters(nil, 0, make([]byte, 512)), AppendWriteRegisters(nil, 0, make([]byte, 3)),
		{22, 0, 0, 0, 0}, {23, 0, 0}, AppendReadWrite(nil, 0, 126, 0, []byte{0, 0}), AppendReadWrite(nil, 0, 1, 0, nil),
	} {
		if err := checkRequest(p); !errors.Is(err, errShape) || Broken(err) {
			t.Errorf("% x: %v", p, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		req, reply []byte
		want       bool
	}{
		{[]byte{1, 0, 0, 0, 9}, []byte{1, 2, 0xFF, 1}, true},
		{[]byte{1, 0, 0, 0, 9}, []byte{1, 1, 0xFF}, false},
		{[]byte{3, 0, 0, 0, 1}, []byte{3, 2, 0, 7}, true},
		{[]byte{3, 0, 0, 0, 1}, []byte{3, 2, 0}, false},
		{[]byte{3, 0, 0, 0, 1}, []byte{3, 2, 0, 7, 0}, false},
		{[]byte{3, 0, 0, 0, 1}, []byte{4, 2, 0, 7}, false},
		{[]byte{3, 0, 0, 0, 1}, []byte{0x83, 2}, true},
		{[]byte{3, 0, 0, 0, 1}, []byte{0x83, 2, 0}, false},
		{[]byte{3, 0, 0, 0, 1}, []byte{0x84, 2}, false},
		{[]byte{6, 0, 1, 0, 3}, []byte{6, 0, 1, 0, 3}, true},
		{[]byte{6, 0, 1, 0, 3}, []byte{6, 0, 1, 0, 4}, false},
		{[]byte{16, 0, 1, 0, 1, 2, 0, 0}, []byte{16, 0, 1, 0, 1}, true},
		{[]byte{16, 0, 1, 0, 1, 2, 0, 0}, []byte{16, 0, 2, 0, 1}, false},
		{[]byte{22, 0, 4, 0, 1, 0, 2}, []byte{22, 0, 4, 0, 1, 0, 2}, true},
		{[]byte{23, 0, 0, 0, 2, 0, 0, 0, 1, 2, 0, 0}, []byte{23, 4, 1, 2, 3, 4}, true},
		{[]byte{43, 14, 1, 0}, []byte{43, 14, 1, 1, 0, 0, 1, 0, 2, 'a', 'b'}, true},
		{[]byte{43, 14, 1, 0}, []byte{43, 14, 1, 1, 0, 0, 1, 0, 3, 'a', 'b'}, false},
		{[]byte{43, 14, 1, 0}, []byte{43, 14, 2, 1, 0, 0, 1, 0, 2, 'a', 'b'}, false},
		{[]byte{0x41, 1}, []byte{0x41, 9, 9}, true},
		{[]byte{17}, []byte{17, 2, 1, 255}, true},
		{[]byte{17}, []byte{17, 2, 1}, false},
		{[]byte{24, 0, 1}, []byte{24, 0, 4, 0, 1, 0, 9}, true},
	} {
		if err := checkRequest(c.req); err != nil {
			t.Fatal(err)
		}
		h := headOf(c.req)
		if got := h.answers(c.reply); got != c.want {
			t.Errorf("% x answers % x: %v", c.reply, c.req, got)
		}
	}
}

func TestReplySize(t *testing.T) {
	for _, c := range []struct {
		req  []byte
		want int
	}{
		{[]byte{3, 0, 0, 0, 125}, 252}, {[]byte{1, 0, 0, 0, 9}, 4}, {[]byte{6, 0, 0, 0, 0}, 5},
		{[]byte{16, 0, 0, 0, 1, 2, 0, 0}, 5}, {[]byte{22, 0, 0, 0, 0, 0, 0}, 7}, {[]byte{43, 14, 1, 0}, 253}, {[]byte{0x41}, 253},
	} {
		if got := ReplySize(c.req); got != c.want {
			t.Errorf("% x: %d, want %d", c.req, got, c.want)
		}
	}
}

func TestCRC(t *testing.T) {
	if got := AppendRTU(nil, 1, AppendRead(nil, 4, 0, 1)); !bytes.Equal(got, []byte{1, 4, 0, 0, 0, 1, 0x31, 0xCA}) {
		t.Errorf("% x", got)
	}
}

func TestExceptionText(t *testing.T) {
	if got := IllegalDataAddress.Error(); got != "exception 2: illegal data address" {
		t.Error(got)
	}
	if got := Exception(99).Error(); got != "exception 99: unknown code" {
		t.Error(got)
	}
}

// There is always a legal read that can't be confused with the request.
func TestThrowAwayReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		function := rapid.ByteRange(1, 4).Draw(t, "function")
		count := rapid.Uint16Range(1, 125).Draw(t, "count")
		addr := rapid.Uint16Range(0, 65535-count+1).Draw(t, "addr")
		req := AppendRead(nil, function, addr, count)
		n := 0
		for p := range others(req, [2][5]byte{}) {
			if err := checkRequest(p); err != nil {
				t.Fatalf("% x for % x: %v", p, req, err)
			}
			if headOf(p) != headOf(req) {
				n++
			}
		}
		if n < 1 {
			t.Fatalf("none for % x", req)
		}
	})
}
