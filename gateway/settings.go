package gateway

import (
	"fmt"
	"net"
	"strings"
	"time"
)

// The types of this file and of point.go are the language of the site file:
// package site decodes YAML into them by their yaml tags, strictly, and the
// JSON Schema's descriptions are the comments of their fields. A oneof tag
// lists the words that a field takes, its default first; a keyed tag names the
// field of the elements that takes the key, where a list is written as a
// mapping. A default that is not Go's zero value comes from package site.

// Identity says which site this is.
type Identity struct {
	// Name of the site: used in client ids, file names and the page title.
	Name string `yaml:"name"`
	// Time zone such as Europe/Berlin, for display and for "day" windows; every stored time is UTC.
	Timezone string `yaml:"timezone"`
	// Whether the cloud may write to the field: locked (default) or enabled.
	Writes string `yaml:"writes" oneof:"locked enabled"`
}

// Login is one cloud device's (or OPC UA user's) name and password.
type Login struct {
	// User name; for the cloud, the MQTT username of one cloud device.
	User string `yaml:"user"`
	// Password, best as secret:<name>, file:<path> or env:<NAME>; in clear it is a warning.
	Password Secret `yaml:"password"`
}

// TLS names the files of a TLS connection.
type TLS struct {
	// CA certificates (PEM) that the other side is checked against; default the system's.
	CA string `yaml:"ca"`
	// Own certificate (PEM).
	Cert string `yaml:"cert"`
	// Own private key (PEM), best as secret:<name> or file:<path>.
	Key Secret `yaml:"key"`
	// Name expected in the other side's certificate; default the host of the address.
	ServerName string `yaml:"server_name"`
}

// Cloud is the IoT platform that the site reports to.
type Cloud struct {
	// Address of the MQTT broker: mqtt://host:1883, mqtts://host:8883, ws://host/mqtt or wss://host/mqtt.
	URL string `yaml:"url"`
	// The gateway's own cloud device; optional where every device has its own login.
	Login *Login `yaml:"login"`
	// MQTT client id; {user} and {site} are filled in. Default {user}.
	ClientID string `yaml:"client_id"`
	// Files for mqtts and wss.
	TLS *TLS `yaml:"tls"`
	// MQTT keep-alive; default 15s, with writes enabled at most 20s.
	Keepalive time.Duration `yaml:"keepalive"`
	// What counts as delivered: auto (default), puback or response.
	Confirm string `yaml:"confirm" oneof:"auto puback response"`
	// How long to wait for the platform's response after the PUBACK; default 5s.
	ConfirmTimeout time.Duration `yaml:"confirm_timeout"`
	// Shortest time between two messages of one username; default 1s, 0s for no pace.
	MinInterval time.Duration `yaml:"min_interval"`
	// What becomes of attributes measured during an outage (required): replay, latest or stream:<identifier>.
	Backlog string `yaml:"backlog"`
	// Pace while a backlog drains; default min_interval, 0s for as fast as confirmed.
	BacklogInterval time.Duration `yaml:"backlog_interval"`
	// With backlog stream: reported (default), or all to keep also the values that pacing merged.
	History string `yaml:"history" oneof:"reported all"`
	// What happens to writable points after a connect: report (default) or apply.
	OnConnect string `yaml:"on_connect" oneof:"report apply"`
	// Key under which events carry their id (default event_id), or none.
	EventID string `yaml:"event_id"`
	// Attribute that carries the time (ms) of a report sent more than 5 s late (default sample_ts), or none.
	LateTS string `yaml:"late_ts"`
	// Attribute that names the points that are not good (default bad_points), or none.
	Quality string `yaml:"quality"`
	// The gateway's own events: a list of device_offline, bus_down, write_refused, pulse_stuck, gap (default all), or none.
	OwnEvents OwnEvents `yaml:"own_events"`
	// The gateway's own attributes: version, devices up and down, buffer depth, pace.
	Status StatusReport `yaml:"status"`
}

// StatusReport says how often the gateway reports about itself.
type StatusReport struct {
	// Time between two status reports; default 60s.
	Every time.Duration `yaml:"every"`
}

// BufferSettings bound the store-and-forward buffer.
type BufferSettings struct {
	// The buffer file; default /var/lib/sluice/buffer.db.
	Path string `yaml:"path"`
	// Upper limit of the file, to the byte; default 512MB.
	MaxSize Size `yaml:"max_size"`
	// Records older than this are dropped (and counted); default 30d.
	MaxAge time.Duration `yaml:"max_age"`
	// Disk space left to others; default 200MB.
	MinFreeDisk Size `yaml:"min_free_disk"`
	// drop-oldest (default) or stop-new; attributes go before events.
	WhenFull string `yaml:"when_full" oneof:"drop-oldest stop-new"`
	// The most that a power cut can cost for attributes; default 2s. Events are on disk before they are sent.
	Flush time.Duration `yaml:"flush"`
}

// Local is the page and the metrics for people in the plant.
type Local struct {
	// Address of the page, /metrics, /healthz and /readyz; default 127.0.0.1:8470, or none.
	HTTP string `yaml:"http"`
	// Password of the page; required when it listens on more than loopback.
	Password Secret `yaml:"password"`
	// Whether the page may write points; default false.
	WriteTest bool `yaml:"write_test"`
	// How long trends are kept in memory; default 2h.
	History time.Duration `yaml:"history"`
}

// Bus is what one goroutine owns: a serial port, a TCP endpoint, an OPC UA
// server. Which keys apply depends on the type; the adapter's Check says.
type Bus struct {
	// Name of the bus: the key in the site file.
	Name string `yaml:"-"`
	// modbus-rtu, modbus-tcp, modbus-rtu-over-tcp, modbus-udp, modbus-tls or opcua.
	Type string `yaml:"type" oneof:"modbus-rtu modbus-tcp modbus-rtu-over-tcp modbus-udp modbus-tls opcua"`
	// Serial device, or TCP/UDP port number (default 502; modbus-tls 802).
	Port string `yaml:"port"`
	// Serial line as baud rate and format: 9600 8N1.
	Line string `yaml:"line"`
	// Host name or IP address.
	Host string `yaml:"host"`
	// TLS files of a modbus-tls bus.
	TLS *TLS `yaml:"tls"`
	// How long to wait for a unit's answer, without line time; default 500ms, 3s where several units stand behind one host.
	Timeout time.Duration `yaml:"timeout"`
	// Who switches the RS-485 transmitter: driver (default), rts or rts-inverted.
	RS485 string `yaml:"rs485" oneof:"driver rts rts-inverted"`
	// Silence before a request; default 3.5 characters.
	Quiet time.Duration `yaml:"quiet"`
	// How often a read is tried again after silence; default 1. Writes go out once.
	Retries int `yaml:"retries"`
	// local where the adapter returns our own bytes; default none.
	Echo string `yaml:"echo" oneof:"none local"`
	// When a silent unit counts as offline, and how often it is asked then.
	Offline Offline `yaml:"offline"`
	// Connections to one endpoint; default 1, since many PLCs accept one.
	Connections int `yaml:"connections"`
	// Requests in flight on a connection (modbus-tcp); default 1.
	Pipeline int `yaml:"pipeline"`
	// Address of an OPC UA server: opc.tcp://host:4840.
	Endpoint string `yaml:"endpoint"`
	// OPC UA security: auto (default), None, or a policy with /Sign or /SignAndEncrypt.
	Security string `yaml:"security" oneof:"auto None Basic256Sha256/Sign Basic256Sha256/SignAndEncrypt Aes128_Sha256_RsaOaep/Sign Aes128_Sha256_RsaOaep/SignAndEncrypt Aes256_Sha256_RsaPss/Sign Aes256_Sha256_RsaPss/SignAndEncrypt"`
	// OPC UA user: anonymous (default), { user, password } or { cert, key }.
	Login BusLogin `yaml:"login"`
	// The OPC UA server's certificate: file:<path>, or first-use to keep the first one seen, as opcua/<bus>.der beside the buffer file.
	Trust string `yaml:"trust"`
	// OPC UA session timeout; default 60s.
	SessionTimeout time.Duration `yaml:"session_timeout"`
}

// Place is where the bus leads to: an OPC UA endpoint, host:port or a serial device.
func (b *Bus) Place() string {
	switch {
	case b.Endpoint != "":
		return b.Endpoint
	case b.Host == "":
		return b.Port
	case b.Port == "":
		return b.Host
	}
	return net.JoinHostPort(b.Host, b.Port)
}

// BusLogin is how an OPC UA session identifies its user; all empty is anonymous.
type BusLogin struct {
	// User name.
	User string `yaml:"user"`
	// Password, best as secret:<name>.
	Password Secret `yaml:"password"`
	// User certificate (PEM).
	Cert string `yaml:"cert"`
	// Private key (PEM) of the user certificate.
	Key Secret `yaml:"key"`
}

// UnmarshalText reads anonymous.
func (l *BusLogin) UnmarshalText(text []byte) error {
	if string(text) != "anonymous" {
		return fmt.Errorf("login is anonymous, { user, password } or { cert, key }, not %q", text)
	}
	*l = BusLogin{}
	return nil
}

// Offline says when a silent unit counts as offline.
type Offline struct {
	// Failed polls in a row until the unit is offline; default 3.
	After int `yaml:"after"`
	// Time to the first probe of an offline unit; default 10s, doubling.
	Probe time.Duration `yaml:"probe"`
	// Longest time between two probes; default 60s.
	ProbeMax time.Duration `yaml:"probe_max"`
}

// Protocol is the adapter that speaks on this bus: what stands before the
// first hyphen of its type.
func (b *Bus) Protocol() string {
	protocol, _, _ := strings.Cut(b.Type, "-")
	return protocol
}
