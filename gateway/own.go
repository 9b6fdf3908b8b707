package gateway

import "errors"

var errNoCloud = errors.New("there is no connection to the cloud")

// connected tells whether the cloud is there for a user.
func (d *office) connected(user string) bool {
	up, ok := d.uplinks[user].(interface{ Connected() bool })
	return ok && up.Connected()
}

// ownEvent reports an event of the gateway about a device, where the site wants
// those.
func (d *office) ownEvent(device *Device, name string, severity Severity, params ...Attribute) {
	d.own(name, name, severity, device, nil, params...)
}
