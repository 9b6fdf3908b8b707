package site

import (
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/gateway"
)

var (
	identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	cloudName  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)
)

// check holds the rules that belong to no protocol, and asks the adapters for
// theirs.
func (l *loader) check(f *File, site *gateway.Site) {
	l.checkHead(f, site)
	l.checkCloud(site)
	l.checkBuffer(site)
	l.checkLocal(site)
	l.checkLog(site)
	l.checkSecrets(site)
	for _, name := range inFileOrder(f.Profiles) {
		l.checkName("profiles."+name, "profile", name)
		if p := l.profiles[name]; p != nil {
			l.checkProfile(p)
		}
	}
	l.checkDevices(site)
	for _, bus := range site.Buses {
		l.checkName("buses."+bus.Name, "bus", bus.Name)
		l.checkBus(site, bus)
	}
}

func (l *loader) checkHead(f *File, site *gateway.Site) {
	if f.Version != 1 {
		l.fault("version", "", "this program reads version 1 of the language: write version: 1 at the top")
	}
	if site.Name == "" {
		l.fault("site.name", "write site: { name: plant-1 }", "the site needs a name")
	} else {
		l.checkName("site.name", "site", site.Name)
	}
	if _, err := time.LoadLocation(site.Timezone); err != nil || site.Timezone == "" {
		l.fault("site.timezone", "write Area/City, such as Europe/Berlin", "%s is no time zone", quote(site.Timezone))
	}
	if len(f.Devices) == 0 {
		l.fault("devices", "", "the site has no devices")
	}
}

func (l *loader) checkName(path, what, name string) {
	if !cloudName.MatchString(name) {
		l.fault(path, suggestName(name), "%s is no name of a %s: a name is 1 to 100 letters, digits, _ and -", quote(name), what)
	}
}

func suggestName(name string) string {
	better := strings.Map(func(r rune) rune {
		if r < 128 && cloudName.MatchString(string(r)) {
			return r
		}
		return '-'
	}, name)
	if len(better) > 100 || strings.Trim(better, "-") == "" {
		return ""
	}
	return "write " + better
}

const backlogChoices = "replay (every report, in order), latest (only the newest values) or stream:<identifier> (late values go into a data stream)"

func (l *loader) checkCloud(site *gateway.Site) {
	c := &site.Cloud
	scheme, rest, _ := strings.Cut(c.URL, "://")
	switch {
	case c.URL == "":
		l.fault("cloud.url", "write url: mqtts://host:8883", "the cloud needs the url of its MQTT broker")
	case !contains([]string{"mqtt", "mqtts", "ws", "wss"}, scheme) || rest == "" || strings.HasPrefix(rest, ":") || strings.HasPrefix(rest, "/"):
		l.fault("cloud.url", "", "%s is no address of a broker: write mqtt://host:1883, mqtts://host:8883, ws://host/mqtt or wss://host/mqtt", quote(c.URL))
	case !strings.HasSuffix(scheme, "s") && c.TLS != nil:
		l.fault("cloud.tls", "write "+scheme+"s:// in url", "tls has no effect on a connection in clear")
	}
	switch stream, isStream := strings.CutPrefix(c.Backlog, "stream:"); {
	case c.Backlog == "":
		l.fault("cloud.backlog", "", "backlog is missing: what becomes of values measured during an outage? %s", backlogChoices)
	case isStream:
		l.checkName("cloud.backlog", "stream", stream)
	case c.Backlog != "replay" && c.Backlog != "latest":
		l.fault("cloud.backlog", didYouMean(c.Backlog, []string{"replay", "latest"}), "backlog: %s is none of %s", quote(c.Backlog), backlogChoices)
	}
	if c.Login != nil {
		l.checkLogin("cloud.login", c.Login)
	}
	l.checkPace(site)
}

// checkPace looks at the times and names of the connection.
func (l *loader) checkPace(site *gateway.Site) {
	c := &site.Cloud
	if site.Writes == "enabled" && c.Keepalive > maxKeepalive {
		l.fault("cloud.keepalive", "write keepalive: 15s", "keepalive is at most 20s where the cloud may write: a stalled line must not deliver old commands")
	}
	for _, t := range []struct {
		key   string
		value time.Duration
	}{{"keepalive", c.Keepalive}, {"confirm_timeout", c.ConfirmTimeout}} {
		if t.value < time.Second {
			l.fault("cloud."+t.key, "", "%s must be at least 1s", t.key)
		}
	}
	if c.History == "all" && !strings.HasPrefix(c.Backlog, "stream:") {
		l.fault("cloud.history", "write backlog: stream:<identifier>", "history: all belongs to a backlog that goes into a stream")
	}
	for _, match := range placeholder.FindAllStringSubmatch(c.ClientID, -1) {
		if match[1] != "user" && match[1] != "site" {
			l.fault("cloud.client_id", "", "client_id knows {user} and {site}, not %s", match[0])
		}
	}
	users := map[string]bool{}
	for _, d := range site.Devices {
		users[d.User] = true
	}
	if len(users) > 1 && !strings.Contains(c.ClientID, "{user}") {
		l.fault("cloud.client_id", "write {user} into it", "client_id is the same for %d users: the broker would end one's connection when the other's begins", len(users))
	}
	for key, name := range map[string]string{"event_id": c.EventID, "late_ts": c.LateTS, "quality": c.Quality} {
		l.checkName("cloud."+key, "key in the cloud", name)
	}
}

const maxKeepalive = 20 * time.Second

func (l *loader) checkBuffer(site *gateway.Site) {
	b := &site.Buffer
	if b.Path == "" {
		l.fault("buffer.path", "", "the buffer needs its path")
	}
	if b.MaxSize < 1<<20 {
		l.fault("buffer.max_size", "write max_size: 64MB", "max_size is at least 1 MiB")
	}
	if b.Flush <= 0 {
		l.fault("buffer.flush", "write flush: 2s", "flush must be more than 0s")
	} else if b.Flush <= site.Cloud.MinInterval {
		l.warn("buffer.flush", "", "flush %s is not longer than min_interval %s: every report is written to disk before it is sent, and the disk is never still", b.Flush, site.Cloud.MinInterval)
	}
}

func (l *loader) checkLocal(site *gateway.Site) {
	address := site.Local.HTTP
	if address == "none" {
		return
	}
	host, port, err := net.SplitHostPort(address)
	if n, errPort := strconv.Atoi(port); err != nil || errPort != nil || n < 1 || n > 65535 {
		l.fault("local.http", "write 127.0.0.1:8470, or none", "%s is no address and port", quote(address))
		return
	}
	ip := net.ParseIP(host)
	if loopback := host == "localhost" || ip != nil && ip.IsLoopback(); !loopback && site.Local.Password == "" {
		l.fault("local.http", "write password: secret:<name> under local", "%s can be reached from the network: the page needs a password", quote(address))
	}
}

func (l *loader) checkLog(site *gateway.Site) {
	levels := []string{"debug", "info", "warn", "error"}
	for key, level := range site.Log {
		if !contains(levels, level) {
			l.fault("log."+key, didYouMean(level, levels), "log level %s is none of debug, info, warn and error", quote(level))
		}
		what, name, _ := strings.Cut(key, ".")
		known := slices.ContainsFunc(site.Devices, func(d *gateway.Device) bool { return what == "device" && d.Name == name }) ||
			slices.ContainsFunc(site.Buses, func(b *gateway.Bus) bool { return what == "bus" && b.Name == name })
		if key != "level" && !known {
			l.misplaced("log."+key, "write level, bus.<name> or device.<name>", "there is no %s to log", quote(key))
		}
	}
}

// checkSecrets warns of passwords in clear.
func (l *loader) checkSecrets(site *gateway.Site) {
	for _, at := range secretsOf(site) {
		if kind, _ := at.secret.Reference(); kind == "" {
			l.warn(at.path, "write secret:<name>, and put it into secrets/<name> beside this file (mode 0600)", "a password in clear: whoever reads this file has it")
		}
	}
}

func (l *loader) checkLogin(path string, login *gateway.Login) {
	switch {
	case login.User == "":
		l.fault(path+".user", "", "a login needs a user")
	case strings.ContainsAny(login.User, "/+#\x00") || len(login.User) > 200:
		l.fault(path+".user", "", "user %s can't stand in an MQTT topic: it has no /, + or #", quote(login.User))
	}
	if login.Password == "" {
		l.fault(path+".password", "write password: secret:<name>", "a login needs a password")
	}
}

func (l *loader) checkBus(site *gateway.Site, bus *gateway.Bus) {
	path := "buses." + bus.Name
	if bus.Type == "" {
		l.fault(path+".type", "", "bus %s needs a type: modbus-rtu, modbus-tcp, modbus-rtu-over-tcp, modbus-udp, modbus-tls or opcua", quote(bus.Name))
		return
	}
	var devices []*gateway.Device
	for _, d := range site.Devices {
		if d.Bus == bus {
			devices = append(devices, d)
		}
	}
	if len(devices) == 0 && !l.lost {
		l.warn(path, "", "bus %s has no devices", quote(bus.Name))
	}
	if check := l.Checks[bus.Protocol()]; check != nil {
		for _, f := range check(bus, devices) {
			l.find(f)
		}
	}
}
