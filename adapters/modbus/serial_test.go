package modbus

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"
	"go.bug.st/serial"

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

// onPort opens a session on a serial port with a unit behind it, whose bytes
// come as they are or by way of through. The test ends with its Close.
func onPort(t *testing.T, change func(*gateway.Bus), through func(io.ReadWriteCloser) io.ReadWriteCloser) (gateway.Session, *gateway.Device) {
	t.Helper()
	far, name := openPTY(t)
	unit := &slave{}
	unit.regs[1] = 123
	if through != nil {
		far = through(far)
	}
	go unit.serve(far)
	bus := &gateway.Bus{Name: "line", Type: "modbus-rtu", Port: name, Line: "19200 8E1", Timeout: time.Second}
	change(bus)
	d := device(bus, drive(), "d", 1)
	a, err := New(gateway.Env{}, bus, []*gateway.Device{d})
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, d
}

func TestSessionOnASerialPort(t *testing.T) {
	s, d := onPort(t, func(b *gateway.Bus) { b.Connections = 2 }, nil) // a port can be had once
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

// echoing is a line whose adapter hears itself.
type echoing struct{ io.ReadWriteCloser }

func (e echoing) Read(b []byte) (int, error) {
	n, err := e.ReadWriteCloser.Read(b)
	if err == nil {
		_, err = e.Write(b[:n])
	}
	return n, err
}

func TestEchoOfASerialPort(t *testing.T) {
	echo := func(c io.ReadWriteCloser) io.ReadWriteCloser { return echoing{c} }
	for _, c := range []struct {
		said    string
		through func(io.ReadWriteCloser) io.ReadWriteCloser
		want    string // reason; "" is a good value
	}{
		{"local", echo, ""},
		{"none", nil, ""},
		{"none", echo, "own request came back, but the line is not said to echo"},
		{"local", nil, "own bytes came back changed or not at all"},
	} {
		s, d := onPort(t, func(b *gateway.Bus) { b.Echo, b.Timeout = c.said, 300*time.Millisecond }, c.through)
		for _, id := range []string{"speed", "mode"} {
			samples, err := s.Read(t.Context(), []*gateway.Point{point(t, d, id)})
			if err != nil {
				t.Fatal(err)
			}
			got := samples[0]
			if (c.want == "") != (got.Quality != gateway.Bad) || !strings.Contains(got.Reason, c.want) {
				t.Errorf("echo: %s on a line that echoes %v: %s is %s %s %q, want %q", c.said, c.through != nil, id, got.Value, got.Quality, got.Reason, c.want)
			}
		}
		s.Close()
	}
}

// rtsRecord is a port that writes down what is done with it.
type rtsRecord struct {
	serial.Port
	done []string
	fail string // what fails
}

func (r *rtsRecord) do(what string) error {
	r.done = append(r.done, what)
	if what == r.fail {
		return errors.New(what + " fails")
	}
	return nil
}

func (r *rtsRecord) SetRTS(on bool) error        { return r.do(fmt.Sprint("rts ", on)) }
func (r *rtsRecord) Drain() error                { return r.do("drain") }
func (r *rtsRecord) Write(b []byte) (int, error) { return min(len(b), 5), r.do("write") }

func TestRTSTurnsTheTransmitterOnWhileItSends(t *testing.T) {
	line := Line{Baud: 1200, DataBits: 8, Parity: 'N', StopBits: 1}
	for _, c := range []struct {
		sending    bool
		fail, want string
	}{
		{true, "", "rts true, write, write, drain, rts false"},
		{false, "", "rts false, write, write, drain, rts true"},
		{true, "write", "rts true, write, rts false"},
		{true, "drain", "rts true, write, write, drain, rts false"},
		{true, "rts true", "rts true"},
	} {
		synctest.Test(t, func(t *testing.T) {
			record := &rtsRecord{fail: c.fail}
			port := &rtsPort{serialPort{record}, line, c.sending}
			begin := time.Now()
			n, err := port.Write(make([]byte, 8))
			if got := strings.Join(record.done, ", "); got != c.want || (err != nil) != (c.fail != "") {
				t.Errorf("%s, error %v; want %s", got, err, c.want)
			}
			if took := time.Since(begin); err == nil && (n != 8 || took < 8*10*time.Second/1200) {
				t.Errorf("%d bytes through after %v, the line takes longer", n, took)
			}
		})
	}
}

func TestRTSThatIsNotThereIsAClearError(t *testing.T) {
	_, name := openPTY(t)
	_, err := openSerial(name, Line{Baud: 9600, DataBits: 8, Parity: 'N', StopBits: 1}, "rts")
	if err == nil || !strings.Contains(err.Error(), "can't switch RTS") {
		t.Error(err)
	}
}
