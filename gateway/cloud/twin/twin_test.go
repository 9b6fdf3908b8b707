package twin_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"sluice/gateway/cloud/twin"
)

var users = map[string]string{"plant1": "a", "plant2": "b"}

func start(t *testing.T, o twin.Options) *twin.Twin {
	t.Helper()
	o.Users = users
	tw, err := twin.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tw.Stop)
	return tw
}

// device is a plain client of one user; the downlinks come by the channel.
func device(t *testing.T, tw *twin.Twin, user, password string, topics ...string) (mqtt.Client, <-chan string) {
	t.Helper()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(tw.URL()).SetClientID(user).SetUsername(user).SetPassword(password).SetAutoReconnect(false))
	if token := c.Connect(); token.Wait() && token.Error() != nil {
		t.Fatal(token.Error())
	}
	t.Cleanup(func() { c.Disconnect(10) })
	down := make(chan string, 100)
	for _, topic := range topics {
		token := c.Subscribe(topic, 1, func(_ mqtt.Client, m mqtt.Message) { down <- m.Topic() + " " + string(m.Payload()) })
		if token.Wait() && token.Error() != nil {
			t.Fatal(token.Error())
		}
	}
	return c, down
}

func publish(t *testing.T, c mqtt.Client, topic, payload string) {
	t.Helper()
	if token := c.Publish(topic, 1, false, payload); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatalf("publish to %s: %v", topic, token.Error())
	}
}

func expect(t *testing.T, down <-chan string, prefix string) {
	t.Helper()
	select {
	case got := <-down:
		if !strings.HasPrefix(got, prefix) {
			t.Errorf("got %s, want %s…", got, prefix)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("no %s…", prefix)
	}
}

func TestTwinAnswersAsThePlatformDoes(t *testing.T) {
	tw := start(t, twin.Options{Respond: true})
	c, down := device(t, tw, "plant1", "a", "attributes_response/plant1", "event_response/plant1", "attributes_get_response/plant1", "attributes_push/plant1")
	publish(t, c, "attributes/plant1", `{"temperature":28.5,"switch":true}`)
	expect(t, down, `attributes_response/plant1 {"error_code":0,"error_msg":"OK","ts":`)
	publish(t, c, "attributes/plant1", `{"switch":NaN}`)
	expect(t, down, `attributes_response/plant1 {"error_code":400,"error_msg":"invalid JSON","ts":`)
	publish(t, c, "event_report/plant1", `{"method":"high","params":{}}`)
	expect(t, down, `event_response/plant1 {"error_code":0,"error_msg":"OK","ts":`)
	publish(t, c, "attributes_get/plant1", `{"keys":[]}`)
	expect(t, down, `attributes_get_response/plant1 {"error_code":0,"error_msg":"","attributes":{"switch":true,"temperature":28.5},"ts":`)
	publish(t, c, "attributes_get/plant1", `{"keys":["switch","absent"]}`)
	expect(t, down, `attributes_get_response/plant1 {"error_code":0,"error_msg":"","attributes":{"switch":true},"ts":`)
	if err := tw.Send("attributes_push/plant1", []byte(`{"switch":false}`)); err != nil {
		t.Fatal(err)
	}
	expect(t, down, `attributes_push/plant1 {"switch":false}`)
	if got := fmt.Sprint(tw.Attributes("plant1")); got != "map[switch:true temperature:28.5]" {
		t.Errorf("stored is %s", got)
	}
}

func TestTwinLetsAUserUseOnlyHisOwnTopics(t *testing.T) {
	tw := start(t, twin.Options{Respond: true})
	c, down := device(t, tw, "plant1", "a")
	for _, topic := range []string{"attributes_push/plant2", "#", "attributes_push/+", "attributes/plant1", "elsewhere"} {
		token := c.Subscribe(topic, 0, nil).(*mqtt.SubscribeToken)
		if token.Wait(); token.Result()[topic] != 0x80 {
			t.Errorf("subscription to %s got %#x, want 0x80", topic, token.Result()[topic])
		}
	}
	for _, topic := range []string{"attributes/plant2", "attributes_push/plant1", "elsewhere"} {
		publish(t, c, topic, `{}`) // acknowledged, and dropped
	}
	if tw.Denied() != 3 || len(tw.Received("plant1"))+len(tw.Received("plant2")) != 0 || len(down) != 0 {
		t.Errorf("%d denied, received %v", tw.Denied(), tw.Received("plant2"))
	}
	for user, password := range map[string]string{"plant1": "b", "plant3": "", "": ""} {
		bad := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(tw.URL()).SetUsername(user).SetPassword(password))
		if token := bad.Connect(); token.Wait() && token.Error() == nil {
			t.Errorf("user %q with password %q is let in", user, password)
		}
	}
}

func TestTwinKeepsTheNewestAndItsAddress(t *testing.T) {
	tw := start(t, twin.Options{Keep: 3})
	addr := tw.Addr()
	for i := range 10 {
		c, _ := device(t, tw, "plant1", "a")
		publish(t, c, "attributes/plant1", fmt.Sprintf(`{"n":%d}`, i))
		tw.Stop()
		tw.Stop()
		if err := tw.Send("attributes_push/plant1", nil); err != nil {
			t.Error(err)
		}
		if err := tw.Restart(); err != nil || tw.Addr() != addr {
			t.Fatalf("at %s: %v", tw.Addr(), err)
		}
	}
	if err := tw.Restart(); err == nil {
		t.Error("a running twin is started again")
	}
	received := tw.Received("plant1")
	if len(received) != 3 || string(received[2].Payload) != `{"n":9}` || string(received[0].Payload) != `{"n":7}` {
		t.Errorf("received is %v", received)
	}
}
