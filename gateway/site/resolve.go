package site

import (
	"cmp"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"sluice/gateway"

	"go.yaml.in/yaml/v4"
)

// profile is a profile of the site file, and where it is written.
type profile struct {
	*gateway.Profile
	src  *source
	key  *yaml.Node // in front of it, where it is written in the site file
	node *yaml.Node
	path string // in the resolved model

	named map[string]thing // once it is asked for
	names *names           // once it is checked
}

func (p *profile) spot() spot { return spot{src: p.src, key: p.key, value: p.node} }

// resolve makes the model of what is written.
func (l *loader) resolve(f *File) *gateway.Site {
	site := &gateway.Site{
		Identity: f.Site, Path: l.file.name, Cloud: f.Cloud, Buffer: f.Buffer, Local: f.Local, Log: f.Log, Buses: f.Buses,
	}
	if site.Cloud.BacklogInterval == unset {
		site.Cloud.BacklogInterval = site.Cloud.MinInterval
	}
	if site.Cloud.OwnEvents == nil {
		site.Cloud.OwnEvents = gateway.OwnEvents{}
		for _, name := range gateway.OwnEventNames {
			site.Cloud.OwnEvents[name] = true
		}
	}
	if _, ok := site.Log["level"]; !ok {
		site.Log["level"] = "info"
	}
	site.Buffer.Path = l.relative(site.Buffer.Path)
	l.filesOf(site.Cloud.TLS)
	l.readProfiles(f)
	for _, entry := range f.Devices {
		l.readDevice(site, entry)
	}
	for _, bus := range site.Buses {
		l.resolveBus(site, bus)
	}
	l.resolveTimes(site)
	return site
}

const maxProfiles = 5000

func (l *loader) readProfiles(f *File) {
	written := child(l.file.root, "profiles")
	if len(f.Profiles) > maxProfiles {
		l.report(l.file, written, gateway.Error, fmt.Sprintf("%d profiles are too many: a site has at most %d", len(f.Profiles), maxProfiles), "")
		f.Profiles, l.lost = nil, true
		return
	}
	for _, name := range inFileOrder(f.Profiles) {
		l.readProfile(name, f.Profiles[name])
	}
	if len(f.Profiles) > 0 {
		for i := 0; i+1 < len(written.Content); i += 2 {
			if p := l.profiles[written.Content[i].Value]; p != nil && p.node == written.Content[i+1] {
				p.key = written.Content[i]
			}
		}
	}
}

// inFileOrder sorts names by the place of their nodes.
func inFileOrder(nodes map[string]*yaml.Node) []string {
	names := make([]string, 0, len(nodes))
	for name := range nodes {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(nodes[a].Line, nodes[b].Line), cmp.Compare(nodes[a].Column, nodes[b].Column))
	})
	return names
}

// relative makes a path that counts from the site file one of the process.
func (l *loader) relative(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(l.dir, path)
}

// filesOf does that for the files of a TLS connection; a key that is no
// reference is the path of its file.
func (l *loader) filesOf(t *gateway.TLS) {
	if t == nil {
		return
	}
	t.CA, t.Cert = l.relative(t.CA), l.relative(t.Cert)
	t.Key = keyFile(t.Key)
}

func keyFile(key gateway.Secret) gateway.Secret {
	if kind, path := key.Reference(); kind == "" && path != "" {
		return gateway.Secret("file:" + path)
	}
	return key
}

func (l *loader) resolveBus(site *gateway.Site, bus *gateway.Bus) {
	l.filesOf(bus.TLS)
	bus.Login.Cert, bus.Login.Key = l.relative(bus.Login.Cert), keyFile(bus.Login.Key)
	if path, ok := strings.CutPrefix(bus.Trust, "file:"); ok {
		bus.Trust = "file:" + l.relative(path)
	}
	switch {
	case bus.Port != "" || bus.Host == "":
	case bus.Type == "modbus-tls":
		bus.Port = "802"
	case bus.Protocol() == "modbus":
		bus.Port = "502"
	}
	if bus.Timeout == unset {
		bus.Timeout = 500 * time.Millisecond
		if bus.Protocol() == "opcua" {
			bus.Timeout = 5 * time.Second
		}
		if bus.Host != "" && severalUnits(site, bus) {
			bus.Timeout = 3 * time.Second
		}
	}
}

func severalUnits(site *gateway.Site, bus *gateway.Bus) bool {
	unit, found := 0, false
	for _, d := range site.Devices {
		if d.Bus != bus {
			continue
		}
		if found && d.Unit != unit {
			return true
		}
		unit, found = d.Unit, true
	}
	return false
}

// resolveTimes fills in what a device takes from its profile and its bus.
func (l *loader) resolveTimes(site *gateway.Site) {
	for _, d := range site.Devices {
		for _, t := range []time.Duration{d.Profile.Timeout, d.Bus.Timeout} {
			if d.Timeout == 0 {
				d.Timeout = t
			}
		}
		for _, t := range []time.Duration{d.Profile.Quiet, d.Bus.Quiet} {
			if d.Quiet == 0 {
				d.Quiet = t
			}
		}
	}
}

// readProfile reads a profile that is written in the site file, in a file of
// its own, or built in.
func (l *loader) readProfile(name string, node *yaml.Node) {
	p := &profile{Profile: newValue(reflect.TypeFor[gateway.Profile]()).Interface().(*gateway.Profile), src: l.file, node: node, path: "profiles." + name}
	p.Name = name
	l.profiles[name] = p
	if node.Kind == yaml.ScalarNode && !isEmpty(node) && node.Style&yaml.TaggedStyle == 0 {
		p.src, p.node = nil, nil
		if src := l.profileFile(node); src != nil {
			p.src, p.node = src, src.root
		} else {
			p.src, p.node = l.file, node
			return
		}
	}
	l.decoder(p.src).value(p.node, reflect.ValueOf(p.Profile).Elem(), name, nil)
	complete(p.Profile)
}

// profileFile opens the file that a profile's name stands for.
func (l *loader) profileFile(node *yaml.Node) *source {
	name, content, err := node.Value, []byte(nil), error(nil)
	if builtin, ok := strings.CutPrefix(name, "builtin:"); ok {
		content, err = l.readBuiltin(builtin)
		if err != nil {
			l.report(l.file, node, gateway.Error, "there is no built-in profile "+quote(builtin), didYouMean(builtin, l.builtins()))
			return nil
		}
	} else {
		name = l.relative(name)
		for _, s := range l.sources[1:] {
			if s.name == name && s.root != nil {
				return s
			}
		}
		if content, err = readFile(name); err != nil {
			l.report(l.file, node, gateway.Error, "can't read the profile "+quote(node.Value)+": "+reason(err), "a profile is a file, counted from the site file, builtin:<name>, or written here")
			return nil
		}
	}
	src := &source{name: name, content: content}
	l.sources = append(l.sources, src)
	if d, ok := src.parse(); !ok {
		l.add(d)
		return nil
	}
	return src
}

func (l *loader) readBuiltin(name string) ([]byte, error) {
	if l.Builtin == nil {
		return nil, fs.ErrNotExist
	}
	f, err := l.Builtin.Open(name + ".yaml")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f)
}

// builtins are the names of the built-in profiles.
func (l *loader) builtins() []string {
	if l.Builtin == nil {
		return nil
	}
	names, _ := fs.Glob(l.Builtin, "*.yaml")
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], ".yaml")
	}
	return names
}

// complete fills in what the points of a profile have from its report.
func complete(p *gateway.Profile) {
	for _, point := range p.Points {
		completePoint(point)
	}
}

func completePoint(d *gateway.Definition) {
	if d.Deadband == nil && isNumber(d) {
		d.Deadband = d.Report.Deadband
	}
}

// isNumber tells whether a point's value is a number.
func isNumber(d *gateway.Definition) bool {
	switch d.Type {
	case "", gateway.Bool, gateway.String, gateway.Bytes, gateway.Flags, gateway.Time:
		return false
	}
	return len(d.Enum) == 0
}
