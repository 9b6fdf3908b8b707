package gateway

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// spend lets lanes that always have something to send spend from a bucket, and
// gives the order of their messages.
func spend(t *testing.T, b *bucket, duration time.Duration, ranks map[string]rank) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	var mu sync.Mutex
	var order []string
	var wait sync.WaitGroup
	for name, r := range ranks {
		wait.Go(func() {
			for {
				ticket, err := b.take(ctx, r)
				if err != nil {
					return
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				b.taken(ticket)
			}
		})
	}
	wait.Wait()
	return order
}

func TestTheLowestRankGoesFirstAndNobodyWaitsForMoreThanThree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bucket{pace: pace{interval: time.Second}, backlog: time.Second, next: time.Now().Add(time.Second)}
		order := spend(t, b, 100500*time.Millisecond, map[string]rank{"alarm": rankAlarm, "live": rankLive, "event": rankEvent, "backlog": rankBacklog})
		if len(order) != 100 {
			t.Errorf("%d messages in 100 s", len(order))
		}
		if order[0] != "alarm" {
			t.Errorf("the first is %s", order[0])
		}
		for name := range map[string]bool{"alarm": true, "live": true, "event": true, "backlog": true} {
			since := 0
			for i, got := range order {
				if since++; got == name {
					since = 0
				} else if since > 2*fairShare {
					t.Fatalf("%s waits for %d others at %d: %s", name, since, i, strings.Join(order, " "))
				}
			}
		}
	})
}

// TestAWaitingLaneGetsEachFourthMessage also where one of a lower rank never rests.
func TestAWaitingLaneGetsEachFourthMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bucket{pace: pace{interval: time.Second}, backlog: time.Second, next: time.Now().Add(time.Second)}
		order := spend(t, b, 40500*time.Millisecond, map[string]rank{"live": rankLive, "backlog": rankBacklog})
		if got := strings.Join(order, " "); got != strings.TrimSpace(strings.Repeat("live live live backlog ", 10)) {
			t.Errorf("order is %s", got)
		}
	})
}

func TestATicketThatIsGivenBackIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bucket{pace: pace{interval: time.Minute}}
		ticket, _ := b.take(t.Context(), rankLive)
		b.giveBack(ticket)
		begin := time.Now()
		if _, err := b.take(t.Context(), rankLive); err != nil || time.Since(begin) != 0 {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.take(ctx, rankLive); err == nil {
			t.Error("a second one within the interval")
		}
		begin = time.Now()
		b.take(t.Context(), rankReply)
		if waited := time.Since(begin); waited != 59*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

// TestATicketThatComesTooLateIsNone: one that is given back after another was
// used, and one that is granted while its claim is withdrawn.
func TestATicketThatComesTooLateIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bucket{pace: pace{interval: time.Minute}}
		first, _ := b.take(t.Context(), rankLive)
		b.take(t.Context(), rankLive)
		begin := time.Now()
		b.giveBack(first)
		granted, _ := b.take(t.Context(), rankLive)
		if waited := time.Since(begin); waited != time.Minute {
			t.Errorf("waited %v after the one that was used", waited)
		}
		c := &claim{granted: make(chan ticket, 1)}
		c.granted <- granted
		b.withdraw(c)
		begin = time.Now()
		if b.take(t.Context(), rankLive); time.Since(begin) != 0 {
			t.Errorf("the slot of a withdrawn claim is lost for %v", time.Since(begin))
		}
	})
}
