// Package site reads the site file: it loads the YAML register map of a plant
// into the resolved model of package gateway, or says with file, line, column
// and caret why it can't.
//
// The language is the Go types: a field's yaml tag is its key, its oneof tag
// the words it takes, its comment the description in the JSON Schema. decode.go
// reads YAML nodes into them by these tags, strictly and with every scalar
// taken as text; resolve.go and device.go turn profiles, instances and
// overrides into devices with points; the check files hold the rules that
// belong to no protocol, and an adapter's Check those that do. What is wrong is
// a gateway.Finding with a path in the resolved model; locate.go walks the
// files to the node that the path means, so no index of positions is kept.
//
// Load reports everything that is wrong in one run and returns no site when
// any of it is an error. It never panics, and its time and memory are bounded
// by the limits in source.go whatever it is given. It opens no secret:
// OpenSecrets does that when the gateway starts.
package site
