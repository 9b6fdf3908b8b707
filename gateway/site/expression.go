package site

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"sluice/gateway"
)

// maxExpressions bounds the time that a file can ask for.
const maxExpressions = 5000

// names are what the expressions and steps of a profile may name.
type names struct {
	*gateway.Profile
	points   map[string]*gateway.Definition
	computed map[string]*gateway.Computed
	all      []string            // points and computed, for suggestions
	uses     map[string][]string // the points that an event, command … needs, by its path in the profile

	written []written                      // the expressions of the profile
	checked bool                           // all of them are known
	instead map[string]*gateway.Definition // takes the place of points, for one device
}

// written is an expression that fits its profile.
type written struct {
	path, text string
	scope      gateway.Scope
	want       gateway.OperandKind
	names      []string
}

func namesOf(p *gateway.Profile) *names {
	n := &names{Profile: p, points: map[string]*gateway.Definition{}, computed: map[string]*gateway.Computed{}, uses: map[string][]string{}}
	for _, point := range p.Points {
		n.points[point.ID] = point
		n.all = append(n.all, point.ID)
	}
	for _, c := range p.Computed {
		n.computed[c.ID] = c
		n.all = append(n.all, c.ID)
	}
	return n
}

// scope is what any expression of the profile may use.
func (n *names) scope(name string) (gateway.Operand, bool) {
	if point, ok := n.instead[name]; ok {
		return point.Operand(), true
	}
	if point, ok := n.points[name]; ok {
		return point.Operand(), true
	}
	_, ok := n.computed[name]
	return gateway.Operand{Kind: gateway.NumberOperand}, ok
}

// expression types an expression that is written at a path, and reports what is
// wrong with it under the word. ok tells that nothing is; owner is what needs
// the points that it uses.
func (l *loader) expression(path string, n *names, scope gateway.Scope, e *gateway.Expression, want gateway.OperandKind, owner string) (ok bool) {
	if e == nil || l.full() {
		return false
	}
	if l.typed++; l.typed > maxExpressions {
		if l.typed == maxExpressions+1 {
			l.fault(path, "", "the site has more than %d expressions", maxExpressions)
		}
		return false
	}
	used, faults := scope.Check(e.Text, want)
	n.use(owner, used...)
	reported := ""
	for _, f := range faults {
		f = n.explain(e.Text, f)
		if f.Text == reported {
			continue // the second half of a hyphenated name
		}
		reported = f.Text
		l.findAt(gateway.Finding{Path: path, Severity: gateway.Error, Text: f.Text, Suggestion: f.Suggestion}, f.Offset, f.Width)
	}
	if len(faults) == 0 {
		l.checkIncrease(path, n, e.Text)
		if strings.HasPrefix(owner, "computed.") || strings.HasPrefix(owner, "streams.") {
			l.checkConcealed(path, n, used...)
		}
		l.checkMoment(path, n, used, e.Text)
		if !n.checked {
			n.written = append(n.written, written{path, e.Text, scope, want, used})
		}
	}
	return len(faults) == 0
}

// retype looks again at the expressions of a profile where a device changes
// what one of its points is.
func (l *loader) retype(path string, n *names, changed map[string]*gateway.Definition) {
	other := func(id string) bool {
		return changed[id] != nil && n.points[id] != nil && !changed[id].Operand().Equal(n.points[id].Operand())
	}
	n.instead = changed
	defer func() { n.instead = nil }()
	for _, w := range n.written {
		i := slices.IndexFunc(w.names, other)
		if i < 0 || l.full() {
			continue
		}
		if l.typed++; l.typed > maxExpressions {
			l.fault(path, "", "more than %d expressions have to be looked at again for the overrides of this site", maxExpressions)
			return
		}
		if _, faults := w.scope.Check(w.text, w.want); len(faults) > 0 {
			l.fault(path+".override."+w.names[i], faults[0].Suggestion, "with this, %s fits no longer: %s", w.path, faults[0].Text)
		}
	}
}

func (n *names) use(owner string, used ...string) {
	if owner != "" {
		n.uses[owner] = append(n.uses[owner], used...)
	}
}

var hyphenated = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*(-[A-Za-z0-9_]+)+`)

// explain finds what an unknown name in an expression was meant to be.
func (n *names) explain(text string, f gateway.Fault) gateway.Fault {
	if f.Name == "" {
		return f
	}
	for _, span := range hyphenated.FindAllStringIndex(text, -1) {
		from := utf8.RuneCountInString(text[:span[0]])
		word := text[span[0]:span[1]]
		meant := n.pointOf(word)
		if f.Offset >= from && f.Offset < from+len(word) && meant != "" {
			return gateway.Fault{Offset: from, Width: len(word), Suggestion: "write " + meant,
				Text: "in an expression " + word + " is a subtraction: a point stands there by its key, not by its name in the cloud"}
		}
	}
	f.Suggestion = didYouMean(f.Name, append(gateway.FunctionNames(), n.all...))
	return f
}

// pointOf finds the point that a name with hyphens means.
func (n *names) pointOf(word string) string {
	if key := strings.ReplaceAll(word, "-", "_"); n.points[key] != nil {
		return key
	}
	for _, point := range n.Points {
		if point.As == word {
			return point.ID
		}
	}
	return ""
}

var increaseCall = regexp.MustCompile(`increase\(\s*([A-Za-z_][A-Za-z0-9_]*)\s*\)`)

func (l *loader) checkIncrease(path string, n *names, text string) {
	for _, match := range increaseCall.FindAllStringSubmatch(text, -1) {
		if point := n.points[match[1]]; point != nil && point.Kind == "counter" && point.WrapsAt == nil {
			l.warn(path, "write wraps_at: <the raw value that follows its highest>", "counter %s has no wraps_at: when it starts again at 0, an increase is missed", match[1])
		}
	}
}

var historyCall = regexp.MustCompile(`\b(changed|increase|since|rate|delta|average)\s*\(`)

// checkMoment warns about a guard that needs a history, by itself or by what is
// computed: it is judged by what is read at one moment.
func (l *loader) checkMoment(path string, n *names, used []string, text string) {
	if !strings.HasSuffix(path, ".guard") {
		return
	}
	for _, name := range used {
		if c := n.computed[name]; c != nil {
			text += " " + c.Value.Text
		}
	}
	if match := historyCall.FindStringSubmatch(text); match != nil {
		l.warn(path, "let the guard look at a point of the device", "a guard is judged by what is read at the moment of writing: %s knows nothing of before", match[1])
	}
}

// checkConcealed warns of a secret in what goes to the cloud.
func (l *loader) checkConcealed(path string, n *names, used ...string) {
	for _, name := range used {
		if point := n.points[name]; point != nil && point.Secret {
			l.warn(path, "leave it out", "%s is secret: what rests on it is never reported", name)
		}
	}
}

// readable reports a name, written at a path, that stands for no point with a
// value.
func (l *loader) readable(path string, n *names, name string) {
	operand, ok := n.scope(name)
	switch {
	case !ok:
		l.unknownName(path, "point", name, n.all)
	case operand.WriteOnly:
		l.fault(path, "", "%s is write-only (access: w): it has no value to read", name)
	}
}

// readables does that for a list.
func (l *loader) readables(path string, n *names, list []string, owner string) {
	n.use(owner, list...)
	for _, name := range list {
		l.readable(path+"."+name, n, name)
	}
}
