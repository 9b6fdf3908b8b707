package buffer

import (
	"encoding/binary"
	"hash/crc32"
)

// Small values that are not records carry a checksum over their key and themselves: bbolt has none, and a damaged one would be believed.

func sealed(key, value []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(value)), sum), value...)
}

// unseal returns the value; false if it is not as it was written.
func unseal(key, stored []byte) ([]byte, bool) {
	if len(stored) < 4 {
		return nil, false
	}
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, stored[4:])
	return stored[4:], sum == binary.BigEndian.Uint32(stored)
}
