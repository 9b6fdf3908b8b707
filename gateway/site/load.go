package site

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"sluice/gateway"

	"go.yaml.in/yaml/v4"
)

// Check is what an adapter finds wrong with a bus and the devices on it.
type Check func(*gateway.Bus, []*gateway.Device) []gateway.Finding

// Options are what Load needs beside the file.
type Options struct {
	Checks  map[string]Check // by Bus.Protocol(): "modbus", "opcua"
	Builtin fs.FS            // profiles for builtin:<name>, as <name>.yaml
}

// Load reads a site file and the profiles that it names. The site is nil when
// there are errors; warnings may come with a site.
func Load(path string, o Options) (*gateway.Site, Diagnostics) {
	content, err := readFile(path)
	if err != nil {
		return nil, Diagnostics{{File: path, Severity: gateway.Error, Text: "can't read the file: " + reason(err)}}
	}
	return Parse(path, content, o)
}

// Parse is Load of a file whose content is at hand; path names it and tells
// where relative paths count from.
func Parse(path string, content []byte, o Options) (*gateway.Site, Diagnostics) {
	l := newLoader(path, content, o)
	site := l.load()
	diagnostics := l.finish()
	if diagnostics.Errors() > 0 {
		return nil, diagnostics
	}
	l.placeSecrets(site)
	return site, diagnostics
}

// LoadProfile reads a profile alone: a file, or builtin:<name>. The profile is
// nil when there are errors; what an adapter finds wrong takes a site.
func LoadProfile(reference string, o Options) (*gateway.Profile, Diagnostics) {
	l := newLoader(reference, nil, o)
	l.dir = ""
	l.readProfile("it", &yaml.Node{Kind: yaml.ScalarNode, Value: reference})
	p := l.profiles["it"]
	if l.errors == 0 {
		p.Name = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(reference), "builtin:"), ".yaml")
		l.checkProfile(p)
	}
	diagnostics := l.finish()
	if diagnostics.Errors() > 0 {
		return nil, diagnostics
	}
	return p.Profile, diagnostics
}

func newLoader(path string, content []byte, o Options) *loader {
	l := &loader{
		Options:  o,
		dir:      filepath.Dir(path),
		file:     &source{name: path, content: content},
		profiles: map[string]*profile{},
		origins:  map[string]*origin{},
		bad:      map[place]bool{},
		said:     map[subject]bool{},
	}
	l.sources = []*source{l.file}
	return l
}

// reason is an error without the path that the reader knows already.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// loader is one run over a site file.
type loader struct {
	Options
	dir      string
	file     *source
	sources  []*source // the site file and the profiles' files
	profiles map[string]*profile
	origins  map[string]*origin // where a device is written, by name
	lost     bool               // devices are missing from the model
	points   int                // and rules of all devices
	typed    int                // expressions
	trials   int                // of conditions

	diagnostics Diagnostics
	errors      int
	warnings    int
	failures    int              // of reading, told or not
	bad         map[place]bool   // lines and columns with an error of reading
	said        map[subject]bool // what findings were about
}

// subject is what a finding is about: a place and a key that may be missing
// there, or a line and what is wrong in it.
type subject struct {
	place
	key string
}

// place is a line of a source, and a column or 0.
type place struct {
	src          *source
	line, column int
}

func (l *loader) load() *gateway.Site {
	if d, ok := l.file.parse(); !ok {
		l.add(d)
		return nil
	}
	f := defaultFile()
	l.decoder(l.file).value(l.file.root, reflect.ValueOf(f).Elem(), "", nil)
	site := l.resolve(f)
	if !l.full() {
		l.check(f, site)
	}
	return site
}

func (l *loader) decoder(s *source) decoder { return decoder{l, s} }

// full tells that enough is wrong; what else there is must wait.
func (l *loader) full() bool { return l.errors >= maxDiagnostics }

// enough tells that no more is to be said of a severity.
func (l *loader) enough(s gateway.Severity) bool {
	return l.full() || s == gateway.Warning && l.warnings >= maxDiagnostics
}

func (l *loader) add(d Diagnostic) {
	if l.enough(d.Severity) || slices.Contains(l.diagnostics, d) {
		return
	}
	l.diagnostics = append(l.diagnostics, d)
	if d.Severity == gateway.Error {
		l.errors++
	} else {
		l.warnings++
	}
}

// report is about a node, while it is read.
func (l *loader) report(src *source, n *yaml.Node, severity gateway.Severity, text, suggestion string) {
	if l.full() {
		return
	}
	d := src.diagnose(n, severity, text, suggestion)
	if severity == gateway.Error {
		l.bad[place{src, d.Line, 0}] = true
		l.bad[place{src, d.Line, d.Column}] = true
	}
	l.add(d)
}

// find is about a finding in the resolved model. What follows from an error of
// reading the same place is left out, and so is a second error about one thing.
func (l *loader) find(f gateway.Finding) { l.findAt(f, 0, 0) }

// findAt is find for width columns of a value's text, from the offset on.
func (l *loader) findAt(f gateway.Finding, offset, width int) {
	if l.enough(f.Severity) {
		return
	}
	at := l.locate(f.Path)
	l.findIn(at, at.mark(), f, offset, width)
}

// findIn is findAt for a spot that is found already, and the node to mark.
func (l *loader) findIn(at spot, node *yaml.Node, f gateway.Finding, offset, width int) {
	d := at.src.diagnose(node, f.Severity, f.Text, f.Suggestion)
	if l.bad[place{at.src, d.Line, d.Column}] || !at.exact && l.bad[place{at.src, d.Line, 0}] {
		return
	}
	about := subject{place{at.src, d.Line, d.Column}, f.Path[strings.LastIndexByte(f.Path, '.')+1:]}
	same := subject{place{at.src, d.Line, 0}, f.Text}
	if width == 0 && f.Severity == gateway.Error && (l.said[about] || l.said[same]) {
		return
	}
	l.said[about], l.said[same] = l.said[about] || f.Severity == gateway.Error, true
	if column, ok := at.src.inside(node, offset, width); width > 0 && ok {
		d.Column, d.EndColumn = column, column+width
	}
	l.add(d)
}

func (l *loader) fault(path, suggestion, format string, args ...any) {
	l.find(gateway.Finding{Path: path, Severity: gateway.Error, Text: fmt.Sprintf(format, args...), Suggestion: suggestion})
}

// misplaced is a fault of a key, whatever its value.
func (l *loader) misplaced(path, suggestion, format string, args ...any) {
	l.findKey(gateway.Finding{Path: path, Severity: gateway.Error, Text: fmt.Sprintf(format, args...), Suggestion: suggestion})
}

// findKey is find with the caret under the key.
func (l *loader) findKey(f gateway.Finding) {
	if l.enough(f.Severity) {
		return
	}
	at := l.locate(f.Path)
	node := at.mark()
	if at.key != nil {
		node = at.key
	}
	l.findIn(at, node, f, 0, 0)
}

func (l *loader) warn(path, suggestion, format string, args ...any) {
	l.find(gateway.Finding{Path: path, Severity: gateway.Warning, Text: fmt.Sprintf(format, args...), Suggestion: suggestion})
}

// finish is everything that was found, in the order of the files.
func (l *loader) finish() Diagnostics {
	files := make([]string, len(l.sources))
	for i, s := range l.sources {
		files[i] = s.name
	}
	diagnostics := l.diagnostics
	diagnostics.sort(files)
	more := func(severity gateway.Severity) {
		diagnostics = append(diagnostics, Diagnostic{
			File: l.file.name, Severity: severity, Text: fmt.Sprintf("there are more than %d such findings: correct these first", maxDiagnostics),
		})
	}
	if l.full() {
		more(gateway.Error)
	} else if l.warnings >= maxDiagnostics {
		more(gateway.Warning)
	}
	return diagnostics
}
