package modbus

import (
	"fmt"
	"io"
	"time"

	"go.bug.st/serial"

	"sluice/adapters/modbus/wire"
)

// openSerial opens a serial port with the line's format. rs485 says who
// switches the transmitter: the driver or adapter (default), which is left as
// it is set up, or we by RTS.
func openSerial(name string, l Line, rs485 string) (io.ReadWriteCloser, error) {
	mode := &serial.Mode{
		BaudRate: l.Baud,
		DataBits: l.DataBits,
		Parity:   map[byte]serial.Parity{'N': serial.NoParity, 'E': serial.EvenParity, 'O': serial.OddParity}[l.Parity],
		StopBits: serial.OneStopBit,
	}
	if l.StopBits == 2 {
		mode.StopBits = serial.TwoStopBits
	}
	port, err := serial.Open(name, mode)
	if err != nil {
		return nil, fmt.Errorf("open %s (%s): %w", name, l, err)
	}
	if rs485 != "rts" && rs485 != "rts-inverted" {
		return &serialPort{port}, nil
	}
	p := &rtsPort{serialPort{port}, l, rs485 == "rts"}
	if err := port.SetRTS(!p.sending); err != nil {
		port.Close()
		return nil, fmt.Errorf("rs485: %s: %s can't switch RTS (%w); use an adapter that switches by itself, with rs485: driver", rs485, name, err)
	}
	return p, nil
}

// serialPort makes of the port what io.Writer promises: all or an error.
type serialPort struct{ serial.Port }

// Write sends all of b; the driver may take it in parts.
func (p *serialPort) Write(b []byte) (n int, err error) {
	for n < len(b) {
		m, err := p.Port.Write(b[n:])
		n += m
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.ErrShortWrite
		}
	}
	return n, nil
}

// rtsPort switches the transmitter on while it sends.
type rtsPort struct {
	serialPort
	line    Line
	sending bool // state of RTS that turns the transmitter on
}

// Write sends b and returns when its last bit has left.
func (p *rtsPort) Write(b []byte) (n int, err error) {
	if err := p.SetRTS(p.sending); err != nil {
		return 0, fmt.Errorf("switch RTS: %w", err)
	}
	begin := time.Now()
	n, err = p.serialPort.Write(b)
	if err == nil {
		err = p.Drain()
	}
	// USB adapters call what is in their own buffer drained.
	time.Sleep(time.Until(begin.Add(wire.LineTime(n, p.line.Baud, p.line.CharBits()))))
	if off := p.SetRTS(!p.sending); err == nil && off != nil {
		err = fmt.Errorf("switch RTS: %w", off)
	}
	return n, err
}
