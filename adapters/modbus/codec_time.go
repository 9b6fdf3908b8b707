package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"sluice/gateway"
)

// clock is how a device encodes a time. The formats:
//
//	unix32    seconds since 1970, two registers, in the point's order
//	unix64ms  milliseconds since 1970, four registers, in the point's order
//	iec870    four registers: year (bits 0–6, from 2000); month (8–11) and day
//	          (0–4); summer time (15), hour (8–12), invalid (7) and minute
//	          (0–5); milliseconds of the minute
//	bcd6      three registers of two BCD bytes: year (20YY) month, day hour,
//	          minute second
//	ymdhms    six registers: year (below 100: from 2000), month, day, hour,
//	          minute, second
//
// The zone is that of the wall clock; unix times are UTC unless it says that
// the device counts local seconds.
type clock struct {
	format string
	zone   *time.Location
}

var (
	errDate      = errors.New("not a date and time that exists")
	errClockFlag = errors.New("the device marks its time as invalid")
)

var clockWords = map[string]int{"unix32": 2, "unix64ms": 4, "iec870": 4, "bcd6": 3, "ymdhms": 6}

func newClock(format, zone string) (clock, error) {
	c := clock{format: format, zone: time.UTC}
	switch {
	case format == "":
		return c, errors.New("type time needs a format; write unix32, unix64ms, iec870, bcd6 or ymdhms")
	case clockWords[format] == 0:
		return c, fmt.Errorf("time format %q is unknown; write unix32, unix64ms, iec870, bcd6 or ymdhms", format)
	case zone == "" && !c.count():
		return c, fmt.Errorf("time format %s needs a zone; write utc, or the Area/City of the device's clock", format)
	case zone == "" || zone == "utc" || zone == "UTC":
		return c, nil
	}
	location, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" {
		return c, fmt.Errorf("zone %q is unknown; write utc, or an Area/City such as Europe/Berlin", zone)
	}
	c.zone = location
	return c, nil
}

func (c clock) words() int { return clockWords[c.format] }

// count tells whether the format is one number, with an order.
func (c clock) count() bool { return c.format == "unix32" || c.format == "unix64ms" }

func (c clock) decode(codec *Codec, data []byte) (gateway.Value, error) {
	word := func(i int) int { return int(binary.BigEndian.Uint16(data[2*i:])) }
	switch c.format {
	case "unix32":
		return c.wall(time.Unix(int64(codec.load(data)), 0))
	case "unix64ms":
		u := codec.load(data)
		if u > math.MaxInt64/2 {
			return gateway.Value{}, errDate
		}
		return c.wall(time.UnixMilli(int64(u)))
	case "iec870":
		if word(2)>>7&1 != 0 {
			return gateway.Value{}, errClockFlag
		}
		t, err := c.date(2000+word(0)&0x7F, word(1)>>8&0xF, word(1)&0x1F, word(2)>>8&0x1F, word(2)&0x3F, word(3)/1000)
		if err != nil {
			return gateway.Value{}, err
		}
		t = t.Add(time.Duration(word(3)%1000) * time.Millisecond)
		return gateway.TimeValue(otherHour(t, word(2)>>15 != 0)), nil
	case "bcd6":
		var n [6]int
		for i := range n {
			u, ok := fromBCD(uint64(data[i]))
			if !ok {
				return gateway.Value{}, errBCD
			}
			n[i] = int(u)
		}
		t, err := c.date(2000+n[0], n[1], n[2], n[3], n[4], n[5])
		return timeValue(t, err)
	}
	year := word(0)
	if year < 100 {
		year += 2000
	}
	t, err := c.date(year, word(1), word(2), word(3), word(4), word(5))
	return timeValue(t, err)
}

func timeValue(t time.Time, err error) (gateway.Value, error) {
	if err != nil {
		return gateway.Value{}, err
	}
	return gateway.TimeValue(t), nil
}

// wall takes a count of local seconds for what it is.
func (c clock) wall(t time.Time) (gateway.Value, error) {
	if t = t.UTC(); t.Year() > 9999 {
		return gateway.Value{}, errDate
	}
	if c.zone != time.UTC {
		t = time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), c.zone)
	}
	return gateway.TimeValue(t), nil
}

// date refuses what time.Date would make another day of.
func (c clock) date(year, month, day, hour, minute, second int) (time.Time, error) {
	if year < 1970 || year > 9999 || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59 {
		return time.Time{}, errDate
	}
	if time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC).Day() != day {
		return time.Time{}, errDate
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, 0, c.zone), nil
}

// otherHour picks the right one of the two times that a wall clock shows in
// the night when summer time ends.
func otherHour(t time.Time, summer bool) time.Time {
	if t.IsDST() == summer {
		return t
	}
	for _, shift := range [...]time.Duration{-time.Hour, time.Hour} {
		if u := t.Add(shift); u.IsDST() == summer && u.Hour() == t.Hour() {
			return u
		}
	}
	return t
}

func (c clock) encode(codec *Codec, v gateway.Value, data []byte) error {
	if v.Kind() != gateway.Moment {
		return fmt.Errorf("%s is not a time", v)
	}
	t := time.UnixMilli(v.Int()).In(c.zone)
	if c.count() {
		_, offset := t.Zone()
		return c.encodeCount(codec, v, t.Add(time.Duration(offset)*time.Second), data)
	}
	low, high := 1970, 9999
	switch c.format {
	case "iec870":
		low, high = 2000, 2127
	case "bcd6":
		low, high = 2000, 2099
	}
	if t.Year() < low || t.Year() > high {
		return fmt.Errorf("%s is outside of the years %d to %d of %s", v, low, high, c.format)
	}
	c.encodeDate(t, data)
	return nil
}

func (c clock) encodeCount(codec *Codec, v gateway.Value, t time.Time, data []byte) error {
	count, most := t.Unix(), int64(math.MaxUint32)
	if c.format == "unix64ms" {
		count, most = t.UnixMilli(), math.MaxInt64
	}
	if count < 0 || count > most || t.Year() > 9999 {
		return fmt.Errorf("%s does not fit %s", v, c.format)
	}
	codec.store(uint64(count), data)
	return nil
}

func (c clock) encodeDate(t time.Time, data []byte) {
	put := func(i, word int) { binary.BigEndian.PutUint16(data[2*i:], uint16(word)) }
	switch c.format {
	case "iec870":
		weekday := (int(t.Weekday())+6)%7 + 1
		hour := t.Hour()<<8 | t.Minute()
		if t.IsDST() {
			hour |= 1 << 15
		}
		put(0, t.Year()-2000)
		put(1, int(t.Month())<<8|weekday<<5|t.Day())
		put(2, hour)
		put(3, t.Second()*1000+t.Nanosecond()/1e6)
	case "bcd6":
		for i, n := range [...]int{t.Year() - 2000, int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second()} {
			data[i] = byte(toBCD(uint64(n)))
		}
	default:
		for i, n := range [...]int{t.Year(), int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second()} {
			put(i, n)
		}
	}
}
