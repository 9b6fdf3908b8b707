package opcua

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/gopcua/opcua/ua"
)

// Address is where a point is in a server: a node by its identifier or by its
// browse path, and which element of it.
type Address struct {
	Kind  byte   // of the identifier: i, s, g or b; 0 for a path
	ID    string // as it is written behind the kind
	Path  []Name // from the root, for browse
	URI   string // of the namespace; "" where Index counts
	Index int    // of the namespace
	Range string // of the elements, as OPC UA writes it: 3, 1,2 or 0:4; "" for the whole value
	// Literal is the identifier with the brackets of Range, where a server can
	// have a node of that name: S7 has "DB"."Array"[3]. It goes first.
	Literal string
}

// Name is one step of a browse path.
type Name struct {
	Index int // of the namespace, -1 where it is not written
	Text  string
}

var (
	elements  = regexp.MustCompile(`^(.+)\[(\d+(?::\d+)?(?:,\d+(?::\d+)?)*)\]$`)
	namespace = regexp.MustCompile(`^ns=(\d+);(.*)$`)
	guid      = regexp.MustCompile(`^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$`)
)

// ParseNode reads a node: i=2258, s="DB"."Var", g=…, b=… (base64), with ns=3;
// or nsu=URI; in front where it is in another namespace than uri, and [3]
// behind it for an element of an array. Without a uri and ns= it is in
// namespace 0, the standard's.
func ParseNode(text, uri string) (Address, error) {
	a := Address{URI: uri}
	rest := text
	if m := namespace.FindStringSubmatch(text); m != nil {
		n, err := strconv.ParseUint(m[1], 10, 16)
		if err != nil {
			return Address{}, fmt.Errorf("ns=%s is no namespace index, which goes to 65535", m[1])
		}
		a.URI, a.Index, rest = "", int(n), m[2]
	} else if after, ok := strings.CutPrefix(text, "nsu="); ok {
		if a.URI, rest, ok = strings.Cut(after, ";"); !ok || a.URI == "" {
			return Address{}, fmt.Errorf("nsu= is followed by a namespace URI, a semicolon and the identifier")
		}
	}
	if len(rest) < 3 || rest[1] != '=' || !strings.Contains("isgb", rest[:1]) {
		return Address{}, fmt.Errorf("node %q is none of i=<number>, s=<text>, g=<guid> and b=<base64>; a text is written 's=%s'", text, text)
	}
	a.Kind, a.ID = rest[0], rest[2:]
	if m := elements.FindStringSubmatch(a.ID); m != nil {
		if a.Kind == 's' {
			a.Literal = a.ID
		}
		a.ID, a.Range = m[1], m[2]
	}
	return a, a.checkID()
}

func (a *Address) checkID() error {
	switch a.Kind {
	case 'i':
		if _, err := strconv.ParseUint(a.ID, 10, 32); err != nil {
			return fmt.Errorf("i=%s is not a number from 0 to 4294967295", a.ID)
		}
	case 'g':
		if !guid.MatchString(a.ID) {
			return fmt.Errorf("g=%s is no GUID such as 09087e75-8e5e-499b-954f-f2a9603db28a", a.ID)
		}
	case 'b':
		if _, err := base64.StdEncoding.DecodeString(a.ID); err != nil {
			return fmt.Errorf("b=%s is no base64", a.ID)
		}
	}
	return nil
}

// ParseBrowse reads a browse path: /Objects/Machine/Temp, with [3] behind it
// for an element of an array. A name may say its namespace's index, as
// 3:Machine; & stands in front of a /, : or & that belongs to a name.
func ParseBrowse(text, uri string) (Address, error) {
	a := Address{URI: uri}
	if m := elements.FindStringSubmatch(text); m != nil {
		text, a.Range = m[1], m[2]
	}
	path, ok := strings.CutPrefix(text, "/")
	if !ok {
		return Address{}, fmt.Errorf("browse %q does not begin with /; write /Objects/…", text)
	}
	for _, step := range splitPath(path) {
		name := Name{Index: -1, Text: step}
		if index, rest, ok := strings.Cut(step, ":"); ok {
			if n, err := strconv.ParseUint(index, 10, 16); err == nil {
				name = Name{Index: int(n), Text: rest}
			}
		}
		if name.Text = unescape.Replace(name.Text); name.Text == "" {
			return Address{}, fmt.Errorf("browse %q has an empty name", text)
		}
		a.Path = append(a.Path, name)
	}
	return a, nil
}

var unescape = strings.NewReplacer("&/", "/", "&:", ":", "&&", "&")

// splitPath cuts at every / without & in front.
func splitPath(path string) (steps []string) {
	begin := 0
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '&':
			i++
		case '/':
			steps = append(steps, path[begin:i])
			begin = i + 1
		}
	}
	return append(steps, path[begin:])
}

// String is the address for people.
func (a Address) String() string {
	text := ""
	for _, step := range a.Path {
		text += "/" + step.String()
	}
	if a.Kind != 0 {
		text = string(a.Kind) + "=" + a.ID
		switch {
		case a.URI != "":
			text = "nsu=" + a.URI + ";" + text
		case a.Index != 0:
			text = fmt.Sprintf("ns=%d;%s", a.Index, text)
		}
	}
	if a.Range != "" {
		text += "[" + a.Range + "]"
	}
	return text
}

func (n Name) String() string {
	if n.Index < 0 {
		return n.Text
	}
	return fmt.Sprintf("%d:%s", n.Index, n.Text)
}

// nodeID is the identifier in a session where the namespace has that index.
func (a *Address) nodeID(index uint16, literal bool) *ua.NodeID {
	id := a.ID
	if literal {
		id = cmp.Or(a.Literal, a.ID)
	}
	switch a.Kind {
	case 'i':
		n, _ := strconv.ParseUint(id, 10, 32)
		return ua.NewNumericNodeID(index, uint32(n))
	case 'g':
		return ua.NewGUIDNodeID(index, id)
	case 'b':
		b, _ := base64.StdEncoding.DecodeString(id)
		return ua.NewByteStringNodeID(index, b)
	}
	return ua.NewStringNodeID(index, id)
}
