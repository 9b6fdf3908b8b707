package cloud_test

import (
	"cmp"
	"crypto/pbkdf2"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"sluice/gateway"
	"sluice/gateway/cloud"
)

// plant is a gateway, a real broker with a platform behind it, and the line
// between them.
type plant struct {
	*world
	broker *broker
	proxy  *proxy
}

// newPlant makes a plant whose broker and line do what prepare says. With
// delayed, hardly a time passes between two attempts to connect; see Hurry.
func newPlant(t *testing.T, settings gateway.Cloud, delayed func(refused bool), prepare func(*plant)) *plant {
	t.Helper()
	p := &plant{broker: newBroker(t)}
	l := newLedger()
	observe(t, p.broker.url, func(o *observer, m mqtt.Message) {
		l.arrive("", m.Topic(), m.Payload())
		o.client.Publish(cloud.AttributesResponse.Topic(user), 0, false, `{"error_code":0,"error_msg":"ok"}`)
	})
	scheme, port := "mqtt", p.broker.port
	if settings.TLS != nil {
		scheme, port = "mqtts", p.broker.secure
	}
	p.proxy = newProxy(t, fmt.Sprintf("127.0.0.1:%d", port))
	if prepare != nil {
		prepare(p)
	}
	settings.Keepalive, settings.ConfirmTimeout = cmp.Or(settings.Keepalive, keepalive), time.Second
	p.world = newWorld(t, settings, l, scheme+"://"+p.proxy.addr, func(w *world, u gateway.Uplink) gateway.Uplink {
		if delayed != nil {
			w.session.Hurry(delayed)
		}
		return u
	})
	return p
}

// What a dead line is noticed by: see newPlant.
const (
	keepalive = 3 * time.Second
	noticed   = keepalive*3/2 + 2*time.Second
)

func (p *plant) connected() bool { return !p.session.Status().Connected.IsZero() }

// restart lets a change of the broker's files count.
func (p *plant) restart(t *testing.T) {
	p.broker.stop()
	p.broker.start(t)
}

// TestNothingIsLostWhateverMosquittoDoes: the faults of a real broker and of the
// line to it, against the whole way from field to cloud.
func TestNothingIsLostWhateverMosquittoDoes(t *testing.T) {
	inCI(t)
	for name, c := range map[string]struct {
		fault    func(*testing.T, *plant)
		repeated int
	}{
		"gone": {func(t *testing.T, p *plant) {
			p.broker.stop()
			time.Sleep(30 * time.Second)
			p.broker.start(t)
		}, window},
		"half-open, busy": {func(t *testing.T, p *plant) {
			p.proxy.fall()
			p.notices(t, noticed)
			time.Sleep(2 * time.Second)
			p.proxy.heal()
		}, window},
		"half-open, idle": {func(t *testing.T, p *plant) {
			p.field.still.Store(true)
			time.Sleep(time.Second)
			p.proxy.fall()
			p.notices(t, noticed)
			p.field.still.Store(false)
			time.Sleep(time.Second)
			p.proxy.heal()
		}, window},
		"one byte a second": {func(t *testing.T, p *plant) {
			p.proxy.slow(0, time.Second)
			time.Sleep(8 * time.Second)
			p.proxy.slow(0, 0)
		}, 2 * window},
		"reset in the middle of a publish": {func(t *testing.T, p *plant) {
			for _, bytes := range []int{1, 20, 33, 150} { // a message has about 35
				p.proxy.cutAfter(bytes)
				eventually(t, "the reset", func() bool { return !p.connected() })
				eventually(t, "a new connection", p.connected)
			}
		}, 4 * window},
	} {
		for _, confirm := range []string{"puback", "response"} {
			t.Run(confirm+"/"+name, func(t *testing.T) {
				t.Parallel()
				p := newPlant(t, gateway.Cloud{Confirm: confirm}, nil, nil)
				p.flows(t, 10*time.Second)
				c.fault(t, p)
				within := 5 * time.Second
				if confirm == "response" {
					within += 2 * time.Second // the hold-off
				}
				took := p.flows(t, 30*time.Second)
				if t.Logf("flows again after %v", took); took > within {
					t.Errorf("flows again after %v, want within %v", took, within)
				}
				p.settles(t)
				p.check(t, c.repeated)
				if skipped := p.gateway.Stats.Overruns.Load(); skipped > p.field.n.Load()/5 {
					t.Errorf("polling was disturbed: %d of %d polls skipped", skipped, p.field.n.Load())
				}
			})
		}
	}
}

// TestADeadLineIsNotNoticedByChance is the control of "half-open": with ten times
// the keepalive, nothing is noticed in the time of the short one.
func TestADeadLineIsNotNoticedByChance(t *testing.T) {
	inCI(t)
	for _, idle := range []bool{true, false} {
		t.Run(fmt.Sprintf("idle=%v", idle), func(t *testing.T) {
			t.Parallel()
			p := newPlant(t, gateway.Cloud{Confirm: "puback", Keepalive: 10 * keepalive}, nil, nil)
			p.flows(t, 10*time.Second)
			p.field.still.Store(idle)
			p.proxy.fall()
			if time.Sleep(noticed); !p.connected() {
				t.Error("it is noticed")
			}
		})
	}
}

// notices waits until the loss of the connection is noticed.
func (p *plant) notices(t *testing.T, within time.Duration) {
	t.Helper()
	begin := time.Now()
	eventually(t, "the loss is noticed", func() bool { return !p.connected() })
	t.Logf("noticed after %v", time.Since(begin))
	if time.Since(begin) > within {
		t.Errorf("noticed after %v, want within %v", time.Since(begin), within)
	}
}

// TestALoginThatMosquittoRefuses is said once, and each attempt is followed by the
// long delay of a refusal; when it is right again, all that was measured meanwhile
// arrives.
func TestALoginThatMosquittoRefuses(t *testing.T) {
	inCI(t)
	t.Parallel()
	var wrong atomic.Bool
	var long, short atomic.Int64
	p := newPlant(t, gateway.Cloud{Confirm: "puback"}, func(refused bool) {
		switch {
		case refused:
			long.Add(1)
		case wrong.Load():
			short.Add(1)
		}
	}, nil)
	p.flows(t, 10*time.Second)
	p.broker.password(t, user, "another")
	p.restart(t)
	eventually(t, "the refusal is said", says(p.said, `login refused by the broker: bad user name or password for user \"plant1\"`))
	wrong.Store(true)
	from := long.Load()
	eventually(t, "it is tried again", func() bool { return long.Load() >= from+10 })
	wrong.Store(false)
	if p.connected() || short.Load() > 0 {
		t.Errorf("connected: %v, %d short delays", p.connected(), short.Load())
	}
	p.broker.password(t, user, password)
	p.restart(t)
	p.flows(t, 10*time.Second)
	p.settles(t)
	p.check(t, window)
	if text := p.said.String(); strings.Count(text, "refused by") != 1 || strings.Contains(text, password) {
		t.Errorf("the log says:\n%s", text)
	}
}

// TestASubscriptionThatMosquittoRefuses with 0x80: where the answers count, there
// is no connection until the broker's rules are mended. (Its plain list of rules
// can't refuse a subscription: that takes its plug-in.)
func TestASubscriptionThatMosquittoRefuses(t *testing.T) {
	inCI(t)
	t.Parallel()
	plugins, _ := filepath.Glob("/usr/lib/*/mosquitto_dynamic_security.so")
	if len(plugins) == 0 {
		t.Fatal("mosquitto has no plug-in for rules")
	}
	topic := cloud.AttributesResponse.Topic(user)
	allow := func(p *plant, allowed bool) {
		p.broker.write(t, "rules.json", rules(topic, allowed))
		p.broker.configure(t, "allow_anonymous false\nplugin "+plugins[0]+"\nplugin_opt_config_file "+p.broker.path("rules.json"))
		p.restart(t)
	}
	p := newPlant(t, gateway.Cloud{Confirm: "response"}, func(bool) {}, func(p *plant) { allow(p, true) })
	p.flows(t, 10*time.Second)
	allow(p, false)
	eventually(t, "the refusal is said", says(p.said, "subscription to "+topic+" refused by the broker"))
	if p.connected() {
		t.Error("it stays connected")
	}
	allow(p, true)
	p.flows(t, 10*time.Second)
	p.settles(t)
	p.check(t, window)
}

// rules are those of the plug-in: everybody may do everything, but plant1 may
// not subscribe to the topic unless allowed.
func rules(topic string, allowed bool) string {
	type object map[string]any
	const iterations = 101
	salt := []byte("twelve bytes")
	key, err := pbkdf2.Key(sha512.New, password, salt, iterations, 64)
	if err != nil {
		panic(err)
	}
	client := func(name, role string) object {
		return object{"username": name, "password": base64.StdEncoding.EncodeToString(key), "salt": base64.StdEncoding.EncodeToString(salt),
			"iterations": iterations, "roles": []object{{"rolename": role}}}
	}
	text, err := json.Marshal(object{
		"defaultACLAccess": object{"publishClientSend": true, "publishClientReceive": true, "subscribe": true, "unsubscribe": true},
		"clients":          []object{client(user, "device"), client("platform", "all")},
		"roles": []object{{"rolename": "all", "acls": []object{}},
			{"rolename": "device", "acls": []object{{"acltype": "subscribeLiteral", "topic": topic, "priority": 1, "allow": allowed}}}},
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// TestMosquittoWithABadCertificateGetsNothing: four kinds of them, one after the
// other, each refused and named in one line. With a good one, all that was
// measured meanwhile arrives. (TLS 1.1 takes a broker that speaks nothing better:
// see TestCertificatesThatProveNothingAreRefused.)
func TestMosquittoWithABadCertificateGetsNothing(t *testing.T) {
	inCI(t)
	t.Parallel()
	ca, foreign := newAuthority(t), newAuthority(t)
	good, expired := ca.issue(t, "cloud.example", time.Hour), ca.issue(t, "cloud.example", -time.Hour)
	template := &x509.Certificate{SerialNumber: big.NewInt(3), DNSNames: []string{"cloud.example"}, NotAfter: time.Now().Add(time.Hour)}
	own, key := sign(t, template, template, nil)
	serve := func(p *plant, c tls.Certificate) {
		p.broker.write(t, "key.pem", string(keyPEM(t, c)))
		cert, err := os.ReadFile(writePEM(t, "CERTIFICATE", c.Certificate[0]))
		if err != nil {
			t.Fatal(err)
		}
		p.broker.write(t, "cert.pem", string(cert))
		p.broker.configure(t, fmt.Sprintf("allow_anonymous false\npassword_file %s\nacl_file %s\nlistener %d 127.0.0.1\ncertfile %s\nkeyfile %s",
			p.broker.path("passwords"), p.broker.path("acl"), p.broker.secure, p.broker.path("cert.pem"), p.broker.path("key.pem")))
		p.restart(t)
	}
	p := newPlant(t, gateway.Cloud{Confirm: "puback", TLS: &gateway.TLS{CA: ca.file, ServerName: "cloud.example"}}, func(bool) {}, func(p *plant) { serve(p, good) })
	p.flows(t, 10*time.Second)
	for _, bad := range []struct {
		name string
		cert tls.Certificate
		want string
	}{
		{"expired", expired, "certificate has expired or is not yet valid: current time " + time.Now().UTC().Format("2006-01-02")},
		{"wrong CA", foreign.issue(t, "cloud.example", time.Hour), "certificate signed by unknown authority"},
		{"self-signed", tls.Certificate{Certificate: [][]byte{own.Raw}, PrivateKey: key}, "certificate signed by unknown authority"},
		{"wrong name", ca.issue(t, "other.example", time.Hour), "certificate is valid for other.example, not cloud.example"},
	} {
		before := len(p.said.String())
		serve(p, bad.cert)
		said := func() string { return p.said.String()[before:] }
		eventually(t, bad.name+" is said", func() bool { return strings.Contains(said(), bad.want) })
		from := p.proxy.attempts.Load()
		eventually(t, bad.name+" is tried again", func() bool { return p.proxy.attempts.Load() > from+60 })
		if strings.Contains(said(), "connected to the cloud") || strings.Count(said(), bad.want) != 1 {
			t.Errorf("%s: the log says\n%s", bad.name, said())
		}
		serve(p, good)
		p.flows(t, 10*time.Second)
	}
	p.settles(t)
	p.check(t, 5*window)
}
