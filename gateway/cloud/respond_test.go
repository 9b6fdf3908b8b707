package cloud_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sluice/gateway"
	"sluice/gateway/cloud"
	"sluice/gateway/cloud/twin"
)

var quiet = slog.New(slog.DiscardHandler)

func impatient(c *cloud.Config) { c.Cloud.ConfirmTimeout = 200 * time.Millisecond }

func TestAnswersConfirmRefuseAndSlowDown(t *testing.T) {
	tw := startTwin(t, twin.Options{Respond: true})
	s, _ := run(t, settings(tw.URL(), "response", nil), nil)
	if n, err := s.Publish(t.Context(), numbered(0, 20)); n != 20 || err != nil {
		t.Fatalf("%d confirmed, %v", n, err)
	}
	got, _ := payloads(tw)
	checkNumbered(t, got, 20)

	tw.SetFaults(twin.Faults{Refuse: "n"})
	var refusal *gateway.Refusal
	n, err := s.Publish(t.Context(), []gateway.Record{one("m", gateway.IntValue(1)), one("n", gateway.IntValue(20)), one("m", gateway.IntValue(2))})
	if n != 1 || !errors.As(err, &refusal) || refusal.Code != 400 || refusal.Reason != "attribute n does not exist" {
		t.Errorf("%d confirmed, %v", n, err)
	}
	if stored := tw.Attributes(user); stored["n"] != "19" || stored["m"] != "1" {
		t.Errorf("stored is %v", stored)
	}
	if s.Status().Confirmed != 21 {
		t.Errorf("status is %+v", s.Status())
	}
}

func TestReportThatComesTooFastIsNotStoredAndSaidSo(t *testing.T) {
	tw := startTwin(t, twin.Options{Respond: true, MinInterval: time.Hour})
	s, _ := run(t, settings(tw.URL(), "response", nil), nil)
	n, err := s.Publish(t.Context(), numbered(0, 3))
	if n != 1 || !errors.Is(err, gateway.ErrTooFast) {
		t.Errorf("%d confirmed, %v", n, err)
	}
	if stored := tw.Attributes(user); stored["n"] != "0" {
		t.Errorf("stored is %v", stored)
	}
}

func TestMissingAnswerIsAnErrorAndTheReportIsSentAgain(t *testing.T) {
	tw := startTwin(t, twin.Options{Respond: true})
	tw.SetFaults(twin.Faults{DropAnswers: true})
	s, _ := run(t, settings(tw.URL(), "response", impatient), nil)
	if n, err := s.Publish(t.Context(), numbered(0, 2)); n != 0 || err == nil ||
		err.Error() != "publish to attributes/plant1: no answer on attributes_response/plant1 within 200ms" {
		t.Fatalf("%d confirmed, %v", n, err)
	}
	tw.SetFaults(twin.Faults{})
	if err := publishAll(t.Context(), s, numbered(0, 2)); err != nil {
		t.Fatal(err)
	}
	got, repeated := payloads(tw)
	checkNumbered(t, got, 2)
	received := tw.Received(user)
	if apart := received[1].Time.Sub(received[0].Time); repeated < 1 || apart < 400*time.Millisecond {
		t.Errorf("%d repeated, the first after %v, want a hold-off of twice the timeout", repeated, apart)
	}
}

func TestLateAnswerIsNotTakenForTheNext(t *testing.T) {
	tw := startTwin(t, twin.Options{Respond: true})
	tw.SetFaults(twin.Faults{AnswerDelay: 300 * time.Millisecond})
	s, _ := run(t, settings(tw.URL(), "response", impatient), nil)
	if n, err := s.Publish(t.Context(), numbered(0, 1)); n != 0 || err == nil {
		t.Fatalf("%d confirmed, %v", n, err)
	}
	tw.SetFaults(twin.Faults{Refuse: "bad", AnswerDelay: 150 * time.Millisecond})
	n, err := s.Publish(t.Context(), []gateway.Record{one("bad", gateway.BoolValue(true))})
	if n != 0 || err == nil {
		t.Errorf("the late answer to the first report confirmed the second: %d, %v", n, err)
	}
}

// TestUnreadableAnswerConfirmsNothing: it is no answer, and that is said once.
func TestUnreadableAnswerConfirmsNothing(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	s, book := run(t, settings(tw.URL(), "response", func(c *cloud.Config) { c.Cloud.ConfirmTimeout = 500 * time.Millisecond }), nil)
	result := make(chan error)
	go func() { _, err := s.Publish(t.Context(), numbered(0, 1)); result <- err }()
	eventually(t, "the report arrives", func() bool { return len(tw.Received(user)) == 1 })
	for {
		if err := tw.Send("attributes_response/plant1", []byte(`stored!`)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-result:
			if !errors.Is(err, gateway.ErrUnanswered) || strings.Count(book.String(), `answer \"stored!\" is no JSON object`) != 1 {
				t.Errorf("error is %v, the log says\n%s", err, book)
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestAutoFindsOutWhetherThePlatformAnswers(t *testing.T) {
	tw := startTwin(t, twin.Options{})
	s, book := run(t, settings(tw.URL(), "auto", func(c *cloud.Config) { c.Cloud.ConfirmTimeout = 50 * time.Millisecond }), nil)
	if n, err := s.Publish(t.Context(), numbered(0, 250)); n != 250 || err != nil {
		t.Fatalf("%d confirmed, %v", n, err)
	}
	got, repeated := payloads(tw)
	checkNumbered(t, got, 250)
	if repeated > 0 || s.Status().Mode != "puback" || strings.Count(book.String(), "the platform sends no answers") != 1 {
		t.Errorf("%d repeated, mode %s, log:\n%s", repeated, s.Status().Mode, book)
	}
	tw.SetRespond(true)
	if n, err := s.Publish(t.Context(), numbered(250, 1)); n != 1 || err != nil {
		t.Fatalf("%d confirmed, %v", n, err)
	}
	eventually(t, "the answers are noticed", func() bool { return s.Status().Mode == "response" })
	tw.SetFaults(twin.Faults{Refuse: "n"})
	eventually(t, "a refusal is an error again", func() bool {
		_, err := s.Publish(t.Context(), numbered(251, 1))
		var refusal *gateway.Refusal
		return errors.As(err, &refusal)
	})
}

func TestAutoNeedsOneAnswerWhereThePlatformAnswers(t *testing.T) {
	tw := startTwin(t, twin.Options{Respond: true})
	s, _ := run(t, settings(tw.URL(), "", nil), nil)
	if n, err := s.Publish(t.Context(), numbered(0, 10)); n != 10 || err != nil || s.Status().Mode != "response" {
		t.Errorf("%d confirmed, %v, mode %s", n, err, s.Status().Mode)
	}
}
