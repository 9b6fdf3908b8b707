package opcua

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"sluice/gateway"
)

// Check finds what is wrong with the OPC UA part of a site: one bus and the
// devices on it, disabled ones included. What it says about a Definition that
// several devices share, it says once.
func Check(bus *gateway.Bus, devices []*gateway.Device) []gateway.Finding {
	c := &checker{bus: bus, said: make(map[about]bool)}
	c.checkEndpoint()
	c.checkSecurity()
	c.checkForeign()
	for _, d := range devices {
		if d.Profile.Protocol != "opcua" {
			c.add(gateway.Error, "devices."+d.Name+".profile", "give the bus a Modbus type, or the device another profile", "profile %s speaks %s, bus %s is an OPC UA server", d.Profile.Name, d.Profile.Protocol, bus.Name)
			continue
		}
		for _, p := range d.Points {
			c.checkPoint(p)
		}
		c.checkNodes(d)
	}
	return c.findings
}

type checker struct {
	bus      *gateway.Bus
	findings []gateway.Finding
	said     map[about]bool
}

// about is what a finding was about, so that it is said once.
type about struct {
	definition *gateway.Definition
	key        string
}

func (c *checker) add(severity gateway.Severity, path, suggestion, format string, args ...any) {
	c.findings = append(c.findings, gateway.Finding{Path: path, Severity: severity, Text: fmt.Sprintf(format, args...), Suggestion: suggestion})
}

func (c *checker) onBus(severity gateway.Severity, key, suggestion, format string, args ...any) {
	c.add(severity, strings.TrimSuffix("buses."+c.bus.Name+"."+key, "."), suggestion, format, args...)
}

func (c *checker) onPoint(severity gateway.Severity, p *gateway.Point, key, suggestion, format string, args ...any) {
	if a := (about{p.Definition, key}); !c.said[a] {
		c.said[a] = true
		c.add(severity, "devices."+p.Device.Name+".points."+p.ID+"."+key, suggestion, format, args...)
	}
}

func (c *checker) checkEndpoint() {
	const example = "write endpoint: opc.tcp://192.168.1.10:4840"
	u, err := url.Parse(c.bus.Endpoint)
	switch {
	case c.bus.Endpoint == "":
		c.onBus(gateway.Error, "", example, "bus %s has no endpoint", c.bus.Name)
	case err != nil || u.Scheme != "opc.tcp" || u.Hostname() == "":
		c.onBus(gateway.Error, "endpoint", example, "%s is no address of an OPC UA server", c.bus.Endpoint)
	case u.User != nil:
		c.onBus(gateway.Error, "endpoint", "write login: { user: …, password: secret:… }", "a login in the address would be sent in clear")
	}
}

// checkSecurity looks at how server and gateway know one another.
func (c *checker) checkSecurity() {
	b := c.bus
	if b.Security == "None" {
		if b.Login.User != "" {
			c.onBus(gateway.Warning, "security", "write security: auto", "with security None anybody on the network can read the password, or take the server's place")
		}
		if b.Trust != "" {
			c.onBus(gateway.Error, "trust", "write security: auto, or remove trust", "with security None the server shows no certificate to trust")
		}
	} else if b.Trust == "" {
		c.onBus(gateway.Error, "trust", "write trust: file:<certificate of the server>, or first-use to keep the first one it shows; or security: None", "bus %s does not say which certificate of the server it trusts", b.Name)
	} else if b.Trust != "first-use" && !strings.HasPrefix(b.Trust, "file:") {
		c.onBus(gateway.Error, "trust", "write trust: file:<certificate of the server>, or first-use", "trust is a file or first-use, not %s", b.Trust)
	}
	l := b.Login
	switch {
	case l.User != "" && l.Cert != "":
		c.onBus(gateway.Error, "login", "write either user and password, or cert and key", "a session has one user")
	case l.Cert != "" && l.Key == "":
		c.onBus(gateway.Error, "login", "write login: { cert: …, key: secret:… }", "the user's certificate has no key")
	case l.Cert == "" && l.Key != "":
		c.onBus(gateway.Error, "login", "write login: { cert: …, key: secret:… }", "the key has no certificate")
	}
}

// checkForeign refuses keys of other types of buses.
func (c *checker) checkForeign() {
	b := c.bus
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"host", b.Host != ""}, {"port", b.Port != ""}, {"line", b.Line != ""}, {"tls", b.TLS != nil}, {"pipeline", b.Pipeline > 1}, {"connections", b.Connections > 1},
		{"rs485", b.RS485 != "" && b.RS485 != "driver"}, {"echo", b.Echo != "" && b.Echo != "none"}, {"quiet", b.Quiet > 0},
	} {
		if key.set {
			c.onBus(gateway.Error, key.name, "remove it", "%s does not belong to a bus of type opcua", key.name)
		}
	}
}

// checkPoint looks at one point.
func (c *checker) checkPoint(p *gateway.Point) {
	key := "node"
	if p.Node == "" {
		key = "browse"
	}
	if p.Node != "" && p.Browse != "" {
		c.onPoint(gateway.Error, p, "browse", "remove one", "a point has node or browse, not both")
		return
	}
	if _, err := parsePoint(p); err != nil {
		text, suggestion, _ := strings.Cut(err.Error(), "; ")
		c.onPoint(gateway.Error, p, key, suggestion, "%s", text)
	} else if _, err := gateway.NewConversion(p.Definition); err != nil {
		c.onPoint(gateway.Error, p, "type", "", "%s", err)
	}
	if p.Type == gateway.BCD16 || p.Type == gateway.BCD32 {
		c.onPoint(gateway.Error, p, "type", "write uint16 or uint32, as the server shows it", "%s is a code of registers: an OPC UA server has numbers", p.Type)
	}
	c.checkRegisters(p)
	if p.Access != "r" && (p.Bit != nil || p.Bits != nil) {
		c.onPoint(gateway.Error, p, "access", "write the whole number in a point of its own, or ask for a node of the bit", "a bit of a node can't be written alone")
	}
}

// checkNodes looks at the nodes that events and commands name.
func (c *checker) checkNodes(d *gateway.Device) {
	path := "devices." + d.Name + ".profile."
	for _, e := range d.Events {
		if e.OPCUA == nil {
			continue
		}
		if _, err := sourceOf(d, e); err != nil {
			text, suggestion, _ := strings.Cut(err.Error(), "; ")
			c.add(gateway.Error, path+"events."+e.ID, suggestion, "source: %s", text)
		}
	}
	for _, command := range d.Commands {
		for _, step := range append(slices.Clone(command.Steps), command.OnFail...) {
			if step.Call == nil {
				continue
			}
			for what, text := range map[string]string{"object": step.Call.Object, "method": step.Call.Method} {
				if _, err := parseFor(d, text); err != nil {
					text, suggestion, _ := strings.Cut(err.Error(), "; ")
					c.add(gateway.Error, path+"commands."+command.ID, suggestion, "%s: %s", what, text)
				}
			}
		}
	}
}

// checkRegisters refuses keys that are about registers.
func (c *checker) checkRegisters(p *gateway.Point) {
	rule := p.Write
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"order", p.Order != ""}, {"block", p.Block != ""}, {"scale_from", p.ScaleFrom != ""}, {"format", p.Format != ""}, {"zone", p.Zone != ""}, {"needs", p.Needs != ""},
		{"write.at", rule != nil && rule.At != ""}, {"write.mask", rule != nil && rule.Mask != ""},
		{"write.function", rule != nil && rule.Function != "" && rule.Function != "auto"},
	} {
		if key.set {
			c.onPoint(gateway.Error, p, key.name, "remove it", "%s is about Modbus registers", key.name)
		}
	}
}
