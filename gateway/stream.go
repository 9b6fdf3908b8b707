package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// streamRule makes the messages of one data stream of one device.
type streamRule struct {
	stream *Stream
	rules  *rules
	take   func(*Device, Record)
	fields []streamField // json
	pieces []streamPiece // text
	due    time.Time     // with every; zero before the first pass
	asked  bool          // a raw block is to be read
	failed string        // why the last one could not be
}

// streamField is one key of a JSON body.
type streamField struct {
	key    string
	bound  *bound
	point  *pointState // where the expression is a point's name alone: its value as reports have it
	secret bool        // the expression looks at a secret point
}

// streamPiece is a piece of text and the point that follows it, if any.
type streamPiece struct {
	text  string
	point *pointState
}

func newStreamRule(r *rules, s *Stream, take func(*Device, Record)) (*streamRule, error) {
	rule := &streamRule{stream: s, rules: r, take: take}
	if s.Body == nil {
		return rule, nil
	}
	for _, f := range s.Body.Fields {
		field := streamField{key: f.Key, point: r.device.point(strings.TrimSpace(f.Value.Text))}
		if field.point == nil {
			var err error
			if field.bound, err = r.bind(&f.Value, AnyOperand); err != nil {
				return nil, err
			}
			for _, o := range field.bound.operands {
				field.secret = field.secret || o.sample.Point.Secret
			}
		}
		rule.fields = append(rule.fields, field)
	}
	rest := s.Body.Text
	for rest != "" {
		text, tail, found := strings.Cut(rest, "{")
		name, behind, closed := strings.Cut(tail, "}")
		if !found || !closed {
			rule.pieces = append(rule.pieces, streamPiece{text: rest})
			break
		}
		st := r.device.point(name)
		if st == nil {
			return nil, fmt.Errorf("there is no point %s on this device", name)
		}
		rule.pieces = append(rule.pieces, streamPiece{text, st})
		rest = behind
	}
	return rule, nil
}

// pass lets the functions of the body see the newest samples.
func (s *streamRule) pass(now time.Time) {
	for _, f := range s.fields {
		if f.bound != nil && len(f.bound.calls) > 0 {
			f.bound.eval(now)
		}
	}
	if s.stream.Every > 0 && s.due.IsZero() {
		s.due = now
	}
}

// tick sends what is due, without drift; what was missed is left out.
func (s *streamRule) tick(now time.Time) {
	if s.due.IsZero() || now.Before(s.due) {
		return
	}
	s.due = s.due.Add((now.Sub(s.due)/s.stream.Every + 1) * s.stream.Every)
	s.send(now)
}

// send makes a message of this moment. A raw block has to be read first.
func (s *streamRule) send(now time.Time) {
	if s.stream.Raw != nil {
		s.asked = true
		return
	}
	s.publish(now, s.body(now))
}

func (s *streamRule) publish(t time.Time, body []byte) {
	d := s.rules.device.device
	s.take(d, Record{Kind: StreamRecord, Time: t, Name: d.Prefix + s.stream.ID, Body: body, Row: s.stream.Batch != nil})
}

// body is the text or JSON of the stream; what is bad or stale is null.
func (s *streamRule) body(now time.Time) []byte {
	if s.pieces != nil {
		var dst []byte
		for _, p := range s.pieces {
			dst = append(dst, p.text...)
			if p.point == nil {
				continue
			}
			if v := p.point.current(now); v.kind == Text {
				dst = append(dst, v.text...)
			} else {
				dst = v.AppendJSON(dst)
			}
		}
		return dst
	}
	dst := []byte{'{'}
	for i, f := range s.fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendJSONString(dst, f.key), ':')
		if f.point != nil {
			dst = f.point.current(now).AppendJSON(dst)
			continue
		}
		o := f.bound.eval(now)
		if o.withheld || f.secret {
			o.value = Value{}
		}
		if o.value.kind == Double {
			o.value = FloatValue(tidy(o.value.Float(), -1))
		}
		dst = o.value.AppendJSON(dst)
	}
	return append(dst, '}')
}

// current is the value that may leave the gateway now, None for none.
func (st *pointState) current(now time.Time) Value {
	if !st.reportable() || st.latest.stale(now) {
		return Value{}
	}
	return st.latest.Value
}

// readBlocks reads the raw blocks that are asked for; what others want done on the bus
// goes before each. Those of a silent unit are left out.
func (b *busLoop) readBlocks(ctx context.Context) error {
	for _, s := range b.stations {
		for _, d := range s.devices {
			if d.rules == nil {
				continue
			}
			for _, stream := range d.rules.streams {
				if !stream.asked {
					continue
				}
				stream.asked = false
				if s.failures > 0 {
					continue
				}
				if err := b.readBlock(ctx, stream); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *busLoop) readBlock(ctx context.Context, s *streamRule) error {
	select {
	case t := <-b.tasks:
		if err := t(ctx, b); err != nil {
			return err
		}
	default:
	}
	device := s.rules.device.device
	reader, ok := b.session.(BlockReader)
	if !ok {
		return nil
	}
	data, err := reader.ReadBlock(ctx, device, s.stream.Raw, s.stream.Format == "modbus-rtu")
	var refused *ReadError
	switch {
	case err == nil:
		s.publish(time.Now(), data)
	case !errors.As(err, &refused):
		return err
	}
	s.say(refused)
	return nil
}

// say logs that a block can't be read, or can again: one line per transition.
func (s *streamRule) say(refused *ReadError) {
	failed := ""
	if refused != nil {
		failed = refused.Error()
	}
	if failed == s.failed {
		return
	}
	s.failed = failed
	log := s.rules.book.log.With("device", s.rules.device.device.Name, "stream", s.stream.ID)
	if failed == "" {
		log.Info("stream is sent again")
	} else {
		log.Warn("stream is not sent", "error", failed)
	}
}

// answerFrame carries out a read request that came down on a stream, on the bus,
// and sends the answer up on the same stream. The error says why there is none.
func (b *busLoop) answerFrame(ctx context.Context, d *Device, s *Stream, request []byte) error {
	done := make(chan error, 1)
	_, err := b.do(ctx, func(ctx context.Context, b *busLoop) error {
		reader, ok := b.session.(BlockReader)
		if !ok {
			done <- errors.New("the bus is down")
			return nil
		}
		answer, err := reader.ReadFrame(ctx, d, request)
		if err == nil {
			b.reporter.take(d, Record{Kind: StreamRecord, Time: time.Now(), Name: d.Prefix + s.ID, Body: answer})
		}
		done <- err
		var refused *ReadError
		if errors.As(err, &refused) {
			return nil
		}
		return err
	})
	select {
	case err = <-done:
	default:
	}
	return err
}
