// Package configs holds the example sites, the built-in profiles and the JSON
// Schema of the site file, embedded so that the program needs no other file.
package configs

import "embed"

// FS is what this folder holds: *.yaml, profiles with their licences, and
// site.schema.json.
//
//go:embed *.yaml profiles site.schema.json
var FS embed.FS
