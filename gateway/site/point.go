package site

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/gateway"
)

// checkPoint holds the rules of one point, whatever protocol reads it.
func (l *loader) checkPoint(n *names, path string, d *gateway.Definition) {
	l.checkIdentifier(path, "point", d.ID)
	if d.As != "" {
		l.checkName(path+".as", "point in the cloud", d.As)
	}
	if d.Type == "" {
		l.fault(path+".type", "", "point %s needs a type: bool, int16, uint16, int32, uint32, float32, float64, string …", quote(d.ID))
		return
	}
	l.checkPlace(n.Profile, path, d)
	l.checkKeysOfType(n.Profile.Protocol, path, d)
	l.checkNumber(n, path, d)
	l.checkEnum(path, d)
	l.checkReport(path, d.Report)
	if d.Poll <= 0 {
		l.fault(path+".poll", "", "poll must be more than 0s")
	}
	l.checkAccess(n, path, d)
}

func (l *loader) checkPlace(p *gateway.Profile, path string, d *gateway.Definition) {
	if p.Protocol != "opcua" {
		return
	}
	switch {
	case d.At != "":
		l.fault(path+".at", "write node: or browse:", "at is a Modbus address, the profile speaks opcua")
	case d.Node == "" && d.Browse == "":
		l.fault(path+".node", `write node: 's="DB"."Var"', or browse: /Objects/…`, "point %s has no node", quote(d.ID))
	case strings.HasPrefix(d.Node, "ns=") && !strings.HasPrefix(d.Node, "ns=0;"):
		l.warn(path+".node", "write namespace: <uri> in the profile, and the node without ns=", "ns= is an index that changes when the server's configuration does")
	}
}

// checkKeysOfType refuses keys that belong to other types, and asks for those
// that a type needs; an OPC UA server says itself how long a text is, and how
// it writes a time.
func (l *loader) checkKeysOfType(protocol, path string, d *gateway.Definition) {
	registers := protocol != "opcua"
	isTime, isFlags := d.Type == gateway.Time, d.Type == gateway.Flags
	hasLength := d.Type == gateway.String || d.Type == gateway.Bytes || isFlags
	only := func(key string, written, right bool, types string) {
		if written && !right {
			l.misplaced(path+"."+key, "remove it", "%s is for %s, %s is %s", key, types, quote(d.ID), d.Type)
		}
	}
	only("format", d.Format != "", isTime, "times")
	only("zone", d.Zone != "", isTime, "times")
	only("flags", len(d.Flags) > 0, isFlags, "flags")
	only("invalid", len(d.Invalid) > 0, !hasLength, "numbers")
	only("length", d.Length != 0, hasLength, "string, bytes and flags")
	if isTime && d.Format == "" && registers {
		l.fault(path+".format", "", "a time needs its format: unix32 (seconds since 1970), unix64ms (milliseconds), iec870 (CP56Time2a), bcd6 or ymdhms")
	}
	if isTime && d.Zone == "" && registers {
		l.fault(path+".zone", "", "a time needs the zone of its clock: utc, or Area/City")
	}
	if d.Zone != "" && d.Zone != "utc" {
		if _, err := time.LoadLocation(d.Zone); err != nil {
			l.fault(path+".zone", "write utc, or Area/City such as Europe/Berlin", "%s is no time zone", quote(d.Zone))
		}
	}
	if d.Length == 0 && hasLength && registers {
		l.fault(path+".length", "", "a value of type %s needs its length in bytes: length: 16", d.Type)
	}
	if d.Bit != nil && d.Bits != nil {
		l.misplaced(path+".bits", "remove one", "bit and bits exclude each other")
	}
	if d.Bit != nil && (*d.Bit < 0 || *d.Bit > 63) {
		l.fault(path+".bit", "", "bit %d does not exist: 0 is the least significant, 63 the last", *d.Bit)
	}
	if d.Count < 0 {
		l.fault(path+".count", "", "count must be at least 1")
	}
}

// checkNumber looks at what makes sense for numbers only.
func (l *loader) checkNumber(n *names, path string, d *gateway.Definition) {
	number := isNumber(d)
	for key, written := range map[string]bool{
		"scale": d.Scale != nil, "offset": d.Offset != nil, "map": d.Map != nil, "scale_from": d.ScaleFrom != "",
		"plausible": d.Plausible != nil, "deadband": d.Deadband != nil, "decimals": d.Decimals != nil, "step": d.Step != nil,
	} {
		if written && !number {
			what := string(d.Type)
			if len(d.Enum) > 0 {
				what = "an enum"
			}
			l.misplaced(path+"."+key, "remove it", "%s is for numbers, %s is %s", key, quote(d.ID), what)
		}
	}
	if d.Decimals != nil && (*d.Decimals < 0 || *d.Decimals > 15) {
		l.fault(path+".decimals", "", "decimals is a number from 0 to 15, not %d", *d.Decimals)
	}
	if d.Scale != nil && d.Scale.Float == 0 {
		l.fault(path+".scale", "", "scale 0 makes every value the same")
	}
	if d.Map != nil && (d.Scale != nil || d.Offset != nil || d.ScaleFrom != "") {
		l.misplaced(path+".map", "remove one", "map takes the place of scale, offset and scale_from")
	}
	if d.Map != nil && d.Map.Raw[0].Float == d.Map.Raw[1].Float {
		l.fault(path+".map.raw", "", "map needs two different raw values")
	}
	if d.ScaleFrom != "" && n.points[d.ScaleFrom] == nil {
		l.unknownName(path+".scale_from", "point", d.ScaleFrom, n.all)
	}
	switch {
	case d.Kind == "counter" && !number:
		l.fault(path+".kind", "", "a counter is a number, %s is %s", quote(d.ID), d.Type)
	case d.WrapsAt != nil && d.Kind != "counter":
		l.fault(path+".wraps_at", "write kind: counter", "wraps_at is for counters")
	case d.WrapsAt != nil && d.WrapsAt.Float <= 0:
		l.fault(path+".wraps_at", "", "wraps_at must be more than 0")
	}
}

func (l *loader) checkEnum(path string, d *gateway.Definition) {
	if len(d.Enum) == 0 {
		return
	}
	switch d.Type {
	case gateway.Float32, gateway.Float64, gateway.String, gateway.Bytes, gateway.Flags, gateway.Time:
		l.fault(path+".enum", "", "enum is for whole numbers and bool, %s is %s", quote(d.ID), d.Type)
	}
	for _, label := range d.Enum {
		if label.Label == "" || len(label.Label) > 100 {
			l.fault(path+".enum", "", "a label has 1 to 100 characters")
		}
	}
}

func (l *loader) checkReport(path string, r gateway.Reporting) {
	if r.AtLeastEvery > 0 && r.AtMostEvery > r.AtLeastEvery {
		l.fault(path+".report.at_most_every", "", "at_most_every %s is longer than at_least_every %s", r.AtMostEvery, r.AtLeastEvery)
	}
}

// checkAccess holds the rules of writing.
func (l *loader) checkAccess(n *names, path string, d *gateway.Definition) {
	writable := d.Access != "r"
	limits := isNumber(d)
	switch {
	case writable && limits && !d.Unbounded && (d.Min == nil || d.Max == nil):
		key := "min"
		if d.Min != nil {
			key = "max"
		}
		l.fault(path+"."+key, "write min: and max:, in engineering units, or unbounded: true", "%s can be written without limits", quote(d.ID))
	case !writable && (d.Min != nil || d.Max != nil):
		key := "min"
		if d.Min == nil {
			key = "max"
		}
		l.findKey(gateway.Finding{Path: path + "." + key, Severity: gateway.Warning, Suggestion: "for values that can't be right write plausible: 45..65",
			Text: fmt.Sprintf("%s limits what may be written, and %s is only read", key, quote(d.ID))})
	case d.Min != nil && d.Max != nil && d.Min.Float > d.Max.Float:
		l.fault(path+".min", "", "min %s is more than max %s", d.Min.Text, d.Max.Text)
	case writable && !limits && (d.Min != nil || d.Max != nil):
		l.misplaced(path+".min", "remove it", "min and max are for numbers, %s is none", quote(d.ID))
	}
	if d.Step != nil && d.Step.Float <= 0 {
		l.fault(path+".step", "", "step must be more than 0")
	}
	l.checkPush(path, d, writable)
	value := d.Operand()
	value.WriteOnly = false
	if d.Guard != nil {
		l.expression(path+".guard", n, gateway.Scope(n.scope).With(map[string]gateway.Operand{"value": value}), d.Guard, gateway.TruthOperand, "")
	}
	if d.Verify != nil && d.Verify.From != "" {
		l.readable(path+".verify.from", n, d.Verify.From)
	}
	if d.Needs != "" && n.Unlock == nil {
		l.fault(path+".needs", "write unlock: { write: { <point>: secret:<name> } } in the profile", "%s needs unlock, and the profile does not say how", quote(d.ID))
	}
}

func (l *loader) checkPush(path string, d *gateway.Definition, writable bool) {
	if !writable {
		for key, written := range map[string]bool{"guard": d.Guard != nil, "verify": d.Verify != nil, "write": d.Write != nil, "push": d.Push, "restore": d.Restore, "needs": d.Needs != ""} {
			if written {
				l.misplaced(path+"."+key, "write access: rw, or remove "+key, "%s is about writing, and %s is only read", key, quote(d.ID))
			}
		}
		return
	}
	switch {
	case d.Push && d.Access != "w":
		l.misplaced(path+".push", "remove it", "push is for access: w; an rw point takes pushes anyway")
	case d.Push && d.Guard == nil:
		l.fault(path+".push", "write guard: <expression>", "a w point that takes pushes needs a guard of its own")
	case d.Restore && d.Access != "rw":
		l.fault(path+".restore", "", "restore writes what was read, and %s is write-only", quote(d.ID))
	}
	if d.Verify != nil && d.Verify.Readback && d.Access == "w" && d.Verify.From == "" {
		l.fault(path+".verify", "write from: <point>, or readback: false", "%s is write-only: it can't be read back", quote(d.ID))
	}
}

// value reports a value that a point can't take: path is where it is written,
// params are the command's.
func (l *loader) value(path string, d *gateway.Definition, text string, params map[string]*gateway.Param) {
	if name, ok := strings.CutPrefix(text, "$"); ok {
		l.paramValue(path, d, name, params)
		return
	}
	if len(d.Enum) > 0 {
		if _, ok := d.Enum.Raw(text); !ok {
			labels := d.Operand().Labels
			l.fault(path, cmpOr(didYouMean(text, labels), "its labels are "+strings.Join(labels[:min(20, len(labels))], ", ")), "%s has no label %s", d.ID, quote(text))
		}
		return
	}
	switch {
	case d.Type == gateway.Bool:
		if text != "true" && text != "false" {
			l.fault(path, "", "%s takes true or false, not %s", d.ID, quote(text))
		}
	case isNumber(d):
		var number gateway.Decimal
		if err := number.UnmarshalText([]byte(text)); err != nil {
			l.fault(path, "", "%s: %s", d.ID, err)
		} else if d.Min != nil && number.Float < d.Min.Float || d.Max != nil && number.Float > d.Max.Float {
			l.fault(path, "", "%s is refused: %s takes %s", text, d.ID, limitsText(d.Min, d.Max))
		}
	}
}

func limitsText(low, high *gateway.Decimal) string {
	switch {
	case low == nil:
		return "at most " + high.Text
	case high == nil:
		return "at least " + low.Text
	}
	return low.Text + " to " + high.Text
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// paramValue looks whether a parameter can be written to a point.
func (l *loader) paramValue(path string, d *gateway.Definition, name string, params map[string]*gateway.Param) {
	p := params[name]
	if p == nil {
		known := []string{}
		for name := range params {
			known = append(known, "$"+name)
		}
		slices.Sort(known)
		l.fault(path, didYouMean("$"+name, known), "the command has no parameter %s", quote(name))
		return
	}
	if p.Type == "" {
		return // it is a point; its own limits hold
	}
	number := p.Type == "float" || p.Type == "int"
	switch {
	case isNumber(d) && !number, d.Type == gateway.Bool && len(d.Enum) == 0 && p.Type != "bool",
		len(d.Enum) > 0 && p.Type != "string":
		l.fault(path, "", "%s does not take parameter %s, which is %s", d.ID, name, article(p.Type))
	case isNumber(d) && (beyond(p.Min, d.Min, -1) || beyond(p.Max, d.Max, 1)):
		l.warn(path, fmt.Sprintf("limit %s to %s", name, limitsText(d.Min, d.Max)), "parameter %s may be %s, and %s takes %s: the rest is refused", name, limitsText(p.Min, p.Max), d.ID, limitsText(d.Min, d.Max))
	}
}

// beyond tells whether a limit is beyond another one in a direction.
func beyond(limit, other *gateway.Decimal, direction float64) bool {
	return limit != nil && other != nil && (limit.Float-other.Float)*direction > 0
}
