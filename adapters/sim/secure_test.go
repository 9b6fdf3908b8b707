package sim_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/adapters/sim"
)

func TestTLSAsksForTheClientsCertificate(t *testing.T) {
	_, s := start(t, sim.Options{})
	b := bus(t, s, "safe")
	ca, err := os.ReadFile(b.TLS.CA)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{ServerName: "plc.example", RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(ca)
	conn, err := tls.Dial("tcp", net.JoinHostPort(b.Host, b.Port), config)
	if err == nil { // the server's refusal comes after the client's handshake
		c := wire.NewTCP(conn, wire.Options{Timeout: 10 * time.Second})
		defer c.Close()
		_, err = c.ReadInputRegisters(t.Context(), 1, 0, 2)
	}
	if err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a certificate: %v", err)
	}
}

func TestTLSFilesEndWithTheSimulation(t *testing.T) {
	original := load(t)
	devices, s, err := sim.Start(original, sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	files := bus(t, s, "safe").TLS
	paths := []string{files.CA, files.Cert, strings.TrimPrefix(string(files.Key), "file:")}
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if err := devices.Close(); err != nil {
		t.Error(err)
	}
	for _, path := range paths {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if was := bus(t, original, "safe").TLS; was.CA != "" || files.ServerName != "plc.example" {
		t.Errorf("the original's files are %v, the server's name %q", was, files.ServerName)
	}
}

func TestAnswersOvertakeOneAnother(t *testing.T) {
	devices, s := start(t, sim.Options{})
	for _, name := range []string{"tcp", "dgram"} {
		b := bus(t, s, name)
		network := map[string]string{"tcp": "tcp", "dgram": "udp"}[name]
		conn, err := net.Dial(network, net.JoinHostPort(b.Host, b.Port))
		if err != nil {
			t.Fatal(err)
		}
		c := wire.NewTCP(conn, wire.Options{Timeout: 10 * time.Second, Pipeline: 8})
		if network == "udp" {
			c = wire.NewUDP(conn, wire.Options{Timeout: 10 * time.Second, Pipeline: 8})
		}
		requests := make([]wire.Request, 8)
		for i := range requests {
			requests[i] = wire.Request{Unit: 1, PDU: wire.AppendRead(nil, wire.FuncReadInputRegisters, 0, 2)}
		}
		overtook := func() bool {
			last, out := -1, false
			err := c.DoWindow(t.Context(), requests, func(i int, _ []byte, err error) {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				out = out || i < last
				last = i
			})
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		if network == "tcp" && overtook() {
			t.Errorf("%s: out of order, unasked", name)
		}
		do(t, devices.Shuffle(name, true))
		tries := 0
		for !overtook() {
			if tries++; tries == 100 {
				t.Fatalf("%s: in order 100 times", name)
			}
		}
		c.Close()
	}
}
