package wire

import "bufio"

// ReadRTURequest reads the next valid request frame, for a simulated slave or converter. What is no frame is passed over.
// The reader must be kept for the next call: it holds what came after the frame.
func ReadRTURequest(r *bufio.Reader) (unit byte, pdu []byte, err error) {
	for need := 4; ; {
		if _, err := r.Peek(need); err != nil {
			return 0, nil, err
		}
		b, _ := r.Peek(r.Buffered())
		start, size := findRequest(b)
		if size == 0 && len(b) < 2*maxRTU {
			need = len(b) + 1
			continue
		}
		if size == 0 {
			start = len(b) - maxRTU
			need = maxRTU + 1
		}
		frame := append([]byte(nil), b[start:start+size]...)
		if _, err := r.Discard(start + size); err != nil {
			return 0, nil, err
		}
		if size > 0 {
			return frame[0], frame[1 : size-2], nil
		}
	}
}

// findRequest finds the first valid request frame in b; size 0 is none.
func findRequest(b []byte) (start, size int) {
	for i := range b {
		n := requestSize(b[i+1:])
		if n <= 0 || n > maxPDU || i+n+3 > len(b) || !sealed(b[i:i+n+3]) {
			continue
		}
		return i, n + 3
	}
	return 0, 0
}

// requestSize is the size of the request PDU that begins with p, needMore, or unknownSize.
func requestSize(p []byte) int {
	if len(p) == 0 {
		return needMore
	}
	counted := func(at int) int {
		if len(p) <= at {
			return needMore
		}
		return at + 1 + int(p[at])
	}
	switch p[0] {
	case FuncReadCoils, FuncReadDiscreteInputs, FuncReadHoldingRegisters, FuncReadInputRegisters,
		FuncWriteSingleCoil, FuncWriteSingleRegister, FuncDiagnostics:
		return 5
	case FuncReadExceptionStatus, FuncCommEventCounter, FuncCommEventLog, FuncReportServerID:
		return 1
	case FuncWriteMultipleCoils, FuncWriteMultipleRegisters:
		return counted(5)
	case FuncReadFileRecord, FuncWriteFileRecord:
		return counted(1)
	case FuncMaskWriteRegister:
		return 7
	case FuncReadWriteMultiple:
		return counted(9)
	case FuncReadFIFOQueue:
		return 3
	case FuncEncapsulated:
		return 4
	}
	return unknownSize
}
