package cloud

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway"
)

// TestAWindowOwesAnAnswerForEachMessage: when a platform begins to answer, its
// answers to what went out before confirm nothing of what comes then.
func TestAWindowOwesAnAnswerForEachMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l, received := online(t, gateway.Cloud{Confirm: byAuto, LateTS: "none"})
		defer l.fail(errors.New("end"))
		n := s.lanes[gateway.ReportRecord]
		for range silencesToPuback {
			n.confirm.silence()
		}
		const window = 5
		var records []gateway.Record
		for i := range window {
			records = append(records, count(i))
		}
		confirmed := publishing(t.Context(), s, records...)
		for _, m := range arrived(received) {
			puback(m)
		}
		if c := <-confirmed; c != window {
			t.Fatal(c)
		}
		time.Sleep(time.Second)
		n.hear(answer{}) // to the first one
		confirmed = publishing(t.Context(), s, count(99))
		for range window - 1 { // to the others: they are over before it goes out, or are not for it
			for _, m := range arrived(received) {
				puback(m)
			}
			synctest.Wait()
			n.hear(answer{})
			synctest.Wait()
		}
		select {
		case c := <-confirmed:
			t.Errorf("%d confirmed by answers to messages before it", c)
		default:
		}
		for _, m := range arrived(received) {
			puback(m)
		}
		synctest.Wait()
		n.hear(answer{})
		if c := <-confirmed; c != 1 {
			t.Error("its own answer doesn't confirm it")
		}
	})
}

// TestALargeReportAndALimit: the parts of a report that is sent in several go as
// far apart as the platform wants, and each is stored once.
func TestALargeReportAndALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l, received := online(t, gateway.Cloud{Confirm: byResponse, LateTS: "none", MinInterval: time.Second})
		defer l.fail(errors.New("end"))
		n := s.lanes[gateway.ReportRecord]
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var stored time.Time
		parts, refused := 0, 0
		go func() {
			for m := range received {
				puback(m)
				time.Sleep(10 * time.Millisecond)
				if !stored.IsZero() && time.Since(stored) < 5*time.Second {
					refused++
					n.hear(answer{code: 1, msg: "too frequent"})
					continue
				}
				stored = time.Now()
				parts++
				n.hear(answer{})
			}
		}()
		long := strings.Repeat("x", 40_000)
		for i := range 10 { // the next one knows the pace of the one before
			if c, err := s.Publish(ctx, []gateway.Record{count(i, long, long, long)}); c != 1 || err != nil {
				t.Errorf("%d confirmed, %v", c, err)
			}
			if time.Since(stored) < 5*time.Second {
				t.Errorf("the next message may go out %v after the last part", time.Since(stored))
			}
		}
		if parts != 30 || refused == 0 || refused > 6 {
			t.Errorf("%d parts stored, %d refused", parts, refused)
		}
	})
}

// TestUnreadableAnswersAreSilence: as long as no answer was ever read, a message
// counts as delivered at the timeout.
func TestUnreadableAnswersAreSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l, received := online(t, gateway.Cloud{Confirm: byAuto, LateTS: "none"})
		defer l.fail(errors.New("end"))
		n := s.lanes[gateway.ReportRecord]
		sent := 0
		go func() {
			for m := range received {
				sent++
				puback(m)
				time.Sleep(10 * time.Millisecond)
				n.hear(parseAnswer([]byte(`{"code":0,"msg":"OK"}`)))
			}
		}()
		for i := range 5 {
			if c, err := s.Publish(t.Context(), []gateway.Record{count(i)}); c != 1 {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if mode := n.confirm.mode(); sent != 5 || mode != byPuback {
			t.Errorf("sent %d times, mode %s", sent, mode)
		}
	})
}

// TestConnectionsThatNeverLast are one outage: another gateway has the same client
// id, say. The attempts get fewer, and the log doesn't fill.
func TestConnectionsThatNeverLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var book bytes.Buffer
		s, err := New(Config{Cloud: gateway.Cloud{URL: "mqtt://broker"}, Login: gateway.Login{User: "plant1"}, Log: slog.New(slog.NewTextHandler(&book, nil))})
		if err != nil {
			t.Fatal(err)
		}
		var b backoff
		attempts := 0
		hour := func(up time.Duration) {
			for start := time.Now(); time.Since(start) < time.Hour; attempts++ { // as Run does
				l := newLink(time.Minute)
				l.since = time.Now()
				s.offer(l)
				time.Sleep(up)
				l.fail(errors.New("EOF"))
				s.forget(l)
				steady := up >= s.limits.steady
				if steady {
					b = backoff{}
				}
				time.Sleep(s.limits.delay(&b, s.failed(l.err, steady), false))
			}
		}
		hour(2 * time.Second)
		if lines := strings.Count(book.String(), "\n"); attempts > 250 || lines > 4 {
			t.Errorf("%d attempts in an hour, the log says\n%s", attempts, book.String())
		}
		book.Reset()
		hour(10 * time.Minute) // the control: outages of their own
		if lines := strings.Count(book.String(), "\n"); lines < 10 {
			t.Errorf("the log says\n%s", book.String())
		}
	})
}

// TestTheLogsLastWordIsTrue: after a connection of seconds in the middle of an
// outage there is none for hours.
func TestTheLogsLastWordIsTrue(t *testing.T) {
	var o outage
	now, last := time.Now(), ""
	o.begin(now)
	fail := func(reason string) {
		now = now.Add(3 * time.Second)
		if _, news := o.note(now, errors.New(reason)); news {
			last = "no connection"
		}
	}
	for range 2 {
		fail("connection refused")
		now = now.Add(3 * time.Second)
		if _, _, news := o.connected(now); news {
			last = "connected"
		}
		fail("EOF")
	}
	for range 1000 {
		fail("connection refused")
	}
	if last != "no connection" {
		t.Errorf("it is %q", last)
	}
}
