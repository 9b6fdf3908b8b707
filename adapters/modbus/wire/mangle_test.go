package wire

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

const mangledAnswers = 20000

// A question is one of few shapes, so that stale answers often fit.
func question(rng *rand.Rand) (unit, function byte, addr, count uint16) {
	return byte(1 + rng.IntN(2)), byte(3 + rng.IntN(2)), uint16(rng.IntN(50)), uint16(2 + 2*rng.IntN(2))
}

func TestNoWrongValueThroughMangledAnswers(t *testing.T) {
	for name, rtu := range map[string]bool{"tcp": false, "rtu": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { hammer(t, rtu, rand.Uint64()) })
		})
	}
}

func hammer(t *testing.T, rtu bool, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	f := newFake(t, rtu)
	m := newMangler(f, seed)
	var good, wrong, bad, broken int
	var c *Client
	for i := range uint64(mangledAnswers) {
		if c == nil {
			m.release()
			c = f.client(Options{Timeout: m.timeout})
		}
		unit, function, addr, count := question(rng)
		f.ask(i, m.mangle)
		data, err := c.Read(t.Context(), unit, function, addr, count, 0)
		switch {
		case err == nil && bytes.Equal(data, values(unit, function, int(addr), int(2*count), i)):
			good++
		case err == nil:
			wrong++
			t.Errorf("seed %d, answer %d: wrong value", seed, i)
		case Broken(err):
			broken++
			_ = c.Close()
			c = nil
		default:
			usable(t, err)
			bad++
		}
	}
	if c != nil {
		_ = c.Close()
	}
	t.Logf("%d good, %d bad, %d connections broken, %d wrong", good, bad, broken, wrong)
	if good < mangledAnswers/6 || rtu && broken > 0 {
		t.Errorf("%d good of %d, %d connections broken", good, mangledAnswers, broken)
	}
}

// The same answers, read as a plain client does it: the test would see wrong values if there were any.
func TestPlainReaderTakesWrongValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 1))
		f := newFake(t, true)
		m := newMangler(f, 2)
		conn := f.connect()
		defer func() { _ = conn.Close() }()
		var wrong int
		for i := range uint64(2000) {
			unit, function, addr, count := question(rng)
			f.ask(i, m.mangle)
			data := plainRead(t, conn, unit, AppendRead(nil, function, addr, count), m.timeout)
			if data != nil && !bytes.Equal(data, values(unit, function, int(addr), int(2*count), i)) {
				wrong++
			}
		}
		t.Logf("%d wrong of 2000", wrong)
		if wrong < 20 {
			t.Errorf("%d wrong values: the mangled answers prove nothing", wrong)
		}
	})
}

func plainRead(t *testing.T, conn net.Conn, unit byte, req []byte, timeout time.Duration) []byte {
	if _, err := conn.Write(AppendRTU(nil, unit, req)); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(timeout))
	frame := make([]byte, 0, maxRTU)
	want := 5 + 2*int(req[4])
	for len(frame) < want {
		n, err := conn.Read(frame[len(frame):want])
		if err != nil {
			if !os.IsTimeout(err) {
				t.Fatal(err)
			}
			return nil
		}
		frame = frame[:len(frame)+n]
	}
	if !sealed(frame) || frame[0] != unit || frame[1] != req[0] || int(frame[2]) != want-5 {
		return nil
	}
	return frame[3 : want-2]
}

func TestGoodAgainAtTheNextRequest(t *testing.T) {
	for _, rtu := range []bool{false, true} {
		for _, kind := range mangleKinds {
			synctest.Test(t, func(t *testing.T) { spoilOne(t, rtu, kind) })
		}
	}
}

func spoilOne(t *testing.T, rtu bool, kind string) {
	f := newFake(t, rtu)
	m := newMangler(f, 1)
	c := f.client(Options{Timeout: m.timeout})
	defer func() { _ = c.Close() }()
	ctx := context.Background()
	f.ask(1, func(unit byte, req, reply []byte) []piece { return m.apply(kind, unit, req, reply) })
	_, err := c.ReadHoldingRegisters(ctx, 1, 7, 4)
	if Broken(err) {
		_ = c.Close()
		c = f.client(Options{Timeout: m.timeout})
	} else {
		usable(t, err)
	}
	if kind == "much later" {
		time.Sleep(time.Second) // the line holds back everything behind that answer
	}
	m.release()
	if kind == "late" || kind == "doubled late" || kind == "half late" {
		time.Sleep(m.timeout) // likewise
	}
	f.ask(2, nil)
	data, err := c.ReadHoldingRegisters(ctx, 1, 8, 4)
	if err != nil || !bytes.Equal(data, values(1, 3, 8, 8, 2)) {
		t.Errorf("rtu %v, after %s: % x, %v", rtu, kind, data, err)
	}
}
