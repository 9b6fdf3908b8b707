package sim

import (
	library "github.com/simonvetter/modbus"

	"sluice/adapters/modbus"
	"sluice/adapters/modbus/wire"
)

// handler answers the library's server from the memory of a bus's units.
type handler struct{ bus *bus }

// HandleCoils reads and writes coils.
func (h handler) HandleCoils(r *library.CoilsRequest) ([]bool, error) {
	if r.IsWrite {
		return nil, h.write(r.UnitId, modbus.Coil, r.Addr, toWords(r.Args))
	}
	words, err := h.read(r.UnitId, modbus.Coil, r.Addr, r.Quantity)
	return toBits(words), err
}

// HandleDiscreteInputs reads discrete inputs.
func (h handler) HandleDiscreteInputs(r *library.DiscreteInputsRequest) ([]bool, error) {
	words, err := h.read(r.UnitId, modbus.Discrete, r.Addr, r.Quantity)
	return toBits(words), err
}

// HandleHoldingRegisters reads and writes holding registers.
func (h handler) HandleHoldingRegisters(r *library.HoldingRegistersRequest) ([]uint16, error) {
	if r.IsWrite {
		return nil, h.write(r.UnitId, modbus.Holding, r.Addr, r.Args)
	}
	return h.read(r.UnitId, modbus.Holding, r.Addr, r.Quantity)
}

// HandleInputRegisters reads input registers.
func (h handler) HandleInputRegisters(r *library.InputRegistersRequest) ([]uint16, error) {
	return h.read(r.UnitId, modbus.Input, r.Addr, r.Quantity)
}

func (h handler) read(id uint8, table modbus.Table, start, count uint16) ([]uint16, error) {
	u := h.bus.units[id]
	if u == nil {
		return nil, library.ErrGWTargetFailedToRespond
	}
	words, code := u.read(table, int(start), int(count), h.bus.elapsed())
	return words, refusal(code)
}

func (h handler) write(id uint8, table modbus.Table, start uint16, words []uint16) error {
	u := h.bus.units[id]
	if u == nil {
		return library.ErrGWTargetFailedToRespond
	}
	return refusal(u.write(table, int(start), words, h.bus.elapsed()))
}

// refusal is the error that the library sends as an exception; nil for 0.
func refusal(code byte) error {
	switch wire.Exception(code) {
	case 0:
		return nil
	case wire.IllegalFunction:
		return library.ErrIllegalFunction
	case wire.IllegalDataAddress:
		return library.ErrIllegalDataAddress
	case wire.IllegalDataValue:
		return library.ErrIllegalDataValue
	case wire.Acknowledge:
		return library.ErrAcknowledge
	case wire.ServerDeviceBusy:
		return library.ErrServerDeviceBusy
	case wire.MemoryParityError:
		return library.ErrMemoryParityError
	case wire.GatewayPathUnavailable:
		return library.ErrGWPathUnavailable
	case wire.GatewayTargetNoResponse:
		return library.ErrGWTargetFailedToRespond
	}
	return library.ErrServerDeviceFailure
}

func toBits(words []uint16) []bool {
	bits := make([]bool, len(words))
	for i, w := range words {
		bits[i] = w != 0
	}
	return bits
}

func toWords(bits []bool) []uint16 {
	words := make([]uint16, len(bits))
	for i, on := range bits {
		if on {
			words[i] = 1
		}
	}
	return words
}
