package opcua_test

import (
	"slices"
	"strings"
	"testing"

	"sluice/adapters/opcua"
	"sluice/gateway"
)

func TestCheck(t *testing.T) {
	good := gateway.Bus{Name: "plc", Type: "opcua", Endpoint: "opc.tcp://plc:4840", Security: "auto", Trust: "first-use"}
	text := &gateway.Definition{ID: "a", Node: "s=a", Type: gateway.String, Access: "r"}
	for _, tt := range []struct {
		name   string
		bus    func(*gateway.Bus)
		point  func(*gateway.Definition)
		path   string
		text   string
		warned bool
	}{
		{name: "nothing wrong"},
		{name: "no endpoint", bus: func(b *gateway.Bus) { b.Endpoint = "" }, path: "buses.plc", text: "no endpoint"},
		{name: "another scheme", bus: func(b *gateway.Bus) { b.Endpoint = "http://plc" }, path: "buses.plc.endpoint", text: "no address of an OPC UA server"},
		{name: "login in the address", bus: func(b *gateway.Bus) { b.Endpoint = "opc.tcp://me:x@plc:4840" }, path: "buses.plc.endpoint", text: "in clear"},
		{name: "nothing trusted", bus: func(b *gateway.Bus) { b.Trust = "" }, path: "buses.plc.trust", text: "which certificate of the server it trusts"},
		{name: "trust of no kind", bus: func(b *gateway.Bus) { b.Trust = "always" }, path: "buses.plc.trust", text: "not always"},
		{name: "trust without security", bus: func(b *gateway.Bus) { b.Security = "None" }, path: "buses.plc.trust", text: "no certificate to trust"},
		{name: "password without security", bus: func(b *gateway.Bus) { b.Security, b.Trust, b.Login.User = "None", "", "me" }, path: "buses.plc.security", text: "can read the password", warned: true},
		{name: "certificate without key", bus: func(b *gateway.Bus) { b.Login.Cert = "me.pem" }, path: "buses.plc.login", text: "has no key"},
		{name: "a host", bus: func(b *gateway.Bus) { b.Host = "plc" }, path: "buses.plc.host", text: "does not belong"},
		{name: "no node", point: func(d *gateway.Definition) { d.Node = "Temp" }, path: "devices.one.points.a.node", text: "none of i=<number>"},
		{name: "node and path", point: func(d *gateway.Definition) { d.Browse = "/Objects/a" }, path: "devices.one.points.a.browse", text: "not both"},
		{name: "codes of registers", point: func(d *gateway.Definition) { d.Type = gateway.BCD16 }, path: "devices.one.points.a.type", text: "code of registers"},
		{name: "order", point: func(d *gateway.Definition) { d.Order = "CDAB" }, path: "devices.one.points.a.order", text: "about Modbus registers"},
		{name: "a bit that is written", point: func(d *gateway.Definition) { d.Type, d.Bit, d.Access = gateway.Bool, new(int), "rw" }, path: "devices.one.points.a.access", text: "can't be written alone"},
	} {
		bus, definition := good, *text
		if tt.bus != nil {
			tt.bus(&bus)
		}
		if tt.point != nil {
			tt.point(&definition)
		}
		d := &gateway.Device{Name: "one", Profile: &gateway.Profile{Protocol: "opcua"}, Bus: &bus}
		d.Points = []*gateway.Point{{Definition: &definition, Device: d, Name: "a"}}
		findings := opcua.Check(&bus, []*gateway.Device{d})
		severity := gateway.Error
		if tt.warned {
			severity = gateway.Warning
		}
		found := slices.ContainsFunc(findings, func(f gateway.Finding) bool {
			return f.Path == tt.path && f.Severity == severity && strings.Contains(f.Text, tt.text)
		})
		if tt.path == "" && len(findings) > 0 || tt.path != "" && (!found || len(findings) != 1) {
			t.Errorf("%s: found %v, want %s: %s", tt.name, findings, tt.path, tt.text)
		}
	}
}
