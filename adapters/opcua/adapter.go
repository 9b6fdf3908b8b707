package opcua

import (
	"context"
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice/gateway"
)

// Adapter speaks OPC UA with one server. It keeps the compiled points, and what
// the next session can go on with.
type Adapter struct {
	env      gateway.Env
	bus      *gateway.Bus
	devices  []*gateway.Device
	places   map[*gateway.Point]*place
	timeout  time.Duration // of a request
	lifetime time.Duration // of the keys of a channel

	identities *identities                      // the gateway's own, for all servers
	pin        *x509.Certificate                // the server's, that first-use keeps
	server     atomic.Pointer[x509.Certificate] // that the server showed last
	warning    sync.Mutex
	warned     map[string]bool // what was said about ends of certificates

	watch  *watch           // the subscription, that sessions hand on
	alarms map[string]alarm // that are on and were told; nil before they are read

	stamping  sync.Mutex // over the stamps of all places
	clockSaid map[*gateway.Device]bool
}

// place is where a point is, compiled once.
type place struct {
	point      *gateway.Point
	address    Address
	conversion *gateway.Conversion
	last       *stamp
}

// defaultTimeout is how long a server may take to answer a request.
const defaultTimeout = 5 * time.Second

var _ gateway.NewAdapter = func(env gateway.Env, bus *gateway.Bus, devices []*gateway.Device) (gateway.Adapter, error) {
	return New(env, bus, devices)
}

// New makes the adapter of one server and the devices in it. It refuses what
// can't be compiled; Check finds more, and all of it at once.
func New(env gateway.Env, bus *gateway.Bus, devices []*gateway.Device) (gateway.Adapter, error) {
	if bus.Type != "opcua" {
		return nil, fmt.Errorf("bus type %q is no OPC UA bus", bus.Type)
	}
	a := &Adapter{env: env, bus: bus, devices: devices, places: make(map[*gateway.Point]*place), timeout: bus.Timeout, lifetime: time.Hour, clockSaid: make(map[*gateway.Device]bool), identities: identitiesOf(env)}
	if a.timeout <= 0 {
		a.timeout = defaultTimeout
	}
	for _, d := range devices {
		for _, p := range d.Points {
			at, err := newPlace(p)
			if err != nil {
				return nil, fmt.Errorf("point %s of %s: %w", p.ID, d.Name, err)
			}
			a.places[p] = at
		}
	}
	return a, nil
}

// newPlace compiles a point.
func newPlace(p *gateway.Point) (*place, error) {
	address, err := parsePoint(p)
	if err != nil {
		return nil, err
	}
	conversion, err := gateway.NewConversion(p.Definition)
	if err != nil {
		return nil, err
	}
	return &place{point: p, address: address, conversion: conversion, last: &stamp{}}, nil
}

// parsePoint reads the address of a point.
func parsePoint(p *gateway.Point) (Address, error) {
	uri := ""
	if p.Device.Profile != nil {
		uri = p.Device.Profile.Namespace
	}
	switch {
	case p.Node != "":
		return ParseNode(p.Node, uri)
	case p.Browse != "":
		return ParseBrowse(p.Browse, uri)
	}
	return Address{}, fmt.Errorf("it has neither node nor browse")
}

// Open connects, and finds the nodes of all points.
func (a *Adapter) Open(ctx context.Context) (gateway.Session, error) {
	s, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		if s.resumed {
			s.lose(err) // it is left to the next connection, with the subscription in it
		}
		s.Close()
		return nil, err
	}
	s.background.Go(s.stayAlive)
	return s, nil
}
