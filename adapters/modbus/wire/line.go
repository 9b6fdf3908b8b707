package wire

import "time"

// DefaultCharBits is the length of a character by the serial line specification: start, eight data bits, parity or a second
// stop bit, stop. 8N1 has 10.
const DefaultCharBits = 11

// LineTime is how long a number of bytes takes on a serial line. Baud 0 is no line: 0. CharBits 0 is 11.
func LineTime(bytes, baud, charBits int) time.Duration {
	if baud <= 0 {
		return 0
	}
	if charBits <= 0 {
		charBits = DefaultCharBits
	}
	return time.Duration(bytes*charBits) * time.Second / time.Duration(baud)
}

// FrameTime is the line time of a request's RTU frame and of the longest reply to it, without silence and turn-around.
func FrameTime(request []byte, baud, charBits int) (send, receive time.Duration) {
	return LineTime(len(request)+3, baud, charBits), LineTime(ReplySize(request)+3, baud, charBits)
}

// QuietTime is the silence that separates frames: 3.5 characters, or 1.75 ms above 19,200 Bd and where there is no line.
func QuietTime(baud, charBits int) time.Duration {
	if baud <= 0 || baud > 19200 {
		return 1750 * time.Microsecond
	}
	return LineTime(7, baud, charBits) / 2
}
