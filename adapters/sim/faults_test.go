package sim_test

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"sluice/adapters/modbus"
	"sluice/adapters/modbus/wire"
	"sluice/adapters/sim"
	"sluice/gateway"
)

func TestFaults(t *testing.T) {
	devices, s := start(t, sim.Options{})
	for _, name := range []string{"tcp", "box"} {
		c, ctx := dial(t, bus(t, s, name)), t.Context()
		read := func() error {
			_, err := c.Read(ctx, 1, wire.FuncReadInputRegisters, 0, 2, time.Second)
			return err
		}
		check := func(what string, want error) {
			t.Helper()
			if err := read(); !errors.Is(err, want) {
				t.Errorf("%s, %s: %v, want %v", name, what, err, want)
			}
		}
		check("healthy", nil)
		do(t, devices.Exception(name, 1, modbus.Input, 1, byte(wire.ServerDeviceBusy)))
		check("an exception", wire.ServerDeviceBusy)
		do(t, devices.Exception(name, 1, modbus.Input, 1, 0))
		check("none", nil)
		do(t, devices.Silent(name, 1, true))
		check("silent", wire.ErrTimeout)
		do(t, devices.Silent(name, 1, false))
		check("no more", nil)
		do(t, devices.Delay(name, 200*time.Millisecond))
		begin := time.Now()
		check("slow", nil)
		if time.Since(begin) < 200*time.Millisecond {
			t.Errorf("%s: answered after %v", name, time.Since(begin))
		}
		do(t, devices.Delay(name, 0))
		do(t, devices.StopBus(name))
		if err := read(); err == nil {
			t.Errorf("%s answers while it is stopped", name)
		}
		if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", bus(t, s, name).Port)); err == nil {
			conn.Close()
			t.Errorf("%s accepts while it is stopped", name)
		}
		do(t, devices.StartBus(name))
		c = dial(t, bus(t, s, name))
		check("restarted", nil)
	}
	if devices.Silent("tcp", 77, true) == nil || devices.StopBus("none") == nil || devices.Set("t1", "none", gateway.Value{}) == nil {
		t.Error("what does not exist was found")
	}
}

func TestMalformedRequests(t *testing.T) {
	_, s := start(t, sim.Options{})
	b := bus(t, s, "tcp")
	conn, err := net.Dial("tcp", net.JoinHostPort(b.Host, b.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2 {
		// 200 registers are more than fit; the connection lives on.
		if _, err := conn.Write([]byte{0, 7, 0, 0, 0, 6, 1, 3, 0, 0, 0, 200}); err != nil {
			t.Fatal(err)
		}
		reply := make([]byte, 9)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Read(reply); err != nil || !bytes.Equal(reply, []byte{0, 7, 0, 0, 0, 3, 1, 0x83, 3}) {
			t.Fatalf("reply % x, %v", reply, err)
		}
	}
}

func TestLineSpeed(t *testing.T) {
	_, s := start(t, sim.Options{LineSpeed: true})
	c := dial(t, bus(t, s, "box"))
	begin := time.Now()
	if _, err := c.ReadInputRegisters(t.Context(), 1, 0, 2); err != nil {
		t.Fatal(err)
	}
	// 8 bytes there and 9 back, of 10 bits, at 9,600 Bd.
	if took := time.Since(begin); took < 17*time.Millisecond {
		t.Errorf("answered after %v", took)
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
