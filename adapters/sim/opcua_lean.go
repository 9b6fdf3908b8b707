//go:build lean

package sim

import (
	"errors"

	"sluice/gateway"
)

// ServesOPCUA tells whether this build simulates OPC UA servers.
const ServesOPCUA = false

// startServer is missing in the program that is packaged: the server takes a
// quarter of its size, and nothing but tests asks for one.
func (s *Sim) startServer(*gateway.Bus, []*gateway.Device, Options) error {
	return errors.New("this build simulates no OPC UA servers: build without the tag lean")
}

type identity struct{}
