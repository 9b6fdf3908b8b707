package site

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"sluice/gateway"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// What a file may be. 20,000 points written out are 1.5 MB and 220,000 values.
const (
	maxBytes       = 16 << 20
	maxLine        = 16 << 10
	maxDepth       = 30
	smallFile      = 1 << 20
	maxValuesSmall = 200_000
	maxValues      = 500_000
)

// source is one YAML file.
type source struct {
	name    string
	content []byte
	root    *yaml.Node // nil when the file could not be read
	starts  []int32    // of the lines, once one is asked for
}

// readFile reads a file up to the limit.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f)
}

func readLimited(f fs.File) ([]byte, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("it is a directory")
	case info.Size() > maxBytes:
		return nil, fmt.Errorf("%d MB are too much: a site file has at most %d MB", info.Size()>>20, maxBytes>>20)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err == nil && len(content) > maxBytes {
		err = fmt.Errorf("it is too much: a site file has at most %d MB", maxBytes>>20)
	}
	return content, err
}

// parse makes the nodes of the file, or says why it is no YAML.
func (s *source) parse() (Diagnostic, bool) {
	s.content = bytes.TrimPrefix(s.content, []byte("\xef\xbb\xbf"))
	if d, ok := s.vet(); !ok {
		return d, false
	}
	var document yaml.Node
	err := yaml.Load(s.content, &document, yaml.WithUniqueKeys(false),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.AliasNone(), loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		return s.syntaxError(err), false
	}
	if len(document.Content) != 1 {
		return s.mark(1, 1, 1, gateway.Error, "the file is empty", ""), false
	}
	s.root = document.Content[0]
	return Diagnostic{}, true
}

// vet refuses what the YAML library would take too long over, or misread.
func (s *source) vet() (Diagnostic, bool) {
	fail := func(at int, text, suggestion string) (Diagnostic, bool) {
		start := bytes.LastIndexByte(s.content[:at], '\n') + 1
		line := bytes.Count(s.content[:at], []byte("\n")) + 1
		return s.mark(line, utf8.RuneCount(s.content[start:at])+1, 1, gateway.Error, text, suggestion), false
	}
	if len(s.content) > maxBytes {
		return fail(0, fmt.Sprintf("the file is too large: a site file has at most %d MB", maxBytes>>20), "")
	}
	values, start := 0, 0
	for i := 0; i < len(s.content); {
		c := s.content[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(s.content[i:])
			if r == utf8.RuneError && size == 1 {
				return fail(i, fmt.Sprintf("byte 0x%02x is not UTF-8", c), "save the file as UTF-8")
			}
			i += size
			continue
		}
		switch c {
		case 0:
			return fail(i, "the file has a NUL byte: this is no text", "save the file as UTF-8")
		case '\n':
			start = i + 1
			values++
		case ',', ':', '[', '{', '?':
			values++
		}
		if i-start > maxLine {
			return fail(start, fmt.Sprintf("the line is longer than %d kB: this is no site file", maxLine>>10), "")
		}
		i++
	}
	if values > maxValues || values > maxValuesSmall && len(s.content) < smallFile {
		return fail(0, fmt.Sprintf("%d values in %d kB: this is no site file", values, len(s.content)>>10), "")
	}
	return Diagnostic{}, true
}

// line is one line of the file, without its end.
func (s *source) line(number int) string {
	if s.starts == nil {
		s.starts = []int32{0}
		for i, c := range s.content {
			if c == '\n' {
				s.starts = append(s.starts, int32(i+1))
			}
		}
	}
	if number < 1 || number > len(s.starts) {
		return ""
	}
	line, _, _ := bytes.Cut(s.content[s.starts[number-1]:], []byte("\n"))
	return strings.TrimSuffix(string(line[:min(len(line), maxLine)]), "\r")
}

// syntaxError turns the YAML library's error into one for people.
func (s *source) syntaxError(err error) Diagnostic {
	var load *yaml.LoadError
	if strings.Contains(err.Error(), "expected single document") {
		return s.mark(s.secondDocument(), 1, 3, gateway.Error, "the file has more than one YAML document", "remove the line with ---")
	}
	if !errors.As(err, &load) {
		return s.mark(1, 1, 1, gateway.Error, "this is not one YAML document: "+plain(err.Error()), "")
	}
	mark := load.Mark
	if mark.Line < 1 || strings.Contains(load.ContextMsg, "flow") && load.ContextMark.Line > 0 && load.ContextMark.Line < mark.Line {
		mark = load.ContextMark // where what has no end begins
	}
	text, suggestion := explain(load.Message, s.line(mark.Line))
	return s.mark(max(1, mark.Line), max(1, mark.Column), 1, gateway.Error, text, suggestion)
}

// secondDocument is the line that begins another document.
func (s *source) secondDocument() int {
	content := false
	for number, lines := 1, bytes.Count(s.content, []byte("\n"))+1; number <= lines; number++ {
		line := s.line(number)
		if content && strings.HasPrefix(line, "---") {
			return number
		}
		content = content || strings.Trim(line, " \t") != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "%") && !strings.HasPrefix(line, "---")
	}
	return 1
}

// plain makes a library's message one line of text.
func plain(message string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(message, "yaml:", "")), " ")
}

// explain says in the words of an engineer what the YAML scanner stumbled over.
func explain(message, line string) (text, suggestion string) {
	switch {
	case strings.Contains(message, "max depth"):
		return fmt.Sprintf("nested deeper than %d levels: this is no site file", maxDepth), ""
	case strings.Contains(message, "tab character"), strings.Contains(message, "cannot start any token") && strings.Contains(line, "\t"):
		return "a tab can't indent YAML", "use spaces"
	case strings.Contains(message, "mapping values are not allowed"):
		return "a colon is not expected here", "check the indentation, and quote a text that has a colon and a space in it"
	case strings.Contains(message, "',' or '}'") && expressionKey.MatchString(line):
		return "the flow map { } does not end as expected", `an expression with a comma or bracket must be quoted: { when: "mode in ['a', 'b']" }`
	case strings.Contains(message, "',' or"):
		return "the flow " + map[bool]string{true: "map { }", false: "list [ ]"}[strings.Contains(message, "}")] + " does not end as expected", "check the commas and brackets"
	}
	return "this is not YAML: " + plain(message), ""
}
