package modbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// connectTimeout bounds the wait for a connection, with its TLS handshake.
const connectTimeout = 5 * time.Second

// mostConnections to one endpoint are more than any has use for.
const mostConnections = 64

// keepAlive finds the peer that went away without a word while nothing is asked.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// open makes the connections of the bus: all that it is to have, or none. They
// differ in nothing, and each is for one goroutine at a time.
func (a *Adapter) open(ctx context.Context) (clients []*wire.Client, err error) {
	n := min(max(1, a.bus.Connections), mostConnections)
	if a.bus.Type == "modbus-rtu" {
		n = 1
	}
	defer func() {
		if err != nil {
			closeAll(clients)
			clients = nil
		}
	}()
	for i := range n {
		conn, err := a.dial(ctx)
		if err != nil && n > 1 {
			err = fmt.Errorf("connection %d of %d: %w", i+1, n, err)
		}
		if err != nil {
			return clients, err
		}
		clients = append(clients, a.client(conn))
	}
	if a.bus.Type == "modbus-udp" {
		return clients, a.greet(ctx, clients[0])
	}
	return clients, nil
}

func closeAll(clients []*wire.Client) error {
	var errs []error
	for _, c := range clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// client speaks the bus's framing on a connection.
func (a *Adapter) client(conn io.ReadWriteCloser) *wire.Client {
	o := wire.Options{Timeout: a.bus.Timeout, Quiet: a.bus.Quiet, Echo: a.bus.Echo == "local", Tap: &a.tap}
	switch a.bus.Type {
	case "modbus-rtu":
		line, _ := ParseLine(a.bus.Line) // New has checked it
		o.Baud, o.CharBits = line.Baud, line.CharBits()
		return wire.NewRTU(conn, o)
	case "modbus-rtu-over-tcp":
		return wire.NewRTU(conn, o)
	case "modbus-udp":
		return wire.NewUDP(conn.(net.Conn), o)
	}
	o.Pipeline = a.bus.Pipeline
	return wire.NewTCP(conn, o)
}

// connect opens the port or makes one connection to the endpoint.
func (a *Adapter) connect(ctx context.Context) (io.ReadWriteCloser, error) {
	if a.bus.Type == "modbus-rtu" {
		line, err := ParseLine(a.bus.Line)
		if err != nil {
			return nil, err
		}
		return openSerial(a.bus.Port, line, a.bus.RS485)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	dialer := &net.Dialer{KeepAliveConfig: keepAlive}
	address := net.JoinHostPort(a.bus.Host, portOf(a.bus))
	switch a.bus.Type {
	case "modbus-udp":
		return dialer.DialContext(ctx, "udp", address)
	case "modbus-tls":
		config, err := a.bus.TLS.Config(a.bus.Host)
		if err != nil {
			return nil, err
		}
		conn, err := (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("tls to %s: %w", address, err)
		}
		return conn, nil
	}
	return dialer.DialContext(ctx, "tcp", address)
}

// greet asks one unit after the other until any answers, be it with an
// exception: a UDP socket opens whether somebody is there or not.
func (a *Adapter) greet(ctx context.Context, c *wire.Client) error {
	asked := make(map[int]bool)
	var last error
	for _, d := range a.devices {
		p := a.greeting(d)
		if p == nil || asked[d.Unit] {
			continue
		}
		asked[d.Unit] = true
		count := min(p.size(), mostIn(p.address.Table, &gateway.Profile{}))
		pdu := wire.AppendRead(nil, readFunctions[p.address.Table], uint16(p.start), uint16(count))
		_, last = c.Do(ctx, wire.Request{Unit: byte(d.Unit), PDU: pdu, Timeout: deviceTimeout(a.bus, d)})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if wire.Broken(last) || heard(last) {
			break
		}
	}
	if wire.Broken(last) || !heard(last) {
		return fmt.Errorf("nobody answers at udp %s: %w", net.JoinHostPort(a.bus.Host, portOf(a.bus)), last)
	}
	return nil
}

// greeting is a point of the device that polls read too: its probe, or its
// first one.
func (a *Adapter) greeting(d *gateway.Device) (first *place) {
	for _, p := range d.Points {
		switch {
		case p.Access == "w":
		case p.ID == d.Profile.Probe:
			return a.atlas.places[p]
		case first == nil:
			first = a.atlas.places[p]
		}
	}
	return first
}

// heard says whether the outcome of a request shows that somebody is there.
func heard(err error) bool {
	var frame *wire.FrameError
	return !errors.Is(err, wire.ErrTimeout) || errors.As(err, &frame)
}

// portOf is the bus's port, or the usual one of its type.
func portOf(bus *gateway.Bus) string {
	switch {
	case bus.Port != "":
		return bus.Port
	case bus.Type == "modbus-tls":
		return "802"
	}
	return "502"
}
