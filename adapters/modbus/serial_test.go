package modbus

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"sluice/gateway"
)

// openPTY gives the unit's side of a pseudo terminal and the name of ours.
func openPTY(t *testing.T) (io.ReadWriteCloser, string) {
	t.Helper()
	far, near, err := pty.Open()
	if err != nil {
		t.Skip("no pseudo terminals: ", err)
	}
	t.Cleanup(func() { far.Close(); near.Close() }) // near open all the time: without it a read of far is an error
	return far, near.Name()
}

func TestSessionOnASerialPort(t *testing.T) {
	far, name := openPTY(t)
	unit := &slave{}
	unit.regs[1] = 123
	go unit.serve(far)
	bus := &gateway.Bus{Name: "line", Type: "modbus-rtu", Port: name, Line: "19200 8E1", Timeout: time.Second}
	d := device(bus, drive(), "d", 1)
	a, err := New(gateway.Env{}, bus, []*gateway.Device{d})
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	samples, err := s.Read(t.Context(), []*gateway.Point{point(t, d, "speed")})
	if err != nil || samples[0].Value.String() != "12.3" {
		t.Errorf("%v, %v", samples, err)
	}
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("close waits for ever")
	}
}

func TestRTSThatIsNotThereIsAClearError(t *testing.T) {
	_, name := openPTY(t)
	_, err := openSerial(name, Line{Baud: 9600, DataBits: 8, Parity: 'N', StopBits: 1}, "rts")
	if err == nil || !strings.Contains(err.Error(), "can't switch RTS") {
		t.Error(err)
	}
}
