package wire

// crcTable holds the CRC-16/MODBUS remainders of all byte values.
var crcTable = func() (t [256]uint16) {
	for i := range t {
		v := uint16(i)
		for range 8 {
			if v&1 != 0 {
				v = v>>1 ^ 0xA001
			} else {
				v >>= 1
			}
		}
		t[i] = v
	}
	return t
}()

// CRC is the checksum of an RTU frame: polynomial 0xA001, start 0xFFFF. It is sent low byte first.
func CRC(data []byte) uint16 {
	sum := uint16(0xFFFF)
	for _, b := range data {
		sum = sum>>8 ^ crcTable[byte(sum)^b]
	}
	return sum
}

// AppendRTU appends the RTU frame of a PDU: unit, PDU, checksum. Requests and replies look alike.
func AppendRTU(dst []byte, unit byte, pdu []byte) []byte {
	start := len(dst)
	dst = append(dst, unit)
	dst = append(dst, pdu...)
	sum := CRC(dst[start:])
	return append(dst, byte(sum), byte(sum>>8))
}

// sealed says whether a whole RTU frame ends with its own checksum: then the checksum of everything is zero.
func sealed(frame []byte) bool {
	return len(frame) >= 4 && CRC(frame) == 0
}
