package cloud

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"
)

// outage is a time without a connection. It tells news from what was said
// before, so that an outage of days leaves a few lines in the log.
type outage struct {
	since  time.Time
	down   bool
	causes map[string]bool // that were said
	told   bool            // that there is a connection, since the last of them
	last   time.Time       // when there was one
}

// toldFor is how long the log may say that there is a connection, after it has ended.
const toldFor = time.Minute

func (o *outage) begin(now time.Time) { *o = outage{since: now, down: true} }

// note takes the reason of a failure: how long the outage has lasted, and
// whether the reason is new in it.
func (o *outage) note(now time.Time, err error) (down time.Duration, news bool) {
	if !o.down {
		o.begin(now)
	}
	if o.causes == nil {
		o.causes = map[string]bool{}
	}
	c := cause(err)
	// What the log has said last has to be right for hours.
	if news = !o.causes[c] || o.told && now.Sub(o.last) > toldFor; news {
		o.causes[c], o.told = true, false
	}
	return now.Sub(o.since), news
}

// connected tells how long the outage was, whether anything was said of it, and
// whether the connection is news: the outage only ends when one lasts.
func (o *outage) connected(now time.Time) (down time.Duration, said, news bool) {
	news, o.told, o.last = !o.told, true, now
	return now.Sub(o.since).Round(100 * time.Millisecond), len(o.causes) > 0, news
}

// cause is the error without what differs from one attempt to the next: the
// local port, and the time that a certificate does not cover.
func cause(err error) string {
	var op *net.OpError
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) {
		return fmt.Sprint("certificate: ", invalid.Reason)
	}
	if errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}
