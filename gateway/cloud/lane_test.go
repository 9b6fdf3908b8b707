package cloud

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"sluice/gateway"
)

// token is a publish token whose PUBACK the test decides on.
type token struct {
	mqtt.PublishToken
	done chan struct{}
	err  error
}

func (t *token) Done() <-chan struct{} { return t.done }
func (t *token) Error() error          { return t.err }

// wire is a link whose messages the test receives in place of a client.
func wire() (*link, <-chan *message) {
	l := newLink(time.Minute)
	l.since = time.Now()
	received := make(chan *message)
	go func() {
		for {
			select {
			case m := <-l.out:
				m.token = &token{done: make(chan struct{})}
				close(m.sent)
				received <- m
			case <-l.lost:
				close(received)
				return
			}
		}
	}()
	return l, received
}

func puback(m *message) { close(m.token.(*token).done) }

func testLane(setting string) *lane {
	return newLane(Attributes, AttributesResponse, "plant1", 5*time.Second, &confirmation{setting: setting, log: slog.New(slog.DiscardHandler)})
}

// asking asks in the background; the error comes by the channel.
func asking(ctx context.Context, n *lane, l *link, payload string) <-chan error {
	result := make(chan error, 1)
	go func() { result <- n.ask(ctx, l, packet{n.topic, []byte(payload)}, named(payload)) }()
	return result
}

// named is the record that a payload of these tests stands for.
func named(payload string) *gateway.Record { return &gateway.Record{Name: payload} }

func TestMessageIsConfirmedByItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testLane(byResponse)
		l, received := wire()
		defer l.fail(errors.New("end"))
		result := asking(t.Context(), n, l, "1")
		m := <-received
		n.hear(answer{}) // before the PUBACK: somebody else's
		puback(m)
		synctest.Wait()
		select {
		case err := <-result:
			t.Fatalf("confirmed by an answer that came before the PUBACK: %v", err)
		default:
		}
		time.Sleep(time.Second)
		n.hear(answer{code: 7, msg: "no"})
		var refusal *gateway.Refusal
		if err := <-result; !errors.As(err, &refusal) || refusal.Code != 7 {
			t.Errorf("error is %v", err)
		}
	})
}

func TestSilenceHoldsTheLaneOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testLane(byResponse)
		l, received := wire()
		defer l.fail(errors.New("end"))
		result := asking(t.Context(), n, l, "1")
		time.Sleep(3 * time.Second) // the time of the answer runs from the PUBACK
		puback(<-received)
		acked := time.Now()
		if err := <-result; err == nil || !strings.Contains(err.Error(), "no answer on attributes_response/plant1 within 5s") {
			t.Errorf("error is %v", err)
		}
		if waited := time.Since(acked); waited != 5*time.Second {
			t.Errorf("gave up after %v", waited)
		}
		result = asking(t.Context(), n, l, "2")
		m := <-received
		if waited := time.Since(acked); waited != 10*time.Second {
			t.Errorf("sent again after %v", waited)
		}
		puback(m)
		synctest.Wait()
		n.hear(answer{})
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

// TestASilenceHoldsTheSameMessageOffToo, so that a slow platform is not asked
// faster and faster.
func TestASilenceHoldsTheSameMessageOffToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testLane(byResponse)
		l, received := wire()
		defer l.fail(errors.New("end"))
		result := asking(t.Context(), n, l, "1")
		puback(<-received)
		acked := time.Now()
		<-result
		asking(t.Context(), n, l, "1")
		<-received
		if waited := time.Since(acked); waited != 10*time.Second {
			t.Errorf("sent again after %v", waited)
		}
	})
}

// TestAnAnswerLeftBehindConfirmsNothing: it came in the moment in which the time
// for it was over.
func TestAnAnswerLeftBehindConfirmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testLane(byResponse)
		l, received := wire()
		defer l.fail(errors.New("end"))
		n.answers <- answer{}
		result := asking(t.Context(), n, l, "2")
		puback(<-received)
		if err := <-result; !errors.Is(err, gateway.ErrUnanswered) {
			t.Errorf("error is %v", err)
		}
	})
}

// TestAnAnswerToTheSessionBeforeConfirmsNothing: a reload exchanges the session
// while answers may still come. The control is a session that doesn't follow it.
func TestAnAnswerToTheSessionBeforeConfirmsNothing(t *testing.T) {
	for _, c := range []struct{ acked, follows bool }{{true, true}, {false, true}, {true, false}} {
		synctest.Test(t, func(t *testing.T) {
			old, n := testLane(byAuto), testLane(byAuto)
			old.confirm.heard()
			l, received := wire()
			ctx, cancel := context.WithCancel(t.Context())
			result := asking(ctx, old, l, "1")
			if m := <-received; c.acked {
				puback(m)
				synctest.Wait()
			}
			cancel()
			<-result
			l.fail(errors.New("end"))
			if c.follows {
				n.follow(old)
			}
			l, received = wire()
			defer l.fail(errors.New("end"))
			result = asking(t.Context(), n, l, "2")
			time.Sleep(time.Second)
			select {
			case m := <-received:
				puback(m)
				synctest.Wait()
				n.hear(answer{}) // to 1
				if err := <-result; (err == nil) == c.follows {
					t.Errorf("%+v: the answer to 1 says of 2: %v", c, err)
				}
			default:
				if !c.follows {
					t.Error("the control is held off")
				}
				n.hear(answer{}) // to 1
				puback(<-received)
				synctest.Wait()
				n.hear(answer{code: 7})
				var refusal *gateway.Refusal
				if err := <-result; !errors.As(err, &refusal) {
					t.Errorf("%+v: %v", c, err)
				}
			}
		})
	}
}

// TestAProcessThatCountsAnswersKnowsOfOneThatDidNot: confirm may have been puback
// until it was stopped.
func TestAProcessThatCountsAnswersKnowsOfOneThatDidNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, l, received := online(t, gateway.Cloud{Confirm: byPuback})
		done := publishing(t.Context(), before, count(1))
		puback(<-received)
		if n := <-done; n != 1 {
			t.Fatalf("%d confirmed", n)
		}
		l.fail(errors.New("end"))
		for _, c := range []struct {
			after time.Duration
			owed  bool
		}{{0, true}, {11 * time.Second, false}} {
			time.Sleep(c.after)
			after := &Session{lanes: map[gateway.RecordKind]*lane{gateway.ReportRecord: before.answered(Attributes, AttributesResponse)}}
			n := after.lanes[gateway.ReportRecord]
			n.confirm.setting = byResponse
			after.remember(before.Memory(false))
			if (n.owed > 0) != c.owed {
				t.Errorf("after %s: %d answers are expected", c.after, n.owed)
			}
		}
	})
}

func TestLateAnswerEndsTheHoldOffAndConfirmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testLane(byResponse)
		l, received := wire()
		defer l.fail(errors.New("end"))
		result := asking(t.Context(), n, l, "1")
		puback(<-received)
		<-result
		result = asking(t.Context(), n, l, "2")
		time.Sleep(time.Second)
		late := time.Now()
		n.hear(answer{}) // to 1
		m := <-received
		if time.Now() != late {
			t.Errorf("went on %v after the late answer", time.Since(late))
		}
		puback(m)
		if err := <-result; err == nil {
			t.Error("the late answer to 1 confirmed 2")
		}
	})
}

func TestMessageLeftWithoutPubackHoldsTheNextConnectionOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testLane(byResponse)
		l, received := wire()
		result := asking(t.Context(), n, l, "1")
		<-received
		l.fail(errors.New("EOF"))
		if err := <-result; err == nil || err.Error() != "connection lost: EOF" {
			t.Errorf("error is %v", err)
		}
		time.Sleep(20 * time.Second)
		l, received = wire()
		defer l.fail(errors.New("end"))
		result = asking(t.Context(), n, l, "2")
		m := <-received
		if waited := time.Since(l.since); waited != 10*time.Second {
			t.Errorf("sent %v after the connection", waited)
		}
		puback(m)
		synctest.Wait()
		n.hear(answer{})
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

// TestTheSameMessageGoesOutAtOnceAfterAReconnect: any answer is an answer to it,
// also to the copy that the lost connection took along. What follows is held off.
func TestTheSameMessageGoesOutAtOnceAfterAReconnect(t *testing.T) {
	for _, acked := range []bool{false, true} {
		for _, both := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				n := testLane(byResponse)
				l, received := wire()
				result := asking(t.Context(), n, l, "1")
				if m := <-received; acked {
					puback(m)
					synctest.Wait()
				}
				l.fail(errors.New("EOF"))
				if err := <-result; !errors.Is(err, gateway.ErrLost) {
					t.Errorf("error is %v", err)
				}
				time.Sleep(time.Second)
				l, received = wire()
				defer l.fail(errors.New("end"))
				result = asking(t.Context(), n, l, "1")
				m := <-received
				if waited := time.Since(l.since); waited != 0 {
					t.Errorf("sent again %v after the connection", waited)
				}
				puback(m)
				synctest.Wait()
				n.hear(answer{})
				if err := <-result; err != nil {
					t.Error(err)
				}
				if both {
					n.hear(answer{})
				}
				result = asking(t.Context(), n, l, "2")
				m = <-received
				if waited := time.Since(l.since); both != (waited == 0) || waited > 10*time.Second {
					t.Errorf("with both answers: %v, and what follows is sent %v after the connection", both, waited)
				}
				puback(m)
				synctest.Wait()
				n.hear(answer{code: 7})
				var refusal *gateway.Refusal
				if err := <-result; !errors.As(err, &refusal) {
					t.Errorf("error is %v", err)
				}
			})
		}
	}
}

// TestAutoFallsBackWhenAnswersHaveStoppedForGood, and not before.
func TestAutoFallsBackWhenAnswersHaveStoppedForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testLane(byAuto)
		n.hear(answer{})
		l, received := wire()
		defer l.fail(errors.New("end"))
		begin := time.Now()
		for {
			result := asking(t.Context(), n, l, "x")
			puback(<-received)
			if err := <-result; err == nil {
				break
			} else if !errors.Is(err, gateway.ErrUnanswered) {
				t.Fatal(err)
			}
		}
		if waited := time.Since(begin); waited < goneAfter || waited > goneAfter+time.Minute || n.confirm.mode() != byPuback {
			t.Errorf("mode is %s after %v", n.confirm.mode(), waited)
		}
		n.hear(answer{})
		if n.confirm.mode() != byResponse {
			t.Error("an answer does not bring them back")
		}
	})
}

// TestAnswersAreGivenUpOnlyAfterHalfAnHourAndTwentySilences in a row.
func TestAnswersAreGivenUpOnlyAfterHalfAnHourAndTwentySilences(t *testing.T) {
	for _, c := range []struct {
		silences int
		over     time.Duration
		heard    int // an answer comes in front of this silence; 0: none
		gone     bool
	}{
		{20, 30 * time.Minute, 0, true},
		{20, 30*time.Minute - 1, 0, false},
		{19, time.Hour, 0, false},
		{1000, 30*time.Minute - 1, 0, false},
		{25, time.Hour, 10, false},
		{60, 50 * time.Minute, 30, false},
		{30, 2 * time.Hour, 10, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			confirm := testLane(byAuto).confirm
			confirm.heard()
			delivered := false
			for i := range c.silences {
				if i > 0 {
					time.Sleep(c.over*time.Duration(i)/time.Duration(c.silences-1) - c.over*time.Duration(i-1)/time.Duration(c.silences-1))
				}
				if c.heard > 0 && i == c.heard {
					confirm.heard()
				}
				delivered = confirm.silence()
			}
			if delivered != c.gone || (confirm.mode() == byPuback) != c.gone {
				t.Errorf("%+v: delivered: %v, mode %s", c, delivered, confirm.mode())
			}
		})
	}
}

// online is a session on a wire.
func online(t *testing.T, c gateway.Cloud) (*Session, *link, <-chan *message) {
	t.Helper()
	c.URL = "mqtt://broker"
	s, err := New(Config{Cloud: c, Login: gateway.Login{User: "plant1"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, received := wire()
	s.offer(l)
	return s, l, received
}

// publishing publishes in the background.
func publishing(ctx context.Context, s *Session, records ...gateway.Record) <-chan int {
	confirmed := make(chan int, 1)
	go func() {
		n, _ := s.Publish(ctx, records)
		confirmed <- n
	}()
	return confirmed
}

// arrived gives what is sent without anything more to happen.
func arrived(received <-chan *message) (messages []*message) {
	for {
		synctest.Wait()
		select {
		case m := <-received:
			messages = append(messages, m)
		default:
			return messages
		}
	}
}

// count is a report {"n":n}; with text it is as long as that.
func count(n int, text ...string) gateway.Record {
	r := gateway.Record{Kind: gateway.ReportRecord, Time: time.Now(), Values: []gateway.Attribute{{Name: "n", Value: gateway.IntValue(int64(n))}}}
	for i, text := range text {
		r.Values = append(r.Values, gateway.Attribute{Name: "t" + strconv.Itoa(i), Value: gateway.TextValue(text)})
	}
	return r
}

// TestAtMostAHundredMessagesWaitForTheirPuback, and the next goes out when the
// first of them has its own.
func TestAtMostAHundredMessagesWaitForTheirPuback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l, received := online(t, gateway.Cloud{Confirm: byPuback, LateTS: "none"})
		defer l.fail(errors.New("end"))
		var records []gateway.Record
		for i := range 250 {
			records = append(records, count(i))
		}
		confirmed := publishing(t.Context(), s, records...)
		messages := arrived(received)
		if len(messages) != 100 {
			t.Fatalf("%d messages in flight", len(messages))
		}
		puback(messages[1])
		if more := arrived(received); len(more) != 0 {
			t.Errorf("%d more, and the first is not acknowledged", len(more))
		}
		puback(messages[0])
		messages = append(messages, arrived(received)...)
		if len(messages) != 102 {
			t.Fatalf("%d messages when two are acknowledged", len(messages))
		}
		for i := 2; i < len(messages); i++ {
			if want := `{"n":` + strconv.Itoa(i) + `}`; string(messages[i].payload) != want {
				t.Fatalf("message %d is %s", i, messages[i].payload)
			}
			puback(messages[i])
			messages = append(messages, arrived(received)...)
		}
		if n := <-confirmed; n != 250 || len(messages) != 250 {
			t.Errorf("%d confirmed, %d sent", n, len(messages))
		}
	})
}

// TestWhatIsLeftWithoutPubackHoldsOffWhenAnswersCount: messages of a window, and
// the first part of a large report, are left when their lane ends while the
// connection stays, as in a reload. The newest of them counts.
func TestWhatIsLeftWithoutPubackHoldsOffWhenAnswersCount(t *testing.T) {
	long := strings.Repeat("x", 40_000)
	large := []string{long, long, long}
	for name, c := range map[string]struct {
		parts [][]string
		sent  int
	}{
		"a window":                  {[][]string{nil, nil, nil}, 3},
		"a part":                    {[][]string{large}, 1},
		"a part after a window":     {[][]string{nil, nil, large}, 3},
		"a part in front of others": {[][]string{large, nil}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, l, received := online(t, gateway.Cloud{Confirm: byAuto, MinInterval: time.Second})
				defer l.fail(errors.New("end"))
				n := s.lanes[gateway.ReportRecord]
				for range silencesToPuback {
					n.confirm.silence()
				}
				var records []gateway.Record
				for i, text := range c.parts {
					records = append(records, count(i, text...))
				}
				ctx, cancel := context.WithCancel(t.Context())
				confirmed := publishing(ctx, s, records...)
				messages := arrived(received)
				if len(messages) != c.sent {
					t.Fatalf("%d messages sent", len(messages))
				}
				cancel()
				if n := <-confirmed; n != 0 {
					t.Errorf("%d confirmed", n)
				}
				n.confirm.heard()
				publishing(t.Context(), s, count(7))
				last := len(messages) - 1
				for _, m := range messages[:last] {
					puback(m)
				}
				time.Sleep(30 * time.Second)
				if more := arrived(received); len(more) != 0 {
					t.Fatalf("sent: %.80s, and an earlier message has no PUBACK yet", more[0].payload)
				}
				puback(messages[last])
				acked := time.Now()
				puback(<-received)
				if waited := time.Since(acked); waited != 10*time.Second {
					t.Errorf("sent %v after the PUBACK", waited)
				}
			})
		})
	}
}

// TestAwaitHoldsOff, but not what repeats the message that a lost connection has
// taken along: all that can be answered is that.
func TestAwaitHoldsOff(t *testing.T) {
	for _, c := range []struct {
		confirm     string
		cut, repeat bool
		held        bool
	}{
		{byResponse, false, false, true},
		{byResponse, false, true, true},
		{byResponse, true, false, true},
		{byResponse, true, true, false},
		{byAuto, false, false, false},
		{byPuback, false, false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, l, received := online(t, gateway.Cloud{Confirm: c.confirm})
			defer func() { l.fail(errors.New("end")) }()
			confirmed := publishing(t.Context(), s, count(1))
			puback(<-received)
			acked := time.Now()
			if synctest.Wait(); c.cut {
				l.fail(errors.New("EOF"))
				s.forget(l)
				l, _ = wire()
				s.offer(l)
			}
			<-confirmed
			wait := time.Duration(0)
			if c.held {
				wait = 10*time.Second - time.Since(acked)
			}
			begin := time.Now()
			if err := s.Await(t.Context(), gateway.ReportRecord, c.repeat); err != nil || time.Since(begin) != wait {
				t.Errorf("%+v: held off for %v, want %v, %v", c, time.Since(begin), wait, err)
			}
		})
	}
}

func TestBrokerThatLeavesOutAPubackLosesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testLane(byPuback)
		l, received := wire()
		result := asking(t.Context(), n, l, "1")
		<-received
		if err := <-result; err == nil || err.Error() != "connection lost: no PUBACK within 1m0s" {
			t.Errorf("error is %v", err)
		}
	})
}

func TestMessageThatTheClientGaveUpIsNotConfirmed(t *testing.T) {
	for range 50 { // of two reasons to wake up, either may be looked at first
		synctest.Test(t, func(t *testing.T) {
			n := testLane(byPuback)
			l, received := wire()
			result := asking(t.Context(), n, l, "1")
			m := <-received
			synctest.Wait()
			m.token.(*token).err = errors.New("connection lost before Publish completed")
			l.fail(errors.New("EOF"))
			puback(m) // it is done, with an error
			if err := <-result; err == nil || err.Error() != "connection lost: EOF" {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestPubackThatCameBeforeTheEndCounts(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			l, received := wire()
			n := testLane(byPuback)
			m, err := n.send(t.Context(), l, packet{n.topic, []byte("1")}, nil, false)
			if err != nil {
				t.Fatal(err)
			}
			<-received
			result := make(chan error, 1)
			go func() { result <- n.acked(t.Context(), l, m) }()
			synctest.Wait()
			puback(m)
			l.fail(errors.New("EOF"))
			if err := <-result; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAutoBelievesInPubackAfterThreeSilencesAndInAnswersWhenItHearsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		n := testLane(byAuto)
		n.confirm.log = slog.New(slog.NewTextHandler(&log, nil))
		l, received := wire()
		defer l.fail(errors.New("end"))
		for i := range 3 {
			if mode := n.confirm.mode(); mode != byAuto {
				t.Errorf("mode is %s before message %d", mode, i)
			}
			sent := time.Now()
			result := asking(t.Context(), n, l, "x")
			puback(<-received)
			if err := <-result; err != nil || time.Since(sent) != 5*time.Second {
				t.Errorf("message %d after %v: %v", i, time.Since(sent), err)
			}
		}
		if mode := n.confirm.mode(); mode != byPuback {
			t.Errorf("mode is %s after three silences", mode)
		}
		n.hear(answer{})
		if mode := n.confirm.mode(); mode != byResponse {
			t.Errorf("mode is %s after an answer", mode)
		}
		if got := strings.Count(log.String(), "\n"); got != 2 {
			t.Errorf("%d lines in the log, want one per change:\n%s", got, log.String())
		}
	})
}

func TestFirstAnswerOfAllThatMayBeAnEarlierOneConfirmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testLane(byAuto)
		l, received := wire()
		defer l.fail(errors.New("end"))
		result := asking(t.Context(), n, l, "1")
		puback(<-received)
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		result = asking(t.Context(), n, l, "2")
		puback(<-received)
		synctest.Wait()
		n.hear(answer{}) // to 1, or to 2
		if err := <-result; err == nil {
			t.Error("confirmed")
		}
	})
}

// platform is the model of what a real one may do: it gives each message at
// most one answer, within twice the timeout after it took it.
type platform struct {
	random  *rand.Rand
	mu      sync.Mutex
	lane    *lane
	stored  map[string]bool
	sends   int
	excuses int  // reasons for sending again
	doubles bool // the negative control: some answers come twice
	slow    bool // the other one: answers may come later than that
	kills   bool // the process ends at any moment, and another begins
	forgets bool // which knows nothing of that: the negative control
}

// hear hands an answer to the process that runs by then.
func (p *platform) hear(a answer) {
	p.mu.Lock()
	n := p.lane
	p.mu.Unlock()
	n.hear(a)
}

// start makes the lane of a process; the one before may have been killed.
func (p *platform) start(first bool) *lane {
	n := testLane(byResponse)
	if !first && !p.forgets {
		n.remember(remembered{Answers: true, Open: true})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lane = n
	return n
}

// serve takes messages until the link ends, which may be in the middle of one.
func (p *platform) serve(l *link, received <-chan *message) {
	for m := range received {
		p.sends++
		if p.random.IntN(40) == 0 { // lost before it arrived
			p.excuses++
			l.fail(errors.New("reset"))
			continue
		}
		time.Sleep(p.upTo(200 * time.Millisecond))
		a := answer{}
		if p.random.IntN(5) == 0 {
			p.excuses++
			a.code = 1
		} else {
			p.stored[string(m.payload)] = true
		}
		ack := p.upTo(200 * time.Millisecond)
		p.reply(a, ack)
		time.Sleep(ack)
		if p.random.IntN(40) == 0 {
			p.excuses++
			l.fail(errors.New("reset"))
			continue
		}
		puback(m)
	}
}

func (p *platform) upTo(d time.Duration) time.Duration {
	return time.Duration(p.random.Int64N(int64(d)))
}

// reply answers in its own time, counted from the PUBACK, or not at all.
func (p *platform) reply(a answer, ack time.Duration) {
	const timeout = 5 * time.Second
	last := 2 * timeout
	if p.slow {
		last *= 2
	}
	delay := ack + time.Millisecond
	switch p.random.IntN(6) {
	case 0:
		p.excuses++
		return
	case 1, 2:
		delay += p.upTo(last - time.Millisecond)
	case 3:
		delay = p.upTo(ack + 1) // even before the PUBACK
	}
	if delay <= ack || delay >= ack+timeout {
		p.excuses++
	}
	again := p.doubles && p.random.IntN(4) == 0
	time.AfterFunc(delay, func() { p.hear(a) })
	if again {
		time.AfterFunc(delay+p.upTo(timeout), func() { p.hear(a) })
	}
}

// schedule plays a random one of messages, each sent until it is confirmed,
// and tells how many of those the platform did not store. A process that is
// killed may have had a message confirmed and not have noted it: the next one
// begins with that again.
func schedule(t *testing.T, seed uint64, messages int, p *platform) (lost int) {
	synctest.Test(t, func(t *testing.T) {
		p.random = rand.New(rand.NewPCG(seed, 0))
		p.stored = map[string]bool{}
		n := p.start(true)
		served := make(chan struct{})
		close(served)
		connect := func() *link {
			l, received := wire()
			before, ended := served, make(chan struct{})
			served = ended
			go func() {
				<-before
				p.serve(l, received)
				close(ended)
			}()
			return l
		}
		l := connect()
		kill := rand.New(rand.NewPCG(seed, 1))
		for i := 0; i < messages; {
			payload := strconv.Itoa(i)
			ctx, cancel := t.Context(), func() {}
			if p.kills && kill.IntN(8) == 0 {
				ctx, cancel = context.WithTimeout(ctx, time.Duration(kill.Int64N(int64(time.Second))))
			}
			err := n.ask(ctx, l, packet{n.topic, []byte(payload)}, named(payload))
			killed := ctx.Err() != nil
			cancel()
			if killed {
				l.fail(errors.New("killed"))
				n = p.start(false)
			}
			select {
			case <-l.lost:
				time.Sleep(time.Second)
				l = connect()
			default:
			}
			switch {
			case killed:
				i -= min(i, kill.IntN(3))
			case err == nil:
				if !p.stored[payload] {
					lost++
				}
				i++
			}
		}
		l.fail(errors.New("end"))
		time.Sleep(time.Minute)
	})
	return lost
}

func TestRandomSchedulesLoseNothing(t *testing.T) {
	t.Parallel()
	const messages = 20
	for seed := range uint64(10_000) {
		var p platform
		if lost := schedule(t, seed, messages, &p); lost > 0 {
			t.Fatalf("schedule %d: %d messages were confirmed, but not stored", seed, lost)
		}
		if p.sends > messages+p.excuses {
			t.Fatalf("schedule %d: %d sends for %d messages and %d reasons to repeat", seed, p.sends, messages, p.excuses)
		}
	}
}

// TestKilledSchedulesLoseNothing: an answer to what a killed process has sent is
// not taken for one to the first message of the next.
func TestKilledSchedulesLoseNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2_000) {
		if lost := schedule(t, seed, 20, &platform{kills: true}); lost > 0 {
			t.Fatalf("schedule %d: %d messages were confirmed, but not stored", seed, lost)
		}
	}
}

func TestScheduleModelFindsLosses(t *testing.T) {
	for name, control := range map[string]func() *platform{
		"doubled answers":           func() *platform { return &platform{doubles: true} },
		"answers later than agreed": func() *platform { return &platform{slow: true} },
		"a start without memory":    func() *platform { return &platform{kills: true, forgets: true} },
	} {
		lost := 0
		for seed := uint64(0); seed < 500 && lost == 0; seed++ {
			lost += schedule(t, seed, 20, control())
		}
		if lost == 0 {
			t.Errorf("%s lose nothing: the model is blind", name)
		}
	}
}
