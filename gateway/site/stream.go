package site

import (
	"regexp"
	"strings"

	"sluice/gateway"
)

var placeholder = regexp.MustCompile(`\{([^{}]*)\}`)

// checkStream holds the rules of a data stream.
func (l *loader) checkStream(p *profile, path string, s *gateway.Stream) {
	owner := "streams." + s.ID
	l.checkName(path, "stream", s.ID)
	switch {
	case s.Every == 0 && s.Each == "" && s.Downlink == "none":
		l.fault(path+".every", "write every: 10s, or each: <event>", "stream %s does not say when it is sent", quote(s.ID))
	case s.Every != 0 && s.Each != "":
		l.misplaced(path+".each", "remove one", "every and each exclude each other")
	case s.Each != "":
		l.checkStreamEvent(p, path+".each", s.Each)
	}
	sends := s.Every != 0 || s.Each != ""
	switch {
	case s.Body != nil && s.Raw != nil:
		l.misplaced(path+".raw", "remove one", "body and raw exclude each other")
	case s.Format == "json" && sends && (s.Body == nil || s.Body.Fields == nil):
		l.fault(path+".body", "write body: { key: expression }", "a json stream needs a body of keys")
	case s.Format == "text" && sends && (s.Body == nil || s.Body.Fields != nil):
		l.fault(path+".body", `write body: "text with {point}"`, "a text stream needs a body of text")
	case (s.Format == "binary" || s.Format == "modbus-rtu") && sends && s.Raw == nil:
		l.fault(path+".raw", "write raw: { table: holding, at: 0x0A00, count: 16 }", "a %s stream needs raw", s.Format)
	case (s.Raw != nil || s.Downlink == "modbus-read") && p.Protocol != "modbus":
		l.fault(path+".format", "write format: json, or text", "raw registers are for Modbus, the profile speaks %s", p.Protocol)
	}
	if s.Body != nil {
		l.checkBody(p, path+".body", s.Body, owner)
	}
	l.checkBatch(path, s, sends)
	if s.Raw != nil && (s.Raw.At == "" || s.Raw.Count < 1) {
		l.fault(path+".raw", "write raw: { table: holding, at: 0x0A00, count: 16 }", "raw needs at and count")
	}
	l.checkDownlink(p, path+".downlink", s.Downlink, owner)
}

func (l *loader) checkBatch(path string, s *gateway.Stream, sends bool) {
	b := s.Batch
	if b == nil {
		return
	}
	switch {
	case s.Format != "json" || !sends:
		l.misplaced(path+".batch", "remove it", "batch belongs to a json stream that is sent: the others have no place for the time of a row")
	case b.Within <= 0:
		l.fault(path+".batch.within", "write within: 10m", "batch does not say how long a row may wait for others")
	case b.Rows < 0 || b.Rows > 1000:
		l.fault(path+".batch.rows", "", "rows is a number from 1 to 1000, not %d", b.Rows)
	case s.Every > b.Within:
		l.warn(path+".batch.within", "write a longer time than every", "each row goes out alone: none comes within %s of another", b.Within)
	}
	if s.Body == nil {
		return
	}
	for _, f := range s.Body.Fields {
		if f.Key == "ts" {
			l.fault(path+".body.ts", "give it another name", "ts is the time of a row, which batch adds")
		}
	}
}

func (l *loader) checkStreamEvent(p *profile, path, event string) {
	var known []string
	for _, e := range p.Events {
		if e.ID == event {
			if e.OPCUA != nil {
				l.fault(path, "name an event of when or each", "%s comes from the server: no message can be sent at it", quote(event))
			}
			return
		}
		known = append(known, e.ID)
	}
	l.unknownName(path, "event", event, known)
}

func (l *loader) checkBody(p *profile, path string, b *gateway.Body, owner string) {
	for _, f := range b.Fields {
		l.expression(path+"."+f.Key, p.names, p.names.scope, &f.Value, gateway.AnyOperand, owner)
	}
	for _, match := range placeholder.FindAllStringSubmatch(b.Text, -1) {
		p.names.use(owner, match[1])
		l.readable(path, p.names, match[1])
		l.checkConcealed(path, p.names, match[1])
	}
}

func (l *loader) checkDownlink(p *profile, path, downlink, owner string) {
	kind, name, _ := strings.Cut(downlink, ":")
	switch {
	case downlink == "none" || downlink == "modbus-read":
	case kind == "write":
		p.names.use(owner, name)
		if d := l.writablePoint(path, p.names, name, l.fault); d != nil && d.Access == "w" && !d.Push {
			l.fault(path, "write push: true, with a guard, in point "+name, "%s is written by commands only (access: w): what comes down would be refused", name)
		}
	case kind == "params":
		var known []string
		for _, c := range p.Commands {
			known = append(known, c.ID)
		}
		if !contains(known, name) {
			l.unknownName(path, "command", name, known)
		}
	default:
		l.fault(path, didYouMean(downlink, []string{"none", "modbus-read"}), "downlink %s is none of none, write:<point>, params:<command> and modbus-read", quote(downlink))
	}
}

// checkHeartbeat holds the rules of a device's heartbeat.
func (l *loader) checkHeartbeat(n *names, path string, h *gateway.Heartbeat) {
	if h.Point == "" {
		l.fault(path+".point", "", "a heartbeat needs its point")
		return
	}
	d := l.writablePoint(path+".point", n, h.Point, l.fault)
	if h.Every <= 0 {
		l.fault(path+".every", "write every: 1s", "a heartbeat needs the time between two writes")
	}
	if len(h.Values) == 0 {
		l.fault(path+".values", "write values: [0, 1]", "a heartbeat needs the values that it writes in turn")
	}
	if d != nil {
		for _, value := range h.Values {
			l.value(path+".values."+value, d, value, nil)
		}
	}
}
