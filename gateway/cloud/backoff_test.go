package cloud

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"
)

func TestReconnectDelaysAreShortForTenMinutesThenGrow(t *testing.T) {
	for range 100 {
		var b backoff
		for i, base := range []time.Duration{1, 2, 3, 3, 3, 3} {
			base *= time.Second
			if d := b.next(time.Duration(i)*time.Minute, false); d < base*3/4 || d > base*5/4 || d > 4*time.Second {
				t.Fatalf("delay %d is %v, want about %v", i, d, base)
			}
		}
		for i, base := range []time.Duration{6, 12, 24, 48, 60, 60} {
			base *= time.Second
			if d := b.next(quickFor, false); d < base*3/4 || d > base*5/4 || d > time.Minute {
				t.Fatalf("late delay %d is %v, want about %v", i, d, base)
			}
		}
	}
}

func TestRefusedLoginWaitsLong(t *testing.T) {
	var b backoff
	if d := b.next(0, true); d < 45*time.Second || d > time.Minute {
		t.Errorf("delay is %v, want about a minute", d)
	}
}

func TestOutageIsSaidOncePerCause(t *testing.T) {
	var o outage
	start := time.Now()
	reset := func(port int) error {
		return &net.OpError{Op: "read", Source: &net.TCPAddr{Port: port}, Err: errors.New("connection reset by peer")}
	}
	expired := func(detail string) error {
		return fmt.Errorf("connect: %w", x509.CertificateInvalidError{Reason: x509.Expired, Detail: detail})
	}
	for i, c := range []struct {
		err  error
		news bool
	}{
		{errors.New("EOF"), true}, {reset(1), true}, {reset(2), false}, {errors.New("EOF"), false}, {errors.New("refused"), true},
		{expired("now 10:00:00"), true}, {expired("now 10:00:03"), false},
	} {
		down, news := o.note(start.Add(time.Duration(i)*time.Second), c.err)
		if news != c.news || down != time.Duration(i)*time.Second {
			t.Errorf("note %d is %v, %v", i, down, news)
		}
	}
	if down, said, news := o.connected(start.Add(time.Minute)); down != time.Minute || !said || !news {
		t.Errorf("the connection is %v, %v, %v", down, said, news)
	}
	if _, news := o.note(start.Add(time.Minute), errors.New("EOF")); news {
		t.Error("a connection that doesn't last ends the outage")
	}
	if _, _, news := o.connected(start.Add(2 * time.Minute)); news {
		t.Error("each connection that doesn't last is told of")
	}
	o.note(start.Add(2*time.Minute), errors.New("another"))
	if _, _, news := o.connected(start.Add(3 * time.Minute)); !news {
		t.Error("the last that is said is that there is no connection")
	}
	o.begin(start)
	if _, news := o.note(start, errors.New("EOF")); !news {
		t.Error("the next outage is silent")
	}
}
