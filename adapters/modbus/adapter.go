package modbus

import (
	"context"
	"fmt"
	"io"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// Adapter speaks Modbus on one bus. It keeps the compiled points; each Open
// gives a new connection.
type Adapter struct {
	env     gateway.Env
	bus     *gateway.Bus
	devices []*gateway.Device
	atlas   *atlas
	dial    func(context.Context) (io.ReadWriteCloser, error) // one connection
	tap     wire.Tap
	watch   watchers
}

var _ gateway.NewAdapter = func(env gateway.Env, bus *gateway.Bus, devices []*gateway.Device) (gateway.Adapter, error) {
	return New(env, bus, devices)
}

// New makes the adapter of one bus and its devices. It refuses what cannot be
// compiled; Check finds more, and all of it at once.
func New(env gateway.Env, bus *gateway.Bus, devices []*gateway.Device) (gateway.Adapter, error) {
	switch bus.Type {
	case "modbus-rtu":
		if _, err := ParseLine(bus.Line); err != nil {
			return nil, err
		}
	case "modbus-tcp", "modbus-rtu-over-tcp", "modbus-tls", "modbus-udp":
	default:
		return nil, fmt.Errorf("bus type %q is not a Modbus bus", bus.Type)
	}
	for _, d := range devices {
		if d.Unit < 0 || d.Unit > 255 {
			return nil, fmt.Errorf("device %s: unit %d is not a number from 0 to 255", d.Name, d.Unit)
		}
	}
	atlas, err := newAtlas(devices, sharedModels(env))
	if err != nil {
		return nil, err
	}
	if bus.Timeout == 0 {
		shared := *bus
		shared.Timeout = defaultTimeout(bus, devices)
		bus = &shared
	}
	a := &Adapter{env: env, bus: bus, devices: devices, atlas: atlas}
	a.dial = a.connect
	return a, nil
}

// defaultTimeout is longer where several units stand behind one host: the
// converter waits for its own serial side.
func defaultTimeout(bus *gateway.Bus, devices []*gateway.Device) time.Duration {
	for _, d := range devices {
		if bus.Host != "" && d.Unit != devices[0].Unit {
			return sharedTime
		}
	}
	return defaultTime
}

// Open connects. The session lasts until it says that it is lost.
func (a *Adapter) Open(ctx context.Context) (gateway.Session, error) {
	clients, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	return newSession(a, clients...), nil
}
