package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sluice/gateway"
)

const traceHelp = `With --trace it feeds recorded values through the computed points, events and
streams of one site, and prints what would have been reported, with the times
of the recording: so an alarm can be tried on last week's data before it goes
live. Recorded values are in engineering units, in a CSV file with commas,
semicolons or tabs, oldest first, whose first line names its columns:

  time,device,point,value             one value a line
  time,point,value                    the point as device.point, or its name in the cloud
  time,press3.power,press3.mode,…     one column a point; where it is empty, nothing was read

Times are RFC 3339, "2006-01-02 15:04:05" or "02.01.2006 15:04:05" in the site's
time zone, or Unix seconds or milliseconds. An empty value, in the first two, is a read that failed.
A value holds until the next one of its point, read again at each poll, but not
longer than --hold.`

// runTrace prints what a site makes of recorded values.
func runTrace(out, errs io.Writer, s *gateway.Site, path string, hold time.Duration, verbose, asJSON bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	trace, err := gateway.NewTrace(s, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	place, err := time.LoadLocation(s.Timezone)
	if err != nil {
		return err
	}
	trace.Hold = hold
	buffered := bufio.NewWriter(out)
	defer buffered.Flush()
	p := &tracePrinter{out: buffered, place: place, verbose: verbose, asJSON: asJSON}
	trace.Report = p.print
	r := &recording{trace: trace, place: place, name: path, tell: progress(f, errs, path)}
	if err := r.read(f); err != nil {
		buffered.Flush()
		fmt.Fprintf(errs, "%s\n", err)
		return errFound
	}
	if !r.last.IsZero() {
		trace.Until(r.last.Add(time.Nanosecond))
	}
	if !asJSON {
		fmt.Fprintf(buffered, "%d values from %s to %s: %d events, %d values of computed points, %d stream messages\n",
			r.values, r.first.In(place).Format(time.DateTime), r.last.In(place).Format(time.DateTime), p.events, p.computed, p.streams)
	}
	return nil
}

// traceTells is how often it is said how far a long recording is.
var traceTells = 10 * time.Second

// progress says on errs how much of a file is read.
func progress(f *os.File, errs io.Writer, name string) (tell func(read int64)) {
	last, size := time.Now(), int64(0)
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	return func(read int64) {
		if size > 0 && time.Since(last) >= traceTells {
			last = time.Now()
			fmt.Fprintf(errs, "%s: %d %%\n", name, 100*read/size)
		}
	}
}

// tracePrinter prints records as lines.
type tracePrinter struct {
	out                       io.Writer
	place                     *time.Location
	verbose, asJSON           bool
	events, computed, streams int
}

// traceLine is one line of --json.
type traceLine struct {
	Time     time.Time                  `json:"time"`
	Device   string                     `json:"device"`
	Event    string                     `json:"event,omitempty"`
	Severity gateway.Severity           `json:"severity,omitempty"`
	Stream   string                     `json:"stream,omitempty"`
	Body     string                     `json:"body,omitempty"`
	Values   map[string]json.RawMessage `json:"values,omitempty"`
}

func (p *tracePrinter) print(d *gateway.Device, at time.Time, r gateway.Record) {
	line := traceLine{Time: at.In(p.place), Device: d.Name}
	what := "value"
	switch r.Kind {
	case gateway.EventRecord:
		p.events++
		what, line.Event, line.Severity = "event", r.Name, r.Severity
	case gateway.StreamRecord:
		p.streams++
		what, line.Stream, line.Body = "stream", r.Name, string(r.Body)
		if !p.verbose {
			return
		}
	case gateway.ReportRecord:
		if r.Values = p.worked(d, r.Values); len(r.Values) == 0 {
			return
		}
	}
	if p.asJSON {
		line.Values = make(map[string]json.RawMessage)
		for _, a := range r.Values {
			line.Values[a.Name] = a.Value.AppendJSON(nil)
		}
		data, err := json.Marshal(line)
		if err == nil {
			fmt.Fprintf(p.out, "%s\n", data)
		}
		return
	}
	text := []string{line.Time.Format("2006-01-02 15:04:05.000"), fmt.Sprintf("%-6s", what), d.Name}
	if name := line.Event + line.Stream; name != "" {
		text = append(text, name)
	}
	if line.Severity != "" {
		text = append(text, string(line.Severity))
	}
	if line.Body != "" {
		text = append(text, line.Body)
	}
	for _, a := range r.Values {
		text = append(text, a.Name+"="+a.Value.String())
	}
	fmt.Fprintln(p.out, strings.Join(text, "  "))
}

// worked leaves of a report the computed points, which it counts; with verbose
// it leaves all.
func (p *tracePrinter) worked(d *gateway.Device, values []gateway.Attribute) (shown []gateway.Attribute) {
	computed := make(map[string]bool)
	for _, c := range d.Computed {
		name := c.As
		if name == "" {
			name = c.ID
		}
		computed[d.Prefix+name] = true
	}
	for _, a := range values {
		if computed[a.Name] {
			p.computed++
		}
		if computed[a.Name] || p.verbose {
			shown = append(shown, a)
		}
	}
	return shown
}

// recording is a CSV file of values.
type recording struct {
	trace       *gateway.Trace
	place       *time.Location
	name        string
	tell        func(read int64) // bytes, now and then
	semicolons  bool             // then a comma may be a decimal one
	header      []string
	values      int
	first, last time.Time
}

func (r *recording) read(f io.Reader) error {
	in := bufio.NewReader(f)
	start, _ := in.Peek(4096)
	head, _, _ := strings.Cut(strings.TrimPrefix(string(start), "\ufeff"), "\n")
	lines := csv.NewReader(in)
	lines.ReuseRecord, lines.TrimLeadingSpace, lines.LazyQuotes = true, true, true
	switch {
	case strings.Contains(head, ";"):
		lines.Comma, r.semicolons = ';', true
	case strings.Contains(head, "\t"):
		lines.Comma, r.semicolons = '\t', true
	}
	for {
		fields, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		var wrong *csv.ParseError
		if errors.As(err, &wrong) && !errors.Is(err, csv.ErrFieldCount) {
			return fmt.Errorf("%s:%d: this is no line of a CSV file: %w", r.name, wrong.Line, wrong.Err)
		}
		if err != nil && wrong == nil {
			return err
		}
		number, _ := lines.FieldPos(0)
		switch {
		case err != nil:
			err = fmt.Errorf("the line has %d fields, the first line names %d columns", len(fields), len(r.header))
		case r.header == nil:
			err = r.heading(fields)
		default:
			err = r.line(fields)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", r.name, number, err)
		}
		if r.values%10_000 == 0 {
			r.tell(lines.InputOffset())
		}
	}
	if r.values == 0 {
		return fmt.Errorf("%s: there are no values in it", r.name)
	}
	return nil
}

// unknown says which names there are instead of one that the site does not have.
func (r *recording) unknown(name string) error {
	names := r.trace.Names()
	if len(names) > 10 {
		names = append(names[:10], "…")
	}
	if len(name) > 100 || !utf8.ValidString(name) {
		name = "…"
	}
	return fmt.Errorf("the site has no point %q: it has %s", name, strings.Join(names, ", "))
}

// heading takes the names of the columns.
func (r *recording) heading(fields []string) error {
	for i, name := range fields {
		r.header = append(r.header, strings.TrimSpace(strings.TrimPrefix(name, "\ufeff")))
		if i > 0 && !r.long() && !r.trace.Knows(r.header[i]) && r.header[i] != "device" && r.header[i] != "point" && r.header[i] != "value" {
			return fmt.Errorf("%w (the first line names the columns, as time,device,point,value or time,press3.power,…)", r.unknown(r.header[i]))
		}
	}
	if len(fields) < 2 {
		return errors.New("the first line names the columns: a time, and values")
	}
	return nil
}

// long tells whether each line has one value, named in the line.
func (r *recording) long() bool { return len(r.header) > 2 && r.header[len(r.header)-1] == "value" }

func (r *recording) line(fields []string) error {
	at, err := r.time(fields[0])
	if err != nil {
		return err
	}
	if r.first.IsZero() {
		r.first = at
	}
	r.last = at
	if r.long() {
		name := strings.Join(fields[1:len(fields)-1], ".")
		return r.add(at, name, fields[len(fields)-1])
	}
	for i, text := range fields[1:] {
		if strings.TrimSpace(text) == "" {
			continue
		}
		if err := r.add(at, r.header[i+1], text); err != nil {
			return err
		}
	}
	return nil
}

func (r *recording) add(at time.Time, name, text string) error {
	r.values++
	if whole, fraction, ok := strings.Cut(text, ","); ok && r.semicolons {
		if _, err := strconv.ParseFloat(whole+"."+fraction, 64); err == nil {
			text = whole + "." + fraction
		}
	}
	if name = strings.TrimSpace(name); !r.trace.Knows(name) {
		return r.unknown(name)
	}
	return r.trace.Add(at, name, text)
}

func (r *recording) time(text string) (time.Time, error) {
	text = strings.TrimSpace(text)
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds > 1e8 && seconds < 1e14 {
		if seconds < 1e11 {
			seconds *= 1000
		}
		return time.UnixMicro(int64(seconds * 1000)), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateTime, "2006-01-02 15:04", "02.01.2006 15:04:05", "02.01.2006 15:04"} {
		at, err := time.ParseInLocation(layout, text, r.place)
		if err != nil {
			continue
		}
		if layout != time.RFC3339 { // when summer time ends, an hour comes twice
			for _, other := range []time.Time{at.Add(-time.Hour), at, at.Add(time.Hour)} {
				if other.Format(layout) == at.Format(layout) && !other.Before(r.last) {
					return other, nil
				}
			}
		}
		return at, nil
	}
	return time.Time{}, fmt.Errorf("%q is no time: write 2006-01-02T15:04:05+01:00, 2006-01-02 15:04:05, 02.01.2006 15:04:05, or Unix seconds or milliseconds", text)
}
