package modbus

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"sluice/adapters/modbus/wire"
	"sluice/gateway"
)

// Check finds what is wrong with the Modbus part of a site: one bus and the
// devices on it, disabled ones included. What it says about a Definition or a
// profile that several devices share, it says once, for the first of them.
func Check(bus *gateway.Bus, devices []*gateway.Device) []gateway.Finding {
	c := &checker{bus: bus, said: make(map[about]bool), atlas: &atlas{models: make(models)}}
	c.checkBus()
	c.checkUnits(devices)
	for _, d := range devices {
		c.checkProfile(d)
		c.checkDevice(d)
	}
	var active []*gateway.Device
	for _, d := range devices {
		if !d.Disabled {
			active = append(active, d)
		}
	}
	if atlas, err := newAtlas(active, c.atlas.models); err == nil {
		c.checkLoad(active, atlas)
	}
	return c.findings
}

type checker struct {
	bus      *gateway.Bus
	findings []gateway.Finding
	said     map[about]bool
	atlas    *atlas // for its models
}

// about is what a finding was about, so that it is said once.
type about struct {
	what      any // *gateway.Definition or *gateway.Profile
	key, text string
}

func (c *checker) add(severity gateway.Severity, path, text, suggestion string) {
	c.findings = append(c.findings, gateway.Finding{Path: path, Severity: severity, Text: text, Suggestion: suggestion})
}

func (c *checker) onBus(severity gateway.Severity, key, suggestion, format string, args ...any) {
	path := "buses." + c.bus.Name
	if key != "" {
		path += "." + key
	}
	c.add(severity, path, fmt.Sprintf(format, args...), suggestion)
}

func (c *checker) onPoint(severity gateway.Severity, p *gateway.Point, key, text, suggestion string) {
	if a := (about{p.Definition, key, text}); !c.said[a] {
		c.said[a] = true
		c.add(severity, "devices."+p.Device.Name+".points."+p.ID+"."+key, text, suggestion)
	}
}

func (c *checker) onProfile(severity gateway.Severity, d *gateway.Device, key, text, suggestion string) {
	if a := (about{d.Profile, key, text}); !c.said[a] {
		c.said[a] = true
		c.add(severity, "devices."+d.Name+".profile."+key, text, suggestion)
	}
}

// split makes text and suggestion of an error.
func split(err error) (text, suggestion string) {
	text, suggestion, _ = strings.Cut(err.Error(), "; ")
	return text, suggestion
}

// checkBus looks at the keys of the bus.
func (c *checker) checkBus() {
	b := c.bus
	if b.Type == "modbus-rtu" {
		c.checkSerial()
	} else {
		c.checkNetwork()
	}
	foreign := func(key string, set bool) {
		if set {
			c.onBus(gateway.Error, key, "remove it", "%s does not belong to a bus of type %s", key, b.Type)
		}
	}
	if t := b.TLS; t != nil && (t.Cert == "") != (t.Key == "") {
		c.onBus(gateway.Error, "tls", "write both cert and key, or neither where the device wants no certificate", "cert and key belong together")
	}
	atMost := func(key string, n, most int) {
		if n > most {
			c.onBus(gateway.Error, key, fmt.Sprintf("write %s: %d or less", key, most), "%s %d is more than %d", key, n, most)
		}
	}
	atMost("connections", b.Connections, mostConnections)
	atMost("pipeline", b.Pipeline, wire.MaxPipeline)
	foreign("endpoint", b.Endpoint != "")
	foreign("security", b.Security != "" && b.Security != "auto")
	foreign("login", b.Login != gateway.BusLogin{})
	foreign("trust", b.Trust != "")
	foreign("tls", b.TLS != nil && b.Type != "modbus-tls")
	foreign("pipeline", b.Pipeline > 1 && b.Type != "modbus-tcp")
	foreign("host", b.Host != "" && b.Type == "modbus-rtu")
	foreign("connections", b.Connections > 1 && b.Type == "modbus-rtu")
	foreign("line", b.Line != "" && b.Type != "modbus-rtu")
	foreign("rs485", b.RS485 != "" && b.RS485 != "driver" && b.Type != "modbus-rtu")
	foreign("echo", b.Echo != "" && b.Echo != "none" && !framed(b))
}

func (c *checker) checkSerial() {
	port := c.bus.Port
	base := path.Base(port)
	switch {
	case port == "":
		c.onBus(gateway.Error, "", "write port: /dev/serial/by-id/… and line: 9600 8N1", "bus %s has no port", c.bus.Name)
	case isDigits(port):
		c.onBus(gateway.Error, "port", "write port: /dev/serial/by-id/…, or type: modbus-tcp with a host", "port %s is no serial device", port)
	case strings.HasPrefix(base, "ttyUSB") || strings.HasPrefix(base, "ttyACM"):
		c.onBus(gateway.Warning, "port", "ls -l /dev/serial/by-id shows the name that stays; write port: /dev/serial/by-id/…",
			"%s is whichever adapter was plugged in first: after a restart it can be another one", port)
	}
	if c.bus.Line == "" {
		c.onBus(gateway.Error, "", "write line: 9600 8N1, as the units are set", "bus %s has no line", c.bus.Name)
	} else if _, err := ParseLine(c.bus.Line); err != nil {
		text, suggestion := split(err)
		c.onBus(gateway.Error, "line", suggestion, "%s", text)
	}
}

func (c *checker) checkNetwork() {
	b := c.bus
	if b.Host == "" {
		c.onBus(gateway.Error, "", "write host: and the address of the device or converter", "bus %s has no host", b.Name)
	} else if strings.Contains(b.Host, "://") || strings.Contains(b.Host, "/") {
		c.onBus(gateway.Error, "host", "write the name or IP address alone", "host %q is more than a host", b.Host)
	}
	if n, err := strconv.Atoi(b.Port); b.Port != "" && (err != nil || n < 1 || n > 65535) {
		suggestion := "write port: 502"
		if strings.HasPrefix(b.Port, "/") {
			suggestion = "write type: modbus-rtu for a serial line, or port: 502"
		}
		c.onBus(gateway.Error, "port", suggestion, "port %q is not a number from 1 to 65535", b.Port)
	}
}

// checkUnits looks at the unit ids of the devices.
func (c *checker) checkUnits(devices []*gateway.Device) {
	taken := make(map[int]*gateway.Device)
	for _, d := range devices {
		c.checkUnit(d)
		first := taken[d.Unit]
		switch {
		case d.Disabled:
		case first == nil:
			taken[d.Unit] = d
		case !d.SameUnit || !first.SameUnit:
			c.add(gateway.Error, "devices."+d.Name+".unit", fmt.Sprintf("unit %d on bus %s is %s already", d.Unit, c.bus.Name, first.Name),
				"give each its own unit, or write same_unit: true on both where they are parts of one unit")
		}
	}
}

func (c *checker) checkUnit(d *gateway.Device) {
	at := "devices." + d.Name + ".unit"
	switch {
	case d.Unit < 0 || d.Unit > 255 || framed(c.bus) && d.Unit > 247:
		most := 255
		if framed(c.bus) {
			most = 247
		}
		c.add(gateway.Error, at, fmt.Sprintf("unit %d does not exist", d.Unit), fmt.Sprintf("write a unit from 1 to %d", most))
	case d.Unit == 0 && framed(c.bus):
		c.add(gateway.Error, at, "unit 0 is the broadcast of a serial line: nobody answers to it", "write the unit's own number, 1 to 247")
	case d.Unit == 0:
		for _, p := range d.Points {
			if writable(p.Definition) {
				c.add(gateway.Error, at, fmt.Sprintf("unit 0 is written to (%s): behind a gateway that means all units", p.ID), "write the unit's own number, such as 1 or 255")
				break
			}
		}
	}
}

func writable(d *gateway.Definition) bool { return d.Access == "rw" || d.Access == "w" }

// checkProfile looks at the keys of the profile.
func (c *checker) checkProfile(d *gateway.Device) {
	p := d.Profile
	switch p.Addressing {
	case "modicon", "one-based", "protocol":
	default:
		text := fmt.Sprintf("addressing %q is unknown", p.Addressing)
		if p.Addressing == "" {
			text = "the profile does not say how its manual counts registers"
		}
		c.onProfile(gateway.Error, d, "addressing", text, "write addressing: modicon (40001 is the first holding register), one-based (1 is) or protocol (0 is)")
		return
	}
	if p.MaxRegisters < 0 || p.MaxRegisters > maxRegisters {
		c.onProfile(gateway.Error, d, "max_registers", fmt.Sprintf("max_registers %d is not a number from 1 to %d", p.MaxRegisters, maxRegisters), "write max_registers: 125 or less")
	}
	if p.MaxWrite < 0 || p.MaxWrite > maxWrite {
		c.onProfile(gateway.Error, d, "max_write", fmt.Sprintf("max_write %d is not a number from 1 to %d", p.MaxWrite, maxWrite), "write max_write: 123 or less")
	}
	for i, text := range p.Forbid {
		if _, _, err := parseRange(text, p.Addressing, p.Table); err != nil {
			what, suggestion := split(err)
			c.onProfile(gateway.Error, d, "forbid."+strconv.Itoa(i), what, suggestion)
		}
	}
}

// checkTimeout warns where waiting ends before the longest request is through.
func (c *checker) checkTimeout(d *gateway.Device, r *request, l line) {
	frames := r.lineTime(l)
	timeout := deviceTimeout(c.bus, d)
	if frames <= timeout {
		return
	}
	at := "buses." + c.bus.Name + ".timeout"
	if d.Timeout > 0 {
		at = "devices." + d.Name + ".timeout"
	} else if d.Profile.Timeout > 0 {
		at = "devices." + d.Name + ".profile.timeout"
	}
	c.add(gateway.Warning, at,
		fmt.Sprintf("timeout %s is shorter than the %s that the longest request (%s of %s) takes on a line of %d Bd",
			duration(timeout), duration(frames), r.table.counted(r.count), d.Name, l.baud),
		fmt.Sprintf("write timeout: %s or more, or a smaller max_registers", duration(roundUp(frames))))
}

// roundUp makes a duration that people would write.
func roundUp(d time.Duration) time.Duration {
	step := 100 * time.Millisecond
	return (d + step - 1) / step * step
}

// duration is a duration in the site file's notation.
func duration(d time.Duration) string {
	switch {
	case d%time.Second == 0:
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	case d > time.Second:
		return strconv.FormatFloat(d.Round(10*time.Millisecond).Seconds(), 'f', -1, 64) + "s"
	case d >= time.Millisecond:
		return strconv.FormatInt(d.Round(time.Millisecond).Milliseconds(), 10) + "ms"
	}
	return strconv.FormatInt(d.Microseconds(), 10) + "us"
}
