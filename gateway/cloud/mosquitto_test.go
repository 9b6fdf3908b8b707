package cloud_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"sluice/gateway"
	"sluice/gateway/cloud"
)

const acl = `user plant1
topic write attributes/plant1
topic read attributes_response/plant1
topic read event_response/plant1
topic read attributes_push/plant1
topic read command_send/plant1
topic read attributes_get_response/plant1
topic write command_reply/plant1
user mute
topic read attributes_response/mute
topic read event_response/mute
topic read attributes_push/mute
topic read command_send/mute
topic read attributes_get_response/mute
user platform
topic readwrite #
`

// mosquitto starts a real broker with users and rules; CI must have it.
func mosquitto(t testing.TB) (url string) {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program = "/usr/sbin/mosquitto"
	}
	if _, err := os.Stat(program); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("mosquitto is not installed")
		}
		t.Skip("mosquitto is not installed")
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for i, name := range []string{user, "mute", "platform"} {
		flags := []string{"-b"}
		if i == 0 {
			flags = append(flags, "-c")
		}
		if out, err := exec.Command("mosquitto_passwd", append(flags, path("passwords"), name, password)...).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd: %v: %s", err, out)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().(*net.TCPAddr)
	free.Close()
	config := fmt.Sprintf("user root\nlistener %d 127.0.0.1\nallow_anonymous false\npassword_file %s\nacl_file %s\nlog_dest none\nset_tcp_nodelay true\n", addr.Port, path("passwords"), path("acl"))
	for name, text := range map[string]string{"acl": acl, "config": config} {
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	broker := exec.Command(program, "-c", path("config"))
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Process.Kill(); broker.Wait() })
	eventually(t, "mosquitto listens", func() bool {
		conn, err := net.Dial("tcp", addr.String())
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return "mqtt://" + addr.String()
}

// observer is a second client, the platform's.
type observer struct {
	client   mqtt.Client
	mu       sync.Mutex
	received []string
}

func observe(t testing.TB, url string, react func(*observer, mqtt.Message)) *observer {
	t.Helper()
	o := &observer{}
	o.client = mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetClientID("platform").SetUsername("platform").
		SetPassword(password).SetAutoReconnect(false).SetOrderMatters(true))
	if token := o.client.Connect(); token.Wait() && token.Error() != nil {
		t.Fatal(token.Error())
	}
	t.Cleanup(func() { o.client.Disconnect(100) })
	for _, kind := range []cloud.Kind{cloud.Attributes, cloud.EventReport} {
		token := o.client.Subscribe(kind.Topic("+"), 1, func(_ mqtt.Client, m mqtt.Message) {
			o.mu.Lock()
			o.received = append(o.received, m.Topic()+" "+string(m.Payload()))
			o.mu.Unlock()
			if react != nil {
				react(o, m)
			}
		})
		if token.Wait() && token.Error() != nil {
			t.Fatal(token.Error())
		}
	}
	return o
}

func (o *observer) seen() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.received...)
}

func TestMosquittoTakesReportsAndPassesAnswers(t *testing.T) {
	url := mosquitto(t)
	o := observe(t, url, func(o *observer, _ mqtt.Message) {
		o.client.Publish("attributes_response/plant1", 0, false, `{"error_code":0,"error_msg":"ok","ts":1}`)
	})
	stale := o.client.Publish("attributes_response/plant1", 1, true, `{"error_code":400,"error_msg":"kept by the broker"}`)
	if stale.Wait() && stale.Error() != nil {
		t.Fatal(stale.Error())
	}
	s, book := run(t, settings(url, "response", nil), nil)
	if n, err := s.Publish(t.Context(), numbered(0, 20)); n != 20 || err != nil {
		t.Fatalf("%d confirmed, %v", n, err)
	}
	for i, got := range o.seen() {
		if want := fmt.Sprintf(`attributes/plant1 {"n":%d}`, i); got != want {
			t.Fatalf("message %d is %s, want %s", i, got, want)
		}
	}
	if len(o.seen()) != 20 || s.Status().Retained != 1 {
		t.Errorf("%d messages, %d retained downlinks ignored", len(o.seen()), s.Status().Retained)
	}
	if strings.Count(book.String(), "\n") != 1 {
		t.Errorf("the log of a healthy session:\n%s", book)
	}
}

func TestMosquittoRefusesABadPassword(t *testing.T) {
	delays := make(chan bool, 1000)
	_, book := run(t, settings(mosquitto(t), "puback", func(c *cloud.Config) { c.Login.Password = "wrong" }), func(refused bool) { delays <- refused })
	if !<-delays || !strings.Contains(book.String(), "bad user name or password") {
		t.Errorf("the log says:\n%s", book)
	}
}

// What the package cannot promise, as a fact: MQTT 3.1.1 acknowledges what the
// broker's rules forbid.
func TestMosquittoAcknowledgesAPublishThatItDenies(t *testing.T) {
	url := mosquitto(t)
	o := observe(t, url, nil)
	s, _ := run(t, settings(url, "puback", func(c *cloud.Config) { c.Login.User = "mute" }), nil)
	if n, err := s.Publish(t.Context(), numbered(0, 1)); n != 1 || err != nil {
		t.Errorf("%d confirmed, %v", n, err)
	}
	time.Sleep(50 * time.Millisecond)
	if seen := o.seen(); len(seen) > 0 {
		t.Errorf("the platform got %v", seen)
	}
}

// TestMosquittoBringsDownlinksAndTakesReplies: a command that the broker kept is
// not carried out, a fresh one is, and its reply arrives.
func TestMosquittoBringsDownlinksAndTakesReplies(t *testing.T) {
	url := mosquitto(t)
	o := observe(t, url, nil)
	replies := make(chan string, 10)
	token := o.client.Subscribe("command_reply/+", 1, func(_ mqtt.Client, m mqtt.Message) { replies <- m.Topic() + " " + string(m.Payload()) })
	kept := o.client.Publish("command_send/plant1", 1, true, `{"method":"old","id":1}`)
	if token.Wait() && token.Error() != nil || kept.Wait() && kept.Error() != nil {
		t.Fatal(token.Error(), kept.Error())
	}
	s, _ := run(t, settings(url, "puback", nil), nil)
	eventually(t, "the kept command is ignored", func() bool { return s.Status().Retained == 1 })
	o.client.Publish("command_send/plant1", 0, false, `{"method":"start","params":{"hz":"35"},"id":"7"}`)
	if got := say(receive(t, s)); got != `start id "7" hz=6:35` {
		t.Errorf("the command arrives as %s", got)
	}
	if err := s.SendReply(t.Context(), s.EncodeReply(&gateway.Reply{Method: "start", ID: `"7"`})); err != nil {
		t.Fatal(err)
	}
	if got := <-replies; got != `command_reply/plant1 {"method":"start","params":{"result":true},"id":"7"}` {
		t.Errorf("the reply arrives as %s", got)
	}
}
