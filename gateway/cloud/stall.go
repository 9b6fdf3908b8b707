package cloud

import (
	"bufio"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// stallAfter is how long a packet of ours may be unanswered before what
	// comes in counts as held back.
	stallAfter = 3 * time.Second
	// stallEcho is how long after such a message others count too: the library
	// hands them over later than they were read.
	stallEcho = time.Second
	// maxPacket ends a connection that announces more, before memory is taken.
	maxPacket = 8 << 20
)

// MQTT control packets, as in the first four bits of their headers.
const (
	packetPublish   = 3
	packetPuback    = 4
	packetSubscribe = 8
	packetSuback    = 9
	packetPing      = 12
	packetPong      = 13
)

// answered gives the packet that a packet answers.
var answered = map[byte]byte{packetPuback: packetPublish, packetSuback: packetSubscribe, packetPong: packetPing}

// watched is a connection that knows which packets of ours are unanswered. A
// line that stood still delivers what the broker sent meanwhile in order, and
// so before the answers that are due. It reads ahead, since the library takes a
// packet in three bites.
type watched struct {
	net.Conn
	stalled *atomic.Pointer[time.Time] // when a message was last read behind an overdue answer
	ahead   *bufio.Reader              // of receive

	mu         sync.Mutex
	unanswered map[byte][]time.Time // when they were sent, by kind
	in, out    frames
}

func watch(c net.Conn, stalled *atomic.Pointer[time.Time]) *watched {
	w := &watched{Conn: c, stalled: stalled, unanswered: map[byte][]time.Time{}}
	w.ahead = bufio.NewReader(receiver(w.receive))
	return w
}

// receiver is a function that reads.
type receiver func(b []byte) (int, error)

func (f receiver) Read(b []byte) (int, error) { return f(b) }

// Write notes the packets that want an answer.
func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	err := w.out.feed(b, func(kind, flags byte) {
		if kind == packetPing || kind == packetSubscribe || kind == packetPublish && flags&6 == 2 {
			w.unanswered[kind] = append(w.unanswered[kind], time.Now())
		}
	})
	w.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return w.Conn.Write(b)
}

// Read gives what was received.
func (w *watched) Read(b []byte) (int, error) { return w.ahead.Read(b) }

// receive notes the answers, and messages that come while one is overdue.
func (w *watched) receive(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	fault := w.in.feed(b[:n], func(kind, _ byte) {
		if kind == packetPublish && w.overdue() {
			now := time.Now()
			w.stalled.Store(&now)
		}
		if q := answered[kind]; len(w.unanswered[q]) > 0 {
			w.unanswered[q] = w.unanswered[q][1:]
		}
	})
	if err == nil {
		err = fault
	}
	return n, err
}

func (w *watched) overdue() bool {
	for _, since := range w.unanswered {
		if len(since) > 0 && time.Since(since[0]) > stallAfter {
			return true
		}
	}
	return false
}

// frames divides a stream of bytes into MQTT packets.
type frames struct {
	head  byte
	state int // 0: a header comes, 1: a length, 2: the rest
	left  int
	shift uint
}

// feed takes bytes and tells of each packet that is whole.
func (f *frames) feed(b []byte, whole func(kind, flags byte)) error {
	for len(b) > 0 {
		switch f.state {
		case 0:
			f.head, f.left, f.shift, f.state = b[0], 0, 0, 1
			b = b[1:]
			continue
		case 1:
			f.left |= int(b[0]&0x7F) << f.shift
			if f.shift += 7; b[0]&0x80 == 0 {
				f.state = 2
			}
			b = b[1:]
			if f.left > maxPacket || f.shift > 28 {
				return fmt.Errorf("a packet of more than %d bytes", maxPacket)
			}
		case 2:
			n := min(len(b), f.left)
			f.left -= n
			b = b[n:]
		}
		if f.state == 2 && f.left == 0 {
			f.state = 0
			whole(f.head>>4, f.head&15)
		}
	}
	return nil
}
