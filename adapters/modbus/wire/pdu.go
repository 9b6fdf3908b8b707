package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The function codes that this package knows the shapes of.
const (
	FuncReadCoils              = 1
	FuncReadDiscreteInputs     = 2
	FuncReadHoldingRegisters   = 3
	FuncReadInputRegisters     = 4
	FuncWriteSingleCoil        = 5
	FuncWriteSingleRegister    = 6
	FuncReadExceptionStatus    = 7
	FuncDiagnostics            = 8
	FuncCommEventCounter       = 11
	FuncCommEventLog           = 12
	FuncWriteMultipleCoils     = 15
	FuncWriteMultipleRegisters = 16
	FuncReportServerID         = 17
	FuncReadFileRecord         = 20
	FuncWriteFileRecord        = 21
	FuncMaskWriteRegister      = 22
	FuncReadWriteMultiple      = 23
	FuncReadFIFOQueue          = 24
	FuncEncapsulated           = 43

	meiDeviceIdentification = 14
)

// Limits of the protocol in one request.
const (
	MaxReadBits       = 2000
	MaxReadRegisters  = 125
	MaxWriteBits      = 1968
	MaxWriteRegisters = 123

	maxPDU = 253
)

var errShape = errors.New("malformed request")

// checkRequest refuses a request whose reply could not be checked. Functions without a known shape pass.
func checkRequest(p []byte) error {
	if len(p) == 0 || len(p) > maxPDU {
		return fmt.Errorf("%w: %d bytes of PDU, not 1..%d", errShape, len(p), maxPDU)
	}
	if p[0] == 0 || p[0] > 127 {
		return fmt.Errorf("%w: function %d, not 1..127", errShape, p[0])
	}
	switch p[0] {
	case FuncReadCoils, FuncReadDiscreteInputs:
		return checkRange(p, 5, MaxReadBits)
	case FuncReadHoldingRegisters, FuncReadInputRegisters:
		return checkRange(p, 5, MaxReadRegisters)
	case FuncWriteSingleCoil, FuncWriteSingleRegister, FuncDiagnostics:
		return checkSize(p, 5)
	case FuncMaskWriteRegister:
		return checkSize(p, 7)
	case FuncWriteMultipleCoils:
		if len(p) < 6 {
			return checkSize(p, 6)
		}
		return errors.Join(checkRange(p, 6+int(p[5]), MaxWriteBits), checkBytes(p[0], p[5], packed(word(p[3:]))))
	case FuncWriteMultipleRegisters:
		if len(p) < 6 {
			return checkSize(p, 6)
		}
		return errors.Join(checkRange(p, 6+int(p[5]), MaxWriteRegisters), checkBytes(p[0], p[5], 2*word(p[3:])))
	case FuncReadWriteMultiple:
		if len(p) < 10 {
			return checkSize(p, 10)
		}
		return errors.Join(checkRange(p, 10+int(p[9]), MaxReadRegisters), checkBytes(p[0], p[9], 2*word(p[7:])))
	}
	return nil
}

func checkSize(p []byte, size int) error {
	if len(p) != size {
		return fmt.Errorf("%w: function %d with %d bytes, not %d", errShape, p[0], len(p), size)
	}
	return nil
}

func checkRange(p []byte, size, most int) error {
	if err := checkSize(p, size); err != nil {
		return err
	}
	addr, count := word(p[1:]), word(p[3:])
	if count < 1 || count > most || addr+count > 1<<16 {
		return fmt.Errorf("%w: function %d for %d from address %d", errShape, p[0], count, addr)
	}
	return nil
}

func checkBytes(function, got byte, want int) error {
	if int(got) != want || want == 0 {
		return fmt.Errorf("%w: function %d with byte count %d, not %d", errShape, function, got, want)
	}
	return nil
}

// A head is how the reply to a request has to begin: the function, and all that the protocol echoes. Two requests of one unit
// with the same head have replies that can't be told apart on RTU. It is comparable.
type head struct {
	b [7]byte
	n int
}

// headOf makes the head of the reply to a request that checkRequest has accepted.
func headOf(req []byte) (h head) {
	set := func(p ...byte) { h.n = copy(h.b[:], p) }
	switch req[0] {
	case FuncReadCoils, FuncReadDiscreteInputs:
		set(req[0], byte(packed(word(req[3:]))))
	case FuncReadHoldingRegisters, FuncReadInputRegisters, FuncReadWriteMultiple:
		set(req[0], byte(2*word(req[3:])))
	case FuncWriteSingleCoil, FuncWriteSingleRegister, FuncMaskWriteRegister:
		set(req...)
	case FuncWriteMultipleCoils, FuncWriteMultipleRegisters:
		set(req[:5]...)
	case FuncDiagnostics, FuncEncapsulated:
		set(req[:min(3, len(req))]...)
		if req[0] == FuncEncapsulated && h.b[1] != meiDeviceIdentification {
			h.n = min(2, h.n)
		}
	default:
		set(req[0])
	}
	return h
}

func (h *head) function() byte { return h.b[0] }

// counted says whether the head ends with the byte count of data.
func (h *head) counted() bool {
	return h.function() <= FuncReadInputRegisters || h.function() == FuncReadWriteMultiple
}

// answers says whether a whole PDU is the answer to the request with this head: its data or an exception.
func (h *head) answers(pdu []byte) bool {
	if len(pdu) == 2 && pdu[0] == h.function()|0x80 {
		return true
	}
	if len(pdu) < 2 || !bytes.HasPrefix(pdu, h.b[:h.n]) {
		return false
	}
	size := replySize(pdu)
	return size == len(pdu) || size == unknownSize
}

// exceptionOf is the exception in a PDU that answers.
func exceptionOf(pdu []byte) (Exception, bool) {
	if pdu[0]&0x80 == 0 {
		return 0, false
	}
	return Exception(pdu[1]), true
}

const (
	needMore    = 0
	unknownSize = -1
)

// replySize is the size of the reply PDU that begins with p, needMore, or unknownSize where the function doesn't say.
func replySize(p []byte) int {
	if len(p) == 0 {
		return needMore
	}
	if p[0] > 127 {
		return 2
	}
	switch p[0] {
	case FuncReadExceptionStatus:
		return 2
	case FuncWriteSingleCoil, FuncWriteSingleRegister, FuncWriteMultipleCoils, FuncWriteMultipleRegisters, FuncCommEventCounter, FuncDiagnostics:
		return 5
	case FuncMaskWriteRegister:
		return 7
	case FuncReadCoils, FuncReadDiscreteInputs, FuncReadHoldingRegisters, FuncReadInputRegisters, FuncReadWriteMultiple,
		FuncCommEventLog, FuncReportServerID, FuncReadFileRecord, FuncWriteFileRecord:
		if len(p) < 2 {
			return needMore
		}
		return 2 + int(p[1])
	case FuncReadFIFOQueue:
		if len(p) < 3 {
			return needMore
		}
		return 3 + word(p[1:])
	case FuncEncapsulated:
		return identificationSize(p)
	}
	return unknownSize
}

// ReplySize is the size of the longest reply PDU to a request: what a plan has to reckon with.
func ReplySize(request []byte) int {
	if checkRequest(request) != nil {
		return maxPDU
	}
	h := headOf(request)
	if size := replySize(h.b[:h.n]); size > 0 {
		return size
	}
	return maxPDU
}

// packed is how many bytes a number of bits takes.
func packed(bits int) int { return (bits + 7) / 8 }

func word(p []byte) int { return int(binary.BigEndian.Uint16(p)) }
