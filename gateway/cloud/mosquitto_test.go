package cloud_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
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

// mosquitto starts a real broker with users and rules, and gives its address.
func mosquitto(t testing.TB) (url string) { return newBroker(t).url }

// broker is a real one, that can be stopped, changed and started again. It keeps
// what its clients have not got yet, as the platform's does.
type broker struct {
	program, dir string
	port, secure int    // of its two listeners; the second one is off until it is configured
	url          string // of the first one
	run          *exec.Cmd
}

// newBroker starts a broker; CI must have it.
func newBroker(t testing.TB) *broker {
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
	b := &broker{program: program, dir: t.TempDir(), port: freePort(t), secure: freePort(t)}
	b.url = fmt.Sprintf("mqtt://127.0.0.1:%d", b.port)
	b.write(t, "passwords", "")
	for _, name := range []string{user, "mute", "platform"} {
		b.password(t, name, password)
	}
	b.write(t, "acl", acl)
	b.configure(t, "allow_anonymous false\npassword_file "+b.path("passwords")+"\nacl_file "+b.path("acl"))
	b.start(t)
	t.Cleanup(func() { b.run.Process.Kill(); b.run.Wait() })
	return b
}

func freePort(t testing.TB) int {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	return free.Addr().(*net.TCPAddr).Port
}

func (b *broker) path(name string) string { return filepath.Join(b.dir, name) }

func (b *broker) write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(b.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// password is good from the next start on.
func (b *broker) password(t testing.TB, user, password string) {
	t.Helper()
	if out, err := exec.Command("mosquitto_passwd", "-b", b.path("passwords"), user, password).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd: %v: %s", err, out)
	}
}

// configure adds lines to what is always so; from the next start on.
func (b *broker) configure(t testing.TB, lines string) {
	t.Helper()
	b.write(t, "config", fmt.Sprintf("user root\nlog_dest none\nset_tcp_nodelay true\nmax_queued_messages 0\npersistence true\npersistence_location %s/\nlistener %d 127.0.0.1\n%s\n",
		b.dir, b.port, lines))
}

func (b *broker) start(t testing.TB) {
	t.Helper()
	b.run = exec.Command(b.program, "-c", b.path("config"))
	if err := b.run.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "mosquitto listens", func() bool {
		conn, err := net.Dial("tcp", b.url[len("mqtt://"):])
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

func (b *broker) stop() {
	b.run.Process.Signal(syscall.SIGTERM)
	b.run.Wait()
}

// observer is a second client, the platform's. It loses nothing when the broker
// goes away for a while.
type observer struct {
	client   mqtt.Client
	mu       sync.Mutex
	received []string
}

func observe(t testing.TB, url string, react func(*observer, mqtt.Message)) *observer {
	t.Helper()
	o := &observer{}
	o.client = mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetClientID("platform").SetUsername("platform").
		SetPassword(password).SetCleanSession(false).SetMaxReconnectInterval(100 * time.Millisecond).SetOrderMatters(true))
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
