package cloud

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// counting counts the pieces that are written, each of which takes a time.
type counting struct {
	net.Conn
	takes  time.Duration
	pieces int
}

func (c *counting) Write(b []byte) (int, error) {
	time.Sleep(c.takes)
	c.pieces++
	return c.Conn.Write(b)
}

func TestPacketsAreGatheredWholeAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const packets = 10_000
		near, far := net.Pipe()
		inner := &counting{Conn: near, takes: time.Millisecond}
		g := gather(inner, time.Second)
		go func() {
			for n := range uint32(packets) {
				if _, err := g.Write(binary.BigEndian.AppendUint32(nil, n)); err != nil {
					t.Error(err)
				}
			}
			g.Close() // and what waits is still written
		}()
		got, err := io.ReadAll(far)
		if err != nil || len(got) != 4*packets {
			t.Fatalf("%d bytes arrive, %v", len(got), err)
		}
		for n := range uint32(packets) {
			if m := binary.BigEndian.Uint32(got[4*n:]); m != n {
				t.Fatalf("packet %d arrives in place of %d", m, n)
			}
		}
		if inner.pieces > packets/100 {
			t.Errorf("%d pieces", inner.pieces)
		}
	})
}

// TestALineThatTakesNothing: no more than a bound waits, the reader learns why
// the connection ends, and an end by ourselves is quick.
func TestALineThatTakesNothing(t *testing.T) {
	for _, closed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const packet = 1000
			near, far := net.Pipe()
			defer far.Close()
			g := gather(near, 10*time.Second)
			begin, taken := time.Now(), 0
			written := make(chan error)
			go func() {
				for {
					n, err := g.Write(make([]byte, packet))
					if taken += n; err != nil {
						written <- err
						return
					}
				}
			}()
			want, after := error(os.ErrDeadlineExceeded), 10*time.Second
			if closed {
				synctest.Wait()
				g.Close()
				want, after = net.ErrClosed, goodbye
			}
			if _, err := g.Read(make([]byte, 1)); !errors.Is(err, want) || time.Since(begin) != after {
				t.Errorf("the reader gets %v after %v", err, time.Since(begin))
			}
			if err := <-written; !errors.Is(err, want) {
				t.Errorf("the writer gets %v", err)
			}
			if taken > 2*(gatherMost+packet) {
				t.Errorf("%d bytes wait", taken)
			}
			g.Close()
		})
	}
}
